"""Kept cells: the small files in Git that an experiment's rows, scores, errors and verdicts are computed from.

``reports/experiments/NAME/CELL/`` has

- ``params.yaml``: the complete parameters of the run,
- ``dvc.lock``: the entries of the stages that the claims' metrics come from, and of all that these need,
- ``metrics.json``: the training rows of each student, and a commit with the code of the run,
- ``scores.parquet``: the score of every benchmark item, without the answers,
- ``solvable.parquet``, ``difficulty.parquet``: one value per question, ascending, where a claim has that metric,
- ``environment.json``: packages and hardware of each stage, as far as they are recorded.

They are written whole, by ``scalequest experiment NAME --keep``, and hold no text of a model.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import yaml

from scalequest.audit.lock import LOCK, PARAMS, SCHEMA, Lock, flatten, parse_lock, parse_yaml
from scalequest.audit.repository import Repository, Revision
from scalequest.errors import UserError
from scalequest.io import read_json, write_json, write_text
from scalequest.models.source import hub_gguf
from scalequest.records import read_rows, read_table, table, write_table
from scalequest.run.experiment.grid import ITEM_METRICS, Cell, Grid, value_at
from scalequest.run.experiment.results import CellResult, environments, needed, stages_of, student_of
from scalequest.runtime.environment import Recorded

FOLDER = Path("reports") / "experiments"
METRICS, SCORES, ENVIRONMENT = "metrics.json", "scores.parquet", "environment.json"
TEXT, REAL = pa.string(), pa.float64()
ITEMS = pa.schema(
    [("student", TEXT), ("task", TEXT), ("split", TEXT), ("id", TEXT), *((m, REAL) for m in ITEM_METRICS)]
)
VALUES = pa.schema([("value", REAL)])
# Differing parameters that a message names.
NAMED = 3


def where(grid: str, cell: str) -> Path:
    """The folder of a kept cell, relative to the repository's root."""
    return FOLDER / grid / cell


# ------------------------------------------------------------------------------------------------------- parameters


def differing(lock: Lock, values: Mapping[str, Any], targets: Sequence[str]) -> dict[str, tuple[Any, Any]]:
    """Parameters in which a run is not that of ``values``: dotted name to the run's value and the other; None for absent.

    Compared is what the target stages, and those that they need, recorded in ``dvc.lock``: what DVC itself decides by. A
    parameter that none of them reads may differ, such as the model of a role that has no part in the run. A model may come
    from elsewhere: a machine without a hub has the pinned file in a folder.
    """
    plain = json.loads(json.dumps(values))
    found: dict[str, tuple[Any, Any]] = {}
    for stage in needed(lock, targets).stages.values():
        wanted: dict[str, Any] = {}
        for section in stage.sections:
            wanted |= flatten({section: value_at(plain, section)})
        for key in dict.fromkeys([*stage.params, *wanted]):
            one, two = stage.params.get(key), wanted.get(key)
            if one != two and not (key.startswith("models.") and pinned(one) == pinned(two)):
                found[key] = (one, two)
    return found


def pinned(source: Any) -> Any:
    """What a model's source pins: a GGUF file or a folder by its bytes, wherever it is, and another source by its text."""
    if not isinstance(source, str):
        return source
    kind = "gguf" if hub_gguf(source)[1] else source.partition(":")[0]
    pin = source.partition("#sha256=")[2]
    return (kind, pin) if kind in ("gguf", "path") and pin else source


def in_words(differences: Mapping[str, tuple[Any, Any]]) -> str:
    """The first differing parameters with both values."""
    listed = ", ".join(f"{key} is {one!r} and not {two!r}" for key, (one, two) in list(differences.items())[:NAMED])
    return f"{listed}{f' and {len(differences) - NAMED} more' * (len(differences) > NAMED)}"


# ---------------------------------------------------------------------------------------------------------- writing


def write_kept(
    root: Path, grid: Grid, cell: Cell, repository: Repository, result: CellResult, commit: str | None
) -> Path:
    """Write a cell's folder, in place of an earlier one, and return it.

    Args:
        root: the repository's root folder.
        grid: the experiment.
        cell: the cell.
        repository: where the cell ran: this repository, or a plain folder.
        result: what it made.
        commit: a commit with its code.

    Raises:
        UserError: the run's ``dvc.lock`` or ``params.yaml`` cannot be read.
    """
    folder = root / where(grid.name, cell.name)
    new = folder.with_name(f".{cell.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    revision = result.lock.revision
    there = repository.read_all(revision, [LOCK, PARAMS])
    text = (
        f"# Parameters of the cell {cell.name} of {grid.name}, written by `scalequest experiment {grid.name} --keep`.\n"
    )
    write_text(new / PARAMS, text + _params(parse_yaml(there[PARAMS], f"{PARAMS} of {revision}")))
    write_text(new / LOCK, _lock(parse_yaml(there[LOCK], f"{LOCK} of {revision}")["stages"], list(result.lock.stages)))
    write_json(new / METRICS, {"commit": commit, "examples": result.rows})
    if not grid.metrics.isdisjoint(ITEM_METRICS):
        rows = ({"student": student} | row for student, items in result.items.items() for row in items)
        write_table(new / SCORES, table(rows, ITEMS))
    for metric, values in result.values.items():
        write_table(new / f"{metric}.parquet", table(({"value": value} for value in values), VALUES))
    recorded = Recorded({}, {})
    stages = result.lock.stages
    for name, lines in environments(repository, result.lock, stages.values()).items():
        recorded = recorded.with_run(name, stages[name].given, lines)
    write_json(new / ENVIRONMENT, recorded.as_json())
    shutil.rmtree(folder, ignore_errors=True)
    new.replace(folder)
    return folder


def _params(values: dict[str, Any]) -> str:
    from dvc.utils.serialize import dumps_yaml

    text: str = dumps_yaml(values)
    return text


def _lock(entries: dict[str, Any], names: list[str]) -> str:
    """Entries of a ``dvc.lock`` for DVC and the audit, in two thirds of the bytes: one line per file, without sizes."""
    lines = [f"schema: '{SCHEMA}'", "stages:"]
    for name in names:
        entry = entries[name]
        lines += [f"  {name}:", f"    cmd: {_json(entry['cmd'])}"]
        for key in ("deps", "outs"):
            if entry.get(key):
                lines.append(f"    {key}:")
                lines += [f"    - {{path: {_json(e['path'])}, hash: md5, md5: {_json(e['md5'])}}}" for e in entry[key]]
        if entry.get("params"):
            lines += ["    params:", *(f"      {file}: {_json(values)}" for file, values in entry["params"].items())]
    return "\n".join(lines) + "\n"


def _json(value: Any) -> str:
    """JSON, which is YAML of one line."""
    return json.dumps(value, ensure_ascii=False)


# ---------------------------------------------------------------------------------------------------------- reading


@dataclass(frozen=True)
class Kept:
    """A kept cell's folder.

    Attributes:
        folder: the folder.
        lock: its records.
        other: why it is not the cell that the file describes; empty where it is.
    """

    folder: Path
    lock: Lock
    other: str = ""


def find_kept(root: Path, grid: Grid, cell: Cell) -> Kept | None:
    """The kept files of a cell; None without any.

    Raises:
        UserError: its ``dvc.lock`` cannot be read.
    """
    relative = where(grid.name, cell.name)
    folder = root / relative
    if not (folder / LOCK).is_file():
        return None
    # The entries are those of the run alone, so no dvc.yaml is asked which stages are alive.
    lock = Lock(Revision(str(relative), None), parse_lock((folder / LOCK).read_bytes(), f"{relative / LOCK}"))
    absent = [base for base in grid.targets if not stages_of(lock, base)]
    if absent:
        return Kept(folder, lock, f"it has no {', '.join(absent)}")
    differences = differing(lock, cell.values, grid.targets)
    return Kept(folder, lock, in_words(differences) if differences else "")


def read_kept(kept: Kept, grid: Grid) -> CellResult:
    """Read a kept cell.

    Raises:
        UserError: a file is not there, or is not as ``write_kept`` makes it.
    """
    lock = needed(kept.lock, grid.targets)
    try:
        metrics = read_json(kept.folder / METRICS)
        recorded = Recorded.parse((kept.folder / ENVIRONMENT).read_bytes())
        items: dict[str, list[dict[str, Any]]] = {}
        if not grid.metrics.isdisjoint(ITEM_METRICS):
            items = {student_of(stage): [] for stage in stages_of(lock, "evaluate_student")}
            for row in read_rows(kept.folder / SCORES, ITEMS):
                items[row.pop("student")].append(row)
        values = {
            metric: read_table(kept.folder / f"{metric}.parquet", VALUES)["value"].to_pylist()
            for metric in sorted(grid.metrics.difference(ITEM_METRICS))
        }
        # Only what the lock's own run recorded counts.
        lines = {stage.name: recorded.of(stage.name, stage.given) for stage in lock.stages.values()}
        return CellResult(
            lock, metrics["commit"], dict(metrics["examples"]), items, values, {k: v for k, v in lines.items() if v}
        )
    except (UserError, OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError) as error:
        raise UserError(
            f"{lock.revision}: this kept cell cannot be read: {error}. Expected the files that "
            f"`scalequest experiment {grid.name} --keep` writes. Restore them: git checkout {lock.revision}"
        ) from None
