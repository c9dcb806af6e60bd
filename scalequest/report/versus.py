"""Write the page of a comparison: what differs upstream first, scores with paired errors, funnels and distributions.

    scalequest compare A B [C ...] --page FILE

Each run is compared with the first. What is not here, because a run's bytes were not pulled, is named.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from scalequest.audit.compare import BYTES, PAGES, Outcome, Side, first_difference, reasons, verdict
from scalequest.io import write_text
from scalequest.outcomes import KEPT, OUTCOMES
from scalequest.outcomes import Outcome as Filter
from scalequest.records import by_item
from scalequest.redaction import refuse_secrets
from scalequest.report import page
from scalequest.report.blocks import Bar, Bars, Block, Report, Section, Table, Text, code
from scalequest.report.distributions import histogram, words
from scalequest.report.results import DASH, SIGNIFICANT, p_in_words, percent, signed
from scalequest.report.run import scores_by_model
from scalequest.statistics import paired_difference

Compared = Sequence[tuple[Side, Sequence[Outcome]]]
Items = dict[tuple[str, str, int], dict[str, Any]]


def short(name: str) -> str:
    """The name of a run for a chart: of a path without the folders above and the lock's own name."""
    return str(Path(*Path(name).parts[-2:])).removesuffix("/dvc.lock") or name


def path_of(side: Side, stage: str, option: str) -> str:
    """The path that a stage's command names; empty where the run has no such stage."""
    return (side.lock.stages[stage].option(option) or "") if stage in side.lock.stages else ""


def small(side: Side, path: str) -> dict[str, Any] | None:
    """A metrics or scores file of a run; None where the run has none or its bytes are not here."""
    out = next((out for _, out in side.lock.outs() if out.path == path), None)
    text = side.text(out) if out else None
    return json.loads(text) if text else None


def columns(side: Side, path: str, names: Sequence[str]) -> dict[str, list[Any]] | None:
    """Columns of a run's table; None where its bytes are not here."""
    out = next((out for _, out in side.lock.outs() if out.path == path), None)
    files = side.files(out) if out else None
    if not files:
        return None
    tables = [pq.read_table(file, columns=list(names)) for _, file in sorted(files.items())]
    return {name: [value for table in tables for value in table[name].to_pylist()] for name in names}


# -------------------------------------------------------------------------------------------------------------- scores


def scores_of(side: Side) -> dict[str, dict[str, Any]]:
    """Model to task to score."""
    files = {}
    for stage in side.lock.stages.values():
        path = stage.option("scores")
        if stage.base.startswith("evaluate") and path and (found := small(side, path)):
            files[Path(path).stem] = found
    return scores_by_model(files)


def items_of(side: Side, model: str) -> Items:
    """Test items that a model answered, by task, id and shots; none where they are not here."""
    names = ("task", "id", "shots", "split", "flexible", "strict")
    for stage in side.lock.stages.values():
        path = stage.option("samples")
        if stage.base.startswith("evaluate") and path and Path(path).stem == model:
            found = columns(side, path, names)
            rows = zip(*(found[name] for name in names), strict=True) if found else ()
            return {
                (row["task"], row["id"], row["shots"]): row
                for row in by_item(dict(zip(names, values, strict=True)) for values in rows)
                if row["split"] == "test"
            }
    return {}


def paired(first: Side, others: Sequence[Side], model: str) -> Iterator[list[str]]:
    """A row per task, score and other run: the same model of both runs on the same items."""
    base = items_of(first, model)
    for other in others:
        theirs = items_of(other, model)
        for task in dict.fromkeys(task for task, _, shots in base if not shots):
            keys = sorted(key for key in base.keys() & theirs.keys() if key[0] == task and not key[2])
            for score in ("flexible", "strict") if keys else ():
                d = paired_difference([base[key][score] for key in keys], [theirs[key][score] for key in keys])
                says = f"not significant ({p_in_words(d.p_value)})"
                if d.p_value < SIGNIFICANT:
                    says = f"{'better' if d.value > 0 else 'worse'} ({p_in_words(d.p_value)})"
                yield [
                    f"{model}, `{task}`, {score}", short(other.name), signed(100 * d.value),
                    f"{signed(100 * d.low)} to {signed(100 * d.high)}", says, f"{d.n:,}", f"{d.better:,}", f"{d.worse:,}",
                ]  # fmt: skip


def results(sides: Sequence[Side]) -> Section:
    """Scores of all runs, and paired differences from the first."""
    found = {side.name: scores_of(side) for side in sides}
    models = list(dict.fromkeys(model for scores in found.values() for model in scores))
    groups: dict[str, list[Bar]] = {}
    rows = []
    for model in models:
        for task in dict.fromkeys(task for scores in found.values() for task in scores.get(model, {})):
            here = {name: scores.get(model, {}).get(task) for name, scores in found.items()}
            groups[f"{model}, {task}"] = [
                Bar(short(name), 100 * s["flexible"], 100 * s["flexible_stderr"], strong=name != sides[0].name)
                for name, s in here.items()
                if s
            ]
            for score in ("flexible", "strict"):
                values = [percent(s[score], s[f"{score}_stderr"]) if s else DASH for s in here.values()]
                rows.append([f"{model}, `{task}`, {score}", *values])
    if not rows:
        return Section("Results", [Text("No scores of these runs are here. Run: dvc pull")])
    names = [short(side.name) for side in sides]
    blocks: list[Block] = [
        Bars("Flexible score; whiskers reach one standard error to each side", list(groups.items())),
        Table("Right answers in percent, ± one standard error", ["model, task and score", *names], rows, "l" + "r" * len(names)),
    ]  # fmt: skip
    differences = [row for model in models for row in paired(sides[0], sides[1:], model)]
    head = ["model, task and score", "run", f"minus {names[0]}", "95% interval", "in words", "items", "only it right", "only the first right"]  # fmt: skip
    blocks.append(
        Table("Each run minus the first, on the same test items (exact McNemar, bootstrap interval)", head, differences, "llrrlrrr")
        if differences
        else Text("The answers to the test items of two runs are not here, so scores are not paired. Run: dvc pull")
    )  # fmt: skip
    return Section("Results", blocks)


# ---------------------------------------------------------------------------------------------------- funnel and data


def funnels(sides: Sequence[Side]) -> Section:
    """What each filter took in each run."""
    found = {side.name: small(side, path_of(side, "filter", "metrics")) for side in sides}
    counts = {name: values["outcomes"] for name, values in found.items() if values}
    if not counts:
        return Section("The funnel", [Text("No metrics of stage `filter` are here.")])
    seen = {outcome for values in counts.values() for outcome in values}
    order = [name for name in (*OUTCOMES, *sorted(seen - {*OUTCOMES, KEPT}), KEPT) if name in seen]
    rows = []
    for name in ("generated", *order):
        cells = []
        for values in counts.values():
            whole = sum(values.values())
            n = whole if name == "generated" else values.get(name, 0)
            cells.append(f"{n:,} ({percent(n / max(1, whole))} %)")
        rows.append([f"`{name}`", *cells, OUTCOMES.get(name, Filter("")).meaning])
    head = ["outcome", *map(short, counts), "meaning"]
    title = "Every generated question, by the first filter that took it"
    return Section("The funnel", [Table(title, head, rows, "l" + "r" * len(counts) + "l")])


def distributions(sides: Sequence[Side]) -> Section:
    """Difficulty, length, reward and agreement of all runs over one axis each."""
    ledger, data = ({side.name: path_of(side, stage, option) for side in sides} for stage, option in (("filter", "ledger"), ("reward_select", "out")))  # fmt: skip
    series: dict[str, dict[str, Sequence[float]]] = {title: {} for title in TITLES}
    absent = []
    for side in sides:
        rows = columns(side, ledger[side.name], ("question", "difficulty", "outcome"))
        pairs = columns(side, data[side.name], ("reward", "agreement"))
        if rows:
            kept = [at for at, outcome in enumerate(rows["outcome"]) if outcome == KEPT]
            series[TITLES[0]][short(side.name)] = rows["difficulty"]
            series[TITLES[1]][short(side.name)] = words([rows["question"][at] for at in kept])
        if pairs:
            series[TITLES[2]][short(side.name)] = pairs["reward"]
            series[TITLES[3]][short(side.name)] = pairs["agreement"]
        if not rows or not pairs:
            absent.append(side.name)
    charts = [chart for title, values in series.items() if (chart := histogram(title, values))]
    blocks: list[Block] = [*charts]
    if absent:
        blocks.append(Text(f"The tables of {', '.join(map(code, absent))} are not here. Run: dvc pull"))
    return Section("Distributions", blocks)


TITLES = (
    "Difficulty of generated questions: the scorer's fail rate",
    "Words per kept question",
    "Reward of the chosen answers (logits)",
    "Agreement: share of a question's answers that end in the chosen answer",
)


# ---------------------------------------------------------------------------------------------------------- the page


def upstream(first: Side, compared: Compared) -> Section:
    """What differs between the first run and each other one, upstream first, and why."""
    blocks: list[Block] = []
    for other, outcomes in compared:
        blocks.append(
            Text(f"{code(short(first.name))} and {code(short(other.name))}: {verdict(first, other, list(outcomes))}")
        )
        differing = [o for o in outcomes if o.level != BYTES and o.stage.split("@")[0] not in PAGES]
        if begin := first_difference(outcomes):
            why = reasons(first, other, begin.stage) or ["nothing that is recorded differs"]
            blocks.append(
                Table(f"The first that differs is {code(begin.path)}", ["why"], [[line] for line in why], "l")
            )
        rows = [[code(o.path), code(o.stage), o.level, o.says] for o in differing]
        if rows:
            title = f"All {len(rows)} outputs that differ, upstream first"
            blocks.append(Table(title, ["output", "stage", "level", "how"], rows, "llll", folded=True))
    return Section("What differs", blocks)


def build(first: Side, compared: Compared) -> Report:
    """The page as data."""
    sides = [first, *(other for other, _ in compared)]
    differing = sum(o.level != BYTES for _, outcomes in compared for o in outcomes)
    return Report(
        name="ScaleQuest comparison",
        headline=" and ".join(short(side.name) for side in sides),
        lead=[f"Each run is compared with {code(short(first.name))}."],
        figures=[(f"{len(sides)}", "runs"), (f"{differing:,}", "outputs with other bytes")],
        sections=[upstream(first, compared), results(sides), funnels(sides), distributions(sides)],
    )


def write_page(path: Path, first: Side, compared: Compared) -> None:
    """Write the page of a comparison."""
    text = page.html_page(build(first, compared))
    refuse_secrets(text, str(path))
    write_text(path, text)
