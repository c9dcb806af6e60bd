"""Rows of the run's large tables: those of a few questions, and single columns whole."""

import argparse
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from scalequest.errors import UserError
from scalequest.problems.draw import hash_place
from scalequest.records import JUDGED, PREFERENCE, QUESTION, RESPONSE, REWARD, SCORE, parts_of, read_rows


def shuffled(ids: Iterable[str]) -> list[int]:
    """Places of ids in an order that depends on the ids alone: the same rows in every report."""
    return [
        place for _, place in sorted((hash_place(0, name, "report/tables"), place) for place, name in enumerate(ids))
    ]


def with_ids(table: pa.Table, ids: Collection[str]) -> list[dict[str, Any]]:
    """Rows of a table in memory with one of these ids."""
    found: list[dict[str, Any]] = table.filter(pc.is_in(table["id"], pa.array(sorted(ids), pa.string()))).to_pylist()
    return found


def rows_with(path: Path, schema: pa.Schema, column: str, values: Collection[str]) -> list[dict[str, Any]]:
    """Rows whose ``column`` is one of ``values``, one part in memory at a time."""
    found: list[dict[str, Any]] = []
    for part in parts_of(path, schema):
        found += (
            pq.read_table(part, schema=schema, filters=[(column, "in", list(values))]).to_pylist() if values else []
        )
    return found


def column_of(path: Path, schema: pa.Schema, name: str) -> list[Any]:
    """One column of a table."""
    values: list[Any] = []
    for part in parts_of(path, schema):
        values += pq.read_table(part, columns=[name])[name].to_pylist()
    return values


def judged(args: argparse.Namespace, ids: Collection[str]) -> dict[str, dict[str, Any]]:
    """The judge's word on these questions, by id."""
    return {row["id"]: row for row in rows_with(args.judged, JUDGED, "id", ids)}


def answers(args: argparse.Namespace, ids: Collection[str]) -> dict[str, list[dict[str, Any]]]:
    """All sampled answers to these questions with their rewards (None without one), by question, in the order of the samples."""
    rewards = {row["id"]: row["reward"] for row in rows_with(args.rewards, REWARD, "question_id", ids)}
    found: dict[str, list[dict[str, Any]]] = {}
    for row in sorted(rows_with(args.responses, RESPONSE, "question_id", ids), key=lambda row: row["sample"]):
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
