"""The record types: one pyarrow schema each, checked whenever a file is read or written.

Row ids hold no content and never change: ``generator/shard/row``. A million equal prompts stay a million rows.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from scalequest.errors import UserError
from scalequest.io import atomic_path

# No stage depends on this file, so both are pinned by tests/test_golden.py.
ROWS_PER_PART = 50_000
COMPRESSION = "zstd"
# Rows of a row group that are dictionaries at once.
ROWS_HELD = 5_000

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

# A training row. `agreement` is the share of the question's candidates with the same final answer as this one; `reward` is
# null in a run that reads no rewards.
INSTRUCTION = _schema(
    id=TEXT, generator=TEXT, question=TEXT, response=TEXT, final_answer=TEXT, reward=REAL, agreement=REAL, n_candidates=INT
)  # fmt: skip


# One item of a benchmark as a model answered it; with several answers (avg@k) one row each, with
# the id `ITEM#k`. `split`: "test" or "dev", the items that settings may be chosen on. `shots`:
# solved examples shown before the question. `finish_reason`: "length" means cut at max_tokens,
# "too_long" that the prompt did not fit. `strict`: right in the form asked for, `flexible`: right
# in any form, `timeout`: a check ran into its time limit.
SAMPLE = _schema(
    task=TEXT, split=TEXT, shots=INT, id=TEXT, question=TEXT, answer=TEXT, completion=TEXT, finish_reason=TEXT, strict=REAL,
    flexible=REAL, unparsed=REAL, timeout=REAL,
)  # fmt: skip


def item_of(row_id: str) -> str:
    """The item that a sampled answer is to: its id without the number of the sample."""
    return row_id.partition("#")[0]


def by_item(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of ``SAMPLE``, or of some of its columns, with one per item: its first answer, and the means of all scores."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row.get("task"), row.get("shots"), item_of(row["id"])), []).append(row)
    scores = ("strict", "flexible", "unparsed", "timeout")
    return [
        answers[0]
        | {"id": item}
        | {name: sum(row[name] for row in answers) / len(answers) for name in scores if name in answers[0]}
        for (_, _, item), answers in groups.items()
    ]


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
    """Write tables that come one after another as ``path`` (a .parquet file) or its parts; the number of rows.

    The files are those of ``write_parts`` with all tables at once, but only one part is in memory. Nothing is written before
    the first table, and no file is there when a table could not be made.
    """
    parts = _cut(tables, schema)
    if not path.suffix:
        total = 0
        for number, part in enumerate(parts):
            write_table(path / f"part-{number:05d}.parquet", part)
            total += part.num_rows
        return total
    first = next(parts)
    with atomic_path(path) as temporary, pq.ParquetWriter(temporary, schema, compression=COMPRESSION) as writer:
        total = 0
        for part in chain([first], parts):
            writer.write_table(part, row_group_size=ROWS_PER_PART)
            total += part.num_rows
    return total


def _cut(tables: Iterable[pa.Table], schema: pa.Schema) -> Iterator[pa.Table]:
    """The rows of all tables in tables of 50,000, the last one with the rest; one without rows where there are none."""
    waiting, rows, none = [schema.empty_table()], 0, True
    for data in tables:
        waiting.append(data)
        rows += data.num_rows
        if rows < ROWS_PER_PART:
            continue
        joined = pa.concat_tables(waiting)
        for start in range(0, rows - rows % ROWS_PER_PART, ROWS_PER_PART):
            yield joined.slice(start, ROWS_PER_PART).combine_chunks()
            none = False
        waiting, rows = [joined.slice(rows - rows % ROWS_PER_PART)], rows % ROWS_PER_PART
    if rows or none:
        yield pa.concat_tables(waiting).combine_chunks()


class UnreadableError(UserError, OSError):
    """A file that is cut or damaged. A row store that finds one makes its rows again, as after other errors of the system."""


@contextmanager
def readable(part: Path) -> Iterator[None]:
    """Name a file that is cut or damaged, at its end or in its pages.

    Raises:
        UnreadableError: it is.
    """
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno:  # of the system: no permission, say
            raise
        raise UnreadableError(
            f"{part}: no whole Parquet file ({' '.join(str(error).split())[:80]}). Expected one that a stage wrote. Bring it "
            "back with dvc checkout, or rerun its stage: dvc repro -f STAGE"
        ) from None


def parts_of(path: Path, schema: pa.Schema) -> list[Path]:
    """The Parquet files of a file or a folder of parts, in the order of their names.

    Raises:
        UserError: nothing is there, or a file is no Parquet file or has other columns than the schema.
    """
    parts = sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
    if not parts or not parts[0].is_file():
        raise UserError(f"{path}: no Parquet file there; run the stage that writes it: dvc repro")
    for part in parts:
        with readable(part):
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
        UserError: nothing is there, or a file cannot be read or has other columns than the schema.
    """
    tables = []
    for part in parts_of(path, schema):
        with readable(part):
            tables.append(pq.read_table(part, schema=schema, columns=columns))
    return pa.concat_tables(tables)


def read_rows(path: Path, schema: pa.Schema, columns: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Read a Parquet file or a folder of parts as dictionaries."""
    rows: list[dict[str, Any]] = read_table(path, schema, columns).to_pylist()
    return rows


# ---------------------------------------------------------------------------------------------- by row group


class RowGroup(NamedTuple):
    """The rows that are read at once.

    Attributes:
        path: the file.
        number: of the row group in its file.
        rows: how many.
    """

    path: Path
    number: int
    rows: int

    def read(self, columns: Sequence[str] | None = None) -> pa.Table:
        """All rows, of all columns or of those named."""
        with readable(self.path), pq.ParquetFile(self.path) as file:
            return file.read_row_group(self.number, columns=columns)


def row_groups(path: Path, schema: pa.Schema) -> list[RowGroup]:
    """The row groups of a file or a folder of parts, in the order of ``parts_of``; those without rows are left out."""
    found = []
    for part in parts_of(path, schema):
        facts = pq.read_metadata(part)
        rows = [facts.row_group(number).num_rows for number in range(facts.num_row_groups)]
        found += [RowGroup(part, number, n) for number, n in enumerate(rows) if n]
    return found


class StoredRows(Collection[dict[str, Any]]):
    """The rows of a file or a folder of parts as dictionaries, read by row group each time they are gone through."""

    def __init__(self, path: Path, schema: pa.Schema, columns: Sequence[str] | None = None) -> None:
        self._groups, self._columns = row_groups(path, schema), columns

    def __len__(self) -> int:
        return sum(group.rows for group in self._groups)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for group in self._groups:
            data = group.read(self._columns)
            for start in range(0, group.rows, ROWS_HELD):
                yield from data.slice(start, ROWS_HELD).to_pylist()

    def __contains__(self, row: object) -> bool:
        return any(row == found for found in self)


def places(names: pa.Array, ids: pa.Array, after: int = 0) -> pa.Array:
    """Where each of N names is among M different ids; null for one that is not there.

    Args:
        names: to look up.
        ids: all ids.
        after: place from which the names are expected, in order: where they are there, the other ids are not read. It may
            be that of the name before them, which the first of them may repeat.
    """
    near = pc.index_in(names, value_set=ids.slice(after, len(names) + 1))
    return pc.add(near, pa.scalar(after, pa.int32())) if not near.null_count else pc.index_in(names, value_set=ids)


def spans(groups: Sequence[RowGroup], column: str, ids: pa.Array) -> list[tuple[int, int]]:
    """The first and the last place among ``ids`` that the rows of each group name in ``column``.

    Raises:
        UserError: a row names an id that is not among them.
    """
    found, after = [], 0
    for group in groups:
        names = group.read([column])[column].combine_chunks()
        at = places(names, ids, after)
        if at.null_count:
            unknown = names.filter(pc.is_null(at))[0].as_py()
            raise UserError(
                f"{group.path}: {column} '{unknown}' is not among the {len(ids):,} rows that it should name. Expected rows that were "
                "made from them. Rerun the stage that writes this file: dvc repro"
            )
        ends = pc.min_max(at).as_py()
        found.append((ends["min"], ends["max"]))
        after = at[-1].as_py()
    return found


class Piece(NamedTuple):
    """Rows that are worked on at once, and where the rows of other tables are that name them.

    Attributes:
        group: the row group that holds them.
        start: the first one's place in it.
        rows: how many.
        others: for each other table, the row groups that name some of them.
    """

    group: RowGroup
    start: int
    rows: int
    others: list[list[RowGroup]]

    def read(self, schemas: Sequence[pa.Schema], column: str) -> tuple[pa.Table, list[pa.Table]]:
        """The rows, and of each other table those that name one of them in ``column``; all in the order of their files."""
        own = self.group.read().slice(self.start, self.rows).combine_chunks()
        found = []
        for schema, groups in zip(schemas, self.others, strict=True):
            parts = [schema.empty_table()]
            for group in groups:
                data = group.read()
                parts.append(data.filter(pc.is_in(data[column], value_set=own["id"])))
            found.append(pa.concat_tables(parts).combine_chunks())
        return own, found


def pieces(
    groups: Sequence[RowGroup], ids: pa.ChunkedArray, others: Sequence[Sequence[RowGroup]], column: str, size: int
) -> list[Piece]:
    """Pieces of N rows, in order.

    Tables that stages write one after another have one order, and their row groups are read once or twice. In another order the
    pieces are the same, but row groups are read more often. In memory are the ids.

    Args:
        groups: of the N rows.
        ids: theirs, no two the same.
        others: for each other table, its row groups.
        column: the column in which their rows name one of the ids.
        size: rows per piece at most.

    Raises:
        UserError: a row names an id that is not there.
    """
    every = pa.concat_arrays([pa.array([], pa.string()), *ids.chunks])
    named = [(table, spans(table, column, every)) for table in others]
    found, first = [], 0
    for group in groups:
        for start in range(0, group.rows, size):
            low, high = first + start, first + min(start + size, group.rows)
            own = [
                [part for part, (a, b) in zip(table, ends, strict=True) if a < high and b >= low]
                for table, ends in named
            ]
            found.append(Piece(group, start, high - low, own))
        first += group.rows
    return found
