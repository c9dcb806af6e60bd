"""A report as plain blocks, and its two renderings: Markdown, and one HTML file that needs nothing beside it.

Our own words may contain `code` between backticks and nothing else. Model text is never trusted: it is escaped in HTML and
put into a fence longer than any run of backticks in Markdown. Equal blocks give equal bytes.
"""

import base64
import html
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256

from scalequest.report.style import SCRIPT, STYLE

# Characters of one model text shown; what is left out is counted.
CLIP = 4000
# The scale of a chart of percentages ends at the first of these that holds every bar and its whisker.
SCALES = (5, 10, 20, 40, 60, 80, 100)


@dataclass(frozen=True)
class Text:
    """A paragraph; ``alert`` is for what must not be overlooked."""

    text: str
    alert: bool = False


@dataclass(frozen=True)
class Table:
    """A table. The first column names the row; ``align`` has one letter per column, l or r; ``folded`` hides it behind its title."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    align: str
    folded: bool = False


@dataclass(frozen=True)
class Bar:
    """A percentage and its standard error."""

    label: str
    value: float
    error: float
    strong: bool


@dataclass(frozen=True)
class Bars:
    """Bars with whiskers, in groups. In Markdown the table beside it has the same numbers."""

    title: str
    groups: list[tuple[str, list[Bar]]]


@dataclass(frozen=True)
class Funnel:
    """What is left after each step and what the step took: (label, left, taken). In Markdown a table has the numbers."""

    title: str
    steps: list[tuple[str, int, int]]


@dataclass(frozen=True)
class Sample:
    """One row of data: what it is, facts about it, its texts by name, and the ``groups`` it can be picked by."""

    label: str
    facts: str
    texts: tuple[tuple[str, str], ...]
    group: str = ""


@dataclass(frozen=True)
class Samples:
    """Rows to read. ``folded`` ones show their first line only; ``browse`` ones are many, and in the HTML page only."""

    title: str
    items: list[Sample]
    folded: bool = False
    browse: bool = False


Block = Text | Table | Bars | Funnel | Samples


@dataclass(frozen=True)
class Section:
    """A heading and its content."""

    title: str
    blocks: list[Block]

    @property
    def anchor(self) -> str:
        """The heading as a link's target."""
        return re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")


@dataclass(frozen=True)
class Report:
    """The whole report; ``figures`` are a few numbers with a label each."""

    name: str
    headline: str
    lead: list[str]
    figures: list[tuple[str, str]]
    sections: list[Section]


def code(text: str) -> str:
    """Mark data among our own words, on one line."""
    return f"`{' '.join(text.replace('`', chr(39)).split())}`"


def clip(text: str) -> str:
    """Keep at most ``CLIP`` characters, and say how many were left out."""
    return text if len(text) <= CLIP else f"{text[:CLIP]}\n[{len(text) - CLIP:,} more characters]"


# ------------------------------------------------------------------------------------------------------------ Markdown


def markdown(report: Report) -> str:
    """Render the report as GitHub reads it; charts are left to the page, the tables have their numbers."""
    parts = [f"# {report.name}: {report.headline}", *map(markdown_line, report.lead)]
    for section in report.sections:
        parts += [f"## {section.title}", markdown_blocks(section.blocks)]
    return "\n\n".join(parts) + "\n"


def markdown_blocks(blocks: Iterable[Block]) -> str:
    """Blocks one after the other, without a final newline."""
    return "\n\n".join(text for text in map(_markdown_block, blocks) if text)


def markdown_line(text: str) -> str:
    """Our own words with data in them, on one line that is safe in a table; code spans keep all but the pipe."""
    parts = re.split(r"(`[^`]*`)", " ".join(text.split()))
    parts[::2] = [re.sub(r"([\\<>*\[\]#~|])", r"\\\1", part) for part in parts[::2]]
    parts[1::2] = [part.replace("|", r"\|") for part in parts[1::2]]
    return "".join(parts)


def fenced(text: str) -> str:
    """Fence a text so that no run of backticks in it ends the block."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text}\n{fence}"


def _markdown_block(block: Block) -> str:
    match block:
        case Text(text, alert):
            return f"> **Note.** {markdown_line(text)}" if alert else markdown_line(text)
        case Table():
            lines = [block.head, [{"l": ":---", "r": "---:"}[side] for side in block.align], *block.rows]
            table = "\n".join(f"| {' | '.join(map(markdown_line, line))} |" for line in lines)
            return _folded(block.title, table) if block.folded else f"**{markdown_line(block.title)}**\n\n{table}"
        case Samples(browse=False):
            items = "\n\n".join(map(_markdown_sample, block.items)) or "None."
            return _folded(block.title, items) if block.folded else f"### {markdown_line(block.title)}\n\n{items}"
        case _:
            return ""


def _markdown_sample(sample: Sample) -> str:
    texts = "\n\n".join(f"{name}:\n\n{fenced(clip(text))}" for name, text in sample.texts)
    return f"{markdown_line(sample.label)} — {markdown_line(sample.facts)}\n\n{texts}"


def _folded(title: str, body: str) -> str:
    return f"<details>\n<summary>{inline(title)}</summary>\n\n{body}\n\n</details>"


# ---------------------------------------------------------------------------------------------------------------- HTML


def html_page(report: Report) -> str:
    """Render the report as one HTML file: no network, no font, no script needed to read it.

    A policy allows the browser nothing but this file's own script and style, by their hashes.
    """
    policy = (
        f"default-src 'none'; script-src {_hash(SCRIPT)}; style-src {_hash(STYLE)}; base-uri 'none'; form-action 'none'"
    )
    links = "".join(f'<li><a href="#{s.anchor}">{inline(s.title)}</a></li>' for s in report.sections)
    lead = "".join(f"<p>{inline(text)}</p>" for text in report.lead)
    figures = "".join(f"<div><dt>{inline(label)}</dt><dd>{inline(value)}</dd></div>" for value, label in report.figures)
    sections = "\n".join(
        f'<section id="{s.anchor}" aria-labelledby="{s.anchor}-title">\n<h2 id="{s.anchor}-title">{inline(s.title)}</h2>\n'
        + "\n".join(map(_html_block, s.blocks))
        + "\n</section>"
        for s in report.sections
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="color-scheme" content="light dark">
<title>{html.escape(report.name)}: {html.escape(report.headline)}</title>
<style>{STYLE}</style>
</head>
<body>
<a class="skip" href="#content">Skip to the results</a>
<nav aria-label="Sections"><p>{inline(report.name)}</p><ul>{links}</ul></nav>
<main id="content">
<header>
<p class="name">{inline(report.name)}</p>
<h1>{inline(report.headline)}</h1>
<div class="lead">{lead}</div>
<dl class="figures">{figures}</dl>
</header>
{sections}
</main>
<script>{SCRIPT}</script>
</body>
</html>
"""


def inline(text: str) -> str:
    """Our own words, escaped, with `code` as code."""
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", html.escape(text))


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(sha256(text.encode()).digest()).decode()}'"


def _html_block(block: Block) -> str:
    match block:
        case Text(text, alert):
            return f'<p class="alert" role="note">{inline(text)}</p>' if alert else f"<p>{inline(text)}</p>"
        case Table():
            return _html_table(block)
        case Bars():
            return _figure(block.title, bars_svg(block))
        case Funnel():
            return _figure(
                block.title,
                funnel_svg(block),
                '<span class="key strong">left</span> <span class="key taken">taken</span>',
            )
        case Samples():
            return _html_samples(block)


def _html_table(block: Table) -> str:
    head = "".join(
        f'<th scope="col" class="{a}">{inline(c)}</th>' for a, c in zip(block.align, block.head, strict=True)
    )
    rows = "\n".join(
        "<tr>"
        + "".join(
            f'<td class="{side}">{inline(cell)}</td>'
            if column
            else f'<th scope="row" class="{side}">{inline(cell)}</th>'
            for column, (side, cell) in enumerate(zip(block.align, row, strict=True))
        )
        + "</tr>"
        for row in block.rows
    )
    label = html.escape(block.title.replace("`", ""))
    table = (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{label}"><table aria-label="{label}">\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table></div>"
    )
    return _fold(block.title, table) if block.folded else f'<p class="caption">{inline(block.title)}</p>\n{table}'


def _fold(title: str, body: str) -> str:
    return f'<details class="fold"><summary>{inline(title)}</summary>\n{body}\n</details>'


def _html_samples(block: Samples) -> str:
    items = "\n".join(_html_sample(item, block.folded or block.browse) for item in block.items) or "<p>None.</p>"
    if not block.browse:
        return f'<div class="samples"><h3>{inline(block.title)}</h3>\n{items}\n</div>'
    groups = "".join(f"<option>{html.escape(g)}</option>" for g in dict.fromkeys(s.group for s in block.items))
    # The script shows the fields; without it everything is there to read.
    tools = (
        '<p class="tools" hidden><label>Containing <input type="search"></label> '
        f'<label>Only <select><option value="">all</option>{groups}</select></label> <output></output></p>'
    )
    return _fold(block.title, f'<div class="browse">{tools}\n{items}\n</div>')


def _html_sample(sample: Sample, folded: bool) -> str:
    texts = "".join(
        f'<dt>{inline(name)}</dt><dd dir="auto">{html.escape(clip(text))}</dd>' for name, text in sample.texts
    )
    facts = f'<p class="facts">{inline(sample.label)} · {inline(sample.facts)}</p>'
    if not folded:
        return f'<article class="sample">{facts}<dl>{texts}</dl></article>'
    first = " ".join(sample.texts[0][1].split())[:160] or "(no text)"
    group = html.escape(sample.group, quote=True)
    return (
        f'<details class="sample" data-group="{group}"><summary><span class="group">{html.escape(sample.group)}</span> '
        f'<span class="first" dir="auto">{html.escape(first)}</span></summary>{facts}<dl>{texts}</dl></details>'
    )


# -------------------------------------------------------------------------------------------------------------- charts
# Widths are percentages and heights pixels, so that a bar follows the screen and a letter keeps its size.


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
    for label, left, taken in block.steps:
        number = f"{left:,}" + (f" (−{taken:,})" if taken else "")
        parts += [_label(0, y + 10, label), _label(100, y + 10, number, "number"), _rect("track", 0, 100, y + 17)]
        parts += [
            _rect("taken", 100 * left / whole, 100 * taken / whole, y + 17),
            _rect("strong", 0, 100 * left / whole, y + 17),
        ]
        y += 38
    spoken = "; ".join(f"{label}: {left} left, {taken} taken" for label, left, taken in block.steps)
    return _svg(y, f"{block.title}. {spoken}", parts)


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


def _figure(title: str, svg: str, legend: str = "") -> str:
    return f"<figure><figcaption>{inline(title)} {legend}</figcaption>\n{svg}\n</figure>"
