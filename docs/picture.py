"""Draw docs/overview.svg: the pipeline, and the counts and scores of the run in reports/results/gpu-1.5b.

python docs/picture.py           # write it
python docs/picture.py --check   # exit code 1 if the file is not what the results say

The scores are means of students that differ in their training seed. Their standard errors are over test items, which the
scores of single seeds do not give, so students.json keeps both. The base is that of the run gpu-135m.
The charts are those of the report (scalequest/report/charts.py) with its colours. The picture is plain SVG: its text stays text.
"""

import argparse
import re
import sys
from itertools import pairwise
from pathlib import Path
from xml.sax.saxutils import escape

from scalequest.io import read_json, write_text
from scalequest.report.blocks import Bar, Funnel
from scalequest.report.charts import bars_svg, funnel_svg, scale
from scalequest.report.kept import Kept
from scalequest.report.page import STYLE

ROOT = Path(__file__).resolve().parents[1]
RUN = ROOT / "reports" / "results" / "gpu-1.5b"
STUDENTS = RUN / "students.json"
BASE = RUN.parent / "gpu-135m" / "scores" / "base.json"
PICTURE = ROOT / "docs" / "overview.svg"

# Pixels of a chart.
CHART = 450
INK, SOFT, PAPER, BLUE = "#1f2933", "#52606d", "#ffffff", "#2f6fb0"
# The label of students that learned what the run generated.
GENERATED = "generated answers"
# Title, what happens, stages.
STEPS = (
    ("Learn to ask", ("fine-tune on questions,", "then on preferences"), "qft · preferences · qpo"),
    ("Ask", ("sample questions from", "an empty prompt"), "generate"),
    ("Filter", ("language, duplicates,", "solvability, difficulty"), "screen · judge · difficulty"),
    ("Answer", ("several answers each,", "keep the best-rewarded"), "respond · reward"),
    ("Teach", ("fine-tune the student", "and score it"), "instruct_tune · evaluate"),
)


def text(
    x: float, y: float, words: str, size: int = 14, fill: str = INK, anchor: str = "start", weight: int = 400
) -> str:
    """One line of text."""
    return (
        f'<text x="{x:g}" y="{y:g}" font-size="{size}" fill="{fill}" text-anchor="{anchor}" font-weight="{weight}">'
        f"{escape(words)}</text>"
    )


def pipeline(left: float, top: float, width: float) -> list[str]:
    """Five boxes with arrows between them."""
    gap, height = 24.0, 104.0
    box = (width - gap * (len(STEPS) - 1)) / len(STEPS)
    parts = []
    for i, (title, lines, stages) in enumerate(STEPS):
        x = left + i * (box + gap)
        parts.append(
            f'<rect x="{x:g}" y="{top:g}" width="{box:g}" height="{height:g}" rx="8" fill="#eef4fa" stroke="{BLUE}"/>'
        )
        parts.append(text(x + box / 2, top + 26, title, 17, BLUE, "middle", 700))
        parts += [text(x + box / 2, top + 48 + 18 * n, line, 13, INK, "middle") for n, line in enumerate(lines)]
        parts.append(text(x + box / 2, top + 92, stages, 11, SOFT, "middle"))
        if i:
            y = top + height / 2
            parts.append(f'<path d="M{x - gap + 4:g} {y:g} h{gap - 12:g}" stroke="{SOFT}" stroke-width="2"/>')
            parts.append(f'<path d="M{x - 9:g} {y - 5:g} l7 5 l-7 5 z" fill="{SOFT}"/>')
    return parts


def chart(left: float, top: float, title: str, svg: str) -> list[str]:
    """A chart of the report, in its light colours."""
    light = dict(re.findall(r"(--[a-z-]+): (#[0-9a-f]{6})", STYLE.partition("}")[0]))
    drawn = re.sub(r"var\((--[a-z-]+)\)", lambda m: light[m[1]], svg)
    return [
        text(left, top, title, 15, INK, weight=700),
        f'<svg x="{left:g}" y="{top + 14:g}" overflow="visible"{drawn.removeprefix("<svg")}',
    ]


def counts() -> Funnel:
    """How many questions each step of the run left."""
    metrics = Kept(RUN).metrics
    left = [
        ("generated", metrics["screen"]["questions"]),
        ("screened", metrics["screen"]["kept"]),
        ("solvable", metrics["judge"]["solvable"]),
        ("in the mix", metrics["filter"]["kept"]),
        ("answered, and kept", metrics["reward_select"]["kept"]),
    ]
    taken = [0, *(before - after for (_, before), (_, after) in pairwise(left))]
    return Funnel("Questions left", [(name, n, lost) for (name, n), lost in zip(left, taken, strict=True)])


def scores() -> list[Bar]:
    """GSM8K scores of the base and of each kind of student, with one standard error."""
    base = read_json(BASE)["gsm8k"]
    bars = [Bar("untrained", 100 * base["flexible"], 100 * base["flexible_stderr"], strong=False)]
    for student in read_json(STUDENTS):
        label = f"trained on {student['rows']:,} {student['label']}"
        bars.append(Bar(label, student["gsm8k"], student["standard_error"], strong=student["label"] == GENERATED))
    return bars


def caption() -> list[str]:
    """What the picture was drawn from, a line per string."""
    rows, students = Kept(RUN).metrics["reward_select"], read_json(STUDENTS)
    [items] = {student["items"] for student in students}
    [seeds] = {student["seeds"] for student in students}
    most = max(student["rows"] for student in students)
    return [
        "Qwen2.5-Coder-1.5B writes, judges and answers; SmolLM2-135M learns. Two H200, real GSM8K and MATH.",
        f"Questions: the first of two rounds, without preference tuning. {rows['kept']:,} of them keep {rows['rows']:,} answers; "
        f"both rounds give {most:,}.",
        f"Scores: means of students of {seeds} seeds on {items:,} test problems; the untrained one on {read_json(BASE)['gsm8k']['n']:,}.",
    ]


def draw() -> str:
    """Return the whole picture."""
    width, height, bars = 1000, 454, scores()
    parts = [
        *pipeline(20, 20, width - 40),
        *chart(20, 172, "Questions left after each step", funnel_svg(counts(), CHART)),
        *chart(
            530,
            172,
            "The student on GSM8K: % right ± one standard error",
            bars_svg("GSM8K", bars, scale(max(b.value + b.error for b in bars)), CHART),
        ),
        *(text(20, 404 + 18 * n, line, 12, SOFT) for n, line in enumerate(caption())),
    ]
    best, base = bars[-1].value, bars[0].value
    title = f"The pipeline, and a run with a 1.5B teacher: its 135M student answers {best:.1f} % of GSM8K, untrained {base:.1f} %"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
        f'font-family="system-ui, -apple-system, Segoe UI, Helvetica, Arial, sans-serif">\n'
        f"<title>{title}</title>\n"
        f'<rect width="{width}" height="{height}" rx="10" fill="{PAPER}"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def main() -> None:
    """Write the picture, or compare it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    if parser.parse_args().check:
        sys.exit(
            0
            if PICTURE.read_text(encoding="utf-8") == draw()
            else f"{PICTURE.name} is not up to date: python docs/picture.py"
        )
    write_text(PICTURE, draw())


if __name__ == "__main__":
    main()
