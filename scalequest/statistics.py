"""Standard errors, and when a number is better than chance.

A flag that a coin could pass warns of nothing. Everything here asks for two standard errors.
scipy computes distributions and ranks. It is imported where it is used, because most stages need none of it.
"""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

# Standard errors that a value must be away from chance: 2.3% of one-sided tests of pure noise pass.
REQUIRED = 2.0
ONE_SIDED = 0.02275
RESAMPLES = 2_000
# Share below which an outcome is a rarity, however many rows show that it is not zero.
RARE = 0.02
# Values that must differ before a paired difference can be significant: 2 ** -5 is 3%.
FEWEST = 5


def above_chance(value: float, chance: float, standard_error: float) -> bool:
    """Whether ``value`` is more than two standard errors above ``chance``; not, where the error is unknown (NaN)."""
    return value - chance > REQUIRED * standard_error


def occurs(count: float, n: int, standard_error: float) -> bool:
    """Whether an outcome is more than a rarity among ``n``: in at least 2% of them, and two standard errors above none."""
    return n > 0 and count / n >= RARE and above_chance(count / n, 0.0, standard_error)


def proportion_error(successes: float, n: int) -> float:
    """Standard error of a proportion, in [0, 0.5]; of the plus-four estimate (Agresti and Coull 1998).

    Two successes and two failures are added, so that 0 of 5 and 5 of 5 have an error, too. Without observations: 0.5.
    """
    estimate = (successes + 2) / (n + 4)
    return math.sqrt(estimate * (1 - estimate) / (n + 4)) if n else 0.5


def shares_error(shares: Sequence[float]) -> float:
    """Standard error of the mean of N shares in [0, 1], one per item: ``proportion_error`` of items with several answers.

    Two items with share 1 and two with share 0 are added, so that it equals ``proportion_error`` where every share is 0
    or 1. Items are what is drawn: the error contains the choice of the items and the sampling of their answers.
    Without items: 0.5.
    """
    if not shares:
        return 0.5
    n = len(shares) + 4
    estimate = (sum(shares) + 2) / n
    return math.sqrt(max(0.0, (sum(share * share for share in shares) + 2) / n - estimate * estimate) / n)


def proportion_above_chance(successes: float, n: int, chance: float, standard_error: float = 0.0) -> bool:
    """Whether a proportion is more than two standard errors above ``chance``.

    The error is that of chance itself, as in Wilson's interval: 3 of 3 are not above one half, 5 of 5 are.

    Args:
        successes: number of successes among ``n``.
        n: number of observations; none are above nothing.
        chance: proportion that needs no skill, in [0, 1].
        standard_error: a larger error, where observations are not independent (``mean_error`` with groups).
    """
    if not n:
        return False
    return above_chance(successes / n, chance, max(standard_error, math.sqrt(chance * (1 - chance) / n)))


def mean_error(values: Sequence[float], groups: Sequence[Hashable] | None = None) -> float:
    """Standard error of the mean of N values; NaN for fewer than two values or groups.

    Args:
        values: N numbers.
        groups: the item that each value belongs to. Values of one item (samples of one problem) are not independent, and the
            error is that of the items (cluster-robust).
    """
    x = np.asarray(values, dtype=float)
    names = list(range(len(x))) if groups is None else list(groups)
    residuals: dict[Hashable, float] = {}
    for name, value in zip(names, x - x.mean() if len(x) else x, strict=True):
        residuals[name] = residuals.get(name, 0.0) + float(value)
    n = len(residuals)
    if n < 2:
        return math.nan
    return math.sqrt(sum(r * r for r in residuals.values()) * n / (n - 1)) / len(x)


def ratio_error(groups: Mapping[tuple[int, int], int]) -> float:
    """Standard error of a share of successes that come in groups: ``mean_error`` of the single outcomes, from counts.

    Args:
        groups: number of groups by their size and their successes; at least one has a size above 0.

    Returns:
        The error of all successes over all sizes; NaN for fewer than two groups. The order of the counts does not matter.
    """
    counted = sorted((size, right, n) for (size, right), n in groups.items() if size)
    n, total = sum(n for _, _, n in counted), sum(size * n for size, _, n in counted)
    if n < 2:
        return math.nan
    mean = sum(right * n for _, right, n in counted) / total
    squares = sum(times * (right - mean * size) ** 2 for size, right, times in counted)
    return math.sqrt(squares * n / (n - 1)) / total


def worse_error(*errors: float) -> float:
    """The largest of several estimates of one standard error; unknown ones (NaN) do not count, unless all are."""
    known = [error for error in errors if not math.isnan(error)]
    return max(known) if known else math.nan


def reported(value: float) -> float | None:
    """A number for a metrics file: six digits, and null where it is unknown (NaN), because JSON has no NaN."""
    return None if math.isnan(value) else round(float(value), 6)


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float:
    """Spearman's rank correlation in [-1, 1]; 0 where one side does not vary, because then nothing is ranked."""
    from scipy.stats import rankdata

    a, b = (rankdata(side) - (len(side) + 1) / 2 for side in (first, second))
    spread = math.sqrt(float(a @ a) * float(b @ b))
    return max(-1.0, min(1.0, float(a @ b) / spread)) if spread else 0.0


def rank_correlation_error(n: int) -> float:
    """Standard error of Fisher's z = artanh(rank correlation) of ``n`` pairs (Fieller et al. 1957); NaN below 4 pairs.

    Near 0, z and the correlation are the same.
    """
    return math.sqrt(1.06 / (n - 3)) if n > 3 else math.nan


def rank_correlation_above_chance(correlation: float, n: int) -> bool:
    """Whether a rank correlation of ``n`` pairs is more than two standard errors above 0, on Fisher's scale."""
    z = math.atanh(max(-1 + 1e-12, min(1 - 1e-12, correlation)))
    return above_chance(z, 0.0, rank_correlation_error(n))


def mcnemar(better: int, worse: int) -> float:
    """Exact two-sided p of McNemar's test, in (0, 1]: ``better`` and ``worse`` count items that one side alone gets right."""
    from scipy.stats import binomtest

    return float(binomtest(better, better + worse, 0.5).pvalue) if better + worse else 1.0


def student(mean: float, standard_error: float, n: int) -> float:
    """Two-sided p of Student's test that the mean of ``n`` values is 0, in [0, 1]; 1 where the
    error is unknown or 0 with mean 0.
    """
    from scipy.stats import t

    if math.isnan(standard_error) or mean == 0:
        return 1.0
    return float(2 * t.sf(abs(mean) / standard_error, n - 1)) if standard_error else 0.0


@dataclass(frozen=True)
class Difference:
    """Second minus first, over N items that both sides answered.

    Attributes:
        n: number of items (groups, where there are any).
        value: mean difference.
        standard_error: of the mean difference over items; NaN below two items.
        low: lower end of the bootstrap's 95% interval.
        high: upper end of it.
        better: values where second is above first.
        worse: values where second is below first.
        p_value: two-sided. Exact McNemar where each item is right or wrong; else Student's, of the mean difference.
    """

    n: int
    value: float
    standard_error: float
    low: float
    high: float
    better: int
    worse: int
    p_value: float

    @property
    def above_zero(self) -> bool:
        """Whether second beats first by more than two standard errors.

        Not with fewer than five values that differ: even if all differ to one side, that is luck in 6% of cases or more.
        """
        return self.better + self.worse >= FEWEST and above_chance(self.value, 0.0, self.standard_error)


def paired_difference(
    first: Sequence[float], second: Sequence[float], seed: int = 0, groups: Sequence[Hashable] | None = None
) -> Difference:
    """Compare two sides on the same items, item by item.

    Args:
        first: N values, often 0 or 1.
        second: N values of the same items, in the same order.
        seed: of the bootstrap; equal data and seed give equal numbers.
        groups: the item that each value belongs to, where an item has several; resampled as a whole.

    Raises:
        ValueError: the sides have different lengths, or no values.
    """
    if len(first) != len(second) or not len(first):
        raise ValueError(
            f"paired difference: {len(first)} and {len(second)} values. Expected as many of each, at least 1."
        )
    delta = np.asarray(second, dtype=float) - np.asarray(first, dtype=float)
    better, worse = int((delta > 0).sum()), int((delta < 0).sum())
    low, high = bootstrap_interval(delta.tolist(), seed, groups)
    n = len(set(groups)) if groups is not None else len(delta)
    error = mean_error(delta.tolist(), groups)
    # A count of signs is blind to sizes: 40 items a little worse and 4 far better would be "worse" at an equal mean.
    counts = groups is None and bool(np.isin(delta, (-1.0, 0.0, 1.0)).all())
    return Difference(
        n=n,
        value=float(delta.mean()),
        standard_error=error,
        low=low,
        high=high,
        better=better,
        worse=worse,
        p_value=mcnemar(better, worse) if counts else student(float(delta.mean()), error, n),
    )


def bootstrap_interval(
    values: Sequence[float], seed: int, groups: Sequence[Hashable] | None = None, resamples: int = RESAMPLES
) -> tuple[float, float]:
    """95% percentile interval of the mean of N values, from items drawn with replacement.

    Args:
        values: N numbers, at least 1.
        seed: of the draws.
        groups: the item that each value belongs to; an item is drawn whole.
        resamples: number of draws of all items.
    """
    sums: dict[Hashable, list[float]] = {}
    for name, value in zip(range(len(values)) if groups is None else groups, values, strict=True):
        total = sums.setdefault(name, [0.0, 0.0])
        total[0] += value
        total[1] += 1
    table = np.array(list(sums.values()))
    generator = np.random.default_rng(seed)
    means = np.empty(resamples)
    for at in range(resamples):  # one draw at a time: N items times all resamples would not fit for large N
        drawn = table[generator.integers(0, len(table), len(table))].sum(axis=0)
        means[at] = drawn[0] / drawn[1]
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)
