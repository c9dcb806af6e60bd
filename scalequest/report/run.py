"""What the stages wrote, read for the report."""

import argparse
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from scalequest.errors import UserError
from scalequest.io import read_json
from scalequest.outcomes import KEPT, OUTCOMES
from scalequest.records import INSTRUCTION, LEDGER, SAMPLE, read_rows, read_table
from scalequest.runtime.facts import package_versions

# The stages that write metrics: once, and once a generator.
SINGLE = ("seeds", "benchmarks", "solver", "difficulty_labels", "difficulty_model", "difficulty", "screen", "judge",
          "filter", "respond", "reward_model", "reward", "reward_select", "instruct_tune")  # fmt: skip
EACH = ("qft", "qpo_questions", "preferences", "qpo", "generate")


@dataclass(frozen=True)
class Run:
    """Everything the report tells of.

    Attributes:
        params: the declared parameters.
        scores: model to its scores file; base, solver, student, then others by name.
        metrics: DVC's stage name to its metrics.
        outcomes: what became of the generated questions to its count for each generator of the mix; ``kept`` comes last.
        ledger: every generated question.
        data: the training rows.
        items: model to the scores of its items by task and id; base and student if both were scored, else empty.
        versions: the packages that can change a result.
    """

    params: Any
    scores: dict[str, dict[str, Any]]
    metrics: dict[str, dict[str, Any]]
    outcomes: dict[str, list[int]]
    ledger: pa.Table
    data: pa.Table
    items: dict[str, dict[tuple[str, str], dict[str, Any]]]
    versions: dict[str, str]

    @property
    def tasks(self) -> list[str]:
        """List the tasks in the order of ``evaluate.tasks``, then others that were scored."""
        found = {task for scores in self.scores.values() for task in scores} - {"warnings", "environment", "dev", "few_shot"}
        return [*self.params.evaluate.tasks, *sorted(found - set(self.params.evaluate.tasks))]

    @property
    def kept(self) -> int:
        """Count the questions that passed every filter."""
        return sum(self.outcomes[KEPT])


def read_scores(folder: Path) -> dict[str, dict[str, Any]]:
    """Read the scores by model: base, solver, student, then others by name.

    Raises:
        UserError: there are none.
    """
    order = {"base": 0, "solver": 1, "student": 2}
    paths = sorted(folder.glob("*.json"), key=lambda path: (order.get(path.stem, len(order)), path.stem))
    if not paths:
        raise UserError(f"{folder}: no scores there; run: dvc repro evaluate")
    return {path.stem: read_json(path) for path in paths}


def read_metrics(folder: Path, mix: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Read the metrics by DVC's stage name; those of a generator that has left the mix are passed over.

    Raises:
        UserError: a stage has written none.
    """
    found = {}
    for path in sorted(folder.rglob("*.json")):
        stage, *generator = path.relative_to(folder).with_suffix("").parts
        if not generator or generator[0] in mix:
            found["@".join([stage, *generator])] = read_json(path)
    expected = [*SINGLE, *(f"{stage}@{generator}" for stage in EACH for generator in mix)]
    if missing := [name for name in expected if name not in found]:
        raise UserError(f"{folder}: no metrics of {', '.join(missing)}; run: dvc repro {' '.join(missing)}")
    return found


def count_outcomes(ledger: pa.Table, generated: dict[str, int]) -> dict[str, list[int]]:
    """Count the ledger's rows by outcome, for each generator in the order of ``generated``.

    Raises:
        UserError: the ledger does not have as many rows of each generator as it generated.
    """
    counts = Counter(zip(ledger["generator"].to_pylist(), ledger["outcome"].to_pylist(), strict=True))
    found = Counter(ledger["generator"].to_pylist())
    if found != generated:
        raise UserError(
            f"ledger: {dict(found)} questions by generator, but {generated} were generated; run: dvc repro filter"
        )
    names = [*OUTCOMES, *sorted({outcome for _, outcome in counts} - {*OUTCOMES, KEPT}), KEPT]
    return {name: [counts[generator, name] for generator in generated] for name in names}


def read_run(args: argparse.Namespace, params: Any) -> Run:
    """Read what the stages wrote."""
    scores, metrics = read_scores(args.scores), read_metrics(args.metrics, params.mix)
    ledger = read_table(args.ledger, LEDGER)
    both = ("base", "student") if {"base", "student"} <= scores.keys() else ()
    rows = {model: read_rows(args.samples / f"{model}.parquet", SAMPLE) for model in both}
    return Run(
        params=params,
        scores=scores,
        metrics=metrics,
        outcomes=count_outcomes(ledger, {g: metrics[f"generate@{g}"]["questions"] for g in params.mix}),
        ledger=ledger,
        data=read_table(args.data, INSTRUCTION),
        items={model: {(row["task"], row["id"]): row for row in found} for model, found in rows.items()},
        versions=package_versions(),
    )
