"""Is a response right? By domain: mathematics compares the final answer, code runs the problem's tests.

Both share the *final answer* of a response (a formula or number; a program), the paper's presence rule (is there one?), and the
outcomes ``right``, ``wrong``, ``no_answer``, ``timeout``.
"""

from collections.abc import Sequence

from scalequest.answers import sandbox
from scalequest.answers.code import asserts, fenced_code, parts_of, same_program
from scalequest.answers.compare import compare
from scalequest.answers.find import announced_answer
from scalequest.outcomes import MISSING, RIGHT, TIMEOUT, WRONG

OUTCOME = {sandbox.PASSED: RIGHT, sandbox.TIMEOUT: TIMEOUT}


def final_answer(domain: str, response: str) -> str | None:
    """What the presence rule finds: a box or an announced answer; a Python block that compiles. None without one."""
    return fenced_code(response) if domain == "code" else announced_answer(response)


def same_answers(domain: str, pairs: Sequence[tuple[str, str]]) -> list[bool]:
    """Whether the two final answers of each pair are one: the same mathematics, or programs that differ in layout alone."""
    if domain == "code":
        return [same_program(first, second) for first, second in pairs]
    return [outcome == RIGHT for outcome in compare([first for first, _ in pairs], [second for _, second in pairs])]


def check(domain: str, answers: Sequence[str], found: Sequence[str | None]) -> list[str]:
    """Outcomes of N final answers against the N problems' answers (for code: their test programs), in order."""
    return run_tests(answers, found) if domain == "code" else compare(answers, found)


def run_tests(tests: Sequence[str], programs: Sequence[str | None]) -> list[str]:
    """Outcomes of N programs, each under its own test program; equal pairs run once."""
    filled = [None if p is None else sandbox.Program(p, *parts_of(t)) for t, p in zip(tests, programs, strict=True)]
    distinct = list(dict.fromkeys(program for program in filled if program is not None))
    verdicts = dict(zip(distinct, sandbox.run_programs(distinct), strict=True)) if distinct else {}
    return [MISSING if program is None else OUTCOME.get(verdicts[program].outcome, WRONG) for program in filled]


def with_examples(question: str, program: str) -> sandbox.Program:
    """A candidate's program, tested by the assertions that its question states."""
    return sandbox.Program(program, tests="\n".join(asserts(question)))
