import pytest

from scalequest.answers.check import check, final_answer, run_tests, same_answer, with_examples
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


def test_spelling_goes_by_the_domain():
    assert same_answer("maths", "1,000", "1000")
    assert same_answer("code", "x = 1 # one", "x=1")
    assert not same_answer("code", "1,000", "1000")


def test_a_candidate_is_run_with_the_examples_of_its_question():
    question = "Write double.\nassert double(2) == 4"
    assert run_program(with_examples(question, RIGHT_CODE)).outcome == PASSED
    assert run_program(with_examples(question, WRONG_CODE)).outcome == FAILED
    assert run_program(with_examples("Write double.", WRONG_CODE)).outcome == PASSED
