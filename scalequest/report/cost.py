"""Print what each stage of the last run took, beside the paper's cost (Table 4).

    scalequest cost [--json | --page [FILE]]

Time and tokens per second are of this checkout, from `.work/facts`: they differ from run to run, so no output of the pipeline
and no file in Git has them. A stage that DVC took from its cache shows the time of the run that made it, where that was here.
``--page`` writes them as a page beside the report, with the share of the card's peak that each training reached.
"""

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from scalequest.audit.lock import Lock, Stage, read_lock
from scalequest.audit.repository import WORKSPACE, Repository
from scalequest.audit.tables import read_metrics
from scalequest.errors import UserError
from scalequest.io import read_json, write_text
from scalequest.redaction import refuse_secrets
from scalequest.report.blocks import Amounts, Block, Report, Section, Table, Text, code
from scalequest.report.identity import COST_PAGE, PAPER_COST, epochs_of, samples_and_tokens
from scalequest.run.gpus import PEAK_DTYPE, peak_tflops, share_of_peak
from scalequest.runtime.environment import Spent, local_file
from scalequest.runtime.progress import clock

PAGE = Path("reports") / COST_PAGE

HEAD = ("stage", "rows", "tokens", "time", "tokens/s", "GPU hours", "paper's rows", "paper's GPU hours")
NOTE = """
Rows and tokens of the whole stage, where it counts them. Tokens were written by a model, read by a scorer, or trained on (rows
times epochs). Tokens per second are over the whole stage, with the start of the engine. GPU hours are the time of stages that
run a model, times the GPUs that they could use. The paper's hours are of A100s, and of its models and rows."""
PEAK_NOTE = f"""
Share of peak = 6 · N · tokens / (seconds · GPUs · peak). N are the parameters in the folder of the trained model,
and the peak is the maker's for dense {PEAK_DTYPE} (`scalequest/run/gpus.yaml`). The seconds are of the whole stage,
with its start and its checks, so training itself is faster. Adapters alone (`method: lora`) need about two thirds of
the operations, and `qpo` a third more, for its reference. A training that was resumed from a checkpoint has the time
of its last attempt alone, so its rate is too high."""
DASH = "–"
# Why a time is not known.
ELSEWHERE = "not recorded in this checkout: DVC took it from a cache, or it ran elsewhere"
OTHERS = "only other runs of it are recorded here: DVC took this one from a cache, or it ran elsewhere"
BEFORE = "it ran before stages kept their times"
DAMAGED = "the record of its run cannot be read"


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
        runs_a_model: whether it trains or samples.
        unknown: why the time of the other instances is not known, each reason once.
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
    runs_a_model: bool = False
    unknown: tuple[str, ...] = ()


@dataclass(frozen=True)
class Trained:
    """What one training reached.

    Attributes:
        stage: with its instance.
        wall_s: seconds of the whole stage; None where they are not known.
        tokens: of all passes; 0 where the stage counts none.
        card: kind of its GPU, and how many; empty where there was none, or it is not known.
        parameters: of the model that it wrote; None where its folder is not here.
        share: of the card's peak; None where ``missing`` says why.
        missing: why there is no share.
    """

    stage: str
    wall_s: float | None
    tokens: int
    card: str
    parameters: int | None
    share: float | None
    missing: str

    @property
    def tokens_per_s(self) -> float | None:
        """Over the whole stage."""
        return self.tokens / self.wall_s if self.tokens and self.wall_s else None


@dataclass(frozen=True)
class Ran:
    """The record of the run that the lock is about: what it took, its environment's lines, or why that is not known."""

    spent: Spent | None
    environment: tuple[str, ...] = ()
    unknown: str = ""


Record = tuple[Stage, Ran, dict[str, Any]]  # a stage of the lock, what this checkout recorded of its run, its metrics


def ran(root: Path, stage: Stage) -> Ran:
    """Read what this checkout recorded of the run in the lock."""
    file = local_file(root, stage.name, stage.given)
    if not file.is_file():
        return Ran(None, unknown=OTHERS if any(file.parent.glob("*.json")) else ELSEWHERE)
    try:
        facts = read_json(file)
        spent, lines = facts.get("spent"), tuple(map(str, facts.get("environment", ())))
        return Ran(Spent(**spent), lines) if spent else Ran(None, lines, BEFORE)
    except (ValueError, OSError, RecursionError, TypeError, AttributeError):
        return Ran(None, unknown=DAMAGED)


def parameters_in(folder: Path) -> int | None:
    """Count the parameters of a model by the headers of its weights; None where there are none that can be read."""
    from safetensors import SafetensorError, safe_open

    found = 0
    try:
        for file in sorted(folder.glob("*.safetensors")):
            with safe_open(file, framework="np") as weights:
                found += sum(math.prod(weights.get_slice(name).get_shape()) for name in weights.keys())  # noqa: SIM118
    except (SafetensorError, OSError):
        return None
    return found or None


def share_of(stage: Stage, record: Ran, tokens: int, parameters: int | None) -> tuple[float | None, str]:
    """The share of its GPUs' peak that a training reached, or why it has none."""
    spent = record.spent
    if spent is None or not spent.wall_s:
        return None, record.unknown or BEFORE
    dtype, card = str(stage.params.get("engine.dtype", "")), card_of(record)
    if not card:
        return None, "no GPU, and no peak is known for a CPU"
    if (peak := peak_tflops(card, dtype)) is None:
        return None, f"no peak is known for {card} in {dtype or 'an unknown dtype'}"
    if not tokens:
        return None, "the stage counts no tokens"
    if parameters is None:
        return None, "the weights of the trained model are not here (`dvc pull`), or not in safetensors"
    share = share_of_peak(parameters, tokens, spent.wall_s, peak, spent.gpus)
    return (share, "") if share <= 1 else (None, "more than the peak: its time is that of the last attempt alone")


def card_of(record: Ran) -> str:
    """The kind of GPU that a run could use; empty where there was none."""
    if record.spent is None or not record.spent.gpus:
        return ""
    return next((line.removeprefix("gpu: ") for line in record.environment if line.startswith("gpu: ")), "unknown card")


def trainings(repository: Repository, records: Sequence[Record]) -> list[Trained]:
    """What each training reached; a stage that trained nothing is left out."""
    found = []
    for stage, record, metrics in records:
        if "steps" not in metrics:
            continue
        tokens = metrics.get("tokens", 0) * epochs_of(stage.name, stage.params)
        folder = next((out.path for out in stage.outs if out.path.split("/")[0] == "models"), None)
        parameters = parameters_in(repository.root / folder) if folder else None
        share, missing = share_of(stage, record, tokens, parameters)
        wall, card = record.spent.wall_s if record.spent else None, card_of(record)
        several = f"{record.spent.gpus} × " if record.spent and record.spent.gpus > 1 else ""
        found.append(Trained(stage.name, wall, tokens, several + card if card else "", parameters, share, missing))
    return found


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
        runs_a_model=any(runs_a_model(stage) for stage, _, _ in stages),
    )


def metrics_of(repository: Repository, lock: Lock, stage: Stage) -> dict[str, Any]:
    """The first metrics that a stage wrote and that can be read."""
    files = (out for out in stage.outs if out.path.endswith(".json"))
    return next((m for out in files if (m := read_metrics(repository, lock.revision, out))), {})


def records_of(repository: Repository, lock: Lock) -> list[Record]:
    """What is known of every stage, each after those that it needs."""
    return [(stage, ran(repository.root, stage), metrics_of(repository, lock, stage)) for stage in lock.order()]


def costs(records: Sequence[Record]) -> list[Cost]:
    """The cost of every stage, in the order of the records."""
    by_name: dict[str, list[tuple[Stage, Spent | None, dict[str, Any]]]] = {}
    unknown: dict[str, dict[str, None]] = {}
    for stage, record, metrics in records:
        by_name.setdefault(stage.base, []).append((stage, record.spent, metrics))
        if record.unknown:
            unknown.setdefault(stage.base, {})[record.unknown] = None
    return [replace(cost_of(name, stages), unknown=tuple(unknown.get(name, ()))) for name, stages in by_name.items()]


def in_hours(gpu_hours: float) -> str:
    """Hundredths of an hour; of less than one no zero, and a dash for none."""
    return DASH if not gpu_hours else "<0.01" if gpu_hours < 0.005 else f"{gpu_hours:.2f}"


def table_rows(found: Sequence[Cost]) -> list[tuple[str, ...]]:
    """A row of ``HEAD`` per stage and one of the sums, for the terminal and for the page."""
    rows: list[tuple[str, ...]] = []
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
                in_hours(cost.gpu_hours),
                *PAPER_COST.get(cost.stage, (DASH, DASH)),
            )
        )
    hours = sum(cost.gpu_hours for cost in found)
    total = clock(sum(cost.wall_s for cost in found)) if any(cost.known for cost in found) else DASH
    paper = sum(float(hours) for _, hours in PAPER_COST.values() if hours[0].isdigit())
    rows.append(("all", "", "", total, "", in_hours(hours), "", f"{paper:.1f}"))
    return rows


def lines(found: Sequence[Cost]) -> list[str]:
    """The table as text, with a sum."""
    rows = [HEAD, *table_rows(found)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]
    return [
        "  ".join(cell.ljust(w) if column == 0 else cell.rjust(w) for column, (cell, w) in enumerate(zip(row, widths, strict=True))).rstrip()
        for row in rows
    ]  # fmt: skip


def remarks(cost: Cost) -> str:
    """Why a stage's row has a dash, a + or a *."""
    words = []
    if cost.unknown:
        words.append(f"time of {cost.instances - cost.known} of {cost.instances}: {'; '.join(cost.unknown)}")
    if cost.resumed:
        words.append("resumed: the time is that of the last attempt")
    if not cost.tokens:
        words.append("it counts no tokens" if cost.runs_a_model else "it runs no model, so no tokens and no GPU")
    elif cost.known and not cost.tokens_per_s:
        words.append("no rate: not all of its time was spent on tokens that it counts")
    if cost.known and cost.runs_a_model and not cost.gpu_hours:
        words.append("no GPU")
    return ". ".join(words)


def trained_table(trained: Sequence[Trained]) -> Table:
    """Make a row per training: its rate, and its share of the peak or why there is none."""
    rows = [
        [
            code(one.stage),
            f"{one.tokens_per_s:,.0f}" if one.tokens_per_s else DASH,
            f"{100 * one.share:.2f}" if one.share is not None else DASH,
            clock(one.wall_s) if one.wall_s else DASH,
            f"{one.tokens:,}" if one.tokens else DASH,
            f"{one.parameters:,}" if one.parameters else DASH,
            code(one.card) if one.card else DASH,
            one.missing,
        ]
        for one in trained
    ]
    head = ["training", "tokens/s", "share of peak, %", "time", "tokens", "parameters", "GPU", "why there is no share"]
    return Table("Trainings, each over its whole stage", head, rows, "lrrrrrll")


def build(found: Sequence[Cost], trained: Sequence[Trained]) -> Report:
    """The page as data: the numbers of the printed table, and what each training reached."""
    *stages, total = table_rows(found)
    timed = [(cost.stage, cost.wall_s / 3600, row[3]) for cost, row in zip(found, stages, strict=True) if cost.known]
    unknown = sum(cost.instances - cost.known for cost in found)
    blocks: list[Block] = []
    if timed:
        blocks.append(Amounts("Hours (h:mm:ss) of each stage, all its instances together", timed))
    else:
        blocks.append(Text("No time of this run is recorded in this checkout, so nothing is drawn.", alert=True))
    rows = [[code(row[0]), *row[1:], remarks(cost)] for cost, row in zip(found, stages, strict=True)]
    table = Table(
        "Each stage beside the paper's cost (Table 4)", [*HEAD, "remarks"], [*rows, [*total, ""]], "lrrrrrrrl"
    )
    blocks += [table, Text(NOTE.strip())]
    if unknown:
        blocks.append(
            Text(f"`{DASH}` or `+`: the time of {unknown} stages is not known here. `dvc repro -f` would measure it.")
        )
    sections = [Section("Cost of each stage", blocks)]
    if trained:
        sections.append(Section("Trainings", [trained_table(trained), Text(PEAK_NOTE.strip())]))
    return Report(
        name="ScaleQuest run cost",
        headline="No time is recorded here" if not timed else f"{total[3]} of stages, {'no' if total[5] == DASH else total[5]} GPU hours",
        lead=[
            "Times differ from run to run, so they are not in the report, whose bytes repeat. `scalequest cost --page` wrote this "
            "page from what the stages of this checkout recorded about the runs in `dvc.lock`."
        ],
        figures=[(total[3], "time of all stages"), (total[5], "GPU hours"), (total[7], "A100 hours in the paper"),
                 (f"{unknown:,}", "stages whose time is not known here")],
        sections=sections,
    )  # fmt: skip


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``scalequest cost``."""
    ways = parser.add_mutually_exclusive_group()
    ways.add_argument("--json", action="store_true", help="seconds, tokens and hours as JSON")
    ways.add_argument(
        "--page", type=Path, nargs="?", const=Path(), metavar="FILE",
        help=f"write a page, with the share of peak of each training (default: {PAGE} of the repository)"
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Print the table, or write the page."""
    repository = Repository.find()
    lock = read_lock(repository, repository.revision(WORKSPACE))
    records = records_of(repository, lock)
    found = costs(records)
    if args.page is not None:
        from scalequest.report import page  # draws: slow to import

        path = repository.root / PAGE if args.page == Path() else args.page
        if path.is_dir():
            raise UserError(f"cost --page: {path}: a folder. Expected a file to write. Name one in it.")
        text = page.html_page(build(found, trainings(repository, records)))
        refuse_secrets(text, str(path))
        write_text(path, text)
        print(f"wrote {path}")
        return 0
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
