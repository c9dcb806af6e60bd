"""Charts as SVG, drawn by Altair (Vega-Lite) when the report is made: they need no script, print, and follow the page's colours.

A colour is a variable of the page's style, so that dark mode changes it. No place depends on a font of this machine: all
widths are given, and equal blocks give equal bytes. A chart is as wide as a phone. Series are told apart by place and label,
never by colour alone.
"""

import html
import re
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import vl_convert

from scalequest.report.blocks import Amounts, Bar, Bars, Curves, Funnel, Graph, Histogram

# Pixels. A chart fits a phone of 390 beside the page's margins. A funnel is also drawn wide, and the page shows
# the one that fits.
WIDTH, WIDE, CURVE_WIDTH, CURVE_HEIGHT = 340, 680, 300, 90
# Pixels of a bar, of the room of one bar with its label, and of what is above the bar in it.
BAR, ROW, LABEL = 12, 40, 17
# Pixels of one strip of a histogram, of its label, and of the room below it.
STRIP, STRIP_LABEL, STRIP_GAP = 48, 18, 14
# The scale of a chart of percentages ends at the first of these that holds every bar and its whisker.
SCALES = (5, 10, 20, 40, 60, 80, 100)
# Pixels of a box of a graph, and from one to the next.
BOX_WIDTH, BOX_HEIGHT, STEP_X, STEP_Y = 150, 38, 166, 68

Row = Mapping[str, Any]


def bars_html(block: Bars) -> str:
    """Draw one chart per group: a row per bar with label and value above, the whisker one standard error to each side."""
    top = scale(max((bar.value + bar.error for _, bars in block.groups for bar in bars), default=0))
    charts = "\n".join(
        f'<div><p class="group">{html.escape(title)}</p>\n{bars_svg(title, bars, top)}</div>'
        for title, bars in block.groups
    )
    return f'<div class="charts">\n{charts}\n</div>'


def bars_svg(title: str, bars: Sequence[Bar], top: float, width: int = WIDTH) -> str:
    """Draw the bars of one group on a scale from 0 to ``top`` percent."""
    rows = [
        {"y": ROW * at + LABEL, "label": bar.label, "number": f"{bar.value:.1f} ± {bar.error:.1f}", "from": 0, "to": min(bar.value, top),
         "colour": "var(--strong)" if bar.strong else "var(--bar)", "top": top, "error": bar.error, "middle": ROW * at + LABEL + BAR / 2,
         "low": max(bar.value - bar.error, 0), "high": min(bar.value + bar.error, top)}
        for at, bar in enumerate(bars)
    ]  # fmt: skip
    x = _from(0, top, _axis([top * tick / 4 for tick in range(5)], labelExpr="datum.value + ' %'"))
    spoken = ", ".join(f"{bar.label} {bar.value:.1f} plus or minus {bar.error:.1f} percent" for bar in bars)
    whiskers = [row for row in rows if row["error"]]
    ends = [{"at": row[end], "middle": row["middle"]} for row in whiskers for end in ("low", "high")]
    middle, height = _pixels("middle", ROW * len(rows)), ROW * len(rows)
    layers = [
        _bars(rows, x, "top", alt.value("var(--hair)")),
        _bars(rows, x, "to", alt.Color("colour:N", scale=None)),
        alt.Chart(_data(whiskers))
        .mark_rule(color="var(--mark)", strokeWidth=1.5)
        .encode(x=alt.X("low:Q"), x2=alt.X2("high"), y=middle),
        alt.Chart(_data(ends))
        .mark_tick(color="var(--mark)", thickness=1.5, size=8, orient="vertical")
        .encode(x=alt.X("at:Q"), y=middle),
        *_labels(rows, width, height),
    ]
    return _svg(layers, width, height, f"{title}, percent", spoken, below=20)


def amounts_html(block: Amounts) -> str:
    """Draw the bars for a phone and for a wide screen; the page's style shows the one that fits."""
    return f'<div class="narrow">{amounts_svg(block, WIDTH)}</div>\n<div class="wide">{amounts_svg(block, WIDE)}</div>'


def amounts_svg(block: Amounts, width: int = WIDTH) -> str:
    """Draw one row per amount, as a share of the largest."""
    top = max((amount for _, amount, _ in block.rows), default=0) or 1
    rows = [
        {"y": ROW * at + LABEL, "label": label, "number": words, "from": 0, "to": amount, "top": top}
        for at, (label, amount, words) in enumerate(block.rows)
    ]
    x = _from(0, top)
    layers = [
        _bars(rows, x, "top", alt.value("var(--hair)")),
        _bars(rows, x, "to", alt.value("var(--strong)")),
        *_labels(rows, width, ROW * len(rows)),
    ]
    spoken = "; ".join(f"{label}: {words}" for label, _, words in block.rows)
    return _svg(layers, width, ROW * len(rows), block.title, spoken)


def funnel_html(block: Funnel) -> str:
    """Draw the funnel for a phone and for a wide screen; the page's style shows the one that fits."""
    return f'<div class="narrow">{funnel_svg(block, WIDTH)}</div>\n<div class="wide">{funnel_svg(block, WIDE)}</div>'


def funnel_svg(block: Funnel, width: int = WIDTH) -> str:
    """Draw one row per step: solid what is left, pale what the step took, both as shares of the first step."""
    whole = max(1, block.steps[0][1] + block.steps[0][2])
    links = [*block.links, *[""] * len(block.steps)]
    rows = [
        {"y": ROW * at + LABEL, "label": label, "number": f"{left:,}" + (f" (−{taken:,})" if taken else ""),
         "from": 0, "left": left, "taken": left + taken, "whole": whole, "link": f"#{links[at]}" if links[at] else None}
        for at, (label, left, taken) in enumerate(block.steps)
    ]  # fmt: skip
    x = _from(0, whole)
    layers = [
        _bars(rows, x, "whole", alt.value("var(--hair)")),
        _bars(rows, x, "taken", alt.value("var(--taken)")),
        _bars(rows, x, "left", alt.value("var(--strong)")),
        *_labels([row for row in rows if not row["link"]], width, ROW * len(rows)),
        *_labels([row for row in rows if row["link"]], width, ROW * len(rows), linked=True),
    ]
    spoken = "; ".join(f"{label}: {left} left, {taken} taken" for label, left, taken in block.steps)
    return _svg(layers, width, ROW * len(rows), block.title, spoken)


def histogram_svg(block: Histogram) -> str:
    """Draw one strip of columns per series over a common axis; a line marks the mean."""
    columns, heads, room = [], [], STRIP_LABEL + STRIP + STRIP_GAP
    for at, (name, n, mean, shares) in enumerate(block.series):
        top, bin_width = max(max(shares, default=0), 1e-9), (block.high - block.low) / max(1, len(shares))
        foot = at * room + STRIP_LABEL + STRIP
        # `y` is where `_labels` writes above; a mean beyond the axis is drawn at its end.
        heads.append(
            {"y": at * room + STRIP_LABEL, "label": name, "number": f"{n:,} · mean {mean:.3g}", "from": block.low, "to": block.high,
             "foot": foot, "mean": min(max(mean, block.low), block.high)}
        )  # fmt: skip
        columns += [
            {"from": block.low + place * bin_width, "to": block.low + (place + 0.92) * bin_width, "foot": foot,
             "y": foot - max(1.0, STRIP * share / top)}
            for place, share in enumerate(shares)
            if share
        ]  # fmt: skip
    height = room * len(block.series)
    ticks = [block.low + (block.high - block.low) * tick / 4 for tick in range(5)]
    x = _from(block.low, block.high, _axis(ticks, format=".3~r"))
    layers = [
        alt.Chart(_data(columns))
        .mark_rect(color="var(--bar)")
        .encode(x=x, x2=alt.X2("to"), y=_pixels("y", height), y2=alt.Y2("foot")),
        alt.Chart(_data(heads)).mark_rule(color="var(--line)").encode(x=x, x2=alt.X2("to"), y=_pixels("foot", height)),
        alt.Chart(_data(heads))
        .mark_rule(color="var(--mark)", strokeWidth=2, strokeDash=[3, 2])
        .encode(x=alt.X("mean:Q"), y=_pixels("y", height), y2=alt.Y2("foot")),
        *_labels(heads, WIDTH, height),
    ]
    spoken = "; ".join(f"{name}: {n} values, mean {mean:.3g}" for name, n, mean, _ in block.series)
    return _svg(layers, WIDTH, height, block.title, spoken, below=20)


def curves_html(block: Curves) -> str:
    """Draw one small chart per line, each on its own scale, with its first and last value in words."""
    return "\n".join(_curve(name, points) for name, points in block.lines)


def _curve(name: str, points: Sequence[tuple[float, float]]) -> str:
    rows = [{"step": step, "value": value} for step, value in points]
    values, last = [value for _, value in points], points[-1][0]
    x = alt.X("step:Q", scale=_around([points[0][0], last]), axis=_axis(sorted({points[0][0], last}), format=",~f"))
    y = alt.Y(
        "value:Q",
        scale=_around(values),
        axis=_axis(sorted({min(values), max(values)}), format=".3~r", grid=True, labelFlush=alt.Undefined),
    )
    layers = [
        alt.Chart(_data(rows)).mark_line(color="var(--strong)", strokeWidth=1.75).encode(x=x, y=y),
        alt.Chart(_data(rows[-1:])).mark_point(filled=True, size=30, opacity=1, color="var(--mark)").encode(x=x, y=y),
    ]
    words = f"{values[0]:.3f} → {values[-1]:.3f} in {last:,.0f} steps"
    spoken = f"from {values[0]:.3f} to {values[-1]:.3f} in {last:,.0f} steps"
    svg = _svg(layers, CURVE_WIDTH - 48, CURVE_HEIGHT, name, spoken, below=20, before=44, after=4)
    return f'<figure class="curve"><figcaption><b>{html.escape(name)}</b> {words}</figcaption>{svg}</figure>'


def ranks(block: Graph) -> list[list[str]]:
    """The boxes in rows: each below all that it is made from, in a row near the middle of those."""
    rank: dict[str, int] = {}
    for name, _, above in block.nodes:
        rank[name] = max((rank[other] + 1 for other in above if other in rank), default=0)
    rows: list[list[str]] = [[] for _ in range(max(rank.values(), default=-1) + 1)]
    above_of = {name: [other for other in above if other in rank] for name, _, above in block.nodes}
    place: dict[str, float] = {}
    for name in rank:
        rows[rank[name]].append(name)
    for row in rows:
        row.sort(key=lambda name: sum(map(place.__getitem__, above_of[name])) / max(1, len(above_of[name])))
        for at, name in enumerate(row):
            place[name] = at - (len(row) - 1) / 2
    return rows


def graph_svg(block: Graph) -> str:
    """Draw the boxes in rows, with a line from each to those that it is made from. Vega-Lite has no layout for a graph."""
    rows = ranks(block)
    width = STEP_X * max(map(len, rows), default=1)
    at = {
        name: (width / 2 + STEP_X * (place - (len(row) - 1) / 2), 2 + STEP_Y * level)
        for level, row in enumerate(rows)
        for place, name in enumerate(row)
    }
    parts = []
    for name, _, above in block.nodes:
        x, y = at[name]
        for other in (other for other in above if other in at):
            left, top = at[other][0], at[other][1] + BOX_HEIGHT
            half = (y - top) / 2
            parts.append(
                f'<path class="edge" d="M{left:.0f} {top}C{left:.0f} {top + half:.0f} {x:.0f} {y - half:.0f} {x:.0f} {y}"/>'
            )
    for name, remark, _ in block.nodes:
        x, y = at[name]
        parts += [
            f'<rect class="box" x="{x - BOX_WIDTH / 2:.0f}" y="{y}" width="{BOX_WIDTH}" height="{BOX_HEIGHT}"/>',
            f'<text x="{x:.0f}" y="{y + 16}" text-anchor="middle">{html.escape(name)}</text>',
            f'<text class="tick" x="{x:.0f}" y="{y + 31}" text-anchor="middle">{html.escape(remark)}</text>',
        ]
    spoken = "; ".join(f"{name} from {', '.join(above) or 'outside'}" for name, _, above in block.nodes)
    height = STEP_Y * len(rows) - (STEP_Y - BOX_HEIGHT) + 4
    head = f'<svg class="graph" role="img" width="{width}" height="{height}">{_spoken(block.title, spoken)}'
    return "\n".join([head, *parts, "</svg>"])


def scale(value: float) -> int:
    """End of the scale for percentages up to ``value``."""
    return next((end for end in SCALES if value <= end), SCALES[-1])


def _svg(
    layers: Sequence[alt.Chart],
    width: int,
    height: int,
    title: str,
    spoken: str,
    below: int = 0,
    before: int = 0,
    after: int = 0,
) -> str:
    """The layers as SVG in ``width`` x ``height`` pixels, with room ``before``, ``after`` and ``below`` it for its axes."""
    chart = alt.layer(*layers).properties(
        width=width,
        height=height,
        autosize="none",
        padding={"left": before, "right": after, "top": 0, "bottom": below},
    )
    chart = chart.configure(font="inherit", aria=False).configure_view(stroke=None)
    chart = chart.configure_axis(labelColor="var(--soft)", labelFontSize=12, labelPadding=6, gridColor="var(--hair)")
    svg = vl_convert.vegalite_to_svg(chart.to_dict() | {"background": None})
    # Text between tags is left as it is: Vega escapes its "<" and ">".
    body = re.sub(r"<[^>]*>", lambda tag: _tidied(tag[0]), svg[svg.index(">") + 1 :])
    # What is in an image has no links for a screen reader.
    role = "group" if "<a " in body else "img"
    across, down = before + width + after, height + below
    return f'<svg role="{role}" width="{across}" height="{down}" viewBox="0 0 {across} {down}">{_spoken(title, spoken)}{body}'


def _tidied(tag: str) -> str:
    """A tag of Vega's with links into the page, which Vega makes absolute, and with hundredths of a pixel, which are enough."""
    tag = re.sub(r' xlink:href="[^"#]*#', ' href="#', tag)
    tag = re.sub(r' (?:role|aria-[a-z]+|pointer-events)="[^"]*"', "", tag)
    return re.sub(r"\d+\.\d{3,}", lambda number: f"{float(number[0]):.2f}", tag)


def _spoken(title: str, spoken: str) -> str:
    return f"<title>{html.escape(title.replace('`', ''))}</title><desc>{html.escape(spoken)}</desc>"


def _data(rows: Sequence[Row]) -> alt.InlineData:
    return alt.InlineData(values=list(rows))


def _pixels(field: str, height: int) -> alt.Y:
    """A vertical place in pixels from the top of a chart."""
    return alt.Y(f"{field}:Q", axis=None, scale=alt.Scale(domain=[0, height], range=[0, height], nice=False))


def _from(low: float, high: float, axis: alt.Axis | None = None) -> alt.X:
    """A row's ``from`` on a scale of exactly these ends."""
    return alt.X("from:Q", axis=axis, scale=alt.Scale(domain=[low, high], nice=False))


def _axis(values: Sequence[float], **more: Any) -> alt.Axis:
    """Numbers at these values, the first and the last flush with the ends, and no lines; ``more`` may change any of it."""
    quiet = {"title": None, "grid": False, "domain": False, "ticks": False, "labelFlush": True, "labelOverlap": False}
    return alt.Axis(values=list(values), **quiet | more)


def _bars(rows: Sequence[Row], x: alt.X, end: str, colour: Any) -> alt.Chart:
    """A bar per row, from its ``from`` to its ``end``."""
    height = ROW * len(rows)
    chart = alt.Chart(_data(rows)).mark_rect().transform_calculate(foot=f"datum.y + {BAR}")
    return chart.encode(x=x, x2=alt.X2(end), y=_pixels("y", height), y2=alt.Y2("foot"), color=colour)


def _labels(rows: Sequence[Row], width: int, height: int, linked: bool = False) -> list[alt.Chart]:
    """The label of each row at the left above it, its number at the right."""
    base = alt.Chart(_data(rows)).encode(y=_pixels("y", height))
    left = base.mark_text(
        align="left", baseline="bottom", dy=-3, fontSize=13, color="var(--accent)" if linked else "var(--ink)"
    )
    left = left.encode(x=alt.value(0), text=alt.Text("label:N"), **({"href": alt.Href("link:N")} if linked else {}))
    right = base.mark_text(align="right", baseline="bottom", dy=-3, fontSize=13, color="var(--ink)")
    return [left, right.encode(x=alt.value(width), text=alt.Text("number:N"))] if rows else []


def _around(values: Sequence[float]) -> alt.Scale:
    """A scale from the lowest to the highest value; a single one is in its middle."""
    low, high = min(values), max(values)
    return alt.Scale(domain=[low, high] if low < high else [low - 1, low + 1], nice=False, zero=False)
