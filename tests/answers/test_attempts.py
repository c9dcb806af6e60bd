"""Fail rates, and whether they say more than luck."""

import random
from typing import Any

import pytest

from scalequest.answers.attempts import fail_rates, label_reliability, right_share


def attempts(*problems: str) -> list[dict[str, Any]]:
    """One problem per word: ``"rrw"`` is two right samples and a wrong one."""
    names = {"r": "right", "w": "wrong", "n": "no_answer", "t": "timeout"}
    return [{"problem_id": f"a/{i}", "outcome": names[o]} for i, word in enumerate(problems) for o in word]


def test_a_fail_is_whatever_is_not_right():
    assert fail_rates(attempts("rrrr", "rwnt", "w")) == {"a/0": 0.0, "a/1": 0.75, "a/2": 1.0}


def test_equal_problems_have_no_reliable_labels():
    # 300 problems, each right with the same probability: rates of four samples differ, but by luck alone.
    coin = random.Random(5)
    found = label_reliability(attempts(*("".join(coin.choice("rwww") for _ in range(4)) for _ in range(300))))
    assert not found.above_chance
    assert found.share < 0.2


def test_different_problems_have_reliable_labels():
    coin = random.Random(5)
    words = []
    for i in range(300):
        p = 0.2 + 0.6 * (i % 2)
        words.append("".join("r" if coin.random() < p else "w" for _ in range(4)))
    found = label_reliability(attempts(*words))
    assert found.above_chance
    # Variance between 0.3**2 = 0.09; within p(1-p)/4 = 0.04; so about 0.09 / 0.13 = 0.69.
    assert found.share == pytest.approx(0.69, abs=0.06)


@pytest.mark.parametrize(
    "problems",
    [["rrrr", "rr"], ["ww"] * 5, ["r", "w", "r"], ["rwrw"], ["rw"] * 20],
    ids=["all_right", "all_wrong", "one_sample_each", "one_problem", "all_alike"],
)
def test_labels_without_a_difference_are_never_above_chance(problems: list[str]):
    assert not label_reliability(attempts(*problems)).above_chance


@pytest.mark.parametrize(
    ("problems", "both"),
    [
        (["rrww"] * 10, True),
        (["wwww"] * 99 + ["rwww"], False),  # 1 right of 400
        (["rrrr"] * 99 + ["rrrw"], False),
        (["wwww"] * 90 + ["rwww"] * 10, True),
        (["rrrrrrrrrrrrrrrrrrrr"] + ["wwww"] * 99, False),  # all right ones are of a single problem
    ],
)
def test_both_classes_must_occur_more_often_than_by_accident(problems: list[str], both: bool):
    assert right_share(attempts(*problems)).two_classes is both
