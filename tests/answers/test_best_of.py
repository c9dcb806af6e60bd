"""Rules that choose one of n answers, on problems small enough to count by hand."""

from itertools import permutations
from typing import Any

import pytest

from scalequest.answers.best_of import RULES, best_of_n, choose, group_answers


def problem(*rows: tuple[str, str, float]) -> list[dict[str, Any]]:
    """Samples as (final answer, outcome, reward)."""
    return [
        {"sample": k, "final_answer": answer, "outcome": outcome, "reward": reward, "finish_reason": "stop"}
        for k, (answer, outcome, reward) in enumerate(rows)
    ]


@pytest.mark.parametrize(
    ("answers", "scores", "position"),
    [
        (["1", "2", "2"], [9.0, 0.0, 0.0], 1),
        (["1", "2"], [0.0, 0.0], 0),
        (["1", "2"], [0.0, 1.0], 1),  # no majority: the reward decides
        (["4", "2", "4", "2"], [0.0, 0.0, 0.0, 0.0], 0),
        (["5", "1,000", "1000"], [9.0, 0.0, 0.0], 1),
        (["1", "0.5", "1/2"], [9.0, 0.0, 1.0], 2),
    ],
)
def test_the_majority_is_the_largest_group_of_equal_answers(answers: list[str], scores: list[float], position: int):
    rows = [{"id": str(k), "sample": k} for k in range(len(answers))]
    groups = group_answers("maths", {"q": answers})["q"]
    group_of = {str(k): group for k, group in enumerate(groups)}
    assert choose("majority", rows, {str(k): score for k, score in enumerate(scores)}, group_of, 0) == rows[position]


@pytest.mark.parametrize("by", RULES)
def test_no_rule_depends_on_the_order_of_the_rows(by: str):
    rows = [{"id": f"q#{k}", "sample": k} for k in range(4)]
    groups = {"q#0": 0, "q#1": 1, "q#2": 1, "q#3": 2}
    scores = {f"q#{k}": 0.5 for k in range(4)}
    ids = {
        choose(by, [rows[k] for k in order], scores, groups, 7)["id"]
        for order in ([0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1])
    }
    assert len(ids) == 1


def test_the_random_rule_takes_every_candidate_by_its_seed():
    rows, groups = [{"id": f"q#{k}", "sample": k} for k in range(3)], {"q#0": 0, "q#1": 1, "q#2": 2}
    drawn = [choose("random", rows, {"q#0": 1.0, "q#1": 2.0, "q#2": 3.0}, groups, seed)["id"] for seed in range(300)]
    # 300 draws of three: 100 each, standard deviation 8.
    assert all(70 < drawn.count(f"q#{k}") < 130 for k in range(3))
    assert choose("random", rows, {"q#0": 1.0, "q#1": 2.0, "q#2": 3.0}, groups, 5) == choose(
        "random", rows, {"q#0": 3.0, "q#1": 2.0, "q#2": 1.0}, groups, 5
    )


def test_answers_are_grouped_by_mathematics_and_not_by_spelling():
    answers = {"a": ["0.5", "1/2", None, "\\frac{1}{2}", "2"], "b": [None], "c": ["AB", "BA", "AB"]}
    assert group_answers("maths", answers) == {"a": [0, 0, None, 0, 1], "b": [None], "c": [0, 1, 0]}


@pytest.mark.parametrize("order", list(permutations(["10%", "10", "0.1", "10"])))
def test_answers_that_differ_do_not_agree_by_a_third_one(order: tuple[str, ...]):
    groups = dict(zip(order, group_answers("maths", {"q": order})["q"], strict=True))
    assert groups["10"] == groups["10%"] != groups["0.1"]


@pytest.mark.parametrize("order", list(permutations(["\\pi", "3.141593", "3.1415927"])))
def test_a_formula_agrees_with_what_it_is_rounded_to(order: tuple[str, ...]):
    groups = dict(zip(order, group_answers("maths", {"q": order})["q"], strict=True))
    assert groups["\\pi"] in (groups["3.141593"], groups["3.1415927"])


@pytest.mark.parametrize("order", list(permutations(["5", "5 cm", "5 m"])))
def test_a_number_without_a_unit_agrees_with_one_unit(order: tuple[str, ...]):
    groups = dict(zip(order, group_answers("maths", {"q": order})["q"], strict=True))
    assert groups["5"] == groups["5 cm"] != groups["5 m"]


def test_shares_of_all_rules():
    found = best_of_n(
        "maths",
        [
            problem(("1", "wrong", 0.0), ("2", "right", 3.0), ("1", "wrong", 1.0)),  # reward alone is right
            problem(("7", "right", 0.0), ("7", "right", 0.0), ("8", "wrong", 9.0)),  # reward alone is wrong
            problem(("5", "wrong", 1.0), ("6", "wrong", 1.0)),  # nothing is right
        ],
    )
    assert found is not None
    assert found.problems == 3
    assert found.shares == pytest.approx(
        {"reward": 1 / 3, "random": (1 / 3 + 2 / 3 + 0) / 3, "first": 1 / 3, "majority": 1 / 3, "any": 2 / 3}
    )
    assert found.reward_minus["majority"].value == 0.0
    assert (found.reward_minus["majority"].better, found.reward_minus["majority"].worse) == (1, 1)
    # One of three, two of three and none are right.
    assert list(found.bands) == ["none_right", "few_right", "half_right"]
    assert found.bands["few_right"]["reward"] == found.bands["half_right"]["majority"] == [1.0]
    assert found.bands["few_right"]["majority"] == found.bands["half_right"]["reward"] == [0.0]
    assert found.bands["none_right"]["random"] == [0.0]


def test_problems_are_in_bands_of_right_answers():
    def of(right: int, n: int) -> list[dict[str, Any]]:
        return problem(*(("1", "right", 0.0) for _ in range(right)), *(("2", "wrong", 0.0) for _ in range(n - right)))

    found = best_of_n("maths", [of(right, 6) for right in range(7)])
    assert found is not None
    assert {band: len(rules["any"]) for band, rules in found.bands.items()} == {
        "none_right": 1, "few_right": 2, "half_right": 2, "most_right": 1, "all_right": 1
    }  # fmt: skip


def test_cut_and_unanswered_samples_are_no_candidates():
    rows = problem(("1", "wrong", 0.0), ("2", "right", 9.0), ("", "no_answer", 99.0))
    rows[1]["finish_reason"] = "length"
    found = best_of_n("maths", [rows, problem(("", "no_answer", 1.0))])
    assert found is not None
    assert found.problems == 1
    assert set(found.shares.values()) == {0.0}
    assert best_of_n("maths", [problem(("", "no_answer", 1.0))]) is None


def test_equal_rewards_go_to_the_lowest_sample():
    rows = problem(("1", "right", 5.0), ("2", "wrong", 5.0))
    for order in (rows, rows[::-1]):
        found = best_of_n("maths", [order])
        assert found is not None
        assert found.shares["reward"] == 1.0
