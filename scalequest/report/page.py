"""Two renderings of a report: Markdown, and one HTML file that needs nothing beside it.

Our own words may contain `code` between backticks and nothing else. Model text is never trusted: it
is escaped in HTML and put into a fence longer than any run of backticks in Markdown. Equal blocks
give equal bytes.
"""

import base64
import html
import json
import re
import zlib
from collections.abc import Iterable, Iterator
from hashlib import sha256
from pathlib import Path

from scalequest.report.blocks import (
    Amounts,
    Bars,
    Block,
    Browser,
    Curves,
    Funnel,
    Graph,
    Histogram,
    Report,
    Sample,
    Samples,
    Table,
    Text,
    clip,
)
from scalequest.report.charts import amounts_html, bars_html, curves_html, funnel_html, graph_svg, histogram_svg

ASSETS = Path(__file__).parent / "assets"
STYLE = (ASSETS / "report.css").read_text(encoding="utf-8")
# KaTeX 0.19.1 as published, MIT licence (katex.LICENSE). Only its MathML output is used, which
# needs no style sheet or font.
KATEX = (ASSETS / "katex.min.js").read_text(encoding="utf-8")
SCRIPT = (ASSETS / "report.js").read_text(encoding="utf-8")


# ------------------------------------------------------------------------------------------------------------ Markdown


def markdown(report: Report) -> str:
    """Render the report as GitHub reads it; charts are left to the page, the tables have their numbers."""
    parts = [f"# {report.name}: {report.headline}", *map(markdown_line, report.lead)]
    for section in (section for section in report.sections if not section.page_only):
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
        case Samples():
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
    """Render the report as one HTML file: no network, no font; without scripts all but the browsers is there.

    A policy allows the browser nothing but this file's own script and style, by their hashes.
    """
    policy = (
        f"default-src 'none'; script-src {_hash(KATEX)} {_hash(SCRIPT)}; style-src {_hash(STYLE)}; base-uri 'none'; "
        "form-action 'none'"
    )
    links = "".join(f'<li><a href="#{s.anchor}">{inline(s.title)}</a></li>' for s in report.sections)
    lead = "".join(f"<p>{inline(text)}</p>" for text in report.lead)
    record = "".join(f'<p class="record">{inline(text)}</p>' for text in report.record)
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
{record}
</header>
{sections}
</main>
<script>{KATEX}</script>
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
        case Text(text, alert, link):
            words = inline(text)
            if link:
                name = f"<code>{html.escape(link)}</code>"
                words = words.replace(name, f'<a href="{html.escape(link, quote=True)}">{name}</a>')
            return f'<p class="alert" role="note">{words}</p>' if alert else f"<p>{words}</p>"
        case Table():
            return _html_table(block)
        case Bars():
            return _figure(block.title, bars_html(block))
        case Amounts():
            return _figure(block.title, amounts_html(block))
        case Funnel():
            return _figure(
                block.title,
                funnel_html(block),
                '<span class="key strong">left</span> <span class="key taken">taken</span>',
            )
        case Histogram():
            return _figure(block.title, histogram_svg(block), kind="tile")
        case Curves():
            return f'<p class="caption">{inline(block.title)}</p>\n<div class="curves">{curves_html(block)}</div>'
        case Graph():
            label = html.escape(block.title)
            scroll = f'<div class="scroll" role="region" tabindex="0" aria-label="{label}">{graph_svg(block)}</div>'
            return _figure(block.title, scroll)
        case Samples():
            return _html_samples(block)
        case Browser():
            return _html_browser(block)


def _html_table(block: Table) -> str:
    head = "".join(
        f'<th scope="col" class="{a}">{inline(c)}</th>' for a, c in zip(block.align, block.head, strict=True)
    )
    # A table of texts becomes blocks on a narrow screen, where its last columns, which carry the meaning, would be out of sight.
    stack = set(block.align) == {"l"} and len(block.head) > 2
    labels = [f' data-label="{html.escape(c.replace("`", ""), quote=True)}"' if stack else "" for c in block.head]
    rows = "\n".join(
        "<tr>"
        + "".join(
            f'<td class="{side}"{labels[column]}>{inline(cell)}</td>'
            if column
            else f'<th scope="row" class="{side}">{_linked(cell, link)}</th>'
            for column, (side, cell) in enumerate(zip(block.align, row, strict=True))
        )
        + "</tr>"
        for row, link in zip(block.rows, [*block.links, *[""] * len(block.rows)], strict=False)
    )
    label, kind = html.escape(block.title.replace("`", "")), ' class="stack"' if stack else ""
    table = (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{label}"><table{kind} aria-label="{label}">\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table></div>"
    )
    return _fold(block.title, table) if block.folded else f'<p class="caption">{inline(block.title)}</p>\n{table}'


def _linked(cell: str, fragment: str) -> str:
    return f'<a href="#{html.escape(fragment, quote=True)}">{inline(cell)}</a>' if fragment else inline(cell)


def _fold(title: str, body: str) -> str:
    return f'<details class="fold"><summary>{inline(title)}</summary>\n{body}\n</details>'


def _html_samples(block: Samples) -> str:
    items = "\n".join(_html_sample(item, block.folded) for item in block.items) or "<p>None.</p>"
    return f'<div class="samples"><h3>{inline(block.title)}</h3>\n{items}\n</div>'


def browser_json(block: Browser) -> str:
    """The rows of a browser as the script reads them, before they are packed: what has to be looked through for secrets."""
    columns = [{"key": c.key, "label": c.label, "kind": c.kind, "order": list(c.order)} for c in block.columns]
    data = {"columns": columns, "rows": list(block.rows), "marks": block.marks, "beside": list(block.beside)}
    return json.dumps(data, ensure_ascii=False, separators=(",", ":"))


def browsers(report: Report) -> Iterator[Browser]:
    """Every browser of a report."""
    for section in report.sections:
        yield from (block for block in section.blocks if isinstance(block, Browser))


def packed(text: str) -> str:
    """A text as base64 of its deflated bytes (zlib): letters that no HTML parser can take for a tag."""
    return base64.b64encode(zlib.compress(text.encode("utf-8", "surrogatepass"), 9)).decode()


def _html_browser(block: Browser) -> str:
    key, data = html.escape(block.key, quote=True), packed(browser_json(block))
    return (
        f'<div class="browser" id="{key}" data-key="{key}"><h3>{inline(block.title)}</h3>\n<p>{inline(block.note)}</p>\n'
        '<noscript><p class="alert">The rows need a script, which this browser does not run.</p></noscript>\n'
        f'<script type="application/octet-stream" class="rows">{data}</script></div>'
    )


def _html_sample(sample: Sample, folded: bool) -> str:
    texts = "".join(
        f'<dt>{inline(name)}</dt><dd dir="auto">{html.escape(clip(text))}</dd>' for name, text in sample.texts
    )
    facts = f'<p class="facts">{inline(sample.label)} · {inline(sample.facts)}</p>'
    if not folded:
        return f'<article class="sample">{facts}<dl>{texts}</dl></article>'
    first = " ".join(sample.texts[0][1].split())[:160] or "(no text)"
    return (
        f'<details class="sample"><summary><span class="first" dir="auto">{html.escape(first)}</span></summary>{facts}'
        f"<dl>{texts}</dl></details>"
    )


def _figure(title: str, svg: str, legend: str = "", kind: str = "") -> str:
    opening = f'<figure class="{kind}">' if kind else "<figure>"
    return f"{opening}<figcaption>{inline(title)} {legend}</figcaption>\n{svg}\n</figure>"
