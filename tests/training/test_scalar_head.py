"""How far training and saving moved a scalar head's scores, on scores made by hand."""

import pytest

from scalequest.training.scalar_head import compare_scores


def plus(scores: list[float], *steps: float) -> list[float]:
    return [score + step for score, step in zip(scores, steps, strict=True)]


BASE = [4.0, 0.0, 4.0, 0.0]
LEARNED = plus(BASE, 0.1, 0.1, -0.1, -0.1)  # standard deviation of the scores 2.002, of what was learned 0.1


@pytest.mark.parametrize(
    ("trained", "saved", "lost"),
    [
        pytest.param(LEARNED, LEARNED, False, id="all_kept"),
        # The scores' own spread is that of the base: half of it hid that nothing was left.
        pytest.param(LEARNED, BASE, True, id="rounded_back_to_the_base"),
        pytest.param(LEARNED, plus(BASE, 0.06, 0.06, -0.06, -0.06), False, id="more_than_half_kept"),
        pytest.param(LEARNED, plus(BASE, 0.04, 0.04, -0.04, -0.04), True, id="less_than_half_kept"),
        pytest.param(LEARNED, plus(LEARNED, 9.0, 9.0, 9.0, 9.0), False, id="a_constant_ranks_nothing"),
        # Training took the random head's spread away and left 0.1; saving drew 0.1 anew.
        pytest.param([0.6, 0.6, 0.4, 0.4], [0.6, 0.4, 0.6, 0.4], True, id="ranks_what_rounding_drew"),
    ],
)
def test_lost_in_saving_is_measured_against_the_base_heads_scores(trained: list[float], saved: list[float], lost: bool):
    metrics, flags = compare_scores(BASE, trained, saved)
    assert flags == {"lost_in_saving": lost}
    assert metrics["probes"] == 4


def test_the_movements_are_standard_deviations():
    metrics, _ = compare_scores(BASE, LEARNED, BASE)
    assert metrics == {"probes": 4, "score_deviation": 2.002498, "moved_by_training": 0.1, "moved_by_saving": 0.1}
    # 4.1, 0.1, 3.9, -0.1: mean 2, variance (2.1**2 + 1.9**2) / 2 = 4.01.


def test_without_probes_nothing_is_said():
    assert compare_scores([], [], []) == ({}, {})
