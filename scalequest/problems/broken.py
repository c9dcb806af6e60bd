"""Breaking sound problems mechanically, so that a judge of questions can be measured.

A seed has a known answer, so it can be solved. With its question gone, with the conditions of
another problem, or without a number that its solution needs, it cannot. Nobody has to label
anything.

A programming task says what it wants twice, in words and in tests or a stub, so that one of the two is enough to solve it. It is
broken by tests that no program can pass, or by taking away both.
"""

import ast
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from scalequest.answers.code import asserts, fenced_code, parsed
from scalequest.problems.draw import hash_place

# What was done to a problem, in the order in which problems take turns.
NO_QUESTION, FOREIGN, NO_NUMBER, TORSO = "no_question", "foreign_conditions", "no_number", "torso"
CONTRADICTION = "contradictory_tests"

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|(?<=[.!?][\"')\]])\s+")
_NUMBER = re.compile(r"\d+(?:,\d{3})+(?:\.\d+)?|\d*\.\d+|\d+")
_WORD = re.compile(r"[^\W\d_]{3,}")
MIN_WORDS = 4
# Conditions of a problem of the same template, with other numbers, would leave it solvable.
MOST_OVERLAP = 0.3
# Words that are left of a programming task: "Write a Python function to".
TASK_WORDS = 5
# Other problems that are tried as a source of conditions.
TRIES = 50


def sentences(text: str) -> list[str]:
    """Sentences of a text, in order; ends of lines count as spaces."""
    return [part for part in _SENTENCE_END.split(" ".join(text.split())) if part]


def _parts(question: str, asks: Callable[[str], bool]) -> tuple[str, str]:
    """Conditions and question of a problem: the sentences that ask for nothing, and the others."""
    found = sentences(question)
    return " ".join(s for s in found if not asks(s)), " ".join(s for s in found if asks(s))


def without_question(question: str, asks: Callable[[str], bool]) -> str | None:
    """The conditions alone; None where there is nothing to remove or too little left."""
    conditions, asked = _parts(question, asks)
    return conditions if asked and len(conditions.split()) >= MIN_WORDS else None


def with_foreign_conditions(question: str, others: Sequence[str], asks: Callable[[str], bool]) -> str | None:
    """The question after the conditions of the first of ``others`` that is about something else; None if none fits.

    A question with numbers of its own ("If each costs 2, how much ...") may be solved by them, and is not taken.
    """
    conditions, asked = _parts(question, asks)
    if not asked or _NUMBER.search(asked) or len(conditions.split()) < MIN_WORDS:
        return None
    own = {word.lower() for word in _WORD.findall(question)}
    for other in others:
        foreign, _ = _parts(other, asks)
        words = {word.lower() for word in _WORD.findall(foreign)}
        if len(foreign.split()) >= MIN_WORDS and words and len(words & own) <= MOST_OVERLAP * len(words):
            return f"{foreign} {asked}"
    return None


def without_number(question: str, solution: str) -> str | None:
    """The question without the last number that its solution uses, wherever it occurs; None where there is none."""
    used = set(_NUMBER.findall(solution))
    needed = [number for number in _NUMBER.findall(question) if number in used]
    if not needed:
        return None
    return re.sub(r"[ \t]{2,}", " ", _NUMBER.sub(lambda found: "" if found[0] == needed[-1] else found[0], question))


def torso(question: str) -> str:
    """The first half of a text's words."""
    words = question.split()
    return " ".join(words[: max(1, len(words) // 2)]).rstrip(".?!:;,")


def with_contradictory_tests(question: str) -> str | None:
    """The task with two tests that want two values of the same call; None without a test of the form ``assert f(1) == 2``."""
    tests = asserts(question)
    for test in tests:
        if wanted := _called_and_wanted(test):
            call, value = wanted
            others = [found[1] for other in tests if (found := _called_and_wanted(other))]
            other = next((v for v in others if type(v) is type(value) and v != value), None)
            second = _other_than(value) if other is None else other
            pair = f"assert {call} == {value!r}\nassert {call} == {second!r}"
            lines = [line for line in question.splitlines() if line.strip() not in tests]
            return "\n".join([*lines, pair])
    return None


def _called_and_wanted(test: str) -> tuple[str, Any] | None:
    """Call and literal of ``assert f(1) == 2``; None for other tests."""
    tree = parsed(test)
    match tree.body[0] if tree else None:
        case ast.Assert(test=ast.Compare(left=ast.Call() as call, ops=[ast.Eq()], comparators=[wanted])):
            try:
                return ast.unparse(call), ast.literal_eval(wanted)
            except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
                return None
    return None


def _other_than(value: Any) -> Any:
    """Another value, of the same type where that is simple."""
    if isinstance(value, bool) or value is None:
        return not value
    if isinstance(value, int | float):
        return value + 1 if value + 1 != value else 0
    if isinstance(value, list):
        return [*value, 1]
    return 2 * value if isinstance(value, str | bytes | tuple) and value else None


def without_task(question: str, asks: Callable[[str], bool]) -> str:
    """What is left of a programming task when its words, tests, examples and names are gone.

    A stub keeps its parameters, under other names, and nothing that says what they are for. Without
    a stub the first sentence that asks keeps at most half of its words, and TASK_WORDS.
    """
    code = fenced_code(question) or _first_stub(question)
    tree = parsed(code) if code else None
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)] if tree else []
    if functions:
        arguments = functions[-1].args
        names = [f"x{at}" for at, _ in enumerate([*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs], 1)]
        return f"Complete this Python function:\n```python\ndef function({', '.join(names)}):\n    pass\n```"
    prose = question.split("```")[0]
    found = sentences("\n".join(line for line in prose.splitlines() if not line.lstrip().startswith("assert ")))
    words = next((s for s in found if asks(s)), (found or [question])[0]).split()
    return " ".join(words[: max(1, min(len(words) // 2, TASK_WORDS))]).rstrip(".?!:;,")


def _first_stub(question: str) -> str | None:
    block = re.search(r"```\w*\n(.*?)```", question, re.DOTALL)
    return block[1] if block else None


def _broken_maths(
    question: str, solution: str, others: Sequence[str], asks: Callable[[str], bool]
) -> dict[str, str | None]:
    return {
        NO_QUESTION: without_question(question, asks),
        FOREIGN: with_foreign_conditions(question, others, asks),
        NO_NUMBER: without_number(question, solution),
    }


def broken(problems: Sequence[Mapping[str, str]], asks: Callable[[str], bool], seed: int) -> Iterator[tuple[str, str]]:
    """Break each of N problems in one way that it allows; which one is decided by a hash of seed and id.

    Args:
        problems: rows with ``id``, ``question`` and ``solution``. They lend each other their conditions.
        asks: whether a text asks for something (``Wording.asks``).
        seed: the run's.

    Yields:
        For each problem the way it was broken and the broken text. ``torso`` is for those that allow nothing else.
    """
    for at, row in enumerate(problems):
        question = row["question"]
        others = [problems[(at + step) % len(problems)]["question"] for step in range(1, min(len(problems), TRIES))]
        if fenced_code(row["solution"]):
            tried = {CONTRADICTION: with_contradictory_tests(question), NO_QUESTION: without_task(question, asks)}
        else:
            tried = _broken_maths(question, row["solution"], others, asks)
        ways = [(way, text) for way, text in tried.items() if text] or [(TORSO, torso(question))]
        yield ways[int(hash_place(seed, row["id"], "broken") * len(ways))]
