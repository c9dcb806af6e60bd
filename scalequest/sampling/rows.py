"""The row: what a stage that follows a filter is mapped over, whatever other rows there are.

Finished rows are in the row store (scalequest.runtime.rows) under what decides them. Kill the stage
at any second and run it again, or change the filter before it: what is there is taken as it is.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import compress, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from scalequest.sampling.vllm import gpu_rounding, worker_environment

if TYPE_CHECKING:
    from scalequest.runtime.rows import RowStore
    from scalequest.runtime.stage import StageRun
    from scalequest.runtime.workers import Shard, Work

# What decides a row's bytes besides the model and the settings: the code that asks a model.
CODE = ("scalequest/sampling", "scalequest/models", "scalequest/seeding.py")
# Rows that are Python objects at once while they are read back.
ROWS_READ = 10_000

Row = dict[str, Any]
Source = TypeVar("Source")
Item = TypeVar("Item")


@dataclass(frozen=True)
class Each(Generic[Source, Item]):
    """What is made of each row, in order; made anew each time, so that it is never all in memory."""

    rows: Iterable[Source]
    make: Callable[[Source], Iterable[Item]]

    def __iter__(self) -> Iterator[Item]:
        for row in self.rows:
            yield from self.make(row)


@dataclass(frozen=True)
class Found:
    """The rows that a store was asked for, in order, read a few thousand at a time."""

    store: "RowStore"

    def __len__(self) -> int:
        return len(self.store.places)

    def __iter__(self) -> Iterator[Row]:
        for start in range(0, len(self), ROWS_READ):
            yield from self.store.rows(self.store.places[start : start + ROWS_READ])


@dataclass(frozen=True)
class Missing(Generic[Item]):
    """The shards of the items at each of some lists of places, in order and numbered through; made when they are due.

    Attributes:
        items: N items.
        n: their number N.
        places: lists of places among them; each one is cut into shards of its own.
        shard_size: items per shard.
    """

    items: Iterable[Item]
    n: int
    places: Sequence[NDArray[np.int64]]
    shard_size: int

    def __len__(self) -> int:
        return sum(-(-len(places) // self.shard_size) for places in self.places)

    def __iter__(self) -> "Iterator[Shard[Item]]":
        number = 0
        for places in self.places:
            chosen = np.zeros(self.n, np.uint8)
            chosen[places] = 1
            left = compress(self.items, chosen.tobytes()) if len(places) else iter(())
            while shard := list(islice(left, self.shard_size)):
                yield number, 0, shard
                number += 1


def map_rows(
    run: "StageRun",
    items: Iterable[Item],
    key: Callable[[Item], str],
    start: "Callable[[], Work[Item]]",
    schema: pa.Schema,
    shard_size: int,
    model: Path,
    decides: dict[str, Any],
) -> Found:
    """Map a stage's work over independent rows; what the row store has is not done again.

    The items are gone through three times at most: for their keys, for the shards of which nothing
    is there, and for the rows that are missing elsewhere. One shard of them is in memory at a time.

    Args:
        run: the running stage: its store and its workers.
        items: N items, equal each time they are gone through.
        key: of an item: the hash of what decides its row. Items of one key share their row.
        start: starts the engine and returns what maps some items to one row each, with its ``key``,
            and the tokens paid.
        schema: of the rows.
        shard_size: items that go to the engine at once.
        model: the model's folder, a dependency of the stage.
        decides: settings that decide a row's bytes.

    Returns:
        N rows.
    """
    runtime = run.params.runtime
    environment, gpus = worker_environment(runtime), runtime.gpus_per_engine(model)
    rounding = run.rounding(environment, gpu_rounding(runtime, gpus))
    store = run.row_store(decides | rounding, model, CODE, schema, map(key, items))
    order = np.sort(store.first)
    there = store.there[store.places[order]]
    # A shard of which nothing is there stays together: resumed after a kill it is the same batch as
    # before. The missing rows of the others make shards of their own, else a changed threshold
    # would send many small batches.
    cut = np.arange(len(order)) // shard_size
    whole = (np.bincount(cut, there) == 0)[cut]
    missing = [order[whole], order[~whole & ~there]]
    paid = sum(map(len, missing))
    run.logged |= {"rows_paid": float(paid), "rows_found": float(len(order) - paid)}  # to MLflow: no part of the result
    progress = run.progress(len(order), resumed=len(order) - paid)
    shards = Missing(items, len(store.places), missing, shard_size)
    for _, data, tokens in run.work(start, shards, schema, environment, gpus):
        store.add(data)
        progress.add(data.num_rows, tokens)
    return Found(store)
