"""Marks that a reader made in the report's data browser: questions called good or bad, one JSON object per line."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scalequest.errors import UserError
from scalequest.io import file_hash, numbered_jsonl

GOOD, BAD = "good", "bad"
COLUMNS = ("id", "mark", "question")
# Characters of a value that a message repeats.
SHOWN = 60
NEXT = "Mark this run's own report, or set filter.marks: null."


@dataclass(frozen=True)
class Mark:
    """One reader's word on one question.

    Attributes:
        where: file and line.
        mark: ``good`` or ``bad``.
        question: the question's text, or its beginning.
    """

    where: str
    mark: str
    question: str


def read_marks(path: Path, sha256: str) -> dict[str, Mark]:
    """The marks of a file by question id; the same mark made twice counts once.

    Args:
        path: as the page saves it: JSON lines of ``COLUMNS``.
        sha256: of its bytes.

    Raises:
        UserError: the file is missing, has other bytes, no mark, other columns or values, or two marks of one question that
            contradict each other.
    """
    if not path.is_file():
        raise UserError(
            f"filter.marks.path: {path}: no such file. Expected marks, saved from the report. Save them there."
        )
    if (digest := file_hash(path)) != sha256:
        raise UserError(
            f"filter.marks.sha256: {path} has {digest}. Expected {sha256}. Restore the file, or pin the new hash."
        )
    marks: dict[str, Mark] = {}
    for number, row in numbered_jsonl(path):
        name, mark = _mark(f"{path}:{number}", row)
        first = marks.setdefault(name, mark)
        for column, one, two in (("mark", first.mark, mark.mark), ("question", first.question, mark.question)):
            if one != two:
                raise UserError(
                    f"{mark.where}: {_shown(name)} has {column} {_shown(two)}, and {_shown(one)} at {first.where}. "
                    "Expected one mark per question. Delete one of the two lines, and pin the new sha256."
                )
    if not marks:
        raise UserError(f"{path}: no mark. Expected one JSON object per line. {NEXT}")
    return marks


def check_marks(marks: dict[str, Mark], questions: Iterable[tuple[str, str]]) -> None:
    """Check that every mark is of a question of this run, by id and text.

    Generators number their questions, so another run has the same ids with other questions.

    Args:
        marks: by question id.
        questions: id and text of every generated question.

    Raises:
        UserError: an id is unknown, or its question has another text.
    """
    missing = dict(marks)
    for name, text in questions:
        mark = missing.pop(name, None)
        if mark and not text.startswith(mark.question):
            raise UserError(
                f"{mark.where}: {_shown(name)} was marked with the question {_shown(mark.question)}. "
                f"Expected the question of this run, {_shown(text)}. {NEXT}"
            )
    for name, mark in missing.items():
        raise UserError(
            f"{mark.where}: {_shown(name)} is no question of this run, as are {len(missing) - 1:,} other ids. "
            f"Expected ids of generated questions. {NEXT}"
        )


def _mark(where: str, row: dict[str, Any]) -> tuple[str, Mark]:
    if set(row) != set(COLUMNS):
        raise UserError(
            f"{where}: columns {_shown(', '.join(row))}. Expected exactly {', '.join(COLUMNS)}, as the report saves them. "
            "Correct the line, and pin the new sha256."
        )
    for column in COLUMNS:
        if not isinstance(row[column], str):
            raise UserError(
                f"{where}: {column} is {_shown(row[column])}. Expected text. Correct the line, and pin the new sha256."
            )
    if row["mark"] not in (GOOD, BAD):
        raise UserError(
            f"{where}: mark is {_shown(row['mark'])}. Expected '{GOOD}' or '{BAD}'. Correct the line, and pin the new sha256."
        )
    return row["id"], Mark(where, row["mark"], row["question"])


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"
