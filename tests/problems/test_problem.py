import pytest

from scalequest.answers.arithmetic import Arithmetic, check_arithmetic
from scalequest.answers.check import final_answer
from scalequest.problems.problem import worked_solution


@pytest.mark.parametrize(
    ("solution", "answer", "expected"),
    [
        pytest.param(
            "She sold 48/2 = <<48/2=24>>24 clips.\nIn all 48+24 = <<48+24=72>>72.\n#### 72", "72",
            "She sold 48/2 = 24 clips.\nIn all 48+24 = 72.\nThe answer is \\boxed{72}.", id="gsm8k",
        ),
        pytest.param("So it is $\\boxed{\\frac{1}{2}}$, as claimed.", "\\frac{1}{2}", "So it is $\\boxed{\\frac{1}{2}}$, as claimed.", id="math_keeps_its_box"),
        pytest.param("", "7", "The answer is \\boxed{7}.", id="no_solution"),
        pytest.param("#### 7", "7", "The answer is \\boxed{7}.", id="only_the_mark"),
        pytest.param("It is 7.\n#### 7\n", "7", "It is 7.\nThe answer is \\boxed{7}.", id="newline_after_the_mark"),
        pytest.param("If 3 < x and x > 2, x = 4.", "4", "If 3 < x and x > 2, x = 4.\nThe answer is \\boxed{4}.", id="inequalities_stay"),
    ],
)  # fmt: skip
def test_a_worked_solution_ends_in_a_box(solution: str, answer: str, expected: str):
    assert worked_solution(solution, answer) == expected


def test_calculator_marks_can_be_kept():
    solution = "She sold 48/2 = <<48/2=24>>24 clips.\n#### 24"
    kept = worked_solution(solution, "24", calculator_marks=True)
    assert kept == "She sold 48/2 = <<48/2=24>>24 clips.\nThe answer is \\boxed{24}."
    # What reads answers and steps is not disturbed by them.
    assert final_answer("maths", kept) == "24"
    assert check_arithmetic(kept) == Arithmetic(1, 0)
