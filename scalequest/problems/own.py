"""Rows that a user brings: questions, and pairs of a chosen and a rejected question. Their columns
are those of published sets.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from scalequest.errors import UserError
from scalequest.params import FileSource
from scalequest.problems.draw import draw
from scalequest.problems.files import read_file
from scalequest.problems.pinned import pinned_file
from scalequest.text import question_key
from scalequest.training.external import QUESTION, text_of, turns_of

Row = dict[str, Any]

NAMES = f"one of {', '.join(QUESTION)} (a text), instruction (with input, Alpaca), or messages with one user turn (TRL)"


def own_rows(name: str, source: FileSource) -> list[tuple[int, str, Row]]:
    """The rows of a user's file: number in the file from 0, place for messages, columns. Only those
    that ``source.where`` asks for.

    Args:
        name: the file's key in params.yaml, for messages: ``own.questions.textbook``.
        source: where it is, and its pin.

    Raises:
        UserError: the file is not there or not the pinned one, or has no such rows.
    """
    path = pinned_file(name, source)
    rows = [
        (number, where, row)
        for number, (where, row) in enumerate(read_file(path))
        if all(row.get(column) == value for column, value in source.where.items())
    ]
    if not rows:
        raise UserError(f"{name}: {path} has no row{f' with {source.where}' if source.where else ''}. Expected at least one. Correct it.")  # fmt: skip
    return rows


def drawn(name: str, source: FileSource, seed: int, keys: Sequence[str]) -> list[int]:
    """Places of the ``source.n`` rows that are taken, by hash of seed and ``keys``, in the file's order; all without ``n``.

    Raises:
        UserError: there are fewer.
    """
    if source.n is not None and len(keys) < source.n:
        raise UserError(
            f"{name}: {len(keys)} rows, n is {source.n}. Expected at least n. Lower n, or set null for all."
        )
    return draw(keys, source.n, seed, purpose=name)


def question_of(row: Row, where: str) -> str:
    """The question of a row; its other columns, an answer among them, do not count.

    Args:
        row: its columns; one that is null or blank does not count.
        where: place in the file, for the message.

    Raises:
        UserError: it has none, or a conversation with more than one.
    """
    turns = turns_of(row.get("messages") or row.get("conversations") or row.get("prompt"))
    if turns:
        asked = [text for role, text in turns if role == "user"]
        if len(asked) == 1:
            return asked[0].strip()
        raise UserError(
            f"{where}: {len(asked)} user turns in a conversation of {len(turns)}. Expected one question per row. Split the row, or leave it out."
        )
    if text := text_of(row.get("instruction")):
        given = text_of(row.get("input")) or text_of(row.get("context"))
        return (f"{text.strip()}\n\n{given.strip()}" if given else text).strip()
    if text := next(filter(None, (text_of(row.get(column)) for column in QUESTION)), None):
        return text.strip()
    raise UserError(
        f"{where}: no question in the columns {', '.join(sorted(row)) or 'of an empty row'}. Expected {NAMES}. "
        "Rename the column, or leave the row out."
    )


def pair_of(row: Row, where: str) -> tuple[str, str]:
    """The chosen and the rejected question of a row: ``chosen`` and ``rejected``, each a text or a
    conversation of one turn (TRL).

    Raises:
        UserError: a side is missing, or they are answers to a prompt: QPO teaches to ask, not to answer.
    """
    sides = []
    for column in ("chosen", "rejected"):
        turns = turns_of(row.get(column))
        spoken = [text for role, text in turns or [] if role not in ("system", "developer")]
        text = text_of(row.get(column)) or (spoken[0] if len(spoken) == 1 else None)
        if not text and len(spoken) > 1:
            raise UserError(
                f"{where}: {column} is a conversation of {len(spoken)} turns. Expected a question alone: `qpo` teaches to ask, not to "
                "answer. Give the questions."
            )
        if not text:
            raise UserError(
                f"{where}: no text in the column {column}; found {', '.join(sorted(row)) or 'an empty row'}. Expected chosen and rejected, "
                "the better and the worse question. Rename the columns, or leave the row out."
            )
        sides.append(text.strip())
    if prompt := next((name for name in ("prompt", "question", "instruction") if row.get(name)), None):
        raise UserError(
            f"{where}: chosen and rejected beside a {prompt} are two answers to it. Expected two questions: `qpo` teaches to ask, not to "
            f"answer. Drop the column {prompt} if they are questions."
        )
    return sides[0], sides[1]


def own_questions(name: str, key: str, source: FileSource, seed: int) -> Iterator[tuple[str, str]]:
    """Yield id and text of each question that is taken. Ids are ``name/0/row``, the row counted from 0."""
    rows = [(number, question_of(row, where)) for number, where, row in own_rows(key, source)]
    for at in drawn(key, source, seed, [question_key(text) for _, text in rows]):
        number, text = rows[at]
        yield f"{name}/0/{number}", text


def own_pairs(name: str, key: str, source: FileSource, seed: int) -> Iterator[tuple[str, str, str]]:
    """Yield id, chosen and rejected question of each pair that is taken. Ids are ``name/0/row``, the row counted from 0."""
    rows = [(number, pair_of(row, where)) for number, where, row in own_rows(key, source)]
    for at in drawn(key, source, seed, [f"{question_key(a)}\n{question_key(b)}" for _, (a, b) in rows]):
        number, (chosen, rejected) = rows[at]
        yield f"{name}/0/{number}", chosen, rejected
