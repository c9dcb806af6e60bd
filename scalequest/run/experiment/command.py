"""Run an experiment of the paper's claims: cells as DVC experiments, and a verdict for each claim.

    scalequest experiment                  # list the experiments with their state
    scalequest experiment NAME --plan      # cells, the stages that they share, and the estimate; runs nothing
    scalequest experiment NAME             # run what is missing, then write the table
    scalequest experiment NAME --table     # write reports/experiments/NAME.md from the finished and the kept cells
    scalequest experiment NAME --cell C    # run one cell here and now, with DVC's output
    scalequest experiment NAME --keep      # write what the table needs of the finished cells to files for Git
    scalequest experiment NAME --keep --cell C --from FOLDER  # the same of a cell that ran in a folder without Git

An experiment is a file in experiments/: a question, cells as overlays of the parameters, and claims that compare two
cells. Each cell runs in a copy of the working folder (`dvc exp run --temp`), so params.yaml stays as it is. The cells run
one after another, and a stage that two cells share runs once. After an interruption the same command runs what is
missing; finished stages and shards are kept. Cells that are marked as not run need --all.

A finished cell is a DVC experiment, which a clone does not have. --keep writes its rows, scores and records to
reports/experiments/NAME/C, small files to commit. The table is computed from them as from the experiment, and a kept cell
runs again only with --cell. A folder is refused if its parameters are not the cell's: those that the cell's stages
recorded in dvc.lock. The model of a role that no stage read may differ.
Logs are in .work/parallel/NAME/CELL.log. docs/experiments.md explains the files and the verdicts.
"""

import argparse
import os
import sys
from collections import Counter
from collections.abc import Container, Iterable
from contextlib import nullcontext
from functools import cache
from pathlib import Path
from typing import Any

from scalequest.audit.repository import Repository
from scalequest.errors import UserError
from scalequest.io import only_holder, read_json, write_text
from scalequest.outcomes import FINISHED, KEPT_CELL, MISSING_CELL, NOT_RUN, OUTDATED
from scalequest.params import Own, read_yaml
from scalequest.run.check import find_blockers
from scalequest.run.estimate import SEEDS, OwnRows, pairs_of, seed_problems, workload
from scalequest.run.experiment import cells as dvc
from scalequest.run.experiment import table
from scalequest.run.experiment.grid import Cell, Grid, find, read_all, read_grid
from scalequest.run.experiment.keeping import Standing, code_notes, keep_experiments, keep_folder, stand
from scalequest.run.experiment.kept import ENVIRONMENT
from scalequest.run.experiment.results import judge
from scalequest.run.gpus import TABLE
from scalequest.run.parallel import LOCK, LOGS, ONE, Runner, log_tail
from scalequest.run.pipeline import Node
from scalequest.run.rates import hours
from scalequest.run.work import Assumptions

GPU = "h100"


@cache
def rates() -> dict[str, Any]:
    """The table of measured rates."""
    return read_yaml(TABLE)


@cache
def counted(own: str, answered: str) -> OwnRows:
    """Numbers of a user's own rows; a file that cannot be counted here counts as ``SEEDS`` rows.

    Args:
        own: the section as JSON, which cells share, so that each file is read once.
        answered: what ``respond.questions`` names.
    """
    return OwnRows.of(Own.model_validate_json(own), answered, SEEDS)


def own_rows(cell: Cell) -> OwnRows:
    """Numbers of the rows that a user brings to a cell."""
    return counted(cell.params.own.model_dump_json(), cell.params.respond.questions)


def assumed_rows(cells: Iterable[Cell]) -> list[str]:
    """One note per file of a user's rows that an estimate had to assume the number of."""
    keys = dict.fromkeys(key for cell in cells for key in own_rows(cell).assumed)
    return [f"{key}: its rows cannot be counted here; the estimate takes {SEEDS:,}. Set n." for key in keys]


def stage_hours(cell: Cell) -> dict[str, float]:
    """Estimated hours of one H100 by stage, all its branches together; empty where a model's size is not known."""
    measured = rates()
    assumed = Assumptions(measured["tokens"], measured["keeps"])
    try:
        pairs = pairs_of(cell.params.instruct_tune, SEEDS)
        found = workload(cell.params, assumed, measured["sizes"], seed_problems(cell.params), own_rows(cell), pairs)
    except UserError:
        return {}
    return {work.stage: hours(work, measured["gpus"][GPU], measured) for work in found}


def estimate(cell: Cell, keys: dict[str, str], done: Container[str] = ()) -> float | None:
    """Hours of one H100 for a cell; None where a size is not known.

    Args:
        cell: the cell.
        keys: of its stages, as ``stage_keys`` gives them.
        done: keys of the stages that another cell runs.
    """
    found = stage_hours(cell)
    if not found:
        return None
    branches = Counter(name.split("@")[0] for name in keys)
    own = [name.split("@")[0] for name, key in keys.items() if key not in done]
    return sum(found.get(base, 0.0) / branches[base] for base in own)


def grid_keys(grid: Grid, root: Path = Path()) -> dict[str, dict[str, str]]:
    """The stages of every cell with their keys."""
    return {name: dvc.stage_keys(cell.values, grid.targets, root) for name, cell in grid.cells.items()}


def estimates(grid: Grid, keys: dict[str, dict[str, str]]) -> dict[str, float | None]:
    """Hours of one H100 for every cell: of the stages that no earlier cell has."""
    done: set[str] = set()
    found = {}
    for name, cell in grid.cells.items():
        found[name] = estimate(cell, keys[name], done)
        done |= set(keys[name].values())
    return found


def plan(grid: Grid, states: dict[str, str], root: Path = Path()) -> str:
    """What a run does: per cell its state, the stages that no earlier cell has, and the estimate of these."""
    done: dict[str, str] = {}
    rows, all_keys = [], grid_keys(grid, root)
    left = estimates(grid, all_keys)
    for cell in grid.cells.values():
        keys, value = all_keys[cell.name], left[cell.name]
        own = [name for name, key in keys.items() if key not in done]
        bases = Counter(name.split("@")[0] for name in own)
        listed = ", ".join(base if n == 1 else f"{base} ×{n}" for base, n in bases.items())
        shared = Counter(done[key] for key in keys.values() if key in done)
        rows.append([
            cell.name, states[cell.name], f"{len(own)} of {len(keys)}", "-" if value is None else f"{value:.2f}",
            ", ".join(f"{n} with {name}" for name, n in shared.items()) or "-", listed if len(own) < len(keys) else "all",
        ])  # fmt: skip
        done |= {key: cell.name for key in keys.values() if key not in done}
    head = ["cell", "state", "stages", f"{GPU} hours", "shared", "own stages"]
    return "\n".join([
        f"{grid.name}: {grid.spec.question} (parameters: {grid.spec.on})",
        "",
        table.plain(head, rows),
        "",
        f"{len(done)} stages in place of {sum(map(len, all_keys.values()))}, {sum(filter(None, left.values())):.2f} hours of one {GPU.upper()}; evaluation and CPU stages are not estimated.",
        *assumed_rows(grid.cells.values()),
        *(f"cell {cell.name}: {'; '.join(cell.changes) or 'the base'}" for cell in grid.cells.values()),
    ])  # fmt: skip


def listing(grids: dict[str, Grid], repository: Repository) -> str:
    """One line per experiment: its state and question."""
    rows = []
    for grid in grids.values():
        counts = Counter(stand(repository, grid, cell).state for cell in grid.cells.values())
        rows.append([grid.name, ", ".join(f"{n} {state}" for state, n in counts.items()), grid.spec.question])
    return table.plain(["experiment", "cells", "question"], rows)


def write_page(grid: Grid, repository: Repository) -> Path:
    """Write the table from the finished and the kept cells, and return its path."""
    standings = {cell.name: stand(repository, grid, cell) for cell in grid.cells.values()}
    found = {name: standing.result(repository, grid) for name, standing in standings.items()}
    results = {name: result for name, result in found.items() if result is not None}
    # The same words for an experiment and its kept files, so that a clone writes the same page.
    states = {name: FINISHED if name in results else standing.state for name, standing in standings.items()}
    left: dict[str, float | None] = {}
    if len(results) < len(grid.cells):
        hours_of = estimates(grid, grid_keys(grid, repository.root))
        left = {name: value for name, value in hours_of.items() if name not in results}
    assumed = assumed_rows(grid.cells[name] for name, value in left.items() if value is not None)
    notes = code_notes(results, grid.targets, repository.root)
    path = table.where(repository.root, grid.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, table.page(grid, results, states, judge(grid, results), left, assumed, notes))
    return path


def run_cell(grid: Grid, cell: Cell, repository: Repository) -> int:
    """Run one cell with DVC, and return its exit code. A result that it had is replaced only by a new one.

    Raises:
        UserError: the cell's parameters name what is not there, or it is running.
    """
    if found := find_blockers(cell.params):
        raise UserError(f"cell {cell.name}: {len(found)} thing(s) that it would stop at\n" + "\n".join(f"  {line}" for line in found))  # fmt: skip
    words = dvc.command(grid, cell, repository.root)
    lock = logs(grid) / f"{cell.name}.{LOCK}"
    with (
        only_holder(lock, f"cell {cell.name} of {grid.name} is running here already, as process {{0}}. {ONE}"),
        dvc.set_aside(repository, grid.experiment(cell.name)),
    ):
        return dvc.run(words)


def logs(grid: Grid) -> Path:
    """Folder of the logs of an experiment's cells."""
    return LOGS / grid.name


def run_missing(grid: Grid, chosen: list[Cell]) -> None:
    """Run cells one after another, each in a process that Ctrl-C ends in order.

    Raises:
        UserError: a cell failed; those after it were not started.
    """
    names = [cell.name for cell in chosen]
    nodes = {name: Node(name, frozenset(names[:i][-1:]), None) for i, name in enumerate(names)}
    command = (sys.executable, "-m", "scalequest.cli", "experiment", grid.name, "--cell")
    failed = Runner(nodes, dict.fromkeys(names, 0.0), [], 1, command=command, logs=logs(grid)).run()
    if failed:
        raise UserError(
            f"cell {failed[0]} failed; the cells after it were not started. Fix it and run again: finished cells, stages and "
            f"shards are kept\n--- {failed[0]}\n{log_tail(failed[0], logs(grid))}"
        )


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``scalequest experiment``."""
    parser.add_argument("name", nargs="?", help="a name in experiments/ (default: list them)")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--plan", action="store_true", help="print cells, shared stages and estimate; run nothing")
    what.add_argument("--table", action="store_true", help="write the table from what is finished or kept; run nothing")
    what.add_argument(
        "--keep", action="store_true", help="write the finished cells to small files for Git; run nothing"
    )
    parser.add_argument(
        "--cell", metavar="CELL",
        help="run this cell, also if it is finished, kept or marked as not run; with --keep, keep only this one",
    )  # fmt: skip
    parser.add_argument("--from", dest="folder", metavar="FOLDER", type=Path, help="with --keep --cell: a folder without Git in which the cell ran")  # fmt: skip
    parser.add_argument("--all", action="store_true", help="also run the cells that are marked as not run")


def run(args: argparse.Namespace) -> int:
    """List the experiments, or plan, run, tabulate or keep one.

    Raises:
        UserError: an experiment is not valid, or a cell failed.
    """
    repository = Repository.find()
    root = repository.root
    _check_options(args)
    if not root.samefile(Path.cwd()):  # parameters, sources and DVC's targets are relative to the root
        args.folder = args.folder and args.folder.absolute()
        os.chdir(root)
    if args.name is None:
        print(listing(read_all(root), repository))
        return 0
    grid = read_grid(find(args.name, root), root)
    if args.cell is not None and args.cell not in grid.cells:
        raise UserError(f"--cell {args.cell}: no such cell. Expected one of: {', '.join(grid.cells)}.")
    cell = grid.cells.get(args.cell)
    if args.keep:
        keep(grid, repository, cell, args.folder)
        return 0
    if cell is not None:
        return run_cell(grid, cell, repository)
    reads = args.plan or args.table
    one = only_holder(logs(grid) / LOCK, f"the experiment {grid.name} is running here already, as process {{0}}. {ONE}")
    with nullcontext() if reads else one:  # what is left is decided by one run at a time
        standings = {cell.name: stand(repository, grid, cell) for cell in grid.cells.values()}
        for name, standing in standings.items():
            if standing.kept and standing.kept.other:
                print(f"the kept files of {name} are of another cell: {standing.kept.other}", flush=True)
        if args.plan:
            print(plan(grid, {name: standing.state for name, standing in standings.items()}, root))
            return 0
        if not args.table:
            run_what_is_left(grid, standings, args.all)
    page = write_page(grid, Repository(root))
    text = page.read_text(encoding="utf-8").split("## Claims\n\n")[1].split("\nDifferences")[0]
    print(f"{page.relative_to(root)}\n\n{text.rstrip()}")
    return 0


def _check_options(args: argparse.Namespace) -> None:
    """Refuse options that do not go together.

    Raises:
        UserError: they do not.
    """
    if args.cell is not None and (args.plan or args.table):
        raise UserError("--cell: runs a cell, and --plan and --table run nothing. Expected one of them. Leave one out.")
    if args.folder is not None and not (args.keep and args.cell is not None):
        raise UserError(f"--from {args.folder}: of which cell? Expected it with --keep --cell CELL. Name the cell.")
    given = [
        option for option in ("keep", "plan", "table", "all", "cell") if getattr(args, option) not in (False, None)
    ]
    if args.name is None and given:
        raise UserError(f"--{given[0]}: of which experiment? Expected its name. `scalequest experiment` lists them.")
    if args.all and (args.plan or args.table or args.keep or args.cell is not None):
        raise UserError(
            "--all: runs all cells, and the other option runs none or one. Expected one of them. Leave one out."
        )


def keep(grid: Grid, repository: Repository, cell: Cell | None, folder: Path | None) -> None:
    """Write kept cells, and print their folders with their sizes.

    Raises:
        UserError: nothing can be kept; the message says why.
    """
    if cell is not None and folder is not None:
        written = [keep_folder(grid, cell, folder, repository.root)]
    else:
        written = keep_experiments(grid, repository, cell)
    for path in written:
        size = sum(file.stat().st_size for file in path.iterdir())
        print(f"{path.relative_to(repository.root)}  {size / 1000:.0f} kB")
        if not read_json(path / ENVIRONMENT)["stages"]:
            print("  its packages and hardware are not recorded")


def run_what_is_left(grid: Grid, standings: dict[str, Standing], marked: bool) -> None:
    """Run the cells that are missing or outdated, and with ``marked`` those that are not run.

    Raises:
        UserError: a cell cannot run, or failed.
    """
    states = {name: standing.state for name, standing in standings.items()}
    wanted = {MISSING_CELL, OUTDATED} | ({NOT_RUN} if marked else set())
    chosen = [cell for cell in grid.cells.values() if states[cell.name] in wanted]
    left = [name for name, state in states.items() if state == NOT_RUN and not marked]
    held = [name for name, state in states.items() if state == KEPT_CELL]
    print(f"{sum(s == FINISHED for s in states.values())} of {len(states)} cells are finished", flush=True)
    if held:
        print(f"kept: {', '.join(held)}; --cell runs one again", flush=True)
    if left:
        print(f"not run: {', '.join(left)} ({grid.spec.why.rstrip('.')}); --all runs them", flush=True)
    if blocked := [(cell.name, line) for cell in chosen for line in find_blockers(cell.params)]:
        lines = dict.fromkeys(line for _, line in blocked)
        names = ", ".join(dict.fromkeys(name for name, _ in blocked))
        raise UserError(f"{names}: {len(lines)} thing(s) that a run would stop at\n" + "\n".join(f"  {line}" for line in lines))  # fmt: skip
    if chosen:
        run_missing(grid, chosen)
