"""Rows of known data sets under this project's names: question, solution, answer. Renamed once, here, where they are read."""

import ast
import re
from typing import Any

from scalequest.answers.code import program_of_tests
from scalequest.answers.find import boxed
from scalequest.errors import UserError
from scalequest.problems.evalplus import plus_tests


def stratum(row: dict[str, Any]) -> str:
    """The subject that a row names, empty if none: ``subject``, or MATH's ``type`` beside its ``level``."""
    for key, beside in (("stratum", "stratum"), ("subject", "subject"), ("type", "level")):
        if beside in row and isinstance(value := row.get(key), str) and value.strip():
            return value.strip()
    return ""


def canonical(row: dict[str, Any], where: str = "a row") -> dict[str, Any]:
    """A row under this project's names; ``where`` it is goes into an error.

    Raises:
        UserError: the row has the columns of a known data set, and not its values.
    """
    try:
        return _canonical(row)
    # What reading columns of another type raises: one that is missing, null, or a number in place of text.
    except (KeyError, AttributeError, TypeError, ValueError) as error:
        raise UserError(
            f"{where}: the columns {', '.join(sorted(map(str, row)))} are those of a known data set, and the row cannot be read as "
            f"one of its rows ({type(error).__name__}: {error}). Expected every column of that set, as it was published. Correct "
            "the row."
        ) from None


def _canonical(row: dict[str, Any]) -> dict[str, Any]:
    """A row with ``question`` and, as far as it has them, ``solution`` and ``answer``.

    GSM8K: ``answer`` holds the solution and ends in ``#### 72``. MATH: ``problem``, and a ``solution`` with the answer boxed.
    AIME: as MATH, and in one copy with capitals (``Problem``). OlympiadBench: several answers, each in dollars. HumanEval, MBPP
    (full and sanitized), both with EvalPlus's tests, CodeFeedback: see below.
    """
    if {"Problem", "Answer"} <= row.keys():
        row = {key.lower(): value for key, value in row.items()}
    if {"prompt", "test", "entry_point"} <= row.keys():
        return _humaneval(row)
    if "test_list" in row:
        return _mbpp(row)
    if "query" in row and "```" in str(row.get("answer")):
        return {"question": row["query"], "solution": row["answer"], "answer": ""}  # CodeFeedback has no tests
    row = {"question" if key == "problem" else key: value for key, value in row.items()}
    if "solution" not in row and "####" in str(row.get("answer")):
        row["solution"], row["answer"] = row["answer"], _marked_answer(str(row["answer"]))
    if "answer" not in row and "solution" in row:
        row["answer"] = boxed(str(row["solution"] or "")) or ""  # a few solutions of MATH have no box, or an empty one
    if row.get("is_multiple_answer") is True:
        row["answer"] = re.sub(r"\$", "", str(row["answer"]))  # $1$,$2$: one formula, a list
    return row


def _marked_answer(solution: str) -> str:
    """What GSM8K's ``####`` marks on a solution's last line; empty where it heads a section, as in Markdown."""
    last = (solution.strip().splitlines() or [""])[-1].strip()
    answer = last.removeprefix("####").strip() if last.startswith("####") else ""
    return "" if re.match(r"(?:step|conclusion|solution|answer|note|part)\b", answer, re.IGNORECASE) else answer


def _humaneval(row: dict[str, Any]) -> dict[str, Any]:
    """A stub to be completed. The tests see the stub, too: some use a helper that it defines beside the function."""
    prompt = row["prompt"].strip("\n")
    return {
        "id": row.get("task_id"),
        "question": f"Complete this Python function:\n```python\n{prompt}\n```",
        "solution": f"```python\n{prompt}\n{row['canonical_solution'].rstrip()}\n```",
        "answer": program_of_tests(prompt, f"{plus_tests(row['test'])}\ncheck({row['entry_point']})"),
    }


def _mbpp(row: dict[str, Any]) -> dict[str, Any]:
    """A sentence and its tests, shown as in the paper that made the set: without them nobody knows the function's name.

    MBPP+ has its own tests in ``test``; the few of MBPP are shown, as everywhere.
    """
    tests = "\n".join(_lines(row["test_list"]))
    imports = "\n".join(_lines(row.get("test_imports") or []))
    # Two tasks build their data from a class that the solution defines.
    setup = (row.get("test_setup_code") or "").replace("\r\n", "\n").strip()
    code = row["code"].replace("\r\n", "\n").strip()
    return {
        "id": row.get("task_id"),
        "question": f"{(row.get('text') or row.get('prompt') or '').strip()}\nYour code should pass these tests:\n{tests}",
        "solution": f"```python\n{code}\n```",
        "answer": program_of_tests(
            imports, plus_tests(row["test"]) if row.get("test") else f"{setup}\n{tests}".strip()
        ),
    }


def _lines(value: Any) -> list[str]:
    """A list of texts, which some copies hold as the text of a list."""
    if isinstance(value, str):
        try:
            value = ast.literal_eval(value)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            value = value.splitlines()
    return [str(line) for line in (value if isinstance(value, list | tuple) else [value])]
