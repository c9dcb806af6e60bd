"""What a report consists of, as plain data: blocks in sections. ``page`` renders them as Markdown and as HTML.

Our own words may contain `code` between backticks and nothing else. Texts of models and data are marked as such.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

# Characters of one model text shown; what is left out is counted.
CLIP = 4000


@dataclass(frozen=True)
class Text:
    """A paragraph; ``alert`` is for what must not be overlooked.

    ``link`` names a file beside the page, which `FILE` in the text then opens. Markdown keeps the name without a link.
    """

    text: str
    alert: bool = False
    link: str = ""


@dataclass(frozen=True)
class Table:
    """A table. The first column names the row; ``align`` has one letter per column, l or r; ``folded`` hides it behind its title.

    ``links`` may give each row's name a place on the page to go to: the fragment of the address, empty for none.
    """

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    align: str
    folded: bool = False
    links: Sequence[str] = ()


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
class Amounts:
    """Bars of one unit, from 0 to the largest: (label, amount, the amount in words). In the page only."""

    title: str
    rows: Sequence[tuple[str, float, str]]


@dataclass(frozen=True)
class Funnel:
    """What is left after each step and what the step took: (label, left, taken). In Markdown a table has the numbers.

    ``links`` gives each step the fragment of the address that shows its rows, empty for none.
    """

    title: str
    steps: list[tuple[str, int, int]]
    links: Sequence[str] = ()


@dataclass(frozen=True)
class Histogram:
    """Shares of each series in equal bins from ``low`` to ``high``, one strip per series. In the page only.

    Attributes:
        title: what is counted, with its unit.
        low: left end of the first bin.
        high: right end of the last bin.
        series: name, number of values, mean, and the share of them in each bin.
    """

    title: str
    low: float
    high: float
    series: list[tuple[str, int, float, list[float]]]


@dataclass(frozen=True)
class Curves:
    """Small line charts, one per name: (name, points), x rising. In the page only."""

    title: str
    lines: list[tuple[str, list[tuple[float, float]]]]


@dataclass(frozen=True)
class Graph:
    """Boxes and the boxes that each is made from: (name, remark, names above). Each comes after those. In the page only."""

    title: str
    nodes: list[tuple[str, str, list[str]]]


@dataclass(frozen=True)
class Sample:
    """One row of data: what it is, facts about it, and its texts by name."""

    label: str
    facts: str
    texts: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Samples:
    """Rows to read. ``folded`` ones show their first line only."""

    title: str
    items: list[Sample]
    folded: bool = False


@dataclass(frozen=True)
class Column:
    """A column of a browser. ``kind``: "text" (searched), "category" (chosen from a list), or "number" (a range).

    Where ``order`` names the categories in the order of the steps, a reader can also ask for the rows that passed one.
    """

    key: str
    label: str
    kind: str
    order: Sequence[str] = ()


@dataclass(frozen=True)
class Browser:
    """A table to search, filter and sort. A row opens all its texts. In the page only, where the script draws it.

    Attributes:
        key: its name in the page's address.
        title: what the rows are, and how many of how many.
        note: how they were chosen.
        columns: the first is the row's id.
        rows: ``cells``, one value per column, and ``texts``: (name, text, remark) in reading order.
        marks: whether a reader can mark rows as good or bad.
        beside: texts that are shown side by side, by position; the others are below each other.
    """

    key: str
    title: str
    note: str
    columns: Sequence[Column]
    rows: Sequence[dict[str, Any]]
    marks: bool = False
    beside: Sequence[int] = ()


Block = Text | Table | Bars | Amounts | Funnel | Histogram | Curves | Graph | Samples | Browser


@dataclass(frozen=True)
class Section:
    """A heading and its content; ``page_only`` keeps it out of the Markdown."""

    title: str
    blocks: list[Block]
    page_only: bool = False

    @property
    def anchor(self) -> str:
        """The heading as a link's target."""
        return re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")


@dataclass(frozen=True)
class Report:
    """The whole report; ``figures`` are a few numbers with a label each, ``record`` is for the page only."""

    name: str
    headline: str
    lead: list[str]
    figures: list[tuple[str, str]]
    sections: list[Section]
    record: Sequence[str] = ()


def code(text: str) -> str:
    """Mark data among our own words, on one line."""
    return f"`{' '.join(text.replace('`', chr(39)).split())}`"


def clip(text: str) -> str:
    """Keep at most ``CLIP`` characters, and say how many were left out."""
    return text if len(text) <= CLIP else f"{text[:CLIP]}\n[{len(text) - CLIP:,} more characters]"
