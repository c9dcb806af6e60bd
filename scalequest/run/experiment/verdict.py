"""Whether a claim holds: a difference with its error against zero and against the least difference that counts.

With d the measured difference, e its standard error and m the least difference that counts, a claim ``above``

- holds where d > 2e (and at least five values differ), by less than counts where also d + 2e < m,
- does not hold where d + 2e < m,
- is undecided otherwise.

If 2e is at most m / 2, one of the first two is true for every d. So the number of items that gives e = m / 4 settles the
claim whatever the difference is, and that number is the N of "needs N items". For ``not_below`` d + m takes the place of d.

The errors are here and not in ``scalequest/statistics.py``, because stages depend on that file.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from scalequest.outcomes import DOES_NOT_HOLD, HOLDS, UNDECIDED
from scalequest.statistics import FEWEST, REQUIRED, mcnemar, mean_error, proportion_error, worse_error

# Errors that fit into the least difference that counts, so that every difference is decided.
FITTING = 2 * REQUIRED


@dataclass(frozen=True)
class Measured:
    """A difference between two cells, in points of 100.

    Attributes:
        value: cell ``better`` minus cell ``than``.
        item_error: its standard error over items (questions, where there are no items).
        seed_error: what the training seeds add; 0 with one seed, where it is not known.
        n: number of items, of the smaller side where they are not paired.
        seeds: number of training seeds.
        higher: values where ``better`` is above; None where nothing is paired.
        lower: values where it is below.
        p_value: two-sided, of the paired test; None where nothing is paired.
        what: what ``n`` counts.
    """

    value: float
    item_error: float
    seed_error: float
    n: int
    seeds: int = 1
    higher: int | None = None
    lower: int | None = None
    p_value: float | None = None
    what: str = "items"

    @property
    def error(self) -> float:
        """The standard error of ``value``."""
        return math.hypot(self.item_error, self.seed_error)


@dataclass(frozen=True)
class Verdict:
    """A verdict and, where it is undecided, what is needed.

    Attributes:
        outcome: holds, does not hold or undecided.
        needs: what settles an undecided claim.
        small: whether a claim holds by a difference that is less than the least one that counts, d + 2e included.
    """

    outcome: str
    needs: str = ""
    small: bool = False

    def __str__(self) -> str:
        return f"{self.outcome}: {self.needs}" if self.needs else self.outcome


def paired_error(deltas: Sequence[float]) -> float:
    """Standard error of the mean of N paired differences in [-1, 1], with one difference to each side added.

    For right and wrong answers this is Agresti and Min's (2005), so that no differing item of N has an error, too.
    """
    x = np.asarray(deltas, dtype=float)
    n = len(x) + 2
    return math.sqrt(max(0.0, float(x @ x) + 1 - float(x.sum()) ** 2 / n)) / n


def paired(better: dict[str, dict[str, float]], than: dict[str, dict[str, float]]) -> Measured:
    """Compare two cells by the scores of their students, item by item and training seed by training seed.

    Args:
        better: student to item to its score in [0, 1].
        than: the same of the other cell; only students and items of both are compared.

    Raises:
        ValueError: they have no item of one student in common.
    """
    keys = [(s, item) for s in better if s in than for item in better[s] if item in than[s]]
    students = list(dict.fromkeys(s for s, _ in keys))
    first, second = [than[s][item] for s, item in keys], [better[s][item] for s, item in keys]
    items = [item for _, item in keys]
    if not keys:
        raise ValueError("paired difference: no item of one student in common. Expected at least 1.")
    several = len(students) > 1
    deltas = [b - a for a, b in zip(first, second, strict=True)]
    by_item: dict[str, list[float]] = {}
    for item, delta in zip(items, deltas, strict=True):
        by_item.setdefault(item, []).append(delta)
    item_error = worse_error(mean_error(deltas, items), paired_error([float(np.mean(v)) for v in by_item.values()]))
    seed_error = 0.0
    if several:
        # Clustered by item and by seed (Cameron, Gelbach and Miller 2011): what both have is counted once.
        by_seed = mean_error(deltas, [s for s, _ in keys])
        seed_error = math.sqrt(max(0.0, by_seed**2 - mean_error(deltas) ** 2))
    value = float(np.mean(deltas))
    higher, lower = sum(delta > 0 for delta in deltas), sum(delta < 0 for delta in deltas)
    right_or_wrong = all(delta in (-1.0, 0.0, 1.0) for delta in deltas)
    p_value = (
        mcnemar(higher, lower)
        if right_or_wrong and not several
        else two_errors(value, item_error, len(by_item), seed_error, len(students))
    )
    return Measured(
        100 * value, 100 * item_error, 100 * seed_error, len(by_item), len(students), higher, lower, p_value
    )


def two_errors(value: float, item_error: float, items: int, seed_error: float, seeds: int) -> float:
    """Two-sided p that a mean is 0 whose error has a part of ``items`` and one of ``seeds`` values, in [0, 1].

    Student's t, with degrees of freedom that both parts weigh (Welch and Satterthwaite).
    """
    from scipy.stats import t

    error = math.hypot(item_error, seed_error)
    if math.isnan(error) or value == 0:
        return 1.0
    if not error:
        return 0.0
    parts = ((item_error, items), (seed_error, seeds))
    if any(part and n < 2 for part, n in parts):  # one value has no spread
        return 1.0
    free = error**4 / sum(part**4 / (n - 1) for part, n in parts if part)
    return float(2 * t.sf(abs(value) / error, free))


def unpaired(better: Sequence[float], than: Sequence[float]) -> Measured:
    """Compare two cells by values in [0, 1] of other questions.

    Raises:
        ValueError: a side has no values.
    """
    if not len(better) or not len(than):
        raise ValueError(f"difference: {len(better)} and {len(than)} values. Expected at least 1 of each.")
    errors = []
    for side in (better, than):
        x = np.asarray(side, dtype=float)
        share = bool(np.isin(x, (0.0, 1.0)).all())
        errors.append(
            worse_error(mean_error(x.tolist()), proportion_error(float(x.sum()), len(x)) if share else math.nan)
        )
    value = float(np.mean(np.asarray(better, dtype=float))) - float(np.mean(np.asarray(than, dtype=float)))
    return Measured(100 * value, 100 * math.hypot(*errors), 0.0, min(len(better), len(than)), what="questions")


def decide(measured: Measured, matters: float, direction: str = "above") -> Verdict:
    """Return the verdict on a claim.

    Args:
        measured: the difference.
        matters: the least difference that counts, in points, above 0.
        direction: ``above`` or ``not_below``.
    """
    d = measured.value + (matters if direction == "not_below" else 0.0)
    if math.isnan(measured.error):
        return Verdict(UNDECIDED, f"its error is not known from {measured.n} {measured.what}")
    reach = REQUIRED * measured.error
    if d > reach and (direction == "not_below" or _enough(measured)):
        return Verdict(HOLDS, small=direction == "above" and d + reach < matters)
    if d + reach < matters:
        return Verdict(DOES_NOT_HOLD)
    return Verdict(UNDECIDED, needed(measured, matters))


def _enough(measured: Measured) -> bool:
    """Whether enough values differ: of four that all differ to one side, luck is as good an explanation."""
    return measured.higher is None or measured.lower is None or measured.higher + measured.lower >= FEWEST


def needed(measured: Measured, matters: float) -> str:
    """Say what settles the claim whatever the difference is: the number of items, or first of training seeds."""
    budget = matters**2 - (FITTING * measured.seed_error) ** 2
    if budget <= 0:
        # Half of the budget for the seeds, which leaves the other half to the items.
        seeds = math.ceil(measured.seeds * 2 * (FITTING * measured.seed_error / matters) ** 2)
        return f"needs {seeds:,} training seeds, has {measured.seeds}"
    n = math.ceil(measured.n * (FITTING * measured.item_error) ** 2 / budget)
    return f"needs {max(n, measured.n + 1):,} {measured.what}, has {measured.n:,}"
