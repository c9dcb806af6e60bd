"""The files of ``experiments/``: a question, cells as overlays of the parameters, and claims that compare two cells.

A file is checked whole before anything runs: each cell's parameters as ``scalequest check`` does, and that the cells of
a claim share what they must, or their scores could not be compared.
"""

import difflib
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from scalequest.errors import UserError
from scalequest.params import PARAMS_FILE, Params, parse_params, parse_yaml
from scalequest.params.file import read_text
from scalequest.params.sources import Section
from scalequest.run.compose import load_values, merge
from scalequest.run.profile import BASE, changes, compose_profile

FOLDER = Path("experiments")
NAME = re.compile(r"[a-z][a-z0-9_]*")
# Metrics of a claim, and the stage that writes what they are read from.
ITEM_METRICS = ("flexible", "strict")
STAGE_OF = {
    "flexible": "evaluate_student",
    "strict": "evaluate_student",
    "solvable": "judge",
    "difficulty": "difficulty",
}
# Sections that the two cells of a claim share: other items, or other training seeds, could not be paired.
SHARED = ("seed", "domain", "benchmarks", "evaluate")


class CellSpec(Section):
    """One cell as the file has it: what it sets, and whether it is left out of a run."""

    set: dict[str, Any] = Field(default_factory=dict)
    replaces: list[str] = Field(default_factory=list)
    mark: Literal["not run"] | None = None


class Claim(Section):
    """One claim: the cell ``better`` is above the cell ``than`` by ``metric``.

    Attributes:
        says: the claim in one sentence.
        paper: where the paper makes it, with its numbers.
        better: name of the cell that is claimed to be above.
        than: name of the other cell.
        metric: ``flexible`` or ``strict`` (score of the students' test items, paired), ``solvable`` (share of the
            generated questions that the judge calls solvable), ``difficulty`` (mean predicted fail rate of the questions).
        task: the benchmark, for the two scores.
        matters: the least difference that counts, in points of 100.
        direction: ``above``, or ``not_below`` for the claim that ``better`` is not worse by ``matters`` or more.
        rows: ``equal`` where both must be trained on the same number of rows; ``differ`` where that is what is compared.
    """

    says: str
    paper: str
    better: str
    than: str
    metric: Literal["flexible", "strict", "solvable", "difficulty"]
    task: str | None = None
    matters: Annotated[float, Field(gt=0.0)]
    direction: Literal["above", "not_below"] = "above"
    rows: Literal["equal", "differ"] = "equal"

    @property
    def of_students(self) -> bool:
        """Whether it compares students by benchmark items."""
        return self.metric in ITEM_METRICS

    @property
    def measured(self) -> str:
        """The metric in a table: `gsm8k`, flexible."""
        return f"`{self.task}`, {self.metric}" if self.of_students else self.metric


class SameCode(Section):
    """Versions of files that a person compared and found to give the same results: cells of either may be compared.

    Attributes:
        files: path to its versions, MD5 as in ``dvc.lock``; null where a run had no such file.
        why: what differs, and why no result does.
    """

    files: Annotated[dict[str, list[str | None]], Field(min_length=1)]
    why: str


class GridSpec(Section):
    """An experiment's file."""

    question: str
    paper: str
    on: str = BASE
    mark: Literal["not run"] | None = None
    why: str = ""
    base: CellSpec = CellSpec()
    cells: Annotated[dict[str, CellSpec], Field(min_length=2)]
    claims: Annotated[list[Claim], Field(min_length=1)]
    same_code: list[SameCode] = Field(default_factory=list)

    def reading(self, path: str, one: str | None, two: str | None) -> str | None:
        """Why two versions of a file give the same results; None if nobody says so."""
        found = (entry.why for entry in self.same_code if {one, two} <= set(entry.files.get(path, ())))
        return next(found, None)


@dataclass(frozen=True)
class Cell:
    """One cell: a run of the pipeline.

    Attributes:
        name: its name in the grid.
        values: its complete parameters as plain values.
        params: the same, checked.
        marked: whether a run leaves it out.
        changes: what it sets beyond the grid's base, one line per value.
    """

    name: str
    values: dict[str, Any]
    params: Params
    marked: bool
    changes: list[str]


@dataclass(frozen=True)
class Grid:
    """A checked experiment."""

    name: str
    spec: GridSpec
    cells: dict[str, Cell]

    def experiment(self, cell: str) -> str:
        """DVC's name of a cell's experiment."""
        return f"{self.name}-{cell}"

    @cached_property
    def targets(self) -> list[str]:
        """The stages that the claims' metrics come from; a cell runs these and what they need."""
        return sorted({STAGE_OF[metric] for metric in self.metrics})

    @cached_property
    def metrics(self) -> frozenset[str]:
        """The claims' metrics."""
        return frozenset(claim.metric for claim in self.spec.claims)


def experiments(root: Path = Path()) -> dict[str, Path]:
    """Return the experiment files by name, sorted."""
    return {path.stem: path for path in sorted((root / FOLDER).glob("*.yaml"))}


def find(name: str, root: Path = Path()) -> Path:
    """Return the file of an experiment.

    Raises:
        UserError: there is none; the message names the closest, or all.
    """
    known = experiments(root)
    if name in known:
        return known[name]
    close = difflib.get_close_matches(Path(name).stem, known, n=1)
    hint = f"Did you mean '{close[0]}'?" if close else f"Expected one of: {', '.join(known) or 'none is there'}."
    raise UserError(f"experiment '{name}': no such file in {FOLDER}/. {hint}")


def read_grid(path: Path, root: Path = Path(), known: dict[str, dict[str, Any]] | None = None) -> Grid:
    """Read and check one experiment, and compose its cells' parameters.

    Args:
        path: the experiment's file.
        root: the repository's root folder.
        known: values of profiles that were composed before; new ones are added.

    Raises:
        UserError: a key is unknown, missing or ill-typed; a cell's parameters are not valid; a claim compares what cannot
            be compared. The message names file, cell and key.
    """
    if not NAME.fullmatch(path.stem):
        raise UserError(
            f"{path}: its name becomes part of an experiment's. Expected lower-case letters, digits and _. Rename it."
        )
    spec = _parse(parse_yaml(read_text(path), path), path)
    known = {} if known is None else known
    if spec.on not in known:
        known[spec.on] = load_values(compose_profile(spec.on, root))
    below = merge(known[spec.on], spec.base.set, spec.base.replaces)
    cells = {}
    for name, cell in spec.cells.items():
        if not NAME.fullmatch(name):
            raise UserError(
                f"{path}: cells: '{name}' becomes part of an experiment's name. Expected lower-case letters, digits and _."
            )
        for key in cell.replaces:
            if not isinstance(value_at(cell.set, key), dict):
                raise UserError(f"{path}: cells.{name}.replaces: the cell sets no mapping '{key}'. Add it, or remove the name.")  # fmt: skip
        values = merge(below, cell.set, cell.replaces)
        params = parse_params(values, f"{path}: cell {name} over {spec.on}")
        marked = spec.mark is not None or cell.mark is not None
        cells[name] = Cell(name, values, params, marked, changes(below, values))
    grid = Grid(path.stem, spec, cells)
    problems = [*_twins(grid), *(line for i, claim in enumerate(spec.claims) for line in _claim(grid, i, claim))]
    if any(cell.marked for cell in cells.values()) and not spec.why:
        problems.append("why: missing. Expected the reason why marked cells are not run.")
    if problems:
        raise UserError(f"{path}: {len(problems)} problem(s)\n" + "\n".join(f"  {line}" for line in problems))
    return grid


def _parse(data: dict[str, Any], path: Path) -> GridSpec:
    try:
        return GridSpec.model_validate(data)
    except ValidationError as error:
        lines = [_explain(item) for item in error.errors()]
        raise UserError(f"{path}: {len(lines)} problem(s)\n" + "\n".join(f"  {line}" for line in lines)) from None


def _explain(item: Any) -> str:
    """One pydantic error in this project's words."""
    location = [str(part) for part in item["loc"]]
    key = ".".join(location)
    if item["type"] == "extra_forbidden":
        owners: dict[str, type[Section]] = {"claims": Claim, "cells": CellSpec, "base": CellSpec}
        owner = owners.get(location[0], GridSpec) if len(location) > 1 else GridSpec
        known = list(owner.model_fields)
        close = difflib.get_close_matches(location[-1], known, n=1)
        hint = f"did you mean '{close[0]}'?" if close else f"known keys here: {', '.join(known)}"
        # A parameter that was written beside `set` and not under it.
        hint = "parameters go under `set`" if owner is CellSpec and location[-1] in Params.model_fields else hint
        return f"{key}: unknown key; {hint}"
    if item["type"] == "missing":
        return f"{key}: missing"
    message = item["msg"]
    return f"{key}: got {item['input']!r}; {message[0].lower()}{message[1:]}"


def value_at(values: Any, key: str) -> Any:
    """The value under a dotted name; None where there is none."""
    for part in key.split("."):
        values = values.get(part) if isinstance(values, dict) else None
    return values


def _twins(grid: Grid) -> list[str]:
    seen: dict[str, str] = {}
    problems = []
    for cell in grid.cells.values():
        key = repr(without_runtime(cell.values))
        if key in seen:
            problems.append(
                f"cells.{cell.name}: the same parameters as cells.{seen[key]}. Expected each cell to differ. Remove one."
            )
        seen.setdefault(key, cell.name)
    return problems


def without_runtime(values: dict[str, Any]) -> dict[str, Any]:
    """The parameters that decide bytes."""
    return {key: value for key, value in values.items() if key != "runtime"}


def _claim(grid: Grid, number: int, claim: Claim) -> list[str]:
    """What makes a claim incomparable, one line each."""
    key = f"claims.{number}"
    names = {"better": claim.better, "than": claim.than}
    unknown = [f"{key}.{side}: no cell '{name}'. Expected one of: {', '.join(grid.cells)}" for side, name in names.items() if name not in grid.cells]  # fmt: skip
    if unknown:
        return unknown
    problems = []
    if claim.better == claim.than:
        problems.append(f"{key}: compares '{claim.better}' with itself. Expected two cells.")
    if claim.of_students != (claim.task is not None):
        want = "a task, because the metric is a score" if claim.of_students else "none, because it is no score"
        problems.append(f"{key}.task: {claim.task}. Expected {want}.")
    one, two = (grid.cells[name].params for name in names.values())
    if claim.of_students and claim.task is not None and claim.task not in one.evaluate.tasks:
        problems.append(f"{key}.task: no task '{claim.task}'. Expected one of: {', '.join(one.evaluate.tasks)}")
    differing = [section for section in SHARED if getattr(one, section) != getattr(two, section)]
    if claim.of_students and one.instruct_tune.seeds != two.instruct_tune.seeds:
        differing.append("instruct_tune.seeds")
    if claim.of_students and claim.rows == "equal" and one.instruct_tune.n_examples != two.instruct_tune.n_examples:
        differing.append("instruct_tune.n_examples")
    problems += [
        f"{key}: {claim.better} and {claim.than} differ in {section}. Expected the same, or their scores cannot be compared."
        for section in differing
    ]
    return problems


def read_all(root: Path = Path()) -> dict[str, Grid]:
    """Every experiment, checked.

    Raises:
        UserError: one of them is not valid.
    """
    if not (root / PARAMS_FILE).is_file():
        raise UserError(f"{root / PARAMS_FILE}: no such file. Expected to run in the repository's root folder. Change to it first.")  # fmt: skip
    known: dict[str, dict[str, Any]] = {}
    return {name: read_grid(path, root, known) for name, path in experiments(root).items()}
