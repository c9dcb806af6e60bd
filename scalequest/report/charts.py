"""Charts as SVG, drawn when the report is made: they need no script, print, and follow the page's colours.

Widths are percentages and heights pixels, so that a bar follows the screen and a letter keeps its size. Series are told
apart by place and label, never by colour alone.
"""

import html
from collections.abc import Sequence

from scalequest.report.blocks import Bars, Curves, Funnel, Graph, Histogram

# The scale of a chart of percentages ends at the first of these that holds every bar and its whisker.
SCALES = (5, 10, 20, 40, 60, 80, 100)
# Pixels of one strip of a histogram, and of its label.
STRIP, STRIP_LABEL = 48, 18
# Pixels of a box of a graph, and from one to the next.
BOX_WIDTH, BOX_HEIGHT, STEP_X, STEP_Y = 150, 38, 166, 68


def bars_svg(block: Bars) -> str:
    """Draw one row per bar: its label and value above, the whisker one standard error to each side."""
    bars = [bar for _, group in block.groups for bar in group]
    top = scale(max((bar.value + bar.error for bar in bars), default=0))
    y, parts = 0, []
    for title, group in block.groups:
        parts.append(_label(0, y + 16, title, "group"))
        y += 28
        for bar in group:
            parts += [_label(0, y + 10, bar.label), _label(100, y + 10, f"{bar.value:.1f} ± {bar.error:.1f}", "number")]
            parts += [
                _rect("track", 0, 100, y + 17),
                _rect("strong" if bar.strong else "bar", 0, 100 * bar.value / top, y + 17),
            ]
            low, high = (100 * min(max(bar.value + side * bar.error, 0), top) / top for side in (-1, 1))
            if bar.error:
                parts.append(_whisker(low, high, y + 23))
            y += 40
        y += 8
    for tick in range(5):
        anchor = ("start", "middle", "middle", "middle", "end")[tick]
        parts.append(
            f'<text class="tick" x="{25 * tick}%" y="{y + 8}" text-anchor="{anchor}">{top * tick / 4:g} %</text>'
        )
    spoken = "; ".join(
        f"{title}: " + ", ".join(f"{b.label} {b.value:.1f} plus or minus {b.error:.1f} percent" for b in group)
        for title, group in block.groups
    )
    return _svg(y + 14, f"{block.title}. {spoken}", parts)


def funnel_svg(block: Funnel) -> str:
    """Draw one row per step: solid what is left, pale what the step took, both as shares of the first step."""
    whole = max(1, block.steps[0][1] + block.steps[0][2])
    y, parts = 0, []
    for at, (label, left, taken) in enumerate(block.steps):
        number = f"{left:,}" + (f" (−{taken:,})" if taken else "")
        name = _label(0, y + 10, label)
        if at < len(block.links) and block.links[at]:
            name = f'<a href="#{html.escape(block.links[at])}">{name}</a>'
        parts += [name, _label(100, y + 10, number, "number"), _rect("track", 0, 100, y + 17)]
        parts += [
            _rect("taken", 100 * left / whole, 100 * taken / whole, y + 17),
            _rect("strong", 0, 100 * left / whole, y + 17),
        ]
        y += 38
    spoken = "; ".join(f"{label}: {left} left, {taken} taken" for label, left, taken in block.steps)
    return _svg(y, f"{block.title}. {spoken}", parts)


def histogram_svg(block: Histogram) -> str:
    """Draw one strip of columns per series over a common axis; a line marks the mean."""
    y, parts = 0, []
    for name, n, mean, shares in block.series:
        top, width = max(max(shares, default=0), 1e-9), 100 / max(1, len(shares))
        parts += [_label(0, y + 12, name), _label(100, y + 12, f"{n:,} · mean {mean:.3g}", "number")]
        y += STRIP_LABEL
        for place, share in enumerate(shares):
            if share:
                height = max(1.0, STRIP * share / top)
                parts.append(
                    f'<rect class="bar" x="{place * width:.2f}%" y="{y + STRIP - height:.1f}" width="{width * 0.92:.2f}%" '
                    f'height="{height:.1f}"/>'
                )
        at = 100 * (mean - block.low) / ((block.high - block.low) or 1)
        parts.append(f'<g class="mean"><line x1="{at:.2f}%" x2="{at:.2f}%" y1="{y}" y2="{y + STRIP}"/></g>')
        parts.append(f'<g class="axis"><line x1="0%" x2="100%" y1="{y + STRIP}" y2="{y + STRIP}"/></g>')
        y += STRIP + 14
    for tick in range(5):
        anchor = ("start", "middle", "middle", "middle", "end")[tick]
        value = block.low + (block.high - block.low) * tick / 4
        parts.append(f'<text class="tick" x="{25 * tick}%" y="{y}" text-anchor="{anchor}">{value:.3g}</text>')
    spoken = "; ".join(f"{name}: {n} values, mean {mean:.3g}" for name, n, mean, _ in block.series)
    return _svg(y + 6, f"{block.title}. {spoken}", parts)


def curves_html(block: Curves) -> str:
    """Draw one small chart per line, each on its own scale, with its first and last value in words."""
    return "\n".join(_curve(name, points) for name, points in block.lines)


def _curve(name: str, points: Sequence[tuple[float, float]]) -> str:
    left, right = points[0][0], points[-1][0]
    values = [value for _, value in points]
    low, high = min(values), max(values)
    width, height = (right - left) or 1, (high - low) or 1
    path = " ".join(f"{100 * (x - left) / width:.1f},{60 - 58 * (y - low) / height:.1f}" for x, y in points)
    words = f"{values[0]:.3f} → {values[-1]:.3f} in {right:,.0f} steps"
    spoken = html.escape(f"{name}: from {values[0]:.3f} to {values[-1]:.3f} in {right:,.0f} steps")
    return (
        f'<figure class="curve"><figcaption><b>{html.escape(name)}</b> {words}</figcaption>'
        f'<svg role="img" width="100%" height="62" viewBox="0 0 100 62" preserveAspectRatio="none" aria-label="{spoken}">'
        f'<polyline points="{path}"/></svg></figure>'
    )


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
    """Draw the boxes in rows, with a line from each to those that it is made from."""
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
    spoken = html.escape("; ".join(f"{name} from {', '.join(above) or 'outside'}" for name, _, above in block.nodes))
    height = STEP_Y * len(rows) - (STEP_Y - BOX_HEIGHT) + 4
    return f'<svg role="img" width="{width}" height="{height}" aria-label="{spoken}">\n' + "\n".join(parts) + "\n</svg>"


def scale(value: float) -> int:
    """End of the scale for percentages up to ``value``."""
    return next((end for end in SCALES if value <= end), SCALES[-1])


def _svg(height: int, spoken: str, parts: Sequence[str]) -> str:
    return (
        f'<svg role="img" width="100%" height="{height}" aria-label="{html.escape(spoken)}">\n'
        + "\n".join(parts)
        + "\n</svg>"
    )


def _rect(kind: str, x: float, width: float, y: int) -> str:
    return f'<rect class="{kind}" x="{x:.2f}%" y="{y}" width="{width:.2f}%" height="12"/>'


def _label(x: int, y: int, text: str, kind: str = "label") -> str:
    anchor = "end" if x else "start"
    return f'<text class="{kind}" x="{x}%" y="{y}" text-anchor="{anchor}">{html.escape(text)}</text>'


def _whisker(low: float, high: float, y: int) -> str:
    ends = "".join(f'<line x1="{x:.2f}%" x2="{x:.2f}%" y1="{y - 4}" y2="{y + 4}"/>' for x in (low, high))
    return f'<g class="whisker"><line x1="{low:.2f}%" x2="{high:.2f}%" y1="{y}" y2="{y}"/>{ends}</g>'
