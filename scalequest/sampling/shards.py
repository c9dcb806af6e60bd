"""The shard: a fixed cut of a stage's rows in a fixed order.

It is the batch that goes into the engine in one call, the unit of randomness, of resuming and of
distribution. A finished shard is kept in the journal (scalequest.runtime.journal). Kill the stage
at any second and run it again: finished shards are taken as they are, at most the shard in flight
(one per worker) is paid twice, and the result is the same bytes.

Questions are sampled by the shard, because all their prompts are equal and no filter comes before
them. Stages that follow a filter are mapped over rows (scalequest.sampling.rows).
"""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from scalequest.records import read_table, write_table
from scalequest.sampling.vllm import gpu_rounding, worker_environment
from scalequest.seeding import shard_seed

if TYPE_CHECKING:
    from scalequest.runtime.stage import StageRun
    from scalequest.runtime.workers import Item, Work

log = logging.getLogger("scalequest")


def map_shards(
    run: "StageRun",
    items: "Sequence[Item]",
    start: "Callable[[], Work[Item]]",
    schema: pa.Schema,
    shard_size: int,
) -> pa.Table:
    """Map a stage's work over ``items``, shard by shard, resuming from the journal.

    Args:
        run: the running stage: its seed and name, part of each shard's seed, its journal and its
            workers.
        items: N rows, in an order that depends on inputs and parameters only.
        start: starts the engine and returns what maps one shard's items, its seed and its number to
            its rows (any number, in the schema) and the tokens paid. Called where the work is done,
            and only when a shard is missing.
        schema: of the rows.
        shard_size: items per shard; part of what makes the bytes.

    Returns:
        The rows of all shards, in the items' order.
    """
    cuts = [items[at : at + shard_size] for at in range(0, len(items), shard_size)]
    tables: dict[int, pa.Table] = {}
    environment = worker_environment(run.params.runtime)
    rounding = run.rounding(environment, gpu_rounding(run.params.runtime))
    for number in range(len(cuts)):
        path = run.journal.shard_path(number, rounding)
        if path and (table := finished_shard(path, schema)) is not None:
            tables[number] = table
    progress = run.progress(len(items), resumed=sum(len(cuts[number]) for number in tables))
    missing = [(n, shard_seed(run.params.seed, run.name, n), cut) for n, cut in enumerate(cuts) if n not in tables]
    for number, data, tokens in run.work(start, missing, schema, environment):
        path = run.journal.shard_path(number, rounding)
        if path:
            write_table(path, data)
        tables[number] = data
        progress.add(len(cuts[number]), tokens)
    return pa.concat_tables(tables[number] for number in range(len(cuts))) if cuts else schema.empty_table()


def finished_shard(path: Path, schema: pa.Schema) -> pa.Table | None:
    """The rows of a finished shard; None where it is missing or damaged, and so is to be computed.

    Raises:
        UserError: it was written with other columns.
    """
    if path.is_symlink() or not path.exists():  # a link is not ours; it is replaced
        return None
    try:
        return read_table(path, schema)
    except (OSError, pa.ArrowException) as error:
        log.warning("%s: unreadable, the shard is computed again (%s)", path, str(error).splitlines()[0])
        return None
