"""The shard: a fixed cut of a stage's rows in a fixed order, and at once the batch that goes into the engine in one
call, the unit of randomness, of resuming and of distribution.

A finished shard lies in the journal (scalequest.journal). Kill the stage at any second and run it again: the finished shards
are taken as they are, at most the shard in flight (one a worker) is paid twice, and the result is the same bytes.
"""

import logging
import sys
import time
from collections.abc import Callable, Sequence
from hashlib import sha256

import pyarrow as pa

from scalequest.journal import Journal
from scalequest.params import Runtime
from scalequest.records import read_table, write_table
from scalequest.workers import Item, Work, work_here, work_on_ray

log = logging.getLogger("scalequest")

# Seconds between two lines of progress where there is no terminal.
PROGRESS_EVERY_S = 10.0


def shard_seed(run_seed: int, stage: str, shard: int) -> int:
    """Seed of one shard, in [0, 2**31): from the run's seed, the stage's name and the shard's number only."""
    return int.from_bytes(sha256(f"{run_seed}/{stage}/{shard}".encode()).digest()[:4], "big") >> 1


class Progress:
    """Rows done, tokens a second and time left: one bar on a terminal, a plain line now and then elsewhere."""

    def __init__(self, stage: str, total: int, resumed: int) -> None:
        self.stage, self.total, self.done, self.resumed = stage, total, resumed, resumed
        self.tokens, self.started, self.told = 0, time.monotonic(), 0.0
        if resumed:
            log.info("%s: %d of %d rows are there from an earlier run", stage, resumed, total)

    def add(self, rows: int, tokens: int) -> None:
        """Count a finished shard."""
        self.done += rows
        self.tokens += tokens
        elapsed = max(time.monotonic() - self.started, 1e-9)
        left = (self.total - self.done) * elapsed / max(self.done - self.resumed, 1)
        line = (
            f"{self.stage}: {self.done:,}/{self.total:,} rows, {self.tokens / elapsed:,.0f} tokens/s, "
            f"{int(left // 60)}:{int(left % 60):02d} left"
        )
        if sys.stderr.isatty():
            print(f"\r{line} ", end="\n" if self.done == self.total else "", file=sys.stderr, flush=True)
        elif self.done == self.total or time.monotonic() - self.told >= PROGRESS_EVERY_S:
            self.told = time.monotonic()
            log.info(line)


def map_shards(
    items: Sequence[Item],
    start: Callable[[], Work[Item]],
    *,
    schema: pa.Schema,
    shard_size: int,
    run_seed: int,
    stage: str,
    journal: Journal,
    runtime: Runtime,
) -> pa.Table:
    """Map a stage's work over ``items``, shard by shard, resuming from the journal.

    Args:
        items: N rows, in an order that depends on inputs and parameters only.
        start: starts the engine and returns what maps one shard's items, its seed and its number to its rows (any number, in the
            schema) and the tokens paid. Called where the work is done, and only when a shard is missing.
        schema: of the rows.
        shard_size: items a shard; part of what makes the bytes.
        run_seed: ``seed`` of params.yaml.
        stage: DVC's name of the stage, part of each shard's seed.
        journal: where finished shards are kept.
        runtime: says who works, ``engine`` and ``workers``; no part in the bytes.

    Returns:
        The rows of all shards, in the items' order.
    """
    cuts = [items[at : at + shard_size] for at in range(0, len(items), shard_size)]
    tables: dict[int, pa.Table] = {}
    for number in range(len(cuts)):
        path = journal.shard_path(number)
        if path and path.exists():
            tables[number] = read_table(path, schema)
    progress = Progress(stage, len(items), resumed=sum(len(cuts[number]) for number in tables))
    missing = [(n, shard_seed(run_seed, stage, n), cut) for n, cut in enumerate(cuts) if n not in tables]
    results = (
        work_on_ray(start, missing, schema, runtime) if runtime.engine == "ray" else work_here(start, missing, schema)
    )
    for number, data, tokens in results:
        path = journal.shard_path(number)
        if path:
            write_table(path, data)
        tables[number] = data
        progress.add(len(cuts[number]), tokens)
    return pa.concat_tables(tables[number] for number in range(len(cuts))) if cuts else schema.empty_table()
