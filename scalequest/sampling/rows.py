"""The row: what a stage that follows a filter is mapped over, whatever other rows there are.

Finished rows are in the row store (scalequest.runtime.rows) under what decides them. Kill the stage
at any second and run it again, or change the filter before it: what is there is taken as it is.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from scalequest.sampling.vllm import worker_environment

if TYPE_CHECKING:
    from scalequest.runtime.stage import StageRun
    from scalequest.runtime.workers import Item, Work

# What decides a row's bytes besides the model and the settings: the code that asks a model.
CODE = ("scalequest/sampling", "scalequest/models", "scalequest/seeding.py")


def map_rows(
    run: "StageRun",
    items: "Mapping[str, Item]",
    start: "Callable[[], Work[Item]]",
    schema: pa.Schema,
    shard_size: int,
    model: Path,
    decides: dict[str, Any],
) -> dict[str, dict[str, Any]]:
    """Map a stage's work over independent rows; what the row store has is not done again.

    Args:
        run: the running stage: its store and its workers.
        items: N rows by their key, the hash of what decides the row.
        start: starts the engine and returns what maps some items to one row each, with its ``key``,
            and the tokens paid.
        schema: of the rows.
        shard_size: items that go to the engine at once.
        model: the model's folder, a dependency of the stage.
        decides: settings that decide a row's bytes.

    Returns:
        N rows by key.
    """
    runtime = run.params.runtime
    decides = decides | worker_environment(runtime)
    store = run.row_store(decides, model, CODE, schema, items.keys())
    given = list(items.items())
    cuts = [given[at : at + shard_size] for at in range(0, len(given), shard_size)]
    # A shard of which nothing is there stays together: resumed after a kill it is the same batch as
    # before. The missing rows of the others make shards of their own, else a changed threshold
    # would send many small batches.
    whole = [cut for cut in cuts if not any(key in store.rows for key, _ in cut)]
    among_whole = {key for cut in whole for key, _ in cut}
    rest = [(key, item) for key, item in given if key not in store.rows and key not in among_whole]
    missing = whole + [rest[at : at + shard_size] for at in range(0, len(rest), shard_size)]
    paid = sum(map(len, missing))
    run.logged |= {"rows_paid": float(paid), "rows_found": float(len(given) - paid)}  # to MLflow: no part of the result
    progress = run.progress(len(given), resumed=len(given) - paid)
    shards = [(number, 0, [item for _, item in cut]) for number, cut in enumerate(missing)]
    for number, data, tokens in run.work(
        start, shards, schema, worker_environment(runtime), runtime.gpus_per_engine(model)
    ):
        store.add(data)
        progress.add(len(missing[number]), tokens)
    return store.rows
