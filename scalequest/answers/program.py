"""Programs as answers to word problems (``respond.form: program``): the number that one returns is the final answer.

After TinyGSM (Liu et al. 2023, arXiv 2312.09241), whose solutions are functions ``simple_math_problem()`` without arguments. The
sandbox runs them; many at once cost a tenth of each alone, so whoever has many responses calls ``read_programs`` first.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from scalequest.answers import sandbox
from scalequest.answers.code import any_code, fenced_code
from scalequest.answers.find import flexible_answer
from scalequest.answers.sandbox_results import NUMBER, OTHER_FUNCTION, PRINTED, TEXT
from scalequest.domains import FUNCTION
from scalequest.outcomes import NO_PROGRAM

# Outcomes whose value is a number, and those whose value is a text that may hold one.
RETURNED, SAID = (NUMBER, OTHER_FUNCTION), (TEXT, PRINTED)


@dataclass(frozen=True)
class Reading:
    """What a response's program came to.

    Attributes:
        outcome: one of ``outcomes.PROGRAM_OUTCOMES``.
        stated: the returned number, of a closed Python block with a function of any name; None without one.
        strict: the same, if the function has the name that was asked for.
        flexible: the number that is returned in any form, or printed, by code that is put in any form.
    """

    outcome: str
    stated: str | None = None
    strict: str | None = None
    flexible: str | None = None


# The program in the form asked for and the one in any form; None without one.
Programs = tuple[str | None, str | None]

# Of the last call of read_programs: the programs by response, and their results by source.
_programs: dict[str, Programs] = {}
_results: dict[str, sandbox.Result] = {}


def _programs_in(response: str) -> Programs:
    """The programs of a response, whose search parses Python; looked up where they are known."""
    if response in _programs:
        return _programs[response]
    fenced = fenced_code(response)
    return fenced, fenced or any_code(response)


def read_programs(responses: Sequence[str]) -> list[Reading]:
    """Run the programs of N responses, each program once; their readings in order.

    Programs and results are remembered until the next call, so that asking for one of them parses and runs nothing.
    """
    programs = {response: _programs_in(response) for response in dict.fromkeys(responses)}
    wanted = dict.fromkeys(program for pair in programs.values() for program in pair if program)
    new = [program for program in wanted if program not in _results]
    found = dict(zip(new, sandbox.compute_answers(new, FUNCTION), strict=True)) if new else {}
    known = {program: _results[program] if program in _results else found[program] for program in wanted}
    _programs.clear()
    _programs.update(programs)
    _results.clear()
    _results.update(known)
    return [_reading(*programs[response]) for response in responses]


def read_program(response: str) -> Reading:
    """The reading of one response."""
    pair = _programs[response] = _programs_in(response)
    for program in pair:
        if program and program not in _results:
            [_results[program]] = sandbox.compute_answers([program], FUNCTION)
    return _reading(*pair)


def _reading(fenced: str | None, loose: str | None) -> Reading:
    """The reading of a response with these programs, whose results are known."""
    result = _results[loose] if loose else None
    flexible = None
    if result and result.outcome in RETURNED:
        flexible = result.value
    elif result and result.outcome in SAID:
        flexible = flexible_answer(result.value)
    if fenced is None:
        return Reading(NO_PROGRAM, flexible=flexible)
    result = _results[fenced]
    stated = result.value if result.outcome in RETURNED else None
    return Reading(result.outcome, stated, stated if result.outcome == NUMBER else None, flexible)


def stated_value(response: str) -> str | None:
    """The number that a response's program returns; None without one."""
    return read_program(response).stated


def strict_value(response: str) -> str | None:
    """The number that the function of the name asked for returns."""
    return read_program(response).strict


def flexible_value(response: str) -> str | None:
    """The number that a response's code returns or prints, whatever its form."""
    return read_program(response).flexible
