"""Is a response right? By the kind of answer: mathematics is compared, programs run the problem's tests, puzzles have verifiers.

A domain names its kind (``ANSWERS`` in ``scalequest/domains``). Mathematics that is asked for as
programs has a kind of its own. All kinds share the *final answer* of a response (a formula or
number; a program; words), the paper's presence rule (is there one?), and the outcomes ``right``,
``wrong``, ``no_answer``, ``timeout``.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from scalequest.answers import puzzle, sandbox
from scalequest.answers.code import any_code, asserts, fenced_code, is_test_program, parts_of, same_program
from scalequest.answers.compare import compare
from scalequest.answers.find import announced_answer, flexible_answer, strict_answer
from scalequest.answers.program import flexible_value, stated_value, strict_value
from scalequest.answers.words import closing_answer, stated_answer
from scalequest.domains import PROGRAMS
from scalequest.outcomes import MISSING, RIGHT, TIMEOUT, WRONG
from scalequest.problems.puzzles import puzzle_of

OUTCOME = {sandbox.PASSED: RIGHT, sandbox.TIMEOUT: TIMEOUT}

Reader = Callable[[str], str | None]


def final_answer(kind: str, response: str) -> str | None:
    """What the presence rule finds: a box or an announced answer; a Python block that compiles. None without one."""
    return KINDS[kind].stated(response)


def same_answers(kind: str, pairs: Sequence[tuple[str, str]]) -> list[bool]:
    """Whether the two final answers of each pair are one: the same mathematics, the same words, the
    same program but for its layout.
    """
    return KINDS[kind].same(pairs)


def check(kind: str, answers: Sequence[str], found: Sequence[str | None]) -> list[str]:
    """Outcomes of N final answers against the N problems' answers (for code: their test programs), in order."""
    return KINDS[kind].outcomes(answers, found)


def kind_of(answer: str) -> str | None:
    """The kind that a problem's answer is of by its form; None for a plain answer, which says nothing."""
    if is_test_program(answer):
        return "code"
    return "puzzle" if puzzle_of(answer) else None


# ------------------------------------------------------------------------------------------------------------ programs


def run_tests(tests: Sequence[str], programs: Sequence[str | None]) -> list[str]:
    """Outcomes of N programs, each under its own test program; equal pairs run once."""
    filled = [None if p is None else sandbox.Program(p, *parts_of(t)) for t, p in zip(tests, programs, strict=True)]
    distinct = list(dict.fromkeys(program for program in filled if program is not None))
    verdicts = dict(zip(distinct, sandbox.run_programs(distinct), strict=True)) if distinct else {}
    return [MISSING if program is None else OUTCOME.get(verdicts[program].outcome, WRONG) for program in filled]


def with_examples(question: str, program: str) -> sandbox.Program:
    """A candidate's program, tested by the assertions that its question states."""
    return sandbox.Program(program, tests="\n".join(asserts(question)))


# --------------------------------------------------------------------------------------------------------------- kinds


def _same_mathematics(pairs: Sequence[tuple[str, str]]) -> list[bool]:
    return [outcome == RIGHT for outcome in compare([first for first, _ in pairs], [second for _, second in pairs])]


def _same_programs(pairs: Sequence[tuple[str, str]]) -> list[bool]:
    return [same_program(first, second) for first, second in pairs]


@dataclass(frozen=True)
class Kind:
    """How one kind of answer is found in a response, and compared.

    Attributes:
        stated: the final answer by the presence rule.
        strict: the final answer in the form that the prompt asks for.
        flexible: the final answer in any form.
        same: whether the two final answers of each pair are one.
        outcomes: of N final answers against N problems' answers.
    """

    stated: Reader
    strict: Reader
    flexible: Reader
    same: Callable[[Sequence[tuple[str, str]]], list[bool]]
    outcomes: Callable[[Sequence[str], Sequence[str | None]], list[str]]


# By the name that a domain gives as ANSWERS. A puzzle among mathematics is decided by its verifier all the same.
KINDS = {
    "maths": Kind(announced_answer, strict_answer, flexible_answer, _same_mathematics, puzzle.check),
    "code": Kind(fenced_code, fenced_code, any_code, _same_programs, run_tests),
    PROGRAMS: Kind(stated_value, strict_value, flexible_value, _same_mathematics, puzzle.check),
    "puzzle": Kind(stated_answer, strict_answer, closing_answer, puzzle.same_words, puzzle.check),
}
