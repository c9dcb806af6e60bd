"""Question and response of the rows of published instruction sets, whatever the set calls them."""

import gzip
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from scalequest.errors import UserError
from scalequest.io import read_jsonl
from scalequest.problems.files import read_file
from scalequest.problems.problem import worked_solution

Row = dict[str, Any]
Found = tuple[str, str] | None

# Names of the two columns; of several that a row has, the first counts. Final answers alone are named last.
QUESTION = ("question", "query", "problem", "prompt")
RESPONSE = ("response", "solution", "generated_solution", "output", "completion", "answer")
INSTRUCTION_RESPONSE = ("output", "response", "completion", "answer")

FORMS = (
    "question and answer with a `####` line (GSM8K)",
    "messages, or prompt and completion, each a text or a list of turns (TRL)",
    "instruction, input and output (Alpaca)",
    f"one of {', '.join(QUESTION)} and one of {', '.join(RESPONSE)}",
)


def text_of(value: Any) -> str | None:
    """A text that says something, else None; the text parts of a turn's content are joined."""
    if (
        isinstance(value, list)
        and value
        and all(isinstance(part, dict) and part.get("type") == "text" for part in value)
    ):
        value = "".join(str(part.get("text") or "") for part in value)
    return value if isinstance(value, str) and value.strip() else None


def turns_of(value: Any) -> list[tuple[str, str]] | None:
    """Role and text of each turn of a conversation, in TRL's form or ShareGPT's; None if it is no conversation."""
    if not isinstance(value, list) or not value:
        return None
    roles = {"human": "user", "gpt": "assistant"}
    turns = []
    for turn in value:
        if not isinstance(turn, dict):
            return None
        role, text = turn.get("role", turn.get("from")), text_of(turn.get("content", turn.get("value")))
        if not isinstance(role, str) or text is None:
            return None
        turns.append((roles.get(role, role), text))
    return turns


def one_exchange(turns: list[tuple[str, str]]) -> Found:
    """One question and its answer; a system turn is left out, because the student is asked in the pipeline's own words."""
    spoken = [turn for turn in turns if turn[0] not in ("system", "developer")]
    return (spoken[0][1], spoken[1][1]) if [role for role, _ in spoken] == ["user", "assistant"] else None


def _messages(row: Row) -> Found:
    """``messages`` (TRL, also ``conversations`` of ShareGPT)."""
    turns = turns_of(row.get("messages") or row.get("conversations"))
    return one_exchange(turns) if turns else None


def _prompt_completion(row: Row) -> Found:
    """``prompt`` and ``completion``, of which one or both are lists of turns (TRL)."""
    sides = [row.get("prompt"), row.get("completion")]
    if not any(isinstance(side, list) for side in sides):
        return None
    turns: list[tuple[str, str]] = []
    for side, role in zip(sides, ("user", "assistant"), strict=True):
        text = text_of(side)
        found = [(role, text)] if text else turns_of(side)
        if not found:
            return None
        turns += found
    return one_exchange(turns)


def _alpaca(row: Row) -> Found:
    """``instruction``, with its ``input`` below it where it has one (Alpaca; Dolly calls it ``context``)."""
    question = text_of(row.get("instruction"))
    response = next(filter(None, (text_of(row.get(name)) for name in INSTRUCTION_RESPONSE)), None)
    if not question or not response:
        return None
    given = text_of(row.get("input")) or text_of(row.get("context"))
    return (f"{question}\n\n{given}" if given else question), response


def _columns(row: Row) -> Found:
    """Two columns by their names; GSM8K's ``####`` line becomes a boxed answer, as in the seeds."""
    question = next(filter(None, (text_of(row.get(name)) for name in QUESTION)), None)
    name = next((name for name in RESPONSE if text_of(row.get(name))), None)
    if not question or not name:
        return None
    response = text_of(row[name]) or ""
    last = response.strip().splitlines()[-1].strip()
    if name == "answer" and last.startswith("####") and (final := last.removeprefix("####").strip()):
        response = worked_solution(response, final)
    return question, response


READERS: tuple[Callable[[Row], Found], ...] = (_messages, _prompt_completion, _alpaca, _columns)


def question_and_response(row: Row, where: str) -> tuple[str, str]:
    """Question and response of a row, read by the first form that it has.

    Args:
        row: its columns; one that is null or blank does not count.
        where: ``FILE:LINE``, for the message.

    Raises:
        UserError: the row has none of FORMS.
    """
    for reader in READERS:
        if found := reader(row):
            return found
    roles = [role for role, _ in turns_of(row.get("messages") or row.get("conversations")) or []]
    raise UserError(
        f"{where}: no question and response in the columns {', '.join(sorted(row)) or 'of an empty row'}"
        f"{f' (turns: {chr(44).join(roles)})' if roles else ''}. Expected texts as {'; '.join(FORMS)}. Rename the columns, "
        "or leave the row out."
    )


def rows_of(path: Path) -> Iterator[tuple[str, Row]]:
    """Each row of a .jsonl, .jsonl.gz or .parquet file with its place, ``FILE:LINE`` or ``FILE: row N``."""
    if path.suffix == ".parquet":
        for number, (_, row) in enumerate(read_file(path), start=1):
            yield f"{path}: row {number}", row
        return
    with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
        lines = (number for number, line in enumerate(file, start=1) if line.strip())
        for number, row in zip(lines, read_jsonl(path), strict=False):
            yield f"{path}:{number}", row
