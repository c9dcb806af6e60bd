"""What sampled attempts at seed problems say about the problems."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from scalequest.outcomes import RIGHT


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
