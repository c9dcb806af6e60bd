"""Rows in the form in which the hub has HumanEval+ and MBPP+."""

import json
from typing import Any

import pytest

from scalequest.answers.code import fenced_code, parts_of
from scalequest.answers.sandbox import FAILED, PASSED, Program, run_programs
from scalequest.problems.evalplus import plus_tests
from scalequest.problems.known_datasets import canonical

# What both sets have before a task's inputs.
HEAD = """

import numpy as np

def is_floats(x) -> bool:
    # check if it is float; List[float]; Tuple[float]
    if isinstance(x, float):
        return True
    if isinstance(x, (list, tuple)):
        return all(isinstance(i, float) for i in x)
    if isinstance(x, np.ndarray):
        return x.dtype == np.float64 or x.dtype == np.float32
    return False


def assertion(out, exp, atol):
    exact_match = out == exp

    if atol == 0 and is_floats(exp):
        atol = 1e-6
    if not exact_match and atol != 0:
        assert np.allclose(out, exp, rtol=1e-07, atol=atol)
    else:
        assert exact_match

"""


def humaneval_plus(name: str, inputs: list[Any], results: list[Any], call: str = "assertion(candidate(*inp), exp, 0)") -> dict[str, Any]:  # fmt: skip
    check = f"def check(candidate):\n    inputs = {inputs!r}\n    results = {results!r}\n    for i, (inp, exp) in enumerate(zip(inputs, results)):\n        {call}\n"
    return {
        "task_id": "HumanEval/0", "prompt": f"def {name}(x):\n    \"\"\"Halve every number.\"\"\"\n", "entry_point": name,
        "canonical_solution": "\n    return [n / 2 for n in x]\n\n", "test": HEAD + check,
    }  # fmt: skip


def outcomes(row: dict[str, Any], *solutions: str) -> list[str]:
    answer = canonical(row)["answer"]
    verdicts = run_programs([Program(solution, *parts_of(answer)) for solution in solutions])
    assert all(verdict.separated for verdict in verdicts)  # the solution's process never sees the tests
    return [verdict.outcome for verdict in verdicts]


def test_humaneval_plus_is_checked_on_all_inputs_without_numpy():
    inputs = [[[n, n + 1]] for n in range(300)]
    row = humaneval_plus("halves", inputs, [[n / 2, (n + 1) / 2] for n in range(300)])
    reference = fenced_code(canonical(row)["solution"]) or ""
    nearly = "def halves(x): return [n / 2 + 1e-9 for n in x]"
    late = "def halves(x): return [n / 2 for n in x] if x[0] < 299 else [0.0, 0.0]"  # wrong on the last input alone
    other = [
        "def halves(x): return [n / 2 + 1e-3 for n in x]",
        "def halves(x): return []",
        "def halves(x): return None",
    ]
    assert outcomes(row, reference, nearly) == [PASSED] * 2
    assert outcomes(row, late, *other) == [FAILED] * 4


def test_the_question_of_humaneval_plus_is_that_of_humaneval():
    row = humaneval_plus("halves", [[[1]]], [[0.5]])
    assert canonical(row)["question"] == canonical(row | {"test": "def check(candidate):\n    pass\n"})["question"]


def test_the_root_of_humaneval_32_can_be_found():
    helper = "import math\n\n\ndef _poly(xs, x):\n    return sum(c * math.pow(x, i) for i, c in enumerate(xs))\n"
    row = humaneval_plus(
        "find_zero", [[[-2, 1]], [[6, -3]]], [2.0, 2.0], "assert _poly(*candidate(*inp), inp) <= 0.0001"
    )
    row["test"] = helper + row["test"]
    # As published, `*` before a float raises for every solution. Far below zero is no root.
    assert outcomes(row, "def find_zero(xs): return -xs[0] / xs[1]", "def find_zero(xs): return -100.0 * xs[1]") == [PASSED, FAILED]  # fmt: skip


MBPP = {
    "task_id": 2, "prompt": "Write a function to find the shared elements from the given two lists.",
    "code": "def similar_elements(test_tup1, test_tup2):\n  return tuple(set(test_tup1) & set(test_tup2))\n", "source_file": "x.ipynb",
    "test_imports": [], "test_list": ["assert set(similar_elements((3, 4, 5, 6),(5, 7, 4, 10))) == set((4, 5))"],
    "test": f"import numpy as np\nfrom math import inf\n{HEAD.replace('import numpy as np', '').replace('exact_match = out == exp', 'exact_match = set(out) == set(exp)')}"
            "inputs = [[(3, 4), (4, 5)], [(1, 2), (3, inf)]]\nresults = [(4,), ()]\n"
            "for i, (inp, exp) in enumerate(zip(inputs, results)):\n    assertion(similar_elements(*inp), exp, 0)\n",
}  # fmt: skip


@pytest.mark.parametrize("as_text", [False, True], ids=["lists", "lists_as_text"])
def test_mbpp_plus_shows_the_few_tests_and_runs_the_many(as_text: bool):
    row = MBPP | ({key: repr(MBPP[key]) for key in ("test_list", "test_imports")} if as_text else {})
    problem = canonical(row)
    assert problem["question"].endswith("Your code should pass these tests:\nassert set(similar_elements((3, 4, 5, 6),(5, 7, 4, 10))) == set((4, 5))")  # fmt: skip
    few = "def similar_elements(a, b): return (4, 5) if len(a) == 4 else (4,)"  # passes what is shown
    assert outcomes(row, fenced_code(problem["solution"]) or "", few) == [PASSED, FAILED]


def test_an_assertion_that_asserts_nothing_is_completed():
    # As in Mbpp/737, 787 and 794: every solution that returns would pass.
    head = "import numpy as np\ndef assertion(out, exp, atol):\n    exact_match = exp == (out is not None)\n\n"
    row = MBPP | {
        "test": f"{head}for inp, exp in [(['ab'], True), (['b'], False)]:\n    assertion(check_str(*inp), exp, 0)\n"
    }
    right = "import re\ndef check_str(s): return re.match('a', s)"
    assert outcomes(row, right, "def check_str(s): return 1", "def check_str(s): return None") == [PASSED, FAILED, FAILED]  # fmt: skip
    assert plus_tests(row["test"]).count("assert exact_match") == 1
    assert plus_tests(HEAD).count("assert exact_match") == 1  # nothing is added where there is one


def test_results_of_any_length_can_be_read():
    digits = "18" + "0" * 9_998
    row = humaneval_plus("starts_one_ends", [[10_000]], [0])
    row["test"] = row["test"].replace("results = [0]", f"results = [{digits}]; text = '{digits}'")
    answer = canonical(row)["answer"]
    assert f"text = '{digits}'" in answer  # a text keeps its digits
    assert outcomes(row, "def starts_one_ends(n): return 18 * 10 ** (n - 2)", "def starts_one_ends(n): return 18") == [PASSED, FAILED]  # fmt: skip


def test_numpys_place_compares_as_numpy_does():
    numpy = pytest.importorskip("numpy")
    space: dict[str, Any] = {}
    exec(plus_tests("import numpy as np\n"), space)
    inf, nan = float("inf"), float("nan")
    pairs = [(1.0, 1.0 + 5e-7), (1.0, 1.0 + 5e-6), (0.0, 9e-7), (inf, inf), (inf, -inf), (inf, 1.0), (1.0, inf), (nan, nan), (1e9, 1e9 + 50), (True, 1.0),
             ([1.0, 2.0], (1.0, 2.0)), ([[1.0], [2.0]], [[1.0], [2.1]]), (1 + 2j, 1 + 2j), (-1e300, 1e300)]  # fmt: skip
    for out, exp in pairs:
        assert space["np"].allclose(out, exp, rtol=1e-07, atol=1e-6) == bool(numpy.allclose(out, exp, rtol=1e-07, atol=1e-6)), json.dumps([str(out), str(exp)])  # fmt: skip
    with pytest.raises(TypeError):
        space["np"].allclose("a", 1.0)
