"""Run an experiment of the paper's claims: cells as DVC experiments, and a verdict for each claim.

    scalequest experiment                  # list the experiments with their state
    scalequest experiment NAME --plan      # cells, the stages that they share, and the estimate; runs nothing
    scalequest experiment NAME             # run what is missing, then write the table
    scalequest experiment NAME --table     # write reports/experiments/NAME.md from the finished cells
    scalequest experiment NAME --cell C    # run one cell here and now, with DVC's output

An experiment is a file in experiments/: a question, cells as overlays of the parameters, and claims that compare two
cells. Each cell runs in a copy of the working folder (`dvc exp run --temp`), so params.yaml stays as it is. The cells run
one after another, and a stage that two cells share runs once. After an interruption the same command runs what is
missing; finished stages and shards are kept. Cells that are marked as not run need --all.
Logs are in .work/parallel/CELL.log. docs/experiments.md explains the files and the verdicts.
"""

import argparse
import os
import sys
from collections import Counter
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from scalequest.audit.repository import Repository
from scalequest.errors import UserError
from scalequest.io import write_text
from scalequest.outcomes import FINISHED, MISSING_CELL, OUTDATED
from scalequest.params import Own, read_yaml
from scalequest.run.check import find_blockers
from scalequest.run.estimate import SEEDS, OwnRows, hours, seed_problems, workload
from scalequest.run.experiment import cells as dvc
from scalequest.run.experiment import table
from scalequest.run.experiment.grid import Cell, Grid, find, read_all, read_grid
from scalequest.run.experiment.results import CellResult, judge
from scalequest.run.gpus import TABLE
from scalequest.run.parallel import Node, Runner, log_tail
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
        found = workload(cell.params, assumed, measured["sizes"], seed_problems(cell.params), own_rows(cell))
    except UserError:
        return {}
    return {work.stage: hours(work, measured["gpus"][GPU], measured) for work in found}


def estimate(cell: Cell, keys: dict[str, str] | None = None, done: set[str] | None = None) -> float | None:
    """Hours of one H100 for a cell, without the stages whose keys are in ``done``; None where a size is not known."""
    found = stage_hours(cell)
    if not found:
        return None
    if keys is None:
        return sum(found.values())
    branches = Counter(name.split("@")[0] for name in keys)
    own = [name.split("@")[0] for name, key in keys.items() if key not in (done or set())]
    return sum(found.get(base, 0.0) / branches[base] for base in own)


def plan(grid: Grid, states: dict[str, str], root: Path = Path()) -> str:
    """What a run does: per cell its state, the stages that no earlier cell has, and the estimate of these."""
    done: dict[str, str] = {}
    rows, total, all_stages = [], 0.0, 0
    for cell in grid.cells.values():
        keys = dvc.stage_keys(cell.values, grid.targets, root)
        own = [name for name, key in keys.items() if key not in done]
        value = estimate(cell, keys, set(done))
        total += value or 0.0
        all_stages += len(keys)
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
        f"{len(done)} stages in place of {all_stages}, {total:.2f} hours of one {GPU.upper()}; evaluation and CPU stages are not estimated.",
        *assumed_rows(grid.cells.values()),
        *(f"cell {cell.name}: {'; '.join(cell.changes) or 'the base'}" for cell in grid.cells.values()),
    ])  # fmt: skip


def listing(grids: dict[str, Grid], repository: Repository) -> str:
    """One line per experiment: its state and question."""
    rows = []
    for grid in grids.values():
        counts = Counter(dvc.state(repository, grid, cell) for cell in grid.cells.values())
        rows.append([grid.name, ", ".join(f"{n} {state}" for state, n in counts.items()), grid.spec.question])
    return table.plain(["experiment", "cells", "question"], rows)


def write_page(grid: Grid, repository: Repository) -> Path:
    """Write the table from the finished cells, and return its path."""
    locks = {cell.name: dvc.finished(repository, grid, cell) for cell in grid.cells.values()}
    results = {name: CellResult(repository, lock) for name, lock in locks.items() if lock is not None}
    states = {cell.name: FINISHED if cell.name in results else dvc.state(repository, grid, cell) for cell in grid.cells.values()}  # fmt: skip
    left = {cell.name: estimate(cell) for cell in grid.cells.values() if cell.name not in results}
    notes = assumed_rows(grid.cells[name] for name, value in left.items() if value is not None)
    path = table.where(repository.root, grid.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, table.page(grid, results, states, judge(grid, results), left, notes))
    return path


def run_cell(grid: Grid, cell: Cell, repository: Repository) -> None:
    """Become the DVC that runs one cell.

    Raises:
        UserError: the cell's parameters name what is not there.
    """
    if found := find_blockers(cell.params):
        raise UserError(f"cell {cell.name}: {len(found)} thing(s) that it would stop at\n" + "\n".join(f"  {line}" for line in found))  # fmt: skip
    words = dvc.command(grid, cell, repository.root)
    # DVC does not overwrite an experiment of the same name on the same commit; the result that it had is outdated.
    here = f"refs/exps/{(repository.head or '')[:2]}/{(repository.head or '')[2:]}/"
    for ref in dvc.refs(repository, grid.experiment(cell.name)):
        if ref.startswith(here):
            repository.git("update-ref", "-d", ref)
    os.execvp(words[0], words)


def run_missing(grid: Grid, chosen: list[Cell]) -> None:
    """Run cells one after another, each in a process that Ctrl-C ends in order.

    Raises:
        UserError: a cell failed; those after it were not started.
    """
    names = [cell.name for cell in chosen]
    nodes = {name: Node(name, frozenset(names[:i][-1:]), None) for i, name in enumerate(names)}
    command = (sys.executable, "-m", "scalequest.cli", "experiment", grid.name, "--cell")
    failed = Runner(nodes, dict.fromkeys(names, 0.0), [], 1, command=command).run()
    if failed:
        raise UserError(
            f"cell {failed[0]} failed; the cells after it were not started. Fix it and run again: finished cells, stages and "
            f"shards are kept\n--- {failed[0]}\n{log_tail(failed[0])}"
        )


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``scalequest experiment``."""
    parser.add_argument("name", nargs="?", help="a name in experiments/ (default: list them)")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--plan", action="store_true", help="print cells, shared stages and estimate; run nothing")
    what.add_argument("--table", action="store_true", help="write the table from the finished cells; run nothing")
    what.add_argument("--cell", metavar="CELL", help="run this cell, also if it is finished or marked as not run")
    parser.add_argument("--all", action="store_true", help="also run the cells that are marked as not run")


def run(args: argparse.Namespace) -> int:
    """List the experiments, or plan, run or tabulate one.

    Raises:
        UserError: an experiment is not valid, or a cell failed.
    """
    repository = Repository.find()
    root = repository.root
    if args.name is None:
        print(listing(read_all(root), repository))
        return 0
    grid = read_grid(find(args.name, root), root)
    if args.cell is not None:
        if args.cell not in grid.cells:
            raise UserError(f"--cell {args.cell}: no such cell. Expected one of: {', '.join(grid.cells)}.")
        run_cell(grid, grid.cells[args.cell], repository)
    states = {cell.name: dvc.state(repository, grid, cell) for cell in grid.cells.values()}
    if args.plan:
        print(plan(grid, states, root))
        return 0
    if not args.table:
        wanted = {MISSING_CELL, OUTDATED} | ({dvc.NOT_RUN} if args.all else set())
        chosen = [cell for cell in grid.cells.values() if states[cell.name] in wanted]
        left = [name for name, state in states.items() if state == dvc.NOT_RUN and not args.all]
        print(f"{sum(s == FINISHED for s in states.values())} of {len(states)} cells are finished", flush=True)
        if left:
            print(f"not run: {', '.join(left)} ({grid.spec.why.rstrip('.')}); --all runs them", flush=True)
        if blocked := [(cell.name, line) for cell in chosen for line in find_blockers(cell.params)]:
            lines = dict.fromkeys(line for _, line in blocked)
            names = ", ".join(dict.fromkeys(name for name, _ in blocked))
            raise UserError(f"{names}: {len(lines)} thing(s) that a run would stop at\n" + "\n".join(f"  {line}" for line in lines))  # fmt: skip
        if chosen:
            run_missing(grid, chosen)
    page = write_page(grid, Repository(root))
    text = page.read_text(encoding="utf-8").split("## Claims\n\n")[1].split("\nDifferences")[0]
    print(f"{page.relative_to(root)}\n\n{text.rstrip()}")
    return 0
