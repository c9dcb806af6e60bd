"""Where problems come from, for seeds and benchmarks alike: reasoning_gym by seed, or a file: local, of the hub, of a package."""

import logging
import math
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from scalequest.answers.code import is_test_program
from scalequest.errors import UserError
from scalequest.params import FileSource, ReasoningGymSource
from scalequest.problems.draw import draw
from scalequest.problems.files import read_file
from scalequest.problems.known_datasets import canonical, stratum
from scalequest.problems.pinned import pinned_file
from scalequest.problems.problem import Problem, new_problem, worked_solution
from scalequest.problems.puzzles import known_answer
from scalequest.problems.reasoning_gym import draw_problems
from scalequest.text import question_key

log = logging.getLogger("scalequest")


@dataclass
class Loaded:
    """What came of one source.

    Attributes:
        problems: in a fixed order, each question once.
        left_out: number of rows left out, by reason.
        without_solution: number of ``problems`` that teach the bare answer, because their row has no worked solution.
    """

    problems: list[Problem]
    left_out: dict[str, int]
    without_solution: int = 0


def load_problems(
    name: str, source: ReasoningGymSource | FileSource, seed: int, need_solution: bool, need_answer: bool = True
) -> list[Problem]:
    """The problems of one source: ``load_source`` without its counts."""
    return load_source(name, source, seed, need_solution, need_answer).problems


def load_source(
    name: str,
    source: ReasoningGymSource | FileSource,
    seed: int,
    need_solution: bool,
    need_answer: bool = True,
    exclude: Collection[str] = frozenset(),
) -> Loaded:
    """The problems of one source, exact duplicates dropped, in a fixed order, and what was left out.

    Args:
        name: the source's key in params.yaml, part of each id.
        source: where to read.
        seed: the run's seed, which draws ``n`` of a file's rows.
        need_solution: whether a row must have a worked solution (seeds) or not (benchmarks).
        need_answer: whether a row must have what a response is checked by; seeds of a code run need not.
        exclude: keys of questions that must not be among them (``question_key``).

    Raises:
        UserError: the source does not exist, lacks a column, has an empty question, or gives fewer than ``n``.
    """
    if isinstance(source, ReasoningGymSource):
        problems, excluded = draw_problems(name, source, exclude)
        bare = sum(p["solution"] == worked_solution("", known_answer(p["answer"])) for p in problems)
        loaded = Loaded(problems, {"benchmark_item": excluded} if excluded else {}, bare)
    else:
        loaded = _from_file(name, source, seed, need_solution, need_answer, exclude)
    if not loaded.problems:
        reasons = f" (left out: {_listed(loaded.left_out)})" if loaded.left_out else ""
        raise UserError(f"{name}: no problems came from this source{reasons}; expected at least one")
    return loaded


# --------------------------------------------------------------------------------------------------------------- files


def _from_file(
    name: str, source: FileSource, seed: int, need_solution: bool, need_answer: bool, exclude: Collection[str]
) -> Loaded:
    path = pinned_file(name, source)
    columns = ["question"] + ["answer"] * need_answer + ["solution"] * need_solution
    problems: list[Problem] = []
    bare: set[str] = set()
    seen: set[str] = set()
    left_out: Counter[str] = Counter()
    rows = (
        (where, row)
        for where, row in read_file(path)
        if all(row.get(column) == value for column, value in source.where.items())
    )
    number = -1
    for number, (where, raw) in enumerate(rows):
        row = canonical(raw, where)
        if missing := [c for c in columns if c not in row]:
            raise UserError(f"{where}: no column {missing}, found {sorted(row)}; expected {columns} in every row")
        question, answer, solution = (_text(where, c, row.get(c)) for c in ("question", "answer", "solution"))
        if not question:
            raise UserError(f"{where}: the question is empty (id {row.get('id', '?')!r}); remove the row or fill it in")
        if not answer and need_answer:
            left_out["no_answer"] += 1
            continue
        if (key := question_key(question)) in seen:
            left_out["duplicate"] += 1
            continue
        if key in exclude:
            left_out["benchmark_item"] += 1
            continue
        seen.add(key)
        is_code = not answer or is_test_program(answer)
        taught = solution if is_code else worked_solution(solution, known_answer(answer), source.calculator_marks)
        problems.append(new_problem(name, str(number), question, taught, answer, stratum(raw)))
        if not solution:
            bare.add(problems[-1]["id"])
    if left_out:
        log.warning("%s: left out of %d rows: %s", name, number + 1, _listed(left_out))
    if source.n is not None:
        if len(problems) < source.n:
            raise UserError(
                f"{name}: {path} has {len(problems)} distinct problems with an answer, n is {source.n}. "
                f"Left out of {number + 1} rows: {_listed(left_out) or 'none'}. Lower n."
            )
        # By the question: an id here is a row's number, and a file in another order would give other problems.
        keys, subjects = [question_key(p["question"]) for p in problems], [p["stratum"] for p in problems]
        problems = [problems[at] for at in draw(keys, source.n, seed, subjects, purpose=f"source {name}")]
    return Loaded(problems, dict(left_out), sum(p["id"] in bare for p in problems))


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {n}" for name, n in sorted(counts.items()))


def _text(where: str, column: str, value: Any) -> str:
    """A cell as stripped text: a list of one is its element, null and NaN are empty.

    Raises:
        UserError: another list, an object, or half a character.
    """
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if not isinstance(value, str | int | float | Decimal):
        what = f"a list of {len(value)}" if isinstance(value, list) else f"a {type(value).__name__}"
        raise UserError(
            f"{where}: {column} is {what}: {str(value)[:80]}. Expected text or a number. Split the row or join it."
        )
    text = str(value).strip()
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f"{where}: {column} holds half a character ({text[error.start]!r}). Expected Unicode text. Correct the row."
        ) from None
    return text
