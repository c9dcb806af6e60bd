"""The shard: a fixed cut of a stage's rows in a fixed order, and at once the batch that goes into the engine in one
call, the unit of randomness, of resuming and of distribution.

A finished shard lies in a journal outside every DVC output (DVC deletes a stage's outputs before it runs), named by a
fingerprint of the stage's inputs, parameters, code and packages. Kill the stage at any second and run it again: the
finished shards are taken as they are, at most the shard in flight is paid twice, and the result is the same bytes.
"""

import logging
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa

from scalequest.errors import UserError
from scalequest.io import read_json, write_json
from scalequest.lineage import StageFacts
from scalequest.records import read_table, table, write_table

log = logging.getLogger("scalequest")

Item = TypeVar("Item")
# Seconds between two lines of progress where there is no terminal.
PROGRESS_EVERY_S = 10.0


def shard_seed(run_seed: int, stage: str, shard: int) -> int:
    """Seed of one shard, in [0, 2**31): from the run's seed, the stage's name and the shard's number only."""
    return int.from_bytes(sha256(f"{run_seed}/{stage}/{shard}".encode()).digest()[:4], "big") >> 1


@dataclass(frozen=True)
class Journal:
    """The scratch folder that holds a stage's finished shards and checkpoints; ``None`` as folder keeps nothing.

    ``DONE`` marks one whose output was published. It stays until another stage starts, because DVC may still be
    killed between the stage's exit and its own commit.
    """

    folder: Path | None

    @classmethod
    def of(cls, facts: StageFacts | None) -> "Journal":
        """The journal of the running stage; finished ones of other stages are removed on the way.

        Unfinished ones of this stage under other fingerprints stay: a parameter may be set back.
        """
        if facts is None:
            return cls(None)
        base = facts.root / ".work" / "journal"
        folder = base / facts.name / facts.fingerprint
        for done in base.glob("*/*/DONE"):
            if done.parent.parent.name != facts.name:
                shutil.rmtree(done.parent, ignore_errors=True)
        if (folder / "DONE").exists() and facts.recorded:
            # DVC has this very result and runs the stage again all the same (`repro --force`): then it is to be done again.
            shutil.rmtree(folder)
        folder.mkdir(parents=True, exist_ok=True)
        identity = {"stage": facts.name, "deps": facts.deps, "params": {k: str(v) for k, v in facts.params.items()}}
        identity_file = folder / "identity.json"
        if identity_file.exists() and read_json(identity_file) != identity:
            raise UserError(f"{folder}: a journal of other inputs under this fingerprint; remove the folder and rerun")
        write_json(identity_file, identity)
        return cls(folder)

    def shard_path(self, shard: int) -> Path | None:
        """File of one shard; it exists only when complete."""
        return self.folder / f"shard-{shard:06d}.parquet" if self.folder else None

    def finish(self) -> None:
        """Say that the output is published."""
        if self.folder:
            (self.folder / "DONE").touch()


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
    work: Callable[[Sequence[Item], int, int], tuple[list[dict[str, Any]], int]],
    *,
    schema: pa.Schema,
    shard_size: int,
    run_seed: int,
    stage: str,
    journal: Journal,
) -> pa.Table:
    """Map ``work`` over ``items``, shard by shard, resuming from the journal.

    Args:
        items: N rows, in an order that depends on inputs and parameters only.
        work: maps one shard's items, its seed and its number to its rows (any number, in the schema) and the tokens paid.
        schema: of the rows that ``work`` returns.
        shard_size: items a shard; part of what makes the bytes.
        run_seed: ``seed`` of params.yaml.
        stage: DVC's name of the stage, part of each shard's seed.
        journal: where finished shards are kept.

    Returns:
        The rows of all shards, in the items' order.
    """
    starts = range(0, len(items), shard_size)
    paths = [journal.shard_path(number) for number in range(len(starts))]
    have = [bool(path and path.exists()) for path in paths]
    resumed = sum(len(items[start : start + shard_size]) for start, there in zip(starts, have, strict=True) if there)
    progress = Progress(stage, len(items), resumed)
    tables = []
    for number, (start, path, there) in enumerate(zip(starts, paths, have, strict=True)):
        if there:
            assert path is not None
            tables.append(read_table(path, schema))
            continue
        part = items[start : start + shard_size]
        rows, tokens = work(part, shard_seed(run_seed, stage, number), number)
        data = table(rows, schema)
        if path:
            write_table(path, data)
        tables.append(data)
        progress.add(len(part), tokens)
    return pa.concat_tables(tables) if tables else schema.empty_table()
