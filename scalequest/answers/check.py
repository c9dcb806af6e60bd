"""Is a response right? By domain: mathematics compares the final answer, code runs the problem's tests.

What both have in common: the *final answer* of a response (a formula or number; a program), the paper's presence rule (is there
one?), and an outcome of answers.py: ``right``, ``wrong``, ``no_answer``, ``timeout``.
"""

from collections.abc import Sequence

from scalequest.answers import sandbox
from scalequest.answers.code import asserts, fenced_code, same_program, with_solution
from scalequest.answers.compare import compare, normalise
from scalequest.answers.find import announced_answer
from scalequest.outcomes import MISSING, RIGHT, TIMEOUT, WRONG

OUTCOME = {sandbox.PASSED: RIGHT, sandbox.TIMEOUT: TIMEOUT}


def final_answer(domain: str, response: str) -> str | None:
    """What the presence rule finds: a box or an announced answer; a Python block that compiles. None without one."""
    return fenced_code(response) if domain == "code" else announced_answer(response)


def same_answer(domain: str, first: str, second: str) -> bool:
    """Whether two final answers are one, by their spelling alone."""
    return same_program(first, second) if domain == "code" else normalise(first) == normalise(second)


def check(domain: str, answers: Sequence[str], found: Sequence[str | None]) -> list[str]:
    """Outcomes of N final answers against the N problems' answers (for code: their test programs), in order."""
    return run_tests(answers, found) if domain == "code" else compare(answers, found)


def run_tests(tests: Sequence[str], programs: Sequence[str | None]) -> list[str]:
    """Outcomes of N programs, each under its own test program; equal pairs are run once."""
    filled = [None if p is None else with_solution(t, p) for t, p in zip(tests, programs, strict=True)]
    distinct = list(dict.fromkeys(source for source in filled if source is not None))
    verdicts = dict(zip(distinct, sandbox.run_programs(distinct), strict=True)) if distinct else {}
    return [MISSING if source is None else OUTCOME.get(verdicts[source].outcome, WRONG) for source in filled]


def with_examples(question: str, program: str) -> str:
    """A candidate's program, then the assertions that its question states: what it must get through by itself."""
    return "\n".join([program, *asserts(question)])
