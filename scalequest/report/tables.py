"""The run's large tables, read by row group: rows of a few questions, draws, and single columns as numbers."""

import argparse
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from scalequest.errors import UserError
from scalequest.outcomes import KEPT
from scalequest.problems.draw import hash_place
from scalequest.records import (
    JUDGED,
    PREFERENCE,
    QUESTION,
    RESPONSE,
    REWARD,
    SCORE,
    read_rows,
    row_groups,
)

# Purpose of the draw of rows that are shown; of generated questions it is the same in every table.
DRAW = "report/tables"
# A row's place in the order of a draw, and in its table.
Drawn = tuple[float, int]


class Stored:
    """A table on disk, of which one row group is in memory at a time.

    Attributes:
        num_rows: N.
    """

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.schema, self._groups = schema, row_groups(path, schema)
        self.num_rows = sum(group.rows for group in self._groups)

    def __len__(self) -> int:
        return self.num_rows

    def tables(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        """These columns of all rows, in this order of columns."""
        for group in self._groups:
            yield group.read(columns).select(columns)

    def take(self, places: Sequence[int]) -> list[dict[str, Any]]:
        """The rows at some places, in the order given."""
        wanted, start = np.array(sorted(places), np.int64), 0
        found: dict[int, dict[str, Any]] = {}
        for group in self._groups:
            own = wanted[(wanted >= start) & (wanted < start + group.rows)]
            if len(own):
                found.update(zip(own.tolist(), group.read().take(pa.array(own - start)).to_pylist(), strict=True))
            start += group.rows
        return [found[place] for place in places]

    def having(self, column: str, values: Collection[str]) -> list[dict[str, Any]]:
        """The rows whose ``column`` is one of ``values``; other columns are read where there is one."""
        wanted, found = pa.array(sorted(values), pa.string()), []
        for group in self._groups if values else []:
            mask = pc.is_in(group.read([column])[column], value_set=wanted)
            if pc.any(mask).as_py():
                found += group.read().filter(mask).to_pylist()
        return found

    def numbers(self, column: str, **where: str) -> NDArray[np.float32]:
        """One column of real numbers, of the rows that have these values in others; NaN for null."""
        parts = [np.zeros(0, np.float32)]
        for table in self.tables([column, *where]):
            for name, value in where.items():
                table = table.filter(pc.equal(table[name], value))
            parts.append(_real(table[column]))
        return np.concatenate(parts)

    def first_drawn(self, n: int, purpose: str, *by: str) -> dict[tuple[str, ...], list[Drawn]]:
        """The first ``n`` rows of each value of the columns ``by``, in an order that depends on the ids alone."""
        first: dict[tuple[str, ...], list[Drawn]] = {}
        start = 0
        for table in self.tables(["id", *by]):
            ids, *keys = (table[name].to_pylist() for name in ("id", *by))
            own: dict[tuple[str, ...], list[Drawn]] = {}
            for place, (name, *key) in enumerate(zip(ids, *keys, strict=True), start):
                own.setdefault(tuple(key), []).append((hash_place(0, name, purpose), place))
            for value, rows in own.items():
                first[value] = sorted(first.get(value, []) + rows)[:n]
            start += len(ids)
        return first


class Asked:
    """What is counted of every generated question: 12 bytes of each are in memory.

    Attributes:
        generators: names of them, in the order of their first question.
        outcomes: names of what became of questions.
        generator: place among the generators, of each of N questions.
        outcome: place among the outcomes, of each question.
        difficulty: of each question; NaN where none was measured.
        words: number of words of each question.
    """

    def __init__(self, ledger: Stored) -> None:
        self.generators: dict[str, int] = {}
        self.outcomes: dict[str, int] = {}
        columns: list[tuple[NDArray[Any], ...]] = []
        for table in ledger.tables(["generator", "outcome", "difficulty", "question"]):
            generator, outcome, difficulty, question = table.columns
            columns.append(
                (
                    _numbered(generator, self.generators),
                    _numbered(outcome, self.outcomes),
                    _real(difficulty),
                    np.array([len(text.split()) for text in question.to_pylist()], np.float32),
                )
            )
        kinds = (np.uint16, np.uint16, np.float32, np.float32)
        self.generator, self.outcome, self.difficulty, self.words = (
            np.concatenate([np.zeros(0, kind), *parts])
            for kind, parts in zip(kinds, zip(*columns, strict=True) if columns else [()] * 4, strict=True)
        )

    def of(self, generator: str) -> NDArray[np.bool_]:
        """Which questions a generator wrote."""
        mask: NDArray[np.bool_] = self.generator == self.generators.get(generator, len(self.generators))
        return mask

    def ended_as(self, *outcomes: str) -> NDArray[np.bool_]:
        """Which questions have one of these outcomes."""
        return np.isin(self.outcome, [self.outcomes[name] for name in outcomes if name in self.outcomes])

    @property
    def kept(self) -> NDArray[np.bool_]:
        """Which questions passed every filter."""
        return self.ended_as(KEPT)

    def counts(self) -> dict[tuple[str, str], int]:
        """Number of questions by generator and outcome."""
        names = [(generator, outcome) for generator in self.generators for outcome in self.outcomes]
        cells = np.bincount(self.generator.astype(np.int64) * len(self.outcomes) + self.outcome, minlength=len(names))
        return {name: int(n) for name, n in zip(names, cells, strict=True) if n}


def _real(column: pa.ChunkedArray) -> NDArray[np.float32]:
    return column.to_numpy().astype(np.float32)


def _numbered(names: pa.ChunkedArray, places: dict[str, int]) -> NDArray[np.uint16]:
    """The place of each name; new ones get the next."""
    found = names.combine_chunks().dictionary_encode()
    own = [places.setdefault(name, len(places)) for name in found.dictionary.to_pylist()]
    return np.array(own, np.uint16)[found.indices.to_numpy()]


def shuffled(ids: Iterable[str]) -> list[int]:
    """Places of ids in an order that depends on the ids alone: the same rows in every report."""
    return [place for _, place in sorted((hash_place(0, name, DRAW), place) for place, name in enumerate(ids))]


def column_of(path: Path, schema: pa.Schema, name: str) -> list[Any]:
    """One column of a table whose size does not grow with the generated questions."""
    return [value for table in Stored(path, schema).tables([name]) for value in table[name].to_pylist()]


def judged(args: argparse.Namespace, ids: Collection[str]) -> dict[str, dict[str, Any]]:
    """The judge's word on these questions, by id."""
    return {row["id"]: row for row in Stored(args.judged, JUDGED).having("id", ids)}


def reward_in_words(reward: float | None) -> str:
    """A reward for a reader, or that there is none."""
    return "no reward" if reward is None else f"reward {reward:.3f}"


def answers(args: argparse.Namespace, ids: Collection[str], rewarded: bool) -> dict[str, list[dict[str, Any]]]:
    """All sampled answers to these questions with their rewards (None without one), by question, in the order of the samples.

    Args:
        args: paths of the tables.
        ids: of the questions.
        rewarded: whether the run has rewards; else none are read.
    """
    scored = Stored(args.rewards, REWARD).having("question_id", ids) if rewarded else []
    rewards = {row["id"]: row["reward"] for row in scored}
    found: dict[str, list[dict[str, Any]]] = {}
    for row in sorted(Stored(args.responses, RESPONSE).having("question_id", ids), key=lambda row: row["sample"]):
        found.setdefault(row["question_id"], []).append(row | {"reward": rewards.get(row["id"])})
    return found


def preference_rows(args: argparse.Namespace, generators: Iterable[str]) -> list[dict[str, Any]]:
    """Every rewrite of these generators, with its verdict."""
    return [row for name in generators for row in read_rows(args.preferences / f"{name}.parquet", PREFERENCE)]


def checked_pairs(args: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """What `preference_check` measured, by pair: ``chosen`` and ``rejected`` to verdict, completion and score of that side."""
    found: dict[str, dict[str, Any]] = {}
    for name, schema in (("solvability", JUDGED), ("difficulty", SCORE)):
        for row in read_rows(args.preference_check / f"{name}.parquet", schema):
            pair, _, side = row["id"].rpartition("/")
            found.setdefault(pair, {"chosen": {}, "rejected": {}})[side] |= row
    return found


def question_texts(folder: Path, generator: str) -> list[str]:
    """The questions that a generator wrote, below ``folder``; none where the folder is not there."""
    try:
        return column_of(folder / generator, QUESTION, "question")
    except UserError:
        return []
