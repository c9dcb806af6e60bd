"""Where a cell stands, which of its results counts, and how it becomes a kept cell.

A cell has up to two results: a DVC experiment of this clone, and the kept files in Git (scalequest.run.experiment.kept).
An experiment made with the code that is here now counts first, then the kept files, then an experiment made with other
code. A plain folder in which the cell's stages ran without Git becomes kept files, too.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from scalequest.audit.lock import LOCK, PARAMS, PIPELINE, Lock, make_lock
from scalequest.audit.repository import Repository, Revision
from scalequest.audit.tables import Store, read_metrics
from scalequest.errors import UserError
from scalequest.outcomes import FINISHED, KEPT_CELL, MISSING_CELL, NOT_RUN, OUTDATED
from scalequest.run.experiment.cells import changed_code, finished, stage_keys
from scalequest.run.experiment.grid import ITEM_METRICS, STAGE_OF, Cell, Grid
from scalequest.run.experiment.kept import Kept, differing, find_kept, in_words, read_kept, write_kept
from scalequest.run.experiment.results import CellResult, commit_of_code, needed, output, read_run, stages_of


@dataclass(frozen=True)
class Standing:
    """Where a cell stands.

    Attributes:
        state: finished, kept, outdated (an experiment made with other code), missing, or not run (marked).
        lock: the records of its experiment; None without one.
        kept: its kept files; None without any.
    """

    state: str
    lock: Lock | None = None
    kept: Kept | None = None

    def result(self, repository: Repository, grid: Grid) -> CellResult | None:
        """What the cell made, from the experiment or the kept files; None where it has neither.

        Raises:
            UserError: the files cannot be read.
        """
        if self.state == KEPT_CELL and self.kept:
            return read_kept(self.kept, grid)
        return read_run(repository, self.lock, grid) if self.lock else None


def stand(repository: Repository, grid: Grid, cell: Cell) -> Standing:
    """Where a cell stands.

    Raises:
        UserError: a ``dvc.lock`` or ``params.yaml`` of it cannot be read.
    """
    lock, files = finished(repository, grid, cell), find_kept(repository.root, grid, cell)
    if lock is not None and not changed_code(lock, grid.targets, repository.root):
        return Standing(FINISHED, lock, files)
    if files is not None and not files.other:
        return Standing(KEPT_CELL, lock, files)
    if lock is not None:
        return Standing(OUTDATED, lock, files)
    return Standing(NOT_RUN if cell.marked else MISSING_CELL, None, files)


def code_notes(results: dict[str, CellResult], targets: list[str], root: Path) -> list[str]:
    """A note for the cells that were made with other code than this folder's, one per set of files."""
    by_files: dict[tuple[str, ...], list[str]] = {}
    for name, result in results.items():
        if files := changed_code(result.lock, targets, root):
            by_files.setdefault(tuple(files), []).append(name)
    return [
        f"{', '.join(names)}: the code has changed since ({', '.join(files[:2])}"
        f"{f' and {len(files) - 2} more' * (len(files) > 2)})"
        for files, names in by_files.items()
    ]


# ---------------------------------------------------------------------------------------------------------- keeping


def keep_experiments(grid: Grid, repository: Repository, only: Cell | None = None) -> list[Path]:
    """Write the kept files of the cells that have an experiment, and return their folders.

    Kept files that count before an outdated experiment stay, except where one cell is asked for.

    Raises:
        UserError: no cell, or not the one asked for, has an experiment; or its files are not here.
    """
    folders = []
    standings = {name: stand(repository, grid, cell) for name, cell in grid.cells.items() if only in (None, cell)}
    for name, standing in standings.items():
        if standing.lock and (only or standing.state != KEPT_CELL):
            result = read_run(repository, standing.lock, grid)
            _check_rows(result, grid, str(standing.lock.revision))
            folders.append(write_kept(repository.root, grid, grid.cells[name], repository, result, result.commit))
    if not folders:
        states = ", ".join(f"{name} is {standing.state}" for name, standing in standings.items())
        raise UserError(
            f"--keep: no DVC experiment of {grid.name} to keep ({states}). Expected a cell that ran here with the parameters of "
            "its file. Run it, or name the folder where it ran: --keep --cell CELL --from FOLDER"
        )
    return folders


def keep_folder(grid: Grid, cell: Cell, folder: Path, root: Path) -> Path:
    """Write the kept files of a cell from a plain folder in which its stages ran, and return theirs.

    Read are ``params.yaml``, ``dvc.lock``, ``dvc.yaml`` (without one this repository's), ``reports/environment.json`` and the
    outputs behind the claims' metrics. DVC's cache in the folder will do for the outputs.

    Raises:
        UserError: a file is absent or has other bytes than ``dvc.lock`` names; a stage has not run, or has read what was
            made anew since; or the parameters are not the cell's.
    """
    plain = Repository(folder)
    lock = needed(_read_lock(folder, grid, root), grid.targets)
    if differences := differing(lock, cell.values, grid.targets):
        raise UserError(
            f"--from {folder}: not the parameters of cell {cell.name}: {in_words(differences)}. Expected those of "
            f"experiments/{grid.name}.yaml. Run the cell's stages with them"
        )
    wanted = stage_keys(cell.values, grid.targets, folder if (folder / PIPELINE).is_file() else root)
    if absent := [name for name in wanted if name not in lock.stages]:
        raise UserError(
            f"--from {folder}: {LOCK} has no entry of {_some(absent)}. Expected one of each stage that the cell needs. "
            f"Run: dvc repro {' '.join(grid.targets)}"
        )
    for stage in lock.stages.values():
        for dep in stage.deps:
            if any(out.path == dep.path and out.md5 != dep.md5 for _, out in lock.makers(dep.path)):
                raise UserError(
                    f"--from {folder}: stage {stage.name} read another version of {dep.path} than its maker wrote. Expected one "
                    f"run. Run: dvc repro {' '.join(grid.targets)}"
                )
    if absent := _absent(plain, lock, grid):
        raise UserError(
            f"--from {folder}: {_some(absent)}: not there with the bytes that {LOCK} names. Expected every file behind the "
            "claims' metrics. Bring them from where the cell ran"
        )
    result = read_run(plain, lock, grid)
    _check_rows(result, grid, f"--from {folder}")
    return write_kept(root, grid, cell, plain, result, commit_of_code(Repository(root), lock))


def _read_lock(folder: Path, grid: Grid, root: Path) -> Lock:
    if gone := [name for name in (PARAMS, LOCK) if not (folder / name).is_file()]:
        raise UserError(f"--from {folder}: no {' and no '.join(gone)}. Expected a folder in which DVC ran the cell's stages. Check the path.")  # fmt: skip
    pipeline = folder / PIPELINE if (folder / PIPELINE).is_file() else root / PIPELINE
    contents = [path.read_bytes() for path in (folder / LOCK, pipeline, folder / PARAMS)]
    lock = make_lock(Revision(str(folder), None), *contents)
    if absent := [base for base in grid.targets if not stages_of(lock, base)]:
        raise UserError(f"--from {folder}: {LOCK} has no entry of {_some(absent)}. Expected the stages of the claims' metrics. Run: dvc repro {' '.join(absent)}")  # fmt: skip
    return lock


def _absent(plain: Repository, lock: Lock, grid: Grid) -> list[str]:
    """Outputs behind the claims' metrics that are not there as the lock names them."""
    store = Store(plain)
    scored = not grid.metrics.isdisjoint(ITEM_METRICS)
    options = {base: "samples" if base == STAGE_OF["flexible"] else "out" for base in grid.targets}
    outs = [output(lock, stage, option) for base, option in options.items() for stage in stages_of(lock, base)]
    found = [out.path for out in outs if not store.has(out, lock.revision)]
    numbers = [output(lock, stage, "metrics") for stage in stages_of(lock, "instruct_tune") if scored]
    return found + [out.path for out in numbers if read_metrics(plain, lock.revision, out) is None]


def _check_rows(result: CellResult, grid: Grid, origin: str) -> None:
    """See that the rows of every student are known: a claim compares them."""
    if not grid.metrics.isdisjoint(ITEM_METRICS) and (absent := [s for s in result.items if s not in result.rows]):
        raise UserError(f"{origin}: training rows of {_some(absent)} are not recorded. Expected `examples` in the metrics of instruct_tune. Run the cell again.")  # fmt: skip


def _some(names: Sequence[str]) -> str:
    return f"{', '.join(names[:3])}{f' and {len(names) - 3} more' * (len(names) > 3)}"
