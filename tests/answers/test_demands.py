"""Demands on training answers, each on the smallest case that it decides."""

from typing import Any

import pytest

from scalequest.answers.demands import Demands, agreeing, fulfilling, pass_rate

GROUPS = {"a": 0, "b": 0, "c": 1, "d": None}  # two of four agree; d has no answer


def candidates(**texts: str) -> list[dict[str, Any]]:
    return [{"id": name, "response": text, "sample": k} for k, (name, text) in enumerate(texts.items())]


def left(demands: Demands, rate: float = 0.5, **texts: str) -> list[str] | str:
    found, outcome = fulfilling(demands, candidates(**(texts or {"a": "", "b": "", "c": ""})), GROUPS, rate)
    assert bool(found) != bool(outcome)
    return [row["id"] for row in found] or outcome


@pytest.mark.parametrize(
    ("demands", "expected"),
    [
        (Demands(), ["a", "b", "c"]),
        (Demands(min_agreement=2), ["a", "b"]),
        (Demands(min_agreement=3), "too_few_agree"),
        (Demands(min_pass_rate=0.5, max_pass_rate=0.5), ["a", "b", "c"]),  # both ends belong to the band
        (Demands(min_pass_rate=0.51), "below_pass_rate"),
        (Demands(max_pass_rate=0.49), "above_pass_rate"),
    ],
)
def test_a_demand_drops_what_does_not_meet_it(demands: Demands, expected: list[str] | str):
    assert left(demands) == expected


def test_responses_without_an_answer_never_agree():
    groups = {"a": 0, "b": None, "c": None, "d": None}
    assert fulfilling(Demands(min_agreement=2), candidates(a=""), groups, 1.0) == ([], "too_few_agree")


@pytest.mark.parametrize(
    "wrong", ["3 * 4 = 13", "<<48/2=25>>25", "so \\frac{1}{2} + \\frac{1}{4} = 0.9", "2 + 2 = 4, 4 + 1 = 6"]
)
def test_a_wrong_step_costs_the_response(wrong: str):
    right = "3 * 4 = 12"
    assert left(Demands(check_arithmetic=True), a=wrong, b=right) == ["b"]
    assert left(Demands(check_arithmetic=True), a=wrong) == "wrong_arithmetic"
    assert left(Demands(), a=wrong) == ["a"]


def test_text_without_steps_is_not_wrong():
    assert left(Demands(check_arithmetic=True), a="It is twelve.", b="x = 3y") == ["a", "b"]


def test_wrong_steps_do_not_take_the_votes_of_an_answer():
    # a and b agree; a is dropped for its steps, and b still has the agreement of two samples.
    assert left(Demands(min_agreement=2, check_arithmetic=True), a="1 + 1 = 3", b="1 + 1 = 2", c="") == ["b"]


@pytest.mark.parametrize(
    ("groups", "passed", "rate"),
    [
        ([0, 0, 1, None], None, 0.5),
        ([0, 1, 1, 1], None, 0.75),
        ([None, None], None, 0.0),
        ([], None, 0.0),
        ([0, 1, 2, None], 3, 0.75),
    ],
)
def test_the_pass_rate_is_a_share_of_all_responses(groups: list[int | None], passed: int | None, rate: float):
    assert pass_rate(groups, passed) == rate


def test_outcomes_are_those_of_the_demands_that_are_on():
    assert Demands().outcomes == ()
    everything = Demands(min_agreement=2, min_pass_rate=0.1, max_pass_rate=0.9, check_arithmetic=True)
    assert everything.outcomes == ("below_pass_rate", "above_pass_rate", "wrong_arithmetic", "too_few_agree")


def test_all_that_agree_are_kept_once_per_text_the_choice_first():
    rows = candidates(a="x", b="y", c="z", e="x")
    groups, rewards = {"a": 0, "b": 0, "c": 1, "e": 0}, {"a": 0.1, "b": 0.5, "c": 9.0, "e": 0.7}
    kept = agreeing(rows[0], rows, groups, rewards, right=False)
    assert [row["id"] for row in kept] == ["a", "b"]  # c differs, e is a's text


def test_programs_that_passed_are_kept_once_per_program():
    rows = candidates(a="p", b="p  # same", c="q")
    kept = agreeing(rows[2], rows, {"a": 0, "b": 0, "c": 1}, {"a": 0.1, "b": 0.5, "c": 0.0}, right=True)
    assert [row["id"] for row in kept] == ["c", "b"]
