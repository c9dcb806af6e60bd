"""Verdicts of paired and unpaired comparisons, and the number of items that settles them."""

import math

import pytest

from scalequest.outcomes import DOES_NOT_HOLD, HOLDS, UNDECIDED
from scalequest.run.experiment.verdict import Measured, decide, needed, paired, paired_error, two_errors, unpaired

# ---------------------------------------------------------------------------------------------------------- verdicts


def items(right: set[int], n: int) -> dict[str, float]:
    return {f"item/{i}": float(i in right) for i in range(n)}


def one(right: set[int], n: int) -> dict[str, dict[str, float]]:
    return {"student": items(right, n)}


def test_a_paired_difference_and_its_error():
    # 100 items: 20 both right, 16 only the first, 4 only the second. d = 12 of 100. With one difference to each side
    # added (Agresti and Min): variance (16 + 4 + 1 - 12² / 102) / 102² = 0.001883, error 4.339 points.
    m = paired(one(set(range(36)), 100), one({*range(20), *range(36, 40)}, 100))
    assert (m.value, m.n, m.higher, m.lower) == (pytest.approx(12), 100, 16, 4)
    assert 100 * paired_error([1] * 16 + [-1] * 4 + [0] * 80) == pytest.approx(4.339, abs=1e-3)
    # The plain error of the mean is sqrt((20 - 1.44) / 99) / 10 = 4.330: the larger one counts.
    assert m.error == pytest.approx(4.339, abs=1e-3)
    assert m.p_value == pytest.approx(0.0118, abs=1e-4), "exact McNemar: 16 of 20"


@pytest.mark.parametrize(
    ("value", "error", "matters", "direction", "outcome"),
    [
        (12.0, 4.3, 5.0, "above", HOLDS),
        (8.5, 4.3, 5.0, "above", UNDECIDED),
        (-12.0, 4.3, 5.0, "above", DOES_NOT_HOLD),
        (0.1, 0.4, 1.0, "above", DOES_NOT_HOLD),
        (0.1, 0.6, 1.0, "above", UNDECIDED),
        (0.9, 0.4, 1.0, "above", HOLDS),
        (0.1, 0.4, 1.0, "not_below", HOLDS),
        (-0.9, 0.4, 1.0, "not_below", DOES_NOT_HOLD),
        (-0.9, 0.6, 1.0, "not_below", UNDECIDED),
        (0.0, math.nan, 1.0, "above", UNDECIDED),
    ],
)
def test_a_verdict(value: float, error: float, matters: float, direction: str, outcome: str):
    assert decide(Measured(value, error, 0.0, 100), matters, direction).outcome == outcome


@pytest.mark.parametrize(
    ("value", "direction", "small"),
    [(0.7, "above", True), (1.5, "above", False), (3.0, "above", False), (0.7, "not_below", False)],
)
def test_a_difference_may_hold_and_be_too_small_to_count(value: float, direction: str, small: bool):
    found = decide(Measured(value, 0.3, 0.0, 100), 2.0, direction)
    assert (found.outcome, found.small) == (HOLDS, small)


def test_no_differing_item_is_no_proof_of_equality():
    m = paired(one(set(), 30), one(set(), 30))
    assert m.value == 0
    assert m.error == pytest.approx(100 / 32), "sqrt(0 + 1) / 32"
    # 30 · (4 · 3.125 / 2)² = 1171.9
    assert str(decide(m, 2.0)) == "undecided: needs 1,172 items, has 30"
    assert decide(paired(one(set(), 2000), one(set(), 2000)), 2.0).outcome == DOES_NOT_HOLD


def test_four_items_are_too_few_to_hold():
    assert decide(paired(one(set(range(4)), 400), one(set(), 400)), 0.9).outcome != HOLDS
    assert decide(paired(one(set(range(8)), 400), one(set(), 400)), 0.9).outcome == HOLDS


@pytest.mark.parametrize(("won", "lost"), [(12, 8), (10, 10), (8, 12), (14, 6)])
def test_the_number_of_items_it_asks_for_settles_the_claim(won: int, lost: int):
    def grid(times: int) -> Measured:
        right, left = set(), set()
        for at in range(times):
            right |= {100 * at + i for i in range(won)}
            left |= {100 * at + 50 + i for i in range(lost)}
        return paired(one(right, 100 * times), one(left, 100 * times))

    found = decide(grid(1), 2.0)
    assert found.outcome == UNDECIDED
    n = int(found.needs.split()[1].replace(",", ""))
    assert decide(grid(math.ceil(n / 100)), 2.0).outcome in (HOLDS, DOES_NOT_HOLD)


def test_training_seeds_add_to_the_error():
    base = {f"student_{s}": items(set(range(100)), 400) for s in range(3)}
    same = {f"student_{s}": items(set(range(140)), 400) for s in range(3)}
    apart = {f"student_{s}": items(set(range(100 + 40 * s)), 400) for s in range(3)}
    equal, spread = paired(same, base), paired(apart, base)
    assert (equal.value, spread.value) == (pytest.approx(10), pytest.approx(10))
    assert (equal.n, equal.seeds) == (400, 3), "three answers to an item are not three items"
    assert equal.seed_error == 0
    assert equal.item_error == pytest.approx(paired(one(set(range(140)), 400), one(set(range(100)), 400)).item_error)
    # Differences of 0, 10 and 20 points: standard deviation 10, error of the mean 10 / sqrt(3) = 5.77, less the part
    # that is the items' (0.3² · 400 · 3 observations: 0.87).
    assert spread.seed_error == pytest.approx(math.sqrt(5.7735**2 - 0.866**2), abs=0.01)
    assert decide(equal, 2.0).outcome == HOLDS
    assert decide(spread, 2.0).outcome == UNDECIDED
    # 3 · 2 · (4 · 5.708 / 2)² = 782
    assert "training seeds, has 3" in needed(spread, 2.0)
    assert int(needed(spread, 2.0).split()[1]) == pytest.approx(782, abs=2)


def test_students_of_one_side_are_left_out():
    m = paired({"student": items({0}, 9), "student_2": items({1}, 9)}, {"student": items(set(), 9)})
    assert (m.seeds, m.n, m.higher) == (1, 9, 1)


def test_shares_of_other_questions_are_not_paired():
    # 0.75 and 0.5 of 400: errors sqrt(0.1875 / 400) = 2.165 and sqrt(0.25 / 400) = 2.5 points, together 3.31.
    m = unpaired([1.0] * 300 + [0.0] * 100, [1.0] * 200 + [0.0] * 200)
    assert (m.value, m.n, m.p_value) == (pytest.approx(25), 400, None)
    assert m.error == pytest.approx(3.31, abs=0.02)
    assert decide(m, 5.0).outcome == HOLDS
    assert unpaired([0.0] * 50, [0.0] * 50).error > 3, "0 of 50 has an error, too"
    with pytest.raises(ValueError, match="Expected at least 1"):
        unpaired([], [1.0])


def test_both_errors_weigh_the_degrees_of_freedom() -> None:
    """Of two equal errors, 101 items and 3 seeds: Welch and Satterthwaite's 4 / (1 / 100 + 1 / 2) = 7.84."""
    from scipy.stats import t

    assert two_errors(3.0, 1.0, 101, 0.0, 3) == pytest.approx(2 * t.sf(3.0, 100))
    assert two_errors(3.0, 0.0, 101, 1.0, 3) == pytest.approx(2 * t.sf(3.0, 2))
    assert two_errors(3.0, 1.0, 101, 1.0, 3) == pytest.approx(2 * t.sf(3.0 / 2**0.5, 4 / (1 / 100 + 1 / 2)))
    assert two_errors(0.0, 1.0, 101, 1.0, 3) == 1.0
    assert two_errors(1.0, 0.0, 101, 0.0, 1) == 0.0
    assert two_errors(1.0, 1.0, 1, 0.0, 3) == two_errors(1.0, 1.0, 1, 0.1, 3) == 1.0, "one item has no spread"
