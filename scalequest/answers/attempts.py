"""What sampled attempts at seed problems say about the problems."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from scalequest.outcomes import RIGHT
from scalequest.statistics import ONE_SIDED, mean_error, occurs, proportion_error, worse_error


def fail_rates(attempts: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Share of a problem's samples that are not right, in [0, 1], by problem id; an unreadable answer is a fail.

    Args:
        attempts: rows with ``problem_id`` and ``outcome`` (records.ATTEMPT).
    """
    total: Counter[str] = Counter()
    failed: Counter[str] = Counter()
    for row in attempts:
        total[row["problem_id"]] += 1
        failed[row["problem_id"]] += row["outcome"] != RIGHT
    return {problem: failed[problem] / total[problem] for problem in total}


@dataclass(frozen=True)
class RightShare:
    """Share of N samples that are right.

    Attributes:
        n: number of samples.
        share: in [0, 1].
        standard_error: of the share; the samples of one problem are not independent.
    """

    n: int
    share: float
    standard_error: float

    @property
    def two_classes(self) -> bool:
        """Whether both right and other samples occur, neither as a rarity."""
        return all(occurs(share * self.n, self.n, self.standard_error) for share in (self.share, 1 - self.share))


def right_share(attempts: Sequence[dict[str, Any]]) -> RightShare:
    """Share of the samples that are right; rows with ``problem_id`` and ``outcome``, at least one."""
    right = [float(row["outcome"] == RIGHT) for row in attempts]
    error = worse_error(
        mean_error(right, [row["problem_id"] for row in attempts]), proportion_error(sum(right), len(right))
    )
    return RightShare(len(right), sum(right) / len(right), error)


@dataclass(frozen=True)
class Reliability:
    """How much of what fail rates differ by is a difference of the problems.

    Attributes:
        share: part of the rates' variance that is not the luck of n samples, in [0, 1]. No scorer can correlate with the labels
            by more than its root.
        p_value: of the hypothesis that all problems are equally hard (chi-square test of homogeneity); 1 where one sample per
            problem cannot tell.
    """

    share: float
    p_value: float

    @property
    def above_chance(self) -> bool:
        """Whether the rates differ by more than luck: two standard errors, one-sided."""
        return self.p_value < ONE_SIDED


def label_reliability(attempts: Sequence[dict[str, Any]]) -> Reliability:
    """Whether the fail rates of N problems are labels, or the noise of their samples.

    Args:
        attempts: rows with ``problem_id`` and ``outcome``, at least one.
    """
    from scipy.stats import chi2

    samples = Counter(row["problem_id"] for row in attempts)
    rates = fail_rates(attempts)
    mean = sum(rates[problem] * n for problem, n in samples.items()) / len(attempts)
    freedom = len(samples) - 1
    if max(samples.values()) == 1 or not 0 < mean < 1 or not freedom:
        return Reliability(0.0, 1.0)
    between = sum(n * (rates[problem] - mean) ** 2 for problem, n in samples.items())
    within = sum(n * rates[problem] * (1 - rates[problem]) for problem, n in samples.items())
    # Analysis of variance: mean square between problems against that within them.
    share = 1 - within / (len(attempts) - len(samples)) / (between / freedom) if between else 0.0
    return Reliability(max(0.0, share), float(chi2.sf(between / (mean * (1 - mean)), freedom)))
