"""Distributions of the data and of the training: lengths, difficulty, rewards, agreement, losses."""

import argparse
import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scalequest.io import csv_text
from scalequest.outcomes import DUPLICATES, RIGHT
from scalequest.records import ATTEMPT, PROBLEM, read_rows
from scalequest.report.blocks import Block, Curves, Histogram, Section, Table, Text
from scalequest.report.results import DASH, percent
from scalequest.report.run import Run
from scalequest.report.tables import column_of, question_texts

# A series of values; None and NaN stand for none.
Numbers = Sequence[float] | NDArray[np.float32]
BINS = 32
# Values of a series that are Python objects at once.
VALUES_HELD = 100_000
# In the order of the pipeline.
TRAININGS = ("solver", "qft", "qpo", "difficulty_model", "reward_model", "instruct_tune")
# Points of one curve; more are thinned evenly, the last one stays.
POINTS = 240


def histogram(title: str, series: Mapping[str, Numbers], trim: float = 0.005) -> Histogram | None:
    """Bin each series over a common range, without ``trim`` of the values at each end; None without values.

    What is beyond the range counts into the first or the last bin. A series without a value is left out.
    """
    given = {name: finite(values) for name, values in series.items()}
    given = {name: values for name, values in given.items() if len(values)}
    if not given:
        return None
    pooled = np.concatenate(list(given.values()))
    ends = [int(trim * (len(pooled) - 1)), math.ceil((1 - trim) * (len(pooled) - 1))]
    pooled.partition(ends)
    low, high = (float(pooled[at]) for at in ends)
    del pooled
    width = (high - low) / BINS or 1.0
    rows = []
    for name, values in given.items():
        counts = np.zeros(BINS, np.int64)
        for some in in_parts(values):
            bins = np.clip((some - low) / width, 0, BINS - 1).astype(np.int64)
            counts += np.bincount(bins, minlength=BINS)
        rows.append((name, len(values), mean(values), [int(count) / len(values) for count in counts]))
    return Histogram(title, low, low + BINS * width, rows)


def in_parts(values: NDArray[np.floating[Any]]) -> Iterator[NDArray[np.float64]]:
    """The values in double precision, some at a time."""
    for start in range(0, len(values), VALUES_HELD):
        yield values[start : start + VALUES_HELD].astype(np.float64)


def mean(values: NDArray[np.floating[Any]]) -> float:
    """Mean of at least one value, added one by one."""
    total = 0.0
    for some in in_parts(values):
        total = sum(some.tolist(), total)
    return total / len(values)


def finite(values: Numbers) -> NDArray[np.floating[Any]]:
    """The values that are numbers."""
    given = values if isinstance(values, np.ndarray) else np.array([v for v in values if v is not None], np.float64)
    return given[np.isfinite(given)]


def words(texts: Sequence[str]) -> list[float]:
    """Number of words of each text."""
    return [float(len(text.split())) for text in texts]


def fail_rates(path: Path) -> list[float]:
    """Share of the solver's answers to each seed that are not right."""
    right: dict[str, list[bool]] = {}
    for row in read_rows(path, ATTEMPT, ["problem_id", "outcome"]):
        right.setdefault(row["problem_id"], []).append(row["outcome"] == RIGHT)
    return [1 - sum(marks) / len(marks) for marks in right.values()]


def by_generator(run: Run) -> Table:
    """A row per generator: what its questions are like."""
    rows = []
    asked, twin = run.questions, run.questions.ended_as(*DUPLICATES)
    for name, generated in run.asked.items():
        judged = run.metrics["judge"].get("by_generator", {}).get(name, {})
        solvable = DASH
        if judged.get("solvable_frac") is not None:
            solvable = percent(judged["solvable_frac"], judged.get("solvable_frac_standard_error"))
        mine = asked.of(name)
        hard = finite(asked.difficulty[mine])
        twins, kept = int((twin & mine).sum()), int((asked.kept & mine).sum())
        rows.append(
            [
                f"`{name}`",
                f"{generated:,}",
                percent(twins / max(1, generated)),
                solvable,
                f"{mean(hard):.3f}" if len(hard) else DASH,
                percent(kept / max(1, generated)),
            ]
        )
    head = ["generator", "generated", "duplicates, %", "solvable by the judge, % ± s.e.", "mean difficulty", "kept, %"]
    return Table("What each generator asks", head, rows, "lrrrrr")


def distributions(run: Run, args: argparse.Namespace) -> Section:
    """Show how the questions, answers and scores are distributed (paper, Figures 3 to 5)."""
    asked, mix = run.questions, list(run.asked)
    lengths: dict[str, Numbers] = {"seeds": words(column_of(args.seeds, PROBLEM, "question"))}
    hard: dict[str, Numbers] = {"seeds: fail rate of the solver": fail_rates(args.attempts)}
    for name in mix:
        mine = asked.of(name)
        lengths[f"{name}, after QFT"] = words(question_texts(args.qpo_questions, name))
        lengths[f"{name}, generated"] = asked.words[mine]
        lengths[f"{name}, kept"] = asked.words[mine & asked.kept]
        hard[f"{name}, generated"] = asked.difficulty[mine]
        hard[f"{name}, kept"] = asked.difficulty[mine & asked.kept]
    charts = [
        histogram("Difficulty: the scorer's fail rate of generated questions, beside the seeds' measured one", hard),
        histogram("Words per question", lengths),
        histogram(
            "Reward of the sampled answers and of the chosen ones (logits)",
            {"all answers": run.rewards, "chosen": run.data.numbers("reward")},
        ),
        histogram(
            "Agreement: share of a question's answers that end in the chosen answer",
            {name: run.data.numbers("agreement", generator=name) for name in mix},
            trim=0,
        ),
    ]  # fmt: skip
    note = (
        "Each strip shows the shares of one group on the common axis below; a line marks its mean. One in two hundred values at "
        "each end is counted in the outermost bin."
    )
    blocks: list[Block] = [by_generator(run), Text(note), *(chart for chart in charts if chart)]
    return Section("Distributions", blocks, page_only=True)


def for_plots(run: Run) -> dict[str, Histogram]:
    """The same values over all generators, by the name of a file for ``dvc plots``; the columns are the same in every run."""
    asked, kept = run.questions, run.questions.kept
    rewards = {"answers": run.rewards, "chosen": run.data.numbers("reward")}
    found = {
        "difficulty": histogram("", {"generated": asked.difficulty, "kept": asked.difficulty[kept]}),
        "words": histogram("", {"generated": asked.words, "kept": asked.words[kept]}),
        "reward": histogram("", rewards),
        "agreement": histogram("", {"chosen": run.data.numbers("agreement")}, trim=0),
    }
    return {name: chart for name, chart in found.items() if chart}


def bins_csv(chart: Histogram) -> str:
    """A row per bin: its left end, and the share of each series in it."""
    names = [name for name, *_ in chart.series]
    width = (chart.high - chart.low) / BINS
    rows = [
        {"from": chart.low + at * width} | {name: shares[at] for name, _, _, shares in chart.series}
        for at in range(BINS)
    ]
    return csv_text(["from", *names], rows)


def read_curve(path: Path, column: str) -> list[tuple[float, float]]:
    """Step and value of a training's CSV file, thinned to ``POINTS``; values that are no number are left out."""
    points = []
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            try:
                point = float(row["step"]), float(row[column])
            except (KeyError, TypeError, ValueError):
                continue
            if all(map(math.isfinite, point)):
                points.append(point)
    every = math.ceil(len(points) / POINTS)
    return points[::every] + (points[-1:] if every > 1 and (len(points) - 1) % every else []) if points else []


def curves(run: Run, args: argparse.Namespace) -> list[Block]:
    """Loss and gradient norm of every training run of which a curve is there."""
    found: dict[str, Path] = {}
    for path in sorted(args.curves.rglob("*.csv")):
        name = "@".join(path.relative_to(args.curves).with_suffix("").parts)
        if name in run.metrics and name.split("@")[0] in TRAININGS:
            found[name] = path
    ordered = sorted(found, key=lambda name: (TRAININGS.index(name.split("@")[0]), name))
    blocks: list[Block] = []
    for column, title in (("loss", "Loss per optimizer step"), ("grad_norm", "Gradient norm before clipping")):
        lines = [(name, points) for name in ordered if (points := read_curve(found[name], column))]
        if lines:
            blocks.append(Curves(f"{title}; each chart has its own scale", lines))
    return blocks
