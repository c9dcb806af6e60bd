import re

import pytest

from scalequest.report.blocks import Curves, Funnel, Graph, Histogram
from scalequest.report.charts import curves_html, funnel_svg, graph_svg, histogram_svg, ranks, scale
from tests.report.finished import Folder


def test_bars_end_inside_the_chart(folder: Folder) -> None:
    text = folder.run()[1]
    # 50 ± 5 needs the scale up to 60: the student's bar on sums is 50/60 of the width, its whisker
    # goes from 45/60 to 55/60.
    assert '<rect class="strong" x="0.00%" y="125" width="83.33%" height="12"/>' in text
    assert '<line x1="75.00%" x2="91.67%" y1="131" y2="131"/>' in text


@pytest.mark.parametrize(("value", "end"), [(0, 5), (5, 5), (5.1, 10), (55, 60), (100, 100), (104, 100)])
def test_scale_holds_the_value(value: float, end: int) -> None:
    assert scale(value) == end


def test_a_histograms_columns_are_shares_and_its_mean_is_marked() -> None:
    # Bins from 0 to 4: half of the values in the first, the others in the last; the mean 2 is at half of the width.
    svg = histogram_svg(Histogram("x", 0, 4, [("a & b", 4, 2.0, [0.5, 0, 0, 0.5])]))
    assert [float(x) for x in re.findall(r'<rect class="bar" x="([0-9.]+)%"', svg)] == [0, 75]
    assert '<g class="mean"><line x1="50.00%" x2="50.00%"' in svg
    assert "a &amp; b" in svg
    assert re.findall(r">([0-9.]+)</text>", svg)[-5:] == ["0", "1", "2", "3", "4"]


def test_a_curve_goes_from_its_first_to_its_last_point() -> None:
    html = curves_html(Curves("loss", [("qft@sums", [(1, 2.5), (2, 1.5), (3, 0.5)])]))
    # The highest value is 2 from the top of 62, the lowest 60; steps 1 to 3 fill the width.
    assert '<polyline points="0.0,2.0 50.0,31.0 100.0,60.0"/>' in html
    assert "2.500 → 0.500 in 3 steps" in html


def test_a_curve_of_one_point_is_drawn() -> None:
    assert '<polyline points="0.0,60.0"/>' in curves_html(Curves("loss", [("a", [(1, 1.0)])]))


def test_a_box_is_below_all_that_it_is_made_from() -> None:
    graph = Graph("x", [("a", "", []), ("b", "", ["a"]), ("c", "1 & 2", ["a", "b"]), ("d", "", ["elsewhere"])])
    assert ranks(graph) == [["a", "d"], ["b"], ["c"]]
    svg = graph_svg(graph)
    assert svg.count('class="box"') == 4
    assert svg.count('class="edge"') == 3
    assert "1 &amp; 2" in svg
    assert "c from a, b" in svg


def test_a_step_of_the_funnel_links_to_its_rows() -> None:
    svg = funnel_svg(Funnel("x", [("generated", 4, 0), ("too_easy", 3, 1)], ["", "questions?outcome=too_easy"]))
    assert svg.count("<a ") == 1
    assert '<a href="#questions?outcome=too_easy"><text' in svg
