"""What the finished cells of an experiment measured, and what their claims come to."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import pyarrow.parquet as pq

from scalequest.audit.chain import difference
from scalequest.audit.facts import environment_of
from scalequest.audit.lock import Lock, Stage
from scalequest.audit.repository import Repository
from scalequest.audit.tables import Store, read_metrics
from scalequest.errors import UserError
from scalequest.outcomes import NOT_RUN, SOLVABLE, UNDECIDED
from scalequest.records import SAMPLE, by_item, read_rows
from scalequest.run.experiment.grid import STAGE_OF, Claim, Grid
from scalequest.run.experiment.verdict import Measured, Verdict, decide, paired, unpaired
from scalequest.statistics import mean_error, proportion_error, worse_error

# The table behind a metric that is not a score, and how a row counts.
ROWS = {"solvable": ("verdict", lambda v: float(v == SOLVABLE)), "difficulty": ("score", float)}


class CellResult:
    """What one finished cell made.

    Attributes:
        lock: its records.
        rows: training rows of each student; empty where none was trained.
    """

    def __init__(self, repository: Repository, lock: Lock) -> None:
        self.repository, self.lock = repository, lock
        self._store = Store(repository)
        self._samples: dict[str, list[dict[str, Any]]] | None = None
        self.rows: dict[str, int] = {}
        for stage in self.stages("instruct_tune"):
            out = stage.out(stage.option("metrics") or "")
            metrics = read_metrics(repository, lock.revision, out) if out else None
            if metrics and "examples" in metrics:
                self.rows[stage.name.partition("@")[2] or "student"] = metrics["examples"]

    def stages(self, base: str) -> list[Stage]:
        """The stages of that name, one per student or generator."""
        return [stage for stage in self.lock.stages.values() if stage.base == base]

    def _files(self, stage: Stage, option: str) -> list[Path]:
        path = stage.option(option)
        out = stage.out(path) if path else None
        if out is None:
            raise UserError(f"{self.lock.revision}: stage {stage.name} wrote no {option}. Expected its rows. Run the cell again.")  # fmt: skip
        files = self._store.files(out, self.lock.revision)
        return [files[name] for name in sorted(files)]

    def scores(self, task: str, metric: str) -> dict[str, dict[str, float]]:
        """The test items' scores of one task: student to item to score."""
        if self._samples is None:
            self._samples = {}
            for stage in self.stages("evaluate_student"):
                rows = by_item(row for file in self._files(stage, "samples") for row in read_rows(file, SAMPLE))
                self._samples[stage.name.partition("@")[2] or "student"] = rows
        return {
            student: {row["id"]: row[metric] for row in rows if row["task"] == task and row["split"] == "test"}
            for student, rows in self._samples.items()
        }

    def values(self, metric: str) -> list[float]:
        """One value per generated question that reached the stage."""
        column, count = ROWS[metric]
        return [
            count(value)
            for stage in self.stages(STAGE_OF[metric])
            for file in self._files(stage, "out")
            for value in pq.read_table(file, columns=[column])[column].to_pylist()
        ]

    def value(self, claim: Claim) -> tuple[float, float]:
        """The cell's own value by a claim's metric, and its standard error, in points of 100."""
        if not claim.of_students:
            values = self.values(claim.metric)
            return _mean(values, None)
        by_student = self.scores(claim.task or "", claim.metric)
        items = [item for items in by_student.values() for item in items]
        return _mean(
            [v for items in by_student.values() for v in items.values()], items if len(by_student) > 1 else None
        )


def _mean(values: list[float], groups: list[str] | None) -> tuple[float, float]:
    n = len(set(groups)) if groups else len(values)
    share = proportion_error(mean(values) * n, n) if set(values) <= {0.0, 1.0} else float("nan")
    return 100 * mean(values), 100 * worse_error(mean_error(values, groups), share)


@dataclass(frozen=True)
class Judged:
    """A claim with what was measured (None: a cell is not finished, or has nothing in common) and the verdict."""

    claim: Claim
    measured: Measured | None
    verdict: Verdict
    notes: tuple[str, ...] = ()


def measure(claim: Claim, better: CellResult, than: CellResult) -> Measured | None:
    """The difference that a claim is about; None where the two have nothing to compare."""
    if claim.of_students:
        one, two = (side.scores(claim.task or "", claim.metric) for side in (better, than))
        return paired(one, two) if any(one[s].keys() & two.get(s, {}).keys() for s in one) else None
    one_values, two_values = better.values(claim.metric), than.values(claim.metric)
    return unpaired(one_values, two_values) if one_values and two_values else None


def judge(grid: Grid, results: Mapping[str, CellResult]) -> list[Judged]:
    """Judge every claim by the finished cells."""
    judged = []
    for claim in grid.spec.claims:
        absent = [name for name in (claim.better, claim.than) if name not in results]
        if absent:
            marked = all(grid.cells[name].marked for name in absent)
            judged.append(Judged(claim, None, Verdict(NOT_RUN, f"{', '.join(absent)}{' (marked)' * marked}")))
            continue
        better, than = results[claim.better], results[claim.than]
        reasons, notes = incomparable(claim, better, than), other_machines(claim, better, than)
        measured = measure(claim, better, than)
        if measured is None:
            verdict = Verdict(UNDECIDED, "the cells share no item")
        elif reasons:
            verdict = Verdict(UNDECIDED, "; ".join(reasons))
        else:
            verdict = decide(measured, claim.matters, claim.direction)
        judged.append(Judged(claim, measured, verdict, tuple(notes)))
    return judged


def incomparable(claim: Claim, better: CellResult, than: CellResult) -> list[str]:
    """Why a difference is not that of the overlays alone: other rows or other code."""
    reasons = []
    if claim.of_students and claim.rows == "equal" and better.rows != than.rows:
        one, two = (", ".join(f"{n:,}" for n in dict.fromkeys(side.rows.values())) or "none" for side in (better, than))
        reasons.append(f"trained on {one} and {two} rows")
    code: dict[str, None] = {}
    for stage in better.lock.order(*(s.name for s in better.stages(STAGE_OF[claim.metric]))):
        if stage.name in than.lock.stages:
            found = difference(stage, than.lock.stages[stage.name], better.lock, than.lock)
            code |= dict.fromkeys(what.removeprefix("code ") for what, _, _ in found.causes if what.startswith("code "))
    if code:
        first = list(code)
        reasons.append(
            f"made with other code ({', '.join(first[:2])}{f' and {len(first) - 2} more' * (len(first) > 2)})"
        )
    return reasons


def other_machines(claim: Claim, better: CellResult, than: CellResult) -> list[str]:
    """A note where the last stages of the two cells ran with other packages or on other hardware."""
    for stage in better.stages(STAGE_OF[claim.metric]):
        other = than.lock.stages.get(stage.name)
        if other is None:
            continue
        one = environment_of(better.repository, better.lock, stage)
        two = environment_of(than.repository, than.lock, other)
        if one and two and one != two:
            return [f"{claim.better} and {claim.than} ran with other packages or on other hardware"]
    return []
