"""Print what each stage of the last run took, beside the paper's cost (Table 4).

    scalequest cost [--json]

Time and tokens per second are of this checkout, from `.work/facts`: they differ from run to run, so no output of the pipeline
and no file in Git has them. A stage that DVC took from its cache shows the time of the run that made it, where that was here.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from scalequest.audit.lock import Lock, Stage, read_lock
from scalequest.audit.repository import WORKSPACE, Repository
from scalequest.audit.tables import read_metrics
from scalequest.io import read_json
from scalequest.report.identity import PAPER_COST, epochs_of, samples_and_tokens
from scalequest.runtime.environment import Spent, local_file
from scalequest.runtime.progress import clock

HEAD = ("stage", "rows", "tokens", "time", "tokens/s", "GPU hours", "paper's rows", "paper's GPU hours")
NOTE = """
Rows and tokens of the whole stage, where it counts them. Tokens were written by a model, read by a scorer, or trained on (rows
times epochs). Tokens per second are over the whole stage, with the start of the engine. GPU hours are the time of stages that
run a model, times the GPUs that they could use. The paper's hours are of A100s, and of its models and rows."""
DASH = "–"


@dataclass(frozen=True)
class Cost:
    """What one stage took, all its instances together.

    Attributes:
        stage: name without instances.
        instances: stages of that name.
        known: those whose time is recorded here.
        rows: rows, samples or questions.
        tokens: 0 where the stage counts none.
        wall_s: seconds of the known instances.
        tokens_per_s: of the known instances, over the whole stage; None where one counts no tokens.
        gpu_hours: 0.0 where no GPU was there or no model ran.
        resumed: whether an instance was resumed, so that its time is of the last attempt alone.
    """

    stage: str
    instances: int
    known: int
    rows: int
    tokens: int
    wall_s: float
    tokens_per_s: float | None
    gpu_hours: float
    resumed: bool


def spent_on(root: Path, stage: Stage) -> Spent | None:
    """What the run took that the lock records; None where this checkout did not make it, or before stages kept it."""
    file = local_file(root, stage.name, stage.given)
    found = read_json(file).get("spent") if file.is_file() else None
    return Spent(**found) if found else None


def runs_a_model(stage: Stage) -> bool:
    """Whether a stage trains or samples: it then reads the engine's settings."""
    return any(name.split(".")[0] == "engine" for name in stage.params)


def tokens_of(stage: Stage, spent: Spent | None, metrics: dict[str, Any]) -> tuple[int, int]:
    """Tokens of the whole stage, and those that the recorded time was spent on."""
    trained = metrics.get("tokens", 0) * epochs_of(stage.name, stage.params)
    written = 0 if trained else samples_and_tokens([metrics])[1]
    worked = spent.tokens if spent else 0
    return trained + (worked if spent and worked and not spent.resumed else written), trained + worked


def cost_of(name: str, stages: Sequence[tuple[Stage, Spent | None, dict[str, Any]]]) -> Cost:
    """The cost of one stage.

    Args:
        name: without instances.
        stages: each instance with what it took and its metrics.
    """
    rows, tokens, timed = 0, 0, []
    for stage, spent, metrics in stages:
        whole, worked = tokens_of(stage, spent, metrics)
        rows += samples_and_tokens([metrics])[0] or (spent.rows + spent.resumed if spent else 0)
        tokens += whole
        timed += [worked] if spent else []
    took = [(stage, spent) for stage, spent, _ in stages if spent]
    wall = sum(spent.wall_s for _, spent in took)
    return Cost(
        stage=name,
        instances=len(stages),
        known=len(took),
        rows=rows,
        tokens=tokens,
        wall_s=round(wall, 1),
        tokens_per_s=round(sum(timed) / wall, 1) if wall and timed and all(timed) else None,
        gpu_hours=sum(spent.wall_s * spent.gpus / 3600 for stage, spent in took if runs_a_model(stage)),
        resumed=any(spent.resumed for _, spent in took),
    )


def costs(repository: Repository, lock: Lock) -> list[Cost]:
    """The cost of every stage, each after those that it needs."""
    by_name: dict[str, list[tuple[Stage, Spent | None, dict[str, Any]]]] = {}
    for stage in lock.order():
        files = (out for out in stage.outs if out.path.endswith(".json"))
        found = next((m for out in files if (m := read_metrics(repository, lock.revision, out))), {})
        by_name.setdefault(stage.base, []).append((stage, spent_on(repository.root, stage), found))
    return [cost_of(name, stages) for name, stages in by_name.items()]


def lines(found: Sequence[Cost]) -> list[str]:
    """The table as text, with a sum."""
    rows = [HEAD]
    for cost in found:
        time = clock(cost.wall_s) if cost.known else DASH
        marks = ("+" if cost.known and cost.known < cost.instances else "") + ("*" if cost.resumed else "")
        rows.append(
            (
                cost.stage + (f" ({cost.instances})" if cost.instances > 1 else ""),
                f"{cost.rows:,}" if cost.rows else DASH,
                f"{cost.tokens:,}" if cost.tokens else DASH,
                time + marks,
                f"{cost.tokens_per_s:,.0f}" if cost.tokens_per_s else DASH,
                f"{cost.gpu_hours:.2f}" if cost.gpu_hours else DASH,
                *PAPER_COST.get(cost.stage, (DASH, DASH)),
            )
        )
    hours = sum(cost.gpu_hours for cost in found)
    total = clock(sum(cost.wall_s for cost in found))
    paper = sum(float(hours) for _, hours in PAPER_COST.values() if hours[0].isdigit())
    rows.append(("all", "", "", total, "", f"{hours:.2f}" if hours else DASH, "", f"{paper:.1f}"))
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]
    return [
        "  ".join(cell.ljust(w) if column == 0 else cell.rjust(w) for column, (cell, w) in enumerate(zip(row, widths, strict=True))).rstrip()
        for row in rows
    ]  # fmt: skip


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``scalequest cost``."""
    parser.add_argument("--json", action="store_true", help="seconds, tokens and hours as JSON")


def run(args: argparse.Namespace) -> int:
    """Print the table."""
    repository = Repository.find()
    found = costs(repository, read_lock(repository, repository.revision(WORKSPACE)))
    if args.json:
        print(json.dumps([asdict(cost) for cost in found], indent=2))
        return 0
    print("\n".join(lines(found)))
    print(NOTE)
    if unknown := sum(cost.instances - cost.known for cost in found):
        print(
            f"{DASH} or +: the time of {unknown} stages is not recorded in this checkout. `dvc repro -f` would measure it."
        )
    if any(cost.resumed for cost in found):
        print("*: resumed; the time is that of the last attempt.")
    return 0
