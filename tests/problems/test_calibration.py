"""The calibration of a judge; what stage judge makes of it is in tests/stages/test_judge.py."""

from typing import Any

import pytest

from scalequest.domains.maths import asks
from scalequest.problems.calibration import calibration_metrics, calibration_rows, calibration_seeds, share

SEEDS: list[dict[str, Any]] = [
    {"id": f"{source}/{i}", "source": source, "stratum": "", "question": f"Tom buys {i + 2} pens at {i + 30} cents. What is the sum?",
     "solution": f"{i + 2} * {i + 30}", "answer": ""}
    for source, n in (("a", 30), ("b", 10)) for i in range(n)
]  # fmt: skip


def test_seeds_are_drawn_in_proportion_and_broken_in_their_order():
    chosen = calibration_seeds(SEEDS, 8, 17)
    assert [row["source"] for row in chosen] == ["a"] * 6 + ["b"] * 2
    rows = calibration_rows(chosen, asks, 17)
    ids = [row["id"] for row in chosen]
    assert [(row["kind"], row["seed_id"]) for row in rows] == [
        (kind, name) for kind in ("sound", "broken") for name in ids
    ]
    assert [row["question"] for row in rows[:8]] == [row["question"] for row in chosen]
    assert not {row["question"] for row in rows[8:]} & {row["question"] for row in chosen}
    assert len(calibration_seeds(SEEDS, 64, 17)) == 40
    metrics, warnings = calibration_metrics(rows, ["solvable"] * 8 + ["unsolvable"] * 7 + ["no_verdict"], 17)
    assert (metrics["sound"]["solvable_frac"], metrics["broken"]["solvable_frac"]) == (1.0, 0.0)
    assert (metrics["difference"], warnings) == (1.0, {"judge_decides_nothing": False})


def test_a_share_of_nothing_is_unknown():
    assert share([], "frac") == {"n": 0, "frac": None, "standard_error": None}
    # Plus-four: (1 + 2) / (4 + 4) = 3/8.
    assert share([True, False, False, False], "frac") == {
        "n": 4,
        "frac": 0.25,
        "standard_error": pytest.approx((3 / 8 * 5 / 8 / 8) ** 0.5, abs=1e-6),
    }
