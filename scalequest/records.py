"""The record types: one pyarrow schema each, checked whenever a file is read or written.

Row ids hold no content and never change: ``generator/shard/row``. A million equal prompts stay a million rows.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from scalequest.errors import UserError
from scalequest.io import atomic_path

# No stage depends on this file, so both are pinned by tests/test_golden.py.
ROWS_PER_PART = 50_000
COMPRESSION = "zstd"

TEXT, INT, REAL = pa.string(), pa.int32(), pa.float32()


def _schema(**fields: pa.DataType) -> pa.Schema:
    return pa.schema([pa.field(name, kind) for name, kind in fields.items()])


# A seed problem: the question, a worked solution and its final answer. `source` is the seeds' key in params.yaml, `stratum`
# the subject that the source's file names for the row (MATH: "Algebra"), empty where it names none.
PROBLEM = _schema(id=TEXT, source=TEXT, stratum=TEXT, question=TEXT, solution=TEXT, answer=TEXT)

# A question that a generator wrote. `completion` is the raw text, `question` the stripped one, `finish_reason` vLLM's
# ("length" means cut, "too_long" that the prompt did not fit: such a row is never used), `seed` the shard's.
QUESTION = _schema(
    id=TEXT, generator=TEXT, question=TEXT, completion=TEXT, finish_reason=TEXT, n_tokens=INT, seed=pa.int64()
)  # fmt: skip

# What a model answered to one request, as the row store keeps it. `key` is the hash of the request and its seed.
COMPLETION = _schema(key=TEXT, text=TEXT, finish_reason=TEXT, n_tokens=INT)

# What a model with a scalar head gave one sequence, as the row store keeps it.
SCORED = _schema(key=TEXT, score=REAL)

# A rewrite of a question. `verdict` is "kept" or the reason for the reject; chosen = rewrite, rejected = question.
PREFERENCE = _schema(
    id=TEXT, generator=TEXT, direction=TEXT, question=TEXT, rewrite=TEXT, completion=TEXT, finish_reason=TEXT, verdict=TEXT
)  # fmt: skip

# What the model-free filters say. `verdict` is "kept" or the filter's name, `matched` the id of the twin or the benchmark
# item, `evidence` the span or the detected language behind the verdict.
SCREENED = _schema(id=TEXT, generator=TEXT, question=TEXT, verdict=TEXT, matched=TEXT, evidence=TEXT)

# The judge's word on one question. `verdict`: "solvable", "unsolvable" or "no_verdict".
JUDGED = _schema(id=TEXT, verdict=TEXT, completion=TEXT, finish_reason=TEXT)

# The solver's sampled answers to a seed, one row each, and whether they match its answer.
ATTEMPT = _schema(problem_id=TEXT, sample=INT, response=TEXT, finish_reason=TEXT, final_answer=TEXT, outcome=TEXT)

# A scalar for a text: the difficulty of a question (a fail rate in [0, 1] as the head sees it, so unbounded).
SCORE = _schema(id=TEXT, score=REAL)

# EVERY generated question and what became of it. `outcome` is "kept" or the name of the filter that dropped it.
LEDGER = _schema(
    id=TEXT, generator=TEXT, question=TEXT, outcome=TEXT, matched=TEXT, evidence=TEXT, verdict=TEXT, difficulty=REAL,
    min_difficulty=REAL,
)  # fmt: skip

# A question that passed every filter.
FILTERED = _schema(id=TEXT, generator=TEXT, question=TEXT, difficulty=REAL)

# One of n sampled solutions of a question; id is `question_id#sample`.
RESPONSE = _schema(id=TEXT, question_id=TEXT, sample=INT, response=TEXT, finish_reason=TEXT, n_tokens=INT)

# The reward model's scalar for a response: an unbounded logit, higher is better.
REWARD = _schema(id=TEXT, question_id=TEXT, sample=INT, reward=REAL)

# A training row. `agreement` is the share of the question's candidates with the same final answer as this one.
INSTRUCTION = _schema(
    id=TEXT, generator=TEXT, question=TEXT, response=TEXT, final_answer=TEXT, reward=REAL, agreement=REAL, n_candidates=INT
)  # fmt: skip


# One item of a benchmark as a model answered it. `split`: "test" or "dev", the items that settings may be chosen on. `shots`:
# solved examples shown before the question. `finish_reason`: "length" means cut at max_tokens, "too_long" that the prompt did
# not fit. `strict`: right in the form asked for, `flexible`: right in any form, `timeout`: a check ran into its time limit.
SAMPLE = _schema(
    task=TEXT, split=TEXT, shots=INT, id=TEXT, question=TEXT, answer=TEXT, completion=TEXT, finish_reason=TEXT, strict=REAL,
    flexible=REAL, unparsed=REAL, timeout=REAL,
)  # fmt: skip


def table(rows: Iterable[dict[str, Any]], schema: pa.Schema) -> pa.Table:
    """Rows as a table; a row that lacks a field of the schema, or has another, is our own bug."""
    rows = list(rows)
    names = set(schema.names)
    for row in rows:
        assert row.keys() == names, f"row has {sorted(row)}, schema has {sorted(names)}"
    return pa.Table.from_pylist(rows, schema=schema)


def write_table(path: Path, data: pa.Table) -> None:
    """Write one Parquet file (zstd), complete or not at all. Equal tables give equal bytes."""
    with atomic_path(path) as temporary:
        pq.write_table(data, temporary, compression=COMPRESSION, row_group_size=ROWS_PER_PART)


def write_rows(path: Path, rows: Iterable[dict[str, Any]], schema: pa.Schema) -> None:
    """Write rows to one Parquet file, or to parts of 50,000 rows in a folder when ``path`` has no suffix."""
    write_parts(path, table(rows, schema))


def write_parts(path: Path, data: pa.Table) -> None:
    """Write a table as ``path`` (a .parquet file) or as ``path/part-00000.parquet``, ..."""
    if path.suffix:
        write_table(path, data)
        return
    for number, start in enumerate(range(0, max(1, data.num_rows), ROWS_PER_PART)):
        write_table(path / f"part-{number:05d}.parquet", data.slice(start, ROWS_PER_PART))


def write_stream(path: Path, tables: Iterable[pa.Table], schema: pa.Schema) -> int:
    """Write tables that come one after another as ``path/part-00000.parquet``, ...; the number of rows.

    The files are those of ``write_parts`` with all tables at once, but only one part is in memory.
    """
    waiting: list[pa.Table] = []
    total = written = number = 0

    def flush(least: int) -> None:
        nonlocal waiting, number, written
        data = pa.concat_tables([schema.empty_table(), *waiting])
        while data.num_rows >= least:
            write_table(path / f"part-{number:05d}.parquet", data.slice(0, ROWS_PER_PART).combine_chunks())
            number, written, data = number + 1, written + ROWS_PER_PART, data.slice(ROWS_PER_PART)
            if not data.num_rows:
                break
        waiting = [data]

    for data in tables:
        waiting.append(data)
        total += data.num_rows
        if total - written >= ROWS_PER_PART:
            flush(ROWS_PER_PART)
    if total > written or not number:
        flush(0)
    return total


def parts_of(path: Path, schema: pa.Schema) -> list[Path]:
    """The Parquet files of a file or a folder of parts, in the order of their names.

    Raises:
        UserError: nothing is there, or a file has other columns than the schema.
    """
    parts = sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
    if not parts or not parts[0].is_file():
        raise UserError(f"{path}: no Parquet file there; run the stage that writes it: dvc repro")
    for part in parts:
        found = pq.read_schema(part)
        if found.names != schema.names or found.types != schema.types:
            raise UserError(
                f"{part}: columns {dict(zip(found.names, map(str, found.types), strict=True))}, expected "
                f"{dict(zip(schema.names, map(str, schema.types), strict=True))}; it was written by other code, "
                f"rerun its stage: dvc repro -f STAGE"
            )
    return parts


def read_table(path: Path, schema: pa.Schema, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a Parquet file or a folder of parts, in the order of their names.

    Raises:
        UserError: nothing is there, or a file has other columns than the schema.
    """
    return pa.concat_tables([pq.read_table(part, schema=schema, columns=columns) for part in parts_of(path, schema)])


def read_rows(path: Path, schema: pa.Schema, columns: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Read a Parquet file or a folder of parts as dictionaries."""
    rows: list[dict[str, Any]] = read_table(path, schema, columns).to_pylist()
    return rows
