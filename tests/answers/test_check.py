import pytest

from scalequest.answers.check import check, final_answer, run_tests, same_answers, with_examples
from scalequest.answers.code import SOLUTION_LINE
from scalequest.answers.sandbox import FAILED, PASSED, run_program
from scalequest.outcomes import MISSING, RIGHT, TIMEOUT, WRONG

TESTS = f"{SOLUTION_LINE}\nassert double(2) == 4"
RIGHT_CODE, WRONG_CODE = "def double(x): return 2 * x", "def double(x): return x"


@pytest.mark.parametrize(
    ("domain", "text", "answer"),
    [
        pytest.param("maths", "So it is \\boxed{7}.", "7", id="a_box"),
        pytest.param("maths", f"```python\n{RIGHT_CODE}\n```", None, id="code_is_no_mathematical_answer"),
        pytest.param("code", f"```python\n{RIGHT_CODE}\n```", RIGHT_CODE + "\n", id="a_block_that_compiles"),
        pytest.param("code", "```python\ndef double(x: return\n```", None, id="a_block_that_does_not"),
        pytest.param("code", "So it is \\boxed{7}.", None, id="a_box_is_no_program"),
    ],
)
def test_the_presence_rule_goes_by_the_domain(domain: str, text: str, answer: str | None):
    assert final_answer(domain, text) == answer


def test_mathematics_is_compared_and_programs_are_run():
    assert check("maths", ["72", "1"], ["72.0", None]) == [RIGHT, MISSING]
    found = [RIGHT_CODE, WRONG_CODE, None, RIGHT_CODE, "import os\nos._exit(0)"]
    assert check("code", [TESTS] * 5, found) == [RIGHT, WRONG, MISSING, RIGHT, WRONG]


def test_a_program_that_does_not_end_is_a_timeout():
    assert run_tests([TESTS], ["while True: pass"]) == [TIMEOUT]


def test_two_answers_are_one_by_mathematics_or_by_syntax():
    assert same_answers("maths", [("1,000", "1000"), ("0.5", "1/2"), ("no", "on")]) == [True, True, False]
    assert same_answers("code", [("x = 1 # one", "x=1"), ("1,000", "1000")]) == [True, False]


@pytest.mark.parametrize(
    ("tests", "program", "outcome"),
    [
        pytest.param(
            f"{SOLUTION_LINE}\nassert abs(f(3) - 9) < 1e-6", "abs = lambda x: 0\ndef f(x): return 0", WRONG, id="abs"
        ),
        pytest.param(
            f"{SOLUTION_LINE}\nassert all([f(3) == 9])", "def all(x): return True\ndef f(x): return 0", WRONG, id="all"
        ),
        pytest.param(
            f"{SOLUTION_LINE}\nassert len(f(3)) == 1", "import builtins\nbuiltins.len = lambda x: 1\ndef f(x): return []", WRONG,
            id="the_module_of_builtins",
        ),
        pytest.param(
            f"import math\n{SOLUTION_LINE}\nassert math.isclose(f(3), 9)", "import math\nmath.isclose = lambda *x: True\ndef f(x): return 0",
            WRONG, id="a_module_of_the_tests",
        ),
        pytest.param(
            f"{SOLUTION_LINE}\nassert f(3) == 9", "class AssertionError(Exception): pass\ndef f(x): return 0", WRONG, id="the_exception"
        ),
        pytest.param(
            f"def f(x):\n    'The stub.'\n{SOLUTION_LINE}\ndef check(candidate):\n    assert abs(candidate(3) - 9) < 1e-6\ncheck(f)",
            "abs = lambda x: 0\ndef f(x): return 0", WRONG, id="abs_under_a_stub",
        ),
        pytest.param(f"{SOLUTION_LINE}\nassert f(-3) == 3", "def abs(x): return -x\ndef f(x): return abs(x)", RIGHT, id="its_own_abs"),
        pytest.param(f"{SOLUTION_LINE}\nroot = lambda x: x\nassert f(1) == 1", "def f(x): return root(x)", RIGHT, id="setup_after_the_solution"),
        pytest.param(f"{SOLUTION_LINE}\nassert sum(10, 15) == 6", "def sum(a, b): return 6", RIGHT, id="a_function_that_is_asked_for"),
        pytest.param(f"{SOLUTION_LINE}\nassert sum([1], 2) == 3", "def total(): pass", RIGHT, id="the_builtin_itself"),
        pytest.param(
            f"import math\n{SOLUTION_LINE}\nassert f(4) == 2", "from __future__ import annotations\ndef f(x: Any): return math.sqrt(x)",
            RIGHT, id="future_import",
        ),
        pytest.param(
            f"import math\n{SOLUTION_LINE}\nassert math.isclose(f(3), 9)", "class math:\n    isclose = lambda *x: True\ndef f(x): return 0", WRONG,
            id="a_class_in_place_of_a_module_of_the_setup",
        ),
        pytest.param(
            f"{SOLUTION_LINE}\nimport math\nassert math.isclose(f(3), 9)", "import math\nmath.isclose = lambda *x: True\ndef f(x): return 0", WRONG,
            id="a_module_that_the_tests_import",
        ),
        pytest.param(
            f"def poly(xs, x): return sum(c * x**i for i, c in enumerate(xs))\ndef find_zero(xs):\n    'Find x.'\n{SOLUTION_LINE}\n"
            "def check(candidate):\n    assert abs(poly([-2, 1], candidate([-2, 1]))) < 1e-4\ncheck(find_zero)",
            "def poly(xs, x): return 0\ndef find_zero(xs): return 99", WRONG, id="a_helper_of_the_setup",
        ),
        pytest.param(
            f"from math import isclose as near\nEPS = 1e-6\n{SOLUTION_LINE}\nassert near(f(3), 9, abs_tol=EPS)", "EPS = 1e9\nnear = lambda *x, **y: True\ndef f(x): return 0",
            WRONG, id="an_imported_name_and_a_constant_of_the_setup",
        ),
        pytest.param(
            f"def encode(x): return x + 1\ndef decode(x):\n    'Undo encode.'\n{SOLUTION_LINE}\nassert decode(encode(3)) == 3",
            "def encode(x): return x\ndef decode(x): return x - 1", RIGHT, id="its_own_copy_of_a_helper_does_not_matter",
        ),
        pytest.param(
            f"def double(x): return x * 3\n{SOLUTION_LINE}\nassert double(2) == 4", "def double(x): return x * 2", RIGHT, id="a_function_to_be_corrected",
        ),
        pytest.param(
            f"def f(x):\n    'Square.'\n{SOLUTION_LINE}\nassert all([f(3) == 9])", "def all(x): return True", WRONG, id="a_builtin_without_the_function",
        ),
        pytest.param(f"{SOLUTION_LINE}\nassert f(3) == 9", "class E:\n    __eq__ = lambda *x: True\ndef f(x): return E()", WRONG, id="equal_to_everything"),
        pytest.param(f"{SOLUTION_LINE}\nassert f(1) == 2", "def f(x): return 0\nimport sys\nsys.exit(0)", WRONG, id="exit"),
    ],
)  # fmt: skip
def test_tests_see_python_as_it_is(tests: str, program: str, outcome: str):
    assert run_tests([tests], [program]) == [outcome]


def test_a_candidate_is_run_with_the_examples_of_its_question():
    question = "Write double.\nassert double(2) == 4"
    assert run_program(with_examples(question, RIGHT_CODE)).outcome == PASSED
    assert run_program(with_examples(question, WRONG_CODE)).outcome == FAILED
    assert run_program(with_examples("Write double.", WRONG_CODE)).outcome == PASSED
