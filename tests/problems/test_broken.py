"""Broken problems: nothing that their solution needs is left whole."""

import pytest

from scalequest.domains.maths import asks
from scalequest.io import read_jsonl
from scalequest.problems.broken import (
    broken,
    sentences,
    torso,
    with_foreign_conditions,
    without_number,
    without_question,
)
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
    problems.append({"id": "b/0", "question": "Write a function to find a word.", "solution": "def f(): pass"})
    found = list(broken(problems, asks, 17))
    ways = [way for way, _ in found]
    assert set(ways[:200]) == {"no_question", "no_number"}
    # 100 of each expected, standard deviation 7; four of them.
    assert abs(ways.count("no_number") - 100) < 29
    assert found[-1] == ("torso", "Write a function")
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
