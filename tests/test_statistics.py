"""Standard errors against known numbers, and what counts as better than chance."""

import math
import random
from collections import Counter

import pytest
from scipy import stats

from scalequest.statistics import (
    above_chance,
    bootstrap_interval,
    mcnemar,
    mean_error,
    paired_difference,
    proportion_above_chance,
    proportion_error,
    rank_correlation,
    rank_correlation_above_chance,
    rank_correlation_error,
    ratio_error,
)


def test_above_chance_asks_for_two_standard_errors():
    assert above_chance(0.71, 0.5, 0.1)
    assert not above_chance(0.69, 0.5, 0.1)
    assert not above_chance(1.0, 0.5, math.nan)  # an unknown error proves nothing
    assert not above_chance(0.2, 0.5, 0.01)


@pytest.mark.parametrize(
    ("successes", "n", "error"),
    [
        (50, 100, math.sqrt(52 / 104 * 52 / 104 / 104)),
        (0, 5, math.sqrt(2 / 9 * 7 / 9 / 9)),
        (5, 5, math.sqrt(2 / 9 * 7 / 9 / 9)),
        (0, 0, 0.5),
    ],
)
def test_the_error_of_a_proportion_is_never_zero(successes: int, n: int, error: float):
    assert proportion_error(successes, n) == pytest.approx(error)


# Two errors of a coin: 2 * 0.5 / sqrt(n).
@pytest.mark.parametrize(
    ("successes", "n", "above"),
    [
        (3, 3, False),
        (4, 4, False),
        (5, 5, True),
        (6, 11, False),
        (9, 11, True),
        (60, 100, False),
        (61, 100, True),
        (0, 0, False),
    ],
)
def test_a_coin_is_not_above_chance(successes: int, n: int, above: bool):
    assert proportion_above_chance(successes, n, 0.5) is above


def test_a_coin_passes_rarely():
    # One-sided 2.3% by the normal approximation; a sign test alone ("above one half") would pass 46% of the time.
    coin = random.Random(1)
    passed = sum(proportion_above_chance(sum(coin.random() < 0.5 for _ in range(50)), 50, 0.5) for _ in range(1_000))
    assert 5 <= passed <= 40


def test_the_error_of_a_mean_is_scipys():
    values = [0.0, 1.0, 0.5, 0.25, 1.0]
    assert mean_error(values) == pytest.approx(stats.sem(values))
    assert math.isnan(mean_error([1.0]))
    assert math.isnan(mean_error([]))


def test_values_of_one_item_do_not_count_as_independent():
    # Four copies of each value say no more than one of each.
    values = [0.0, 1.0, 1.0, 0.0, 1.0]
    copies = [v for v in values for _ in range(4)]
    groups = [i for i in range(5) for _ in range(4)]
    assert mean_error(copies, groups) == pytest.approx(mean_error(values))
    assert mean_error(copies) < mean_error(values) / 1.9
    assert math.isnan(mean_error([1.0, 0.0], ["one", "one"]))


def test_rank_correlation_is_spearmans():
    rng = random.Random(3)
    a = [rng.randrange(5) for _ in range(40)]  # ties
    b = [x + rng.gauss(0, 2) for x in a]
    assert rank_correlation(a, b) == pytest.approx(stats.spearmanr(a, b).statistic)
    assert rank_correlation([1, 1, 1], [1, 2, 3]) == 0.0
    assert rank_correlation([], []) == 0.0


# The published run: 0.094 on 203 items is 1.3 standard errors.
@pytest.mark.parametrize(
    ("correlation", "n", "above"),
    [(0.094, 203, False), (0.2, 203, True), (1.0, 7, True), (0.5, 7, False), (1.0, 3, False), (-1.0, 50, False)],
)
def test_a_rank_correlation_above_chance(correlation: float, n: int, above: bool):
    assert rank_correlation_above_chance(correlation, n) is above


def test_the_error_of_a_rank_correlation():
    assert rank_correlation_error(203) == pytest.approx(0.0728, abs=1e-4)
    assert math.isnan(rank_correlation_error(3))


def test_mcnemar_is_the_exact_sign_test():
    # 62:14 of the published run; 1:0 says nothing; ties say nothing.
    assert mcnemar(62, 14) == pytest.approx(stats.binomtest(14, 76).pvalue)
    assert mcnemar(1, 0) == 1.0
    assert mcnemar(0, 0) == 1.0


def test_a_paired_difference():
    first, second = [0, 0, 1, 1, 0, 1], [1, 1, 1, 0, 1, 1]
    found = paired_difference(first, second, seed=5)
    assert (found.n, found.better, found.worse) == (6, 3, 1)
    assert found.value == pytest.approx(2 / 6)
    assert found.standard_error == pytest.approx(stats.sem([1, 1, 0, -1, 1, 0]))
    assert found.low <= found.value <= found.high
    assert found.p_value == pytest.approx(0.625)
    assert found == paired_difference(first, second, seed=5)
    assert not found.above_zero


def test_uneven_differences_are_not_counted_as_signs():
    # Seen on the GPU run: best-of-n 3.0% right, random 3.8% (an expectation per item), and a sign test said p = 0.
    first = [0.125] * 40 + [0.25] * 4
    second = [0.0] * 40 + [1.0] * 4
    found = paired_difference(first, second)
    # Mean (4 * 0.75 - 40 * 0.125) / 44 = -0.045, its error over 44 items 0.038: not significant.
    assert found.value == pytest.approx(-2 / 44)
    assert (found.better, found.worse) == (4, 40)
    assert 0.2 < found.p_value < 0.3
    # Equal values: nothing differs. One-sided and equal: as sure as it gets.
    assert paired_difference([0.5, 0.5], [0.5, 0.5]).p_value == 1.0
    assert paired_difference([0.0, 0.0], [0.5, 0.5]).p_value == 0.0


def test_a_paired_difference_of_grouped_values_resamples_groups():
    first, second = [0] * 8, [1, 1, 1, 1, 0, 0, 0, 0]
    grouped = paired_difference(first, second, groups=["a"] * 4 + ["b"] * 4)
    assert grouped.n == 2
    assert (grouped.low, grouped.high) == (0.0, 1.0)
    assert not grouped.above_zero
    single = paired_difference(first, second)
    assert single.low > 0.0


def test_sides_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match="1 and 2 values"):
        paired_difference([1], [1, 0])
    with pytest.raises(ValueError, match="0 and 0 values"):
        paired_difference([], [])


def test_the_bootstrap_covers_the_mean():
    rng = random.Random(7)
    covered = 0
    for repeat in range(100):
        low, high = bootstrap_interval([rng.gauss(0, 1) for _ in range(60)], repeat, resamples=300)
        covered += low <= 0 <= high
    assert covered >= 88  # of 100, at 95%: fewer with probability 0.1%


@pytest.mark.parametrize(
    "groups",
    [
        [(2, 2), (2, 2), *[(2, 0)] * 8],
        [(3, 1), (1, 0), (0, 0), (5, 5), (2, 1)],
        [(1, 1), (1, 0)],
        [(4, 2)],
        [],
    ],
)
def test_the_error_of_a_ratio_is_that_of_its_single_outcomes(groups: list[tuple[int, int]]):
    outcomes = [(k, float(i < right)) for k, (size, right) in enumerate(groups) for i in range(size)]
    expected = mean_error([value for _, value in outcomes], [name for name, _ in outcomes])
    found = ratio_error(Counter(groups))
    assert found == pytest.approx(expected, rel=1e-12, nan_ok=True)
