"""Measuring a judge of questions on seeds: as they are, which can be solved, and broken mechanically, which cannot."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from scalequest.io import rounded
from scalequest.outcomes import SOLVABLE
from scalequest.problems.broken import broken
from scalequest.problems.draw import draw
from scalequest.statistics import paired_difference, proportion_error, reported

SOUND, BROKEN = "sound", "broken"


def calibration_seeds(seeds: Sequence[Mapping[str, Any]], n: int, seed: int) -> list[Mapping[str, Any]]:
    """``n`` seeds in proportion to their sources and strata, all where there are fewer."""
    strata = [(row["source"], row["stratum"]) for row in seeds]
    return [seeds[at] for at in draw([r["id"] for r in seeds], n, seed, strata, purpose="judge calibration")]


def calibration_rows(
    chosen: Sequence[Mapping[str, Any]], asks: Callable[[str], bool], seed: int
) -> list[dict[str, Any]]:
    """N seeds as they are and the same N broken, as questions for the judge.

    Returns:
        2N rows with ``id``, ``kind`` (sound or broken), ``way`` (how it was broken, empty if sound), ``seed_id`` and
        ``question``; the sound ones first, both in the order of the seeds.
    """
    sound = [(SOUND, "", row, row["question"]) for row in chosen]
    unsound = [(BROKEN, way, row, text) for row, (way, text) in zip(chosen, broken(chosen, asks, seed), strict=True)]
    return [
        {"id": f"{kind}/{row['id']}", "kind": kind, "way": way, "seed_id": row["id"], "question": question}
        for kind, way, row, question in [*sound, *unsound]
    ]


def calibration_metrics(
    rows: Sequence[Mapping[str, Any]], verdicts: Sequence[str], seed: int
) -> tuple[dict[str, Any], dict[str, bool]]:
    """How often the judge accepts sound and broken problems, with standard errors, and whether these differ.

    Args:
        rows: N rows of ``calibration_rows``.
        verdicts: the judge's verdict on each.
        seed: of the bootstrap.
    """
    accepted = [float(verdict == SOLVABLE) for verdict in verdicts]
    by_kind = {
        kind: [yes for row, yes in zip(rows, accepted, strict=True) if row["kind"] == kind] for kind in (SOUND, BROKEN)
    }
    # Sound and broken rows come in the order of the same seeds.
    difference = paired_difference(by_kind[BROKEN], by_kind[SOUND], seed)
    ways: dict[str, list[float]] = {}
    for row, yes in zip(rows, accepted, strict=True):
        if row["way"]:
            ways.setdefault(row["way"], []).append(yes)
    metrics = {
        "problems": difference.n,
        **{kind: share(yes, "solvable_frac") for kind, yes in by_kind.items()},
        "broken_by": {way: share(yes, "solvable_frac") for way, yes in sorted(ways.items())},
        "difference": rounded(difference.value),
        "difference_standard_error": reported(difference.standard_error),
        "difference_p_value": rounded(difference.p_value),
    }
    return metrics, {"judge_decides_nothing": not difference.above_zero}


def share(yes: Sequence[float], name: str) -> dict[str, Any]:
    """Number of problems, share of yes (under ``name``) and its standard error; None for both where there are no problems."""
    n = len(yes)
    return {
        "n": n,
        name: rounded(sum(yes) / n) if n else None,
        "standard_error": reported(proportion_error(sum(yes), n)) if n else None,
    }
