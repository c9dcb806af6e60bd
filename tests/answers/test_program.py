"""What programs that a real model writes come to: the outcome's name, and the answer as each score reads it."""

from typing import Any
from unittest.mock import Mock

import pytest

from scalequest.answers import program, sandbox
from scalequest.answers.check import check, final_answer, same_answers
from scalequest.answers.program import Reading, read_program, read_programs
from scalequest.domains import FUNCTION, PROGRAMS, kind_of_answers, wording
from scalequest.domains.maths import SOLVED_PROGRAMS
from scalequest.errors import UserError
from scalequest.outcomes import PROGRAM_OUTCOMES
from tests.answers.sandbox_modes import GRANTED, refuse_namespaces

DEF = f"def {FUNCTION}():\n"


def block(code: str, language: str = "python") -> str:
    return f"```{language}\n{code}\n```"


def body(*lines: str) -> str:
    """A block with the function that is asked for."""
    return block(DEF + "\n".join(f"    {line}" for line in lines))


# Response, outcome, and its answer: stated (training), strict, flexible. 6 packs of 7 are 42.
CASES: dict[str, tuple[str, str, str | None, str | None, str | None]] = {
    "as_asked": (body("packs = 6", "return packs * 7"), "number", "42", "42", "42"),
    "typed": (block(f"def {FUNCTION}() -> int:\n    return 42"), "number", "42", "42", "42"),
    "docstring_and_comments": (body('"""Six packs of 7."""', "# seven each", "return 6 * 7"), "number", "42", "42", "42"),
    "sentences_around": ("Here it is:\n\n" + body("return 42") + "\n\nIt returns 43 - 1.", "number", "42", "42", "42"),
    "no_language": (block(DEF + "    return 42", ""), "number", "42", "42", "42"),
    "imports": (block("import math\nfrom fractions import Fraction\n" + DEF + "    return math.ceil(41.5)"), "number", "42", "42", "42"),
    "float_of_a_whole_number": (body("return 84 / 2"), "number", "42", "42", "42"),
    "binary_rounding": (body("return 0.1 + 0.2"), "number", "0.3", "0.3", "0.3"),
    "thirds": (body("return 100 / 3"), "number", "33.3333333333", "33.3333333333", "33.3333333333"),
    "fraction": (body("from fractions import Fraction", "return Fraction(2, 4)"), "number", "1/2", "1/2", "1/2"),
    "decimal": (body("from decimal import Decimal", "return Decimal('18.50')"), "number", "18.5", "18.5", "18.5"),
    "negative": (body("return 3 - 10"), "number", "-7", "-7", "-7"),
    "rounded": (body("return round(42.0049, 2)"), "number", "42", "42", "42"),
    "helper_function": (block("def double(n):\n    return 2 * n\n\n" + DEF + "    return double(21)"), "number", "42", "42", "42"),
    "two_functions": (block("def check():\n    return 1\n\n" + DEF + "    return 42\n\ndef other():\n    return 2"), "number", "42", "42", "42"),
    "prints_and_returns": (body("print('packs', 6)", "return 42") + "\n", "number", "42", "42", "42"),
    "calls_itself_below": (block(DEF + f"    return 42\n\nprint({FUNCTION}())"), "number", "42", "42", "42"),
    "main_guard": (block(DEF + f"    return 42\n\nif __name__ == '__main__':\n    x = int(input())\n    print({FUNCTION}())"), "number", "42", "42", "42"),
    "recursion": (block("def f(n):\n    return n and 1 + f(n - 1)\n\n" + DEF + "    return f(42)"), "number", "42", "42", "42"),
    "defaults": (block(f"def {FUNCTION}(packs=6, each=7):\n    return packs * each"), "number", "42", "42", "42"),
    "another_name": (block("def total_stickers():\n    return 42"), "other_function", "42", None, "42"),
    "class_solution": (block("class Solution:\n    def solve(self):\n        return 42"), "other_function", "42", None, "42"),
    "print_only": (body("total = 6 * 7", "print(total)"), "printed", None, None, "42"),
    "script": (block("total = 6 * 7\nprint('The answer is', total)"), "printed", None, None, "42"),
    "arguments": (block(f"def {FUNCTION}(packs, each):\n    return packs * each\n\nprint({FUNCTION}(6, 7))"), "printed", None, None, "42"),
    "arguments_not_given": (block(f"def {FUNCTION}(packs, each):\n    return packs * each"), "no_function", None, None, None),
    "text_of_a_number": (body('return "42"'), "text", None, None, "42"),
    "text_with_units": (body("n = 6 * 7", 'return f"{n} stickers"'), "text", None, None, "42"),
    "list": (body("return [40, 2]"), "no_value", None, None, None),
    "none": (body("total = 42"), "no_value", None, None, None),
    "truth_value": (body("return 42 > 41"), "no_value", None, None, None),
    "infinite": (body("return float('inf')"), "no_value", None, None, None),
    "input": (body("n = int(input('How many? '))", "return n * 7"), "raised", None, None, None),
    "division_by_zero": (body("return 42 / 0"), "raised", None, None, None),
    "no_such_package": (block("import sympy\n" + DEF + "    return 42"), "raised", None, None, None),
    "exit": (body("import sys", "sys.exit()"), "exited", None, None, None),
    "hard_exit": (body("import os", "os._exit(0)"), "exited", None, None, None),
    "endless_loop": (body("while True:", "    pass"), "timeout", None, None, None),
    "endless_print": (body("while True:", "    print(42)"), "timeout", None, None, None),
    "too_deep": (body(f"return {FUNCTION}()"), "raised", None, None, None),
    "too_much_memory": (body("return len([0] * 10 ** 12)"), "raised", None, None, None),
    "syntax_error": (body("return 42 +"), "no_program", None, None, None),
    "no_code": ("The answer is 42.", "no_program", None, None, None),
    "empty": ("", "no_program", None, None, None),
    "bare_code": (DEF + "    return 42", "no_program", None, None, "42"),
    "cut_block": (f"```python\n{DEF}    return 42\n", "no_program", None, None, "42"),
}  # fmt: skip


@pytest.fixture(scope="module")
def readings() -> dict[str, Reading]:
    program._results.clear()
    found = read_programs([case[0] for case in CASES.values()])
    return dict(zip(CASES, found, strict=True))


@pytest.mark.parametrize("name", CASES)
def test_a_program_comes_to_an_outcome_and_an_answer(readings: dict[str, Reading], name: str):
    _, outcome, stated, strict, flexible = CASES[name]
    assert readings[name] == Reading(outcome, stated, strict, flexible)
    assert outcome in PROGRAM_OUTCOMES


def test_the_programs_of_the_last_call_are_neither_parsed_nor_run_again(monkeypatch: pytest.MonkeyPatch):
    ran: list[str] = []
    searched = Mock(side_effect=program.fenced_code)

    def compute(programs: Any, function: str) -> Any:
        ran.extend(programs)
        return [sandbox.Result("number", "1") for _ in programs]

    monkeypatch.setattr(program.sandbox, "compute_answers", compute)
    monkeypatch.setattr(program, "fenced_code", searched)
    program._programs.clear()
    program._results.clear()
    one, two = body("return 1"), body("return 2")
    read_programs([one, two, one])
    assert len(ran) == 2  # each program once
    assert read_program(one).strict == final_answer(PROGRAMS, two) == "1"
    assert len(ran) == searched.call_count == 2
    read_programs([one])
    assert len(program._results) == len(program._programs) == 1  # of the last call alone, so that memory does not grow
    program._results.clear()


def test_computed_numbers_are_compared_as_mathematics():
    assert same_answers(PROGRAMS, [("42", "42.0"), ("0.5", "1/2"), ("42", "43")]) == [True, True, False]
    assert check(PROGRAMS, ["1,000", "\\frac{1}{4}", "7"], ["1000", "0.25", None]) == ["right", "right", "no_answer"]


def test_mathematics_alone_is_asked_for_as_programs():
    assert kind_of_answers(wording("maths"), "program") == PROGRAMS
    assert kind_of_answers(wording("maths"), "short") == "maths"
    assert kind_of_answers(wording("code"), "worked") == "code"


def test_the_programs_that_a_base_is_shown_are_right():
    # 12 + 15, 40 - 6, 240 / 20, 2 * 36 / 3, 9 * 30 - 70, 90 / 3, (18 - 4) / 2 + 4, (28 - 4) * 6.
    found = read_programs([response for _, response in SOLVED_PROGRAMS])
    assert [reading.strict for reading in found] == ["27", "34", "12", "24", "200", "30", "11", "144"]


# ------------------------------------------------------------------------------------------------------------- batches


def test_results_come_in_order_from_several_keepers():
    programs = [f"def f():\n    return {k}" for k in range(7)]
    found = sandbox.compute_answers(programs, "f", workers=3)
    assert [result.value for result in found] == [str(k) for k in range(7)]


def test_a_program_leaves_nothing_for_the_next():
    write = "import os\ndef f():\n    os.makedirs('a/b')\n    open('a/b/x', 'w').write('1')\n    return 1"
    change = "import math, builtins\ndef f():\n    math.pi = 3\n    builtins.len = None\n    return 1"
    look = "import os, math\ndef f():\n    return len(os.listdir('.')) + math.pi"
    found = sandbox.compute_answers([write, change, look], "f", workers=1)
    assert [result.value for result in found] == ["1", "1", "3.14159265359"]


def test_a_keeper_that_dies_takes_one_program_with_it(monkeypatch: pytest.MonkeyPatch):
    # The first process of the sandbox dies when it comes to the second program, as by the machine's lack of memory.
    dies = (
        "import scalequest.answers.sandbox_child as child, os; tell = child.tell; "
        "child.tell = lambda report, **facts: os._exit(0) if facts.get('value') == '2' else tell(report, **facts); "
    )
    start = sandbox.START.replace("del sys.path[0]", dies + "del sys.path[0]")
    monkeypatch.setattr(sandbox, "PYTHON", (*sandbox.PYTHON[:-2], start, sandbox.PYTHON[-1]))
    found = sandbox.compute_answers([f"def f():\n    return {k}" for k in (1, 2, 3)], "f", workers=1)
    assert [(result.outcome, result.value) for result in found] == [("number", "1"), ("killed", ""), ("number", "3")]


# What a program may not do, by what it tries; without namespaces and without Landlock files could be read.
REFUSED = {
    "kill": "import os\ndef f():\n    os.kill(os.getppid(), 9)\n    return 1",
    "fork": "import os\ndef f():\n    return os.fork()",
    "files": "def f():\n    return len(open('/etc/passwd').read())",
    "network": "import socket\ndef f():\n    return socket.socket().fileno()",
}


@pytest.mark.parametrize("mode", ["namespaces", "open"])
def test_programs_that_run_one_by_one_are_confined_as_others(mode: str, monkeypatch: pytest.MonkeyPatch):
    if mode == "open":
        refuse_namespaces(monkeypatch)
        with pytest.raises(UserError, match="programs that a model wrote were not run"):
            sandbox.compute_answers(["def f():\n    return 1"], "f")
        monkeypatch.setattr(sandbox._Consent, "open", True)
    elif not GRANTED:
        pytest.skip("this kernel grants no namespaces")
    found = sandbox.compute_answers([*REFUSED.values(), "def f():\n    return 42"], "f", workers=1)
    assert [result.outcome for result in found] == ["raised"] * len(REFUSED) + ["number"]
