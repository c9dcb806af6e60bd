"""What the cells of an experiment measured, and what their claims come to."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import md5
from pathlib import Path
from statistics import mean
from typing import Any

import pyarrow.parquet as pq

from scalequest.audit.chain import MISSING, difference, hash_of
from scalequest.audit.facts import environment_of
from scalequest.audit.lock import Artifact, Lock, Stage
from scalequest.audit.repository import Repository, Revision
from scalequest.audit.tables import Store, read_metrics
from scalequest.errors import UserError
from scalequest.outcomes import NOT_RUN, SOLVABLE, UNDECIDED
from scalequest.records import SAMPLE, by_item, read_rows
from scalequest.run.experiment.grid import ITEM_METRICS, STAGE_OF, Claim, Grid, GridSpec
from scalequest.run.experiment.verdict import Measured, Verdict, decide, paired, unpaired
from scalequest.statistics import mean_error, proportion_error, worse_error

# What counts of an item's row.
ITEM = ("task", "split", "id", *ITEM_METRICS)
# The table behind a metric that is not a score, and how a row counts. Three digits of a difficulty are finer than its error
# by far, and a kept cell holds their ascending values in few bytes.
ROWS: dict[str, tuple[str, Callable[[Any], float]]] = {
    "solvable": ("verdict", lambda verdict: float(verdict == SOLVABLE)),
    "difficulty": ("score", lambda score: round(float(score), 3)),
}


@dataclass(frozen=True)
class CellResult:
    """What one cell made: all that its claims and the page need. ``read_run`` and ``kept.read_kept`` fill it.

    Attributes:
        lock: records of the stages that the claims' metrics come from, and of all that these need.
        commit: a commit with the code that made it; None where no commit is known.
        rows: training rows of each student; empty where none was trained.
        items: student to its items: ``task``, ``split``, ``id`` and the scores of ``ITEM_METRICS`` in [0, 1].
        values: metric to one value per question that reached its stage, ascending; only metrics of claims.
        environments: packages and hardware by stage of ``lock``, as far as they were asked for and recorded.
    """

    lock: Lock
    commit: str | None
    rows: dict[str, int]
    items: dict[str, list[dict[str, Any]]]
    values: dict[str, list[float]]
    environments: dict[str, list[str]]

    def stages(self, base: str) -> list[Stage]:
        """The stages of that name, one per student or generator."""
        return stages_of(self.lock, base)

    def scores(self, task: str, metric: str) -> dict[str, dict[str, float]]:
        """The test items' scores of one task: student to item to score."""
        return {
            student: {row["id"]: row[metric] for row in rows if row["task"] == task and row["split"] == "test"}
            for student, rows in self.items.items()
        }

    def value(self, claim: Claim) -> tuple[float, float]:
        """The cell's own value by a claim's metric, and its standard error, in points of 100."""
        if not claim.of_students:
            return _mean(self.values[claim.metric], None)
        by_student = self.scores(claim.task or "", claim.metric)
        items = [item for items in by_student.values() for item in items]
        return _mean(
            [v for items in by_student.values() for v in items.values()], items if len(by_student) > 1 else None
        )


def stages_of(lock: Lock, base: str) -> list[Stage]:
    """The stages of that name, one per student or generator."""
    return [stage for stage in lock.stages.values() if stage.base == base]


def student_of(stage: Stage) -> str:
    """The student that a stage trains or scores."""
    return stage.name.partition("@")[2] or "student"


def needed(lock: Lock, targets: Sequence[str]) -> Lock:
    """The records of the target stages and of all that they need, in the lock's order."""
    names = {stage.name for stage in lock.order(*(stage.name for base in targets for stage in stages_of(lock, base)))}
    return replace(lock, stages={name: stage for name, stage in lock.stages.items() if name in names}, absent=())


def output(lock: Lock, stage: Stage, option: str) -> Artifact:
    """What a stage wrote at an option of its command.

    Raises:
        UserError: it wrote nothing there.
    """
    path = stage.option(option)
    out = stage.out(path) if path else None
    if out is None:
        raise UserError(
            f"{lock.revision}: stage {stage.name} wrote no {option}. Expected its rows. Run the cell again."
        )
    return out


def read_run(repository: Repository, whole: Lock, grid: Grid) -> CellResult:
    """Read what a run has made, from Git, DVC's cache and the folder.

    Args:
        repository: where the run is: this repository, or a plain folder without Git.
        whole: the run's records.
        grid: the experiment.

    Raises:
        UserError: a table is not here, or has other columns.
    """
    lock, store = needed(whole, grid.targets), Store(repository)

    def files(stage: Stage, option: str) -> list[Path]:
        found = store.files(output(lock, stage, option), lock.revision)
        return [found[name] for name in sorted(found)]

    rows = {}
    for stage in stages_of(lock, "instruct_tune"):
        out = stage.out(stage.option("metrics") or "")
        metrics = read_metrics(repository, lock.revision, out) if out else None
        if metrics and "examples" in metrics:
            rows[student_of(stage)] = metrics["examples"]
    items = {}
    if not grid.metrics.isdisjoint(ITEM_METRICS):
        for stage in stages_of(lock, "evaluate_student"):
            answers = (row for file in files(stage, "samples") for row in read_rows(file, SAMPLE))
            items[student_of(stage)] = [{name: row[name] for name in ITEM} for row in by_item(answers)]
    values = {}
    for metric in (name for name in ROWS if name in grid.metrics):
        column, count = ROWS[metric]
        paths = [file for stage in stages_of(lock, STAGE_OF[metric]) for file in files(stage, "out")]
        values[metric] = sorted(count(v) for path in paths for v in pq.read_table(path, columns=[column])[column].to_pylist())  # fmt: skip
    last = [stage for base in grid.targets for stage in stages_of(lock, base)]
    # A DVC experiment's own commit is in no other clone.
    commit = commit_of_code(repository, lock) if lock.revision.commit else None
    return CellResult(lock, commit, rows, items, values, environments(repository, lock, last))


def commit_of_code(repository: Repository, lock: Lock) -> str | None:
    """The newest commit that changed code which a run's stages read, and has all of it as they read it; None without one."""
    deps = {dep.path: dep for stage in lock.stages.values() for dep in stage.deps if not lock.makers(dep.path)}
    changed = repository.git("log", "--format=%H", "--", *deps, check=False).decode().split()
    hashes: dict[str, str] = {}
    for commit in changed:
        blobs = repository.listing(Revision(commit, commit), list(deps))
        new = repository.objects(blob for blob in blobs.values() if blob not in hashes)
        hashes |= {blob: md5(content).hexdigest() for blob, content in new.items()}
        here = {path: hashes[blob] for path, blob in blobs.items() if blob in hashes}
        if all(hash_of(dep, here) == dep.md5 for dep in deps.values()):
            return commit
    return None


def environments(repository: Repository, lock: Lock, stages: Iterable[Stage]) -> dict[str, list[str]]:
    """Packages and hardware of these stages, those that are recorded."""
    found = {stage.name: environment_of(repository, lock, stage) for stage in stages}
    return {name: lines for name, lines in found.items() if lines}


def _mean(values: list[float], groups: list[str] | None) -> tuple[float, float]:
    n = len(set(groups)) if groups else len(values)
    share = proportion_error(mean(values) * n, n) if set(values) <= {0.0, 1.0} else float("nan")
    return 100 * mean(values), 100 * worse_error(mean_error(values, groups), share)


# Rows that are too long are left out, so two sets of one size seldom give just as many to train on.
MOST_ROWS_APART = 0.01


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
    one_values, two_values = better.values[claim.metric], than.values[claim.metric]
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
        (reasons, read), notes = incomparable(grid.spec, claim, better, than), other_machines(claim, better, than)
        measured = measure(claim, better, than)
        if measured is None:
            verdict = Verdict(UNDECIDED, "the cells share no item")
        elif reasons:
            verdict = Verdict(UNDECIDED, "; ".join(reasons))
        else:
            verdict = decide(measured, claim.matters, claim.direction)
        judged.append(Judged(claim, measured, verdict, (*notes, *read)))
    return judged


def incomparable(spec: GridSpec, claim: Claim, better: CellResult, than: CellResult) -> tuple[list[str], list[str]]:
    """Why a difference is not that of the overlays alone: other rows or other code.

    Returns:
        The reasons, and notes on what is not one: nearly as many rows, and code that is said to give the same results.
    """
    reasons, notes = [], []
    if claim.of_students and claim.rows == "equal" and better.rows != than.rows:
        one, two = (", ".join(f"{n:,}" for n in dict.fromkeys(side.rows.values())) or "none" for side in (better, than))
        what = f"trained on {one} and {two} rows"
        if _nearly_equal(better.rows, than.rows):
            notes.append(f"{claim.better} and {claim.than} were {what}")
        else:
            reasons.append(what)
    code: dict[str, None] = {}
    for stage in better.lock.order(*(s.name for s in better.stages(STAGE_OF[claim.metric]))):
        if stage.name not in than.lock.stages:
            continue
        for what, one, two in difference(stage, than.lock.stages[stage.name], better.lock, than.lock).causes:
            if what.startswith("code "):
                path = what.removeprefix("code ")
                if why := spec.reading(path, *(None if at == MISSING else at for at in (one, two))):
                    notes.append(f"cells were made with two versions of some code: {why}")
                else:
                    code[path] = None
    if code:
        first = list(code)
        reasons.append(
            f"made with other code ({', '.join(first[:2])}{f' and {len(first) - 2} more' * (len(first) > 2)})"
        )
    return reasons, list(dict.fromkeys(notes))


def _nearly_equal(one: Mapping[str, int], two: Mapping[str, int]) -> bool:
    """Whether the same students were trained on nearly as many rows; none of a cell without a record."""
    return (
        bool(one)
        and one.keys() == two.keys()
        and all(abs(one[name] - two[name]) <= MOST_ROWS_APART * max(one[name], two[name]) for name in one)
    )


def other_machines(claim: Claim, better: CellResult, than: CellResult) -> list[str]:
    """A note where the last stages of the two cells ran with other packages or on other hardware."""
    for stage in better.stages(STAGE_OF[claim.metric]):
        one, two = (side.environments.get(stage.name) for side in (better, than))
        if one and two and one != two:
            return [f"{claim.better} and {claim.than} ran with other packages or on other hardware"]
    return []
