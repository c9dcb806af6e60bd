import re
import subprocess
import sys

import pytest

from scalequest.report.blocks import Bar, Curves, Funnel, Graph, Histogram
from scalequest.report.charts import bars_svg, curves_html, funnel_svg, graph_svg, histogram_svg, ranks, scale
from scalequest.report.page import STYLE
from tests.report.finished import Page


def marks(svg: str, kind: str) -> list[str]:
    """Paths or lines of a colour of the page."""
    return re.findall(rf"<(?:path|line) [^>]*var\(--{kind}\)[^>]*>", svg)


def test_bars_end_inside_the_chart() -> None:
    # 50 ± 5 needs the scale up to 60: in 340 pixels the bar ends at 340 * 50 / 60, its whisker goes from 45/60 to 55/60.
    svg = bars_svg("sums", [Bar("student", 50, 5, strong=True)], scale(55))
    assert 'd="M0,17h283.33v12h-283.33Z"' in marks(svg, "strong")[0]
    whisker = marks(svg, "mark")[0]
    assert "translate(255,23)" in whisker
    assert 'x2="56.67"' in whisker
    assert len(marks(svg, "bar")) == 0


def test_a_bar_without_an_error_has_no_whisker() -> None:
    svg = bars_svg("sums", [Bar("", 50, 0, strong=False), Bar("", 104, 0, strong=False)], 100)
    assert [re.search(r"h([0-9.]+)v", bar)[1] for bar in marks(svg, "bar")] == ["170", "340"]  # type: ignore[index]
    assert not marks(svg, "mark")


@pytest.mark.parametrize(
    "text",
    ["</svg><script>x</script>", "a & <b>", "1.23456", "مرحبا", "\"'`", "w" * 500, 'q xlink:href="z#y', 'a role="x" b'],
)
def test_a_label_is_shown_as_text(text: str) -> None:
    # As an HTML parser reads it, every label is one text, unchanged, and no tag comes of it.
    svg = bars_svg("", [Bar(text, 1.23456, 0, strong=False)], 5) + funnel_svg(Funnel("", [(text, 1, 0)], ["a?b=c"]))
    page = Page(svg)
    assert page.texts.count(text) == 2
    assert {tag for tag, _ in page.tags} <= {"svg", "title", "desc", "g", "path", "line", "text", "a"}


def test_charts_repeat_byte_for_byte_in_another_process() -> None:
    code = (
        "from scalequest.report.charts import *; from scalequest.report.blocks import *; from hashlib import sha256;"
        "drawn = histogram_svg(Histogram('x', 0, 4, [('a', 4, 2.0, [0.5, 0, 0, 0.5])]))"
        " + bars_html(Bars('b', [('g', [Bar('l', 1, 0.5, True)])])) + funnel_html(Funnel('f', [('s', 3, 1)], ['q']))"
        " + curves_html(Curves('c', [('n', [(1, 2.5), (3, 0.5)])]));"
        "print(sha256(drawn.encode()).hexdigest(), 'id=' in drawn, 'url(' in drawn, 'http' in drawn.replace('http://www.w3.org', ''))"
    )
    printed = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    ]
    assert printed[0] == printed[1]
    assert printed[0].split()[1:] == ["False"] * 3


def test_every_colour_is_a_variable_of_the_page() -> None:
    # Dark mode changes the variables; a colour of Vega's own would stay.
    drawn = histogram_svg(Histogram("x", 0, 4, [("a", 4, 2.0, [0.5, 0, 0, 0.5])])) + bars_svg(
        "b", [Bar("l", 1, 0.5, True)], 5
    )
    drawn += funnel_svg(Funnel("f", [("s", 3, 1)], ["q"])) + curves_html(Curves("c", [("n", [(1, 2.5), (3, 0.5)])]))
    found = set(re.findall(r'(?:fill|stroke)="([^"]*)"', drawn))
    assert found - {"none"} <= {f"var({name})" for name in re.findall(r"--[a-z-]+", STYLE)}


@pytest.mark.parametrize(("value", "end"), [(0, 5), (5, 5), (5.1, 10), (55, 60), (100, 100), (104, 100)])
def test_scale_holds_the_value(value: float, end: int) -> None:
    assert scale(value) == end


def test_a_histograms_columns_are_shares_and_its_mean_is_marked() -> None:
    # Bins from 0 to 4 on 340 pixels: half of the values in the first, the others in the last; the mean 2 is at half of the width.
    svg = histogram_svg(Histogram("x", 0, 4, [("a & b", 4, 2.0, [0.5, 0, 0, 0.5])]))
    assert [re.search(r'd="M([0-9.]+),18h[0-9.]+v48', bar)[1] for bar in marks(svg, "bar")] == ["0", "255"]  # type: ignore[index]
    assert "translate(170,66)" in marks(svg, "mark")[0] or "translate(170,18)" in marks(svg, "mark")[0]
    assert "a &amp; b" in svg
    assert re.findall(r">([0-9.]+)</text>", svg) == ["0", "1", "2", "3", "4"]


def test_a_curve_goes_from_its_first_to_its_last_point() -> None:
    html = curves_html(Curves("loss", [("qft@sums", [(1, 2.5), (2, 1.5), (3, 0.5)])]))
    # Steps 1 to 3 fill the 252 pixels beside the numbers, the values 2.5 to 0.5 the 90 pixels of the height.
    assert 'd="M0,0L126,45L252,90"' in marks(html, "strong")[0]
    assert "2.500 → 0.500 in 3 steps" in html
    assert sorted(re.findall(r">([0-9.]+)</text>", html)) == ["0.5", "1", "2.5", "3"]


def test_a_curve_of_one_point_is_drawn() -> None:
    html = curves_html(Curves("loss", [("a", [(1, 1.0)])]))
    assert len(marks(html, "mark")) == 1


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
    # A screen reader does not look for links in an image.
    assert svg.startswith('<svg role="group"')
