"""Draw docs/overview.svg: the pipeline, and the GPU run's counts and scores from reports/results/gpu-135m.

python docs/picture.py           # write it
python docs/picture.py --check   # exit code 1 if the file is not what the results say

The picture is plain SVG, so it needs no plotting package and its text stays text.
"""

import argparse
import sys
from pathlib import Path
from xml.sax.saxutils import escape

from scalequest.io import read_json, write_text

ROOT = Path(__file__).resolve().parents[1]
RUN = ROOT / "reports" / "results" / "gpu-135m"
PICTURE = ROOT / "docs" / "overview.svg"

INK, SOFT, PAPER, BLUE, GREEN, GREY = "#1f2933", "#52606d", "#ffffff", "#2f6fb0", "#2b8a5a", "#9aa5b1"
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


def counts(left: float, top: float, width: float) -> list[str]:
    """How many questions each step of the run left, as bars."""
    metrics = read_json(RUN / "metrics.json")["metrics"]
    screen, judge = metrics["screen"], metrics["judge"]
    kept, rows = (metrics[name]["kept"] for name in ("filter", "reward_select"))
    bars = (
        ("generated", screen["questions"]),
        ("screened", screen["kept"]),
        ("solvable", judge["solvable"]),
        ("in the mix", kept),
        ("training rows", rows),
    )
    parts = [text(left, top, "Questions left", 15, INK, weight=700)]
    start, room = left + 104, width - 104 - 70
    for i, (name, n) in enumerate(bars):
        y = top + 16 + 30 * i
        length = room * n / bars[0][1]
        parts.append(text(start - 8, y + 15, name, 13, SOFT, "end"))
        parts.append(f'<rect x="{start:g}" y="{y:g}" width="{length:.1f}" height="20" fill="{GREY}"/>')
        parts.append(text(start + length + 8, y + 15, f"{n:,}", 13))
    return parts


def scores(left: float, top: float, width: float) -> list[str]:
    """GSM8K scores of base, solver and student with one standard error, as bars."""
    parts = [text(left, top, "GSM8K, % right ± one standard error", 15, INK, weight=700)]
    labels = {"base": "base model", "student": "student", "solver": "tuned on real data"}
    start, room, most = left + 132, width - 132 - 80, 9.0
    for i, (model, label) in enumerate(labels.items()):
        score = read_json(RUN / "scores" / f"{model}.json")["gsm8k"]
        value, error = 100 * score["flexible"], 100 * score["flexible_stderr"]
        y, end = top + 16 + 44 * i, start + room * value / most
        low, high = (start + room * (value + sign * error) / most for sign in (-1, 1))
        fill = GREEN if model == "student" else GREY
        parts.append(text(start - 8, y + 21, label, 13, SOFT, "end"))
        parts.append(f'<rect x="{start:g}" y="{y:g}" width="{end - start:.1f}" height="32" fill="{fill}"/>')
        parts.append(f'<path d="M{low:.1f} {y + 16:g} H{high:.1f}" stroke="{INK}" stroke-width="2"/>')
        parts.append(text(high + 8, y + 21, f"{value:.1f} ± {error:.1f}", 14, INK, weight=700))
    return parts


def draw() -> str:
    """Return the whole picture."""
    width, height = 1000, 372
    parts = [
        *pipeline(20, 20, width - 40),
        *counts(20, 172, 460),
        *scores(540, 172, 440),
        text(20, 354, "The run of profiles/gpu-135m.yaml: SmolLM2-135M in every role, two H100, 21 minutes.", 12, SOFT),
    ]
    title = "The pipeline, and what the GPU run gave: the student scores four times its base on GSM8K"
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
