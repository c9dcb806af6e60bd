import math
from pathlib import Path

import pytest

from scalequest.records import ATTEMPT, write_rows
from scalequest.report.distributions import BINS, POINTS, fail_rates, histogram, read_curve
from tests.report.finished import ATTEMPTS


def test_shares_of_a_series_sum_to_one_and_ends_are_in_the_outermost_bins() -> None:
    made = histogram("x", {"a": [float(n) for n in range(1000)], "b": [-1e9, 1e9], "none": [None, math.nan]})
    assert made is not None
    assert [name for name, *_ in made.series] == ["a", "b"]
    for _, _, _, shares in made.series:
        assert len(shares) == BINS
        assert sum(shares) == pytest.approx(1)
    # A value far out neither stretches the axis nor is lost.
    assert made.series[1][3][0] == made.series[1][3][-1] == 0.5
    assert made.high < 1100


def test_equal_values_have_a_bin() -> None:
    made = histogram("x", {"a": [1.0, 1.0]})
    assert made is not None
    assert made.series[0][3][0] == 1


def test_without_values_there_is_no_histogram() -> None:
    assert histogram("x", {"a": []}) is None


def test_a_fail_rate_is_the_share_of_answers_that_are_not_right(tmp_path: Path) -> None:
    write_rows(tmp_path / "attempts", ATTEMPTS, ATTEMPT)
    assert fail_rates(tmp_path / "attempts") == [1.0, 0.5]


def test_a_long_curve_is_thinned_and_keeps_its_ends(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("step,loss\n" + "".join(f"{n},{n}.5\n" for n in range(1, 1002)) + "1002,nan\n,\n")
    points = read_curve(file, "loss")
    assert len(points) <= POINTS + 1
    assert points[0] == (1.0, 1.5)
    assert points[-1] == (1001.0, 1001.5)
    assert read_curve(file, "grad_norm") == []
