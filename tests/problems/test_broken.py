"""Broken problems: nothing that their solution needs is left whole."""

import pytest

from scalequest.answers.code import asserts, fenced_code
from scalequest.answers.sandbox import PASSED, Program, run_programs
from scalequest.domains.code import asks as code_asks
from scalequest.domains.maths import asks
from scalequest.io import read_jsonl
from scalequest.problems.broken import (
    broken,
    sentences,
    torso,
    with_contradictory_tests,
    with_foreign_conditions,
    without_number,
    without_question,
    without_task,
)
from scalequest.problems.known_datasets import canonical
from tests.fakes import real_data

TOM = "Tom has 5 apples. He buys 3 more. How many apples does Tom have?"


def test_sentences_end_at_their_signs_and_not_at_a_decimal_point():
    assert sentences('He pays 1.5 dollars.  "Fine!" she\nsays. How much?') == [
        "He pays 1.5 dollars.",
        '"Fine!"',
        "she says.",
        "How much?",
    ]


@pytest.mark.parametrize(
    ("question", "left"),
    [
        (TOM, "Tom has 5 apples. He buys 3 more."),
        ("Let x + 3 = 10 hold. Find x.", "Let x + 3 = 10 hold."),
        ("What is 3 + 4?", None),  # nothing would be left
        ("Tom has 5 apples and buys 3 more.", None),  # asks nothing
    ],
)
def test_a_problem_without_its_question(question: str, left: str | None):
    assert without_question(question, asks) == left


def test_conditions_of_another_problem():
    others = [
        "Tom has 7 apples and eats 2. How many apples?",
        "What is 3 + 4?",
        "A car needs 30 liters. How far does it go?",
    ]
    # The first is about the same things, the second has no conditions.
    assert with_foreign_conditions(TOM, others, asks) == "A car needs 30 liters. How many apples does Tom have?"
    assert with_foreign_conditions(TOM, others[:2], asks) is None
    # A question that brings its own numbers may be solvable all the same.
    assert with_foreign_conditions("Tom likes his apples. If each of 4 costs 2, how much?", others, asks) is None


@pytest.mark.parametrize(
    ("question", "solution", "left"),
    [
        (TOM, "5 + 3 = 8", "Tom has 5 apples. He buys more. How many apples does Tom have?"),
        ("What is 2 + 2?", "2 + 2 = 4", "What is + ?"),  # wherever it occurs
        ("In 1999 Tom paid 1,200. How much is half?", "1,200 / 2 = 600", "In 1999 Tom paid . How much is half?"),
        ("What is $\\\\frac{1}{25}$ of 100?", "100/25 = 4", "What is $\\\\frac{1}{25}$ of ?"),
        ("Find x if x + x = 0.5.", "x = 0.25", None),  # the solution does not use it
    ],
)
def test_a_number_that_the_solution_needs_is_gone(question: str, solution: str, left: str | None):
    assert without_number(question, solution) == left


def test_a_torso_is_the_first_half():
    assert torso("Write a function to find the longest word.") == "Write a function to"
    assert torso("Why?") == "Why"


def test_every_problem_is_broken_in_a_way_it_allows():
    problems = [{"id": f"a/{i}", "question": TOM, "solution": "5 + 3 = 8"} for i in range(200)]
    problems.append({"id": "b/0", "question": "Why is the sky blue tonight?", "solution": "It is."})
    found = list(broken(problems, asks, 17))
    ways = [way for way, _ in found]
    assert set(ways[:200]) == {"no_question", "no_number"}
    # 100 of each expected, standard deviation 7; four of them.
    assert abs(ways.count("no_number") - 100) < 29
    assert found[-1] == ("torso", "Why is the")
    assert list(broken(problems, asks, 17)) == found


@pytest.mark.parametrize("name", ["gsm8k/train.jsonl", "math/train.jsonl"])
def test_real_problems_are_nearly_all_broken_without_a_torso(name: str):
    rows = [
        {"id": f"x/{i}", "question": row.get("question") or row["problem"], "solution": row["solution"]}
        for i, row in zip(range(400), read_jsonl(real_data(name)), strict=False)
    ]
    found = list(broken(rows, asks, 17))
    assert all(text and text != row["question"] for row, (_, text) in zip(rows, found, strict=True))
    assert sum(way == "torso" for way, _ in found) < 0.05 * len(rows)


# ------------------------------------------------------------------------------------------------------ programming tasks

MBPP = "Write a function to find the square.\nYour code should pass these tests:\nassert f(3) == 9\nassert f(2)==4"


@pytest.mark.parametrize(
    ("question", "pair"),
    [
        pytest.param(MBPP, "assert f(3) == 9\nassert f(3) == 4", id="the_value_of_another_test"),
        pytest.param("Write f.\nassert f('a') == True", "assert f('a') == True\nassert f('a') == False", id="truth_value"),
        pytest.param("Write f.\nassert f(1) == 0.5", "assert f(1) == 0.5\nassert f(1) == 1.5", id="one_test"),
        pytest.param("Write f.\nassert f(1) == []", "assert f(1) == []\nassert f(1) == [1]", id="empty"),
        pytest.param("Write f.\nassert f(1) == {1: 2}", "assert f(1) == {1: 2}\nassert f(1) == None", id="dictionary"),
        pytest.param("Write f.\nassert f(1) == None", "assert f(1) == None\nassert f(1) == True", id="nothing"),
        pytest.param("Write f.\nassert set(f(1)) == {1}\nassert g(1)", "assert set(f(1)) == {1}\nassert set(f(1)) == None", id="a_wrapped_call"),
    ],
)  # fmt: skip
def test_two_tests_want_two_values_of_one_call(question: str, pair: str):
    text = with_contradictory_tests(question)
    assert text is not None
    assert text.endswith(pair)
    assert text.count("assert") == 2


def test_without_a_test_of_a_value_nothing_can_contradict():
    assert with_contradictory_tests("Write f.\nassert f(1)\nassert f(2) > 3\nassert f(3) == g(4)") is None
    assert with_contradictory_tests("Write f.") is None


@pytest.mark.parametrize(
    ("question", "left"),
    [
        pytest.param(MBPP, "Write a function", id="mbpp"),
        pytest.param("You have lists. Write a Python function to find the longest of all words in it.", "Write a Python function to", id="a_later_sentence"),
        pytest.param(
            "Complete this Python function:\n```python\nimport math\ndef area(radius: float, *, digits: int) -> float:\n    'Area of a circle.'\n```",
            "Complete this Python function:\n```python\ndef function(x1, x2):\n    pass\n```", id="a_stub",
        ),
    ],
)  # fmt: skip
def test_a_task_without_its_words_tests_and_names(question: str, left: str):
    assert without_task(question, code_asks) == left


@pytest.mark.parametrize("name", ["mbpp/mbpp.jsonl", "humaneval/test.jsonl"])
def test_a_real_task_that_was_broken_cannot_be_solved(name: str):
    rows = [canonical(row) for row, _ in zip(read_jsonl(real_data(name)), range(400), strict=False)]
    rows = [row | {"id": str(row["id"])} for row in rows]
    found = list(broken(rows, code_asks, 17))
    assert {way for way, _ in found} <= {"contradictory_tests", "no_question"}
    for row, (way, text) in zip(rows, found, strict=True):
        if way == "no_question":  # neither the words nor a test, nor a name
            assert len(text.split()) <= 5 or text.startswith("Complete this Python function:\n```python\ndef function(")
            assert "assert" not in text
            assert '"""' not in text
        else:
            assert len(asserts(text)) == 2
            assert not any(test in text.splitlines() for test in asserts(row["question"])[1:])
    contradictory = [
        Program(fenced_code(row["solution"]) or "", tests="\n".join(asserts(text)))
        for row, (way, text) in zip(rows, found, strict=True)
        if way == "contradictory_tests"
    ][:12]
    assert PASSED not in {verdict.outcome for verdict in run_programs(contradictory)}
