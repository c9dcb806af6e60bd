"""Rules that choose one of n answers, on problems small enough to count by hand."""

from typing import Any

import pytest

from scalequest.answers.best_of import best_of_n, majority


def problem(*rows: tuple[str, str, float]) -> list[dict[str, Any]]:
    """Samples as (final answer, outcome, reward)."""
    return [
        {"sample": k, "final_answer": answer, "outcome": outcome, "reward": reward, "finish_reason": "stop"}
        for k, (answer, outcome, reward) in enumerate(rows)
    ]


@pytest.mark.parametrize(
    ("answers", "position"),
    [(["1", "2", "2"], 1), (["1", "2"], 0), (["3"], 0), (["4", "2", "4", "2"], 0), (["5", "1,000", "1000"], 1)],
)
def test_the_majority_is_the_first_of_the_largest_group(answers: list[str], position: int):
    assert majority("maths", answers) == position


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
