"""Write the page of a finished run from what Git keeps of it: lock, parameters, metrics, scores, a sample of the rows.

    scalequest report reports/results/gpu-135m          # writes index.html there

A run on rented machines leaves no tables behind, and its code is older than this. The page shows what was kept and names
what was not. It has seconds where the run kept them, because it is no output of a stage.
"""

import argparse
import json
import re
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from scalequest.audit.lock import LOCK, PARAMS, Lock, parse_lock, parse_yaml
from scalequest.audit.lock import flatten as dotted
from scalequest.audit.repository import Revision
from scalequest.errors import UserError
from scalequest.io import read_json, read_jsonl, write_text
from scalequest.outcomes import KEPT, OUTCOMES, Outcome
from scalequest.redaction import refuse_secrets
from scalequest.report import page
from scalequest.report.blocks import Bar, Bars, Block, Browser, Column, Funnel, Report, Section, Table, Text, clip, code
from scalequest.report.browse import snippet
from scalequest.report.chain import (
    after_filters_steps,
    after_filters_table,
    amounts,
    check_in_words,
    flatten,
    pairs_of,
)
from scalequest.report.identity import PAPER_COST, epochs_of, models_table, samples_and_tokens
from scalequest.report.record import graph, size_in_words
from scalequest.report.results import (
    DASH,
    dev_table,
    doubtful_scores,
    percent,
    results_table,
    students_scores,
    students_table,
)
from scalequest.report.run import is_student, read_scores, scores_by_model, tasks_of
from scalequest.report.tables import reward_in_words
from scalequest.run.outputs import check_output
from scalequest.run.work import TUNING, asked_by
from scalequest.runtime.progress import clock

# A folder of a run with some of its outputs, as a DVC remote.
TABLES = "tables"
# Models that a whole run scores.
MODELS = ("base", "solver", "student")
# Training stages, in the order of the pipeline.
TRAININGS = ("solver", "qft", "qpo", "difficulty_model", "reward_model", "instruct_tune")
# Stages whose numbers the page cannot do without.
NEEDED = ("filter", "reward_select", "instruct_tune")
# What a page of a full run has and the files of a kept run do not hold.
ABSENT = {
    "Test items": "the models' answers to the test items; so models are compared by their standard errors, not item by item",
    "Data browser": "all generated questions with their verdicts, answers and rewards",
    "Distributions": "lengths, difficulties, rewards and agreement of all rows",
    "Loss curves": "the loss and the gradient norm of each step",
    "Preference data": "rewrites beside their originals",
}


class Kept:
    """The files of one run below a folder.

    Attributes:
        folder: of the run.
        params: its parameter file, as it was written for the code of that day.
        metrics: stage, ``qft/school`` for one of several, to its metrics.
        seconds: DVC's stage name to the seconds that it took; empty where they were not kept.
        environments: package versions and machine, one list per kind.
        scores: model to task to its scores; base, solver, student, other students, then others.
        dev: the same on development items, for models that have any.
        sample: rows of the training set.
        lock: what each stage read and wrote.
    """

    def __init__(self, folder: Path) -> None:
        missing = [name for name in (LOCK, PARAMS, "metrics.json") if not (folder / name).exists()]
        scored = [path.stem for path in (folder / "scores").glob("*.json")]
        if missing := missing + ([] if scored else ["scores"]):
            raise UserError(
                f"{folder}: no {', '.join(missing)}. Expected a kept run: dvc.lock, params.yaml, metrics.json and scores/. "
                "`dvc repro report` writes the page of the run in the workspace."
            )
        self.folder = folder
        self.params = parse_yaml((folder / PARAMS).read_bytes(), str(folder / PARAMS))
        found = read_json(folder / "metrics.json")
        if not isinstance(found, dict) or not isinstance(found.get("metrics"), dict):
            raise UserError(
                f"{folder}/metrics.json: no `metrics` in it. Expected the metrics of each stage under this key. "
                "Rename the key that holds them."
            )
        self.metrics: dict[str, dict[str, Any]] = found["metrics"]
        if absent := [name for name in NEEDED if not self.of(name)]:
            raise UserError(
                f"{folder}/metrics.json: no metrics of {', '.join(absent)}. Expected those of {', '.join(NEEDED)}. Keep the metrics "
                "of a whole run."
            )
        self.seconds: dict[str, float] = found.get("seconds", {})
        self.environments: list[list[str]] = found.get("environments", [])
        files = read_scores(folder / "scores", scored)
        self.scores = scores_by_model(files)
        dev = {model: tasks_of(scores.get("dev", {})) for model, scores in files.items()}
        self.dev = {model: scores for model, scores in dev.items() if scores}
        path = folder / "sample.jsonl"
        self.sample = list(read_jsonl(path)) if path.is_file() else []
        again = folder / "remeasured.json"
        self.remeasured: dict[str, Any] = read_json(again) if again.is_file() else {}
        self.lock = Lock(Revision(str(folder), None), parse_lock((folder / LOCK).read_bytes(), str(folder / LOCK)))

    @property
    def models(self) -> dict[str, str]:
        """Sources of the models by role; a run without rewards has no reward model."""
        rewarded = self.params.get("reward_select", {}).get("waits_for") != "responses"
        return {role: source for role, source in self.params["models"].items() if rewarded or role != "reward"}

    @property
    def mix(self) -> list[str]:
        """Names of the generators."""
        return list(self.params["mix"])

    @property
    def tasks(self) -> list[str]:
        """Benchmarks, in the order of the scores."""
        return list(dict.fromkeys(task for scores in self.scores.values() for task in scores))

    @property
    def students(self) -> list[str]:
        """Students that were scored, ``student`` first."""
        return [model for model in self.scores if is_student(model)]

    @property
    def tune(self) -> dict[str, Any]:
        """Metrics of the training of the student that is published; the other students differ in their seed alone."""
        return self.metrics.get("instruct_tune/student") or self.of("instruct_tune")[0]

    def of(self, stage: str) -> list[dict[str, Any]]:
        """Metrics of a stage's instances."""
        return [values for name, values in self.metrics.items() if name.split("/")[0] == stage]


def warning(folder: Path) -> list[str]:
    """The paragraph "Read this first" of the folder's README.md without its markup: what later checks put in doubt."""
    file = folder / "README.md"
    for text in file.read_text(encoding="utf-8").split("\n\n") if file.is_file() else []:
        if text.startswith("**Read this first"):
            plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text).replace("**", "")
            return [" ".join(plain.replace("this page", "this run").split())]
    return []


def mean_of_students(run: Kept, task: str) -> str:
    """Mean and standard deviation over the students, in percent; empty for fewer than two."""
    values = students_scores(run, task)
    return f"{mean(values):.1f} ± {stdev(values):.1f}" if len(values) > 1 else ""


def in_words(run: Kept) -> list[str]:
    """The scores of each benchmark in a sentence, with their standard errors, and the mean of several students."""
    sentences = []
    for task in run.tasks:
        found = {model: scores[task] for model, scores in run.scores.items() if task in scores}
        parts = [f"{model} {percent(s['flexible'], s['flexible_stderr'])} %" for model, s in found.items()]
        if several := mean_of_students(run, task):
            parts.append(
                f"mean of {len(students_scores(run, task))} students {several} % (standard deviation over training seeds)"
            )
        sentences.append(f"`{task}`: {', '.join(parts)}.")
    return [*sentences, *not_scored(run)]


def not_scored(run: Kept) -> list[str]:
    """Name the models that a whole run scores and this one did not; nothing where all were."""
    absent = [model for model in MODELS if model not in run.scores]
    return [f"No scores were kept of: {', '.join(absent)}."] if absent else []


def untuned(run: Kept) -> list[str]:
    """Say which stages that tune generators have no metrics, and whether this run needed them."""
    stages = [stage for stage in TUNING["qpo"] if not run.of(stage)] if run.mix else []
    if not stages:
        return []
    names = ", ".join(f"`{stage}`" for stage in stages)
    models = asked_by(run.params) or "qpo"
    if set(stages) & set(TUNING[models]):
        return [f"Not kept: the metrics of {names}."]
    return [f"Not in this run: {names}. Its questions were asked by the `{models}` models (`generate.from`)."]


def results(run: Kept) -> Section:
    """Scores with their standard errors, as in the report of the workspace's run."""
    groups = [
        (task, [Bar(model, 100 * s[task]["flexible"], 100 * s[task]["flexible_stderr"], strong=is_student(model)) for model, s in run.scores.items() if task in s])
        for task in run.tasks
    ]  # fmt: skip
    return Section(
        "Results",
        [
            Bars("Flexible score; whiskers reach one standard error to each side", groups),
            results_table(run),
            *([students_table(run)] if len(run.students) > 1 else []),
            *([dev_table(run)] if run.dev else []),
            *doubtful_scores(run),
            *map(Text, not_scored(run)),
            Text(f"Not kept: {ABSENT['Test items']}. Standard errors are those that the run wrote."),
        ],
    )


def funnel(run: Kept) -> Section:
    """What every filter took."""
    [filtered], [select] = run.of("filter"), run.of("reward_select")
    left = filtered["generated"]
    steps = [("generated", left, 0)]
    rows = [["`generated`", f"{left:,}", "100.0", "", ""]]
    order = [name for name in OUTCOMES if name in filtered["outcomes"]]
    order += sorted(set(filtered["outcomes"]) - {*OUTCOMES, KEPT})
    for name in order:
        taken, outcome = filtered["outcomes"][name], OUTCOMES.get(name, Outcome(""))
        left -= taken
        steps.append((name, left, taken))
        rows.append([f"`{name}`", f"{taken:,}", percent(taken / filtered["generated"]), outcome.paper, outcome.meaning])
    rows.append([f"`{KEPT}`", f"{left:,}", percent(left / filtered["generated"]), "", ""])
    steps += after_filters_steps(select, run.tune, run.params["instruct_tune"].get("data", "instruct"))
    head = ["outcome", "all", "of generated, %", "paper, % of its 2M", "meaning"]
    return Section(
        "The funnel",
        [
            Funnel("Questions left after each step", steps),
            Table("Every generated question, by the first filter that took it", head, rows, "lrrrl"),
            Text(
                "The paper's rates are shares of its 2M questions; its other filters and thresholds are not this run's."
            ),
            *(after_filters_table(respond, select, run.tune) for respond in run.of("respond")),
        ],
    )


def training(run: Kept) -> Section:
    """A row per training run."""
    params = dotted(run.params)
    rows = []
    for stage in TRAININGS:
        for name, found in run.metrics.items():
            if name.split("/")[0] == stage and "steps" in found:
                cells = [f"{found[key]:.3f}" for key in ("first_loss", "last_loss")]
                cells += amounts(found, epochs_of(name, params))
                cells += [f"{found[key]:,}" for key in ("examples", "dropped_too_long")]
                rows.append([f"`{name.replace('/', '@')}`", *cells, check_in_words(found)])
    head = ["stage", "first loss", "last loss", "steps", "tokens", "per step", "examples", "too long", "check"]
    table = Table("Losses of the first and the last step; tokens of all passes", head, rows, "lrrrrrrrl")
    return Section("Training runs", [table, *map(Text, untuned(run)), Text(f"Not kept: {ABSENT['Loss curves']}.")])


def cost(run: Kept) -> Section:
    """Time and work of each stage beside the paper's."""
    if not run.seconds:
        return Section("Cost", [Text("Not kept: how long each stage took.")])
    params = dotted(run.params)
    by_base: dict[str, list[str]] = {}
    for name in run.seconds:
        by_base.setdefault(name.split("@")[0], []).append(name)
    rows = []
    for stage, names in by_base.items():
        samples, tokens = samples_and_tokens(run.of(stage))
        trained = sum(
            metrics.get("tokens", 0) * epochs_of(name, params)
            for name, metrics in run.metrics.items()
            if name.split("/")[0] == stage and "steps" in metrics
        )
        tokens = trained or tokens
        seconds = sum(run.seconds[name] for name in names)
        rows.append(
            [
                f"`{stage}`" + (f" × {len(names)}" if len(names) > 1 else ""),
                clock(seconds),
                f"{samples:,}" if samples else DASH,
                f"{tokens:,}" if tokens else DASH,
                f"{tokens / seconds:,.0f}" if tokens and seconds else DASH,
                *PAPER_COST.get(stage, (DASH, DASH)),
            ]
        )
    head = ["stage", "time", "samples", "tokens", "tokens/s", "paper's samples", "paper's GPU-hours (A100)"]
    note = (
        f"Times of all stages sum to {clock(sum(run.seconds.values()))}. Stages ran side by side and shared GPUs, so the run was "
        "shorter, and these are no GPU hours. Tokens were written by a model or trained on (rows times epochs), where the stage "
        "counted them; tokens per second are over the whole stage, with the start of the engine."
    )
    return Section("Cost", [Table("Each stage beside the paper's cost (Table 4)", head, rows, "lrrrrrr"), Text(note)])


def rows_kept(run: Kept) -> Section:
    """The sample of training rows, to be searched."""
    names = ["Data browser", "Distributions", *(["Preference data"] if run.of("preferences") else [])]
    absent = Text(f"Not on this page: {'; '.join(ABSENT[name] for name in names)}. {files_kept(run)}")
    if not run.sample:
        return Section("Data browser", [absent])
    [select] = run.of("reward_select")
    columns = [
        Column("id", "id", "text"),
        Column("question", "question", "text"),
        Column("generator", "generator", "category"),
        Column("reward", "reward", "number"),
        Column("agreement", "agreement", "number"),
        Column("answer", "final answer", "text"),
    ]
    rows = [
        {
            "cells": [row["id"], snippet(row["question"]), row["generator"], None if row["reward"] is None else round(row["reward"], 4), row["agreement"], snippet(row["final_answer"])],
            "texts": [("Question", clip(row["question"]), ""), ("Chosen answer", clip(row["response"]), f"{reward_in_words(row['reward'])}, of {row['n_candidates']} usable")],
        }
        for row in run.sample
    ]  # fmt: skip
    # A question with several training rows is in the sample once, with its best answer.
    of = f"{select['kept']:,}" + (f" questions with {pairs_of(select):,} rows" if "rows" in select else "")
    title = f"Training rows: {len(rows):,} of {of}"
    note = "The sample that the run kept. Click a question to read it with its answer."
    return Section("Data browser", [absent, Browser("questions", title, note, columns, rows)])


def measured(run: Kept) -> Section:
    """Every number that the stages wrote, and those of a later measurement."""

    def table(title: str, metrics: dict[str, Any]) -> Table:
        rows = [
            [f"`{stage}`", "; ".join(f"{name.replace('_', ' ')} {value}" for name, value in flatten(_numbers(values)))]
            for stage, values in metrics.items()
        ]
        return Table(title, ["stage", "numbers"], rows, "ll", folded=True)

    blocks: list[Block] = [table("As the run wrote them", run.metrics)]
    if run.remeasured:
        blocks.append(table("Measured again later, with other code (README.md of the folder)", run.remeasured))
    return Section("Numbers of each stage", blocks)


def _numbers(values: dict[str, Any]) -> dict[str, Any]:
    """Nested numbers without lists and texts of models."""
    found = {key: _numbers(value) if isinstance(value, dict) else value for key, value in values.items()}
    return {key: value for key, value in found.items() if not isinstance(value, list | str) and value != {}}


def lineage(run: Kept) -> Section:
    """What each stage read from which stage, from the lock."""
    rows = []
    for stage in run.lock.order():
        makers = dict.fromkeys(maker.name for dep in stage.deps for maker, _ in run.lock.makers(dep.path))
        outs = [out for out in stage.outs if not out.path.endswith((".json", ".csv"))] or list(stage.outs)
        if outs:
            rows.append(
                [f"`{stage.name}`", " ".join(map(code, makers)) or "outside", " ".join(code(out.path) for out in outs),
                 code(outs[0].md5[:10]), size_in_words(outs[0].size)]
            )  # fmt: skip
    head = ["stage", "made from", "wrote", "hash of the first", "size"]
    environments = [[", ".join(lines)] for lines in run.environments]
    return Section(
        "Lineage",
        [
            Text(f"From the `dvc.lock` that the run left. {files_kept(run)}"),
            graph(run.lock),
            Table("Stages and what they wrote", head, rows, "llllr", folded=True),
            Table("Packages and machines", ["environment"], environments, "l", folded=True),
        ],
    )


def files_kept(run: Kept) -> str:
    """Say which of the stages' outputs Git keeps, in a DVC remote ``tables`` of the folder."""
    remote = run.folder / TABLES / "files" / "md5"
    outs = [out for stage in run.lock.order() for out in stage.outs]
    kept = [code(out.path) for out in outs if out.md5 and (remote / out.md5[:2] / out.md5[2:]).is_file()]
    if not kept:
        return "The files themselves were not kept."
    return (
        f"Git keeps {', '.join(kept)} in the DVC remote `{TABLES}` of this folder, and no other output of the stages."
    )


def settings(run: Kept) -> Section:
    """The parameters, as dotted names."""
    rows = [[code(key), code(value if isinstance(value, str) else json.dumps(value))] for key, value in dotted(run.params).items() if not key.startswith("runtime.")]  # fmt: skip
    return Section("Settings", [Table(f"All {len(rows)} parameters", ["parameter", "value"], rows, "ll", folded=True)])


def build(run: Kept) -> Report:
    """The page of a kept run as data."""
    [filtered] = run.of("filter")
    figures = [
        (f"{filtered['generated']:,}", "questions generated"),
        (f"{filtered['kept']:,}", f"kept by the filters ({percent(filtered['kept'] / filtered['generated'])} %)"),
        (f"{run.tune['examples']:,}", "pairs trained on"),
    ]
    for task in run.tasks:
        if several := mean_of_students(run, task):
            figures.append(
                (
                    f"{several} %",
                    f"mean of {len(students_scores(run, task))} students on `{task}`, ± standard deviation",
                )
            )
        else:
            figures += [
                (f"{percent(run.scores[model][task]['flexible'])} %", f"{model} on `{task}`")
                for model in run.students
                if task in run.scores[model]
            ]
    identity: list[Block] = [
        *(Text(words, alert=True) for words in warning(run.folder)),
        models_table(run.models, run.mix),
        *map(Text, untuned(run)),
    ]
    record = [
        f"Written from the files below {code(run.folder.name)} by `scalequest report`; the run's code was that of its day.",
        *(f"Machine and packages: {code(', '.join(lines))}." for lines in run.environments),
    ]
    return Report(
        name=f"ScaleQuest run {run.folder.name}",
        headline=f"{filtered['generated']:,} questions generated, {run.tune['examples']:,} trained on",
        lead=in_words(run),
        figures=figures,
        sections=[
            Section("What this is", identity),
            results(run),
            funnel(run),
            rows_kept(run),
            training(run),
            cost(run),
            measured(run),
            lineage(run),
            settings(run),
        ],
        record=record,
    )


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``scalequest report``."""
    parser.add_argument(
        "folder", type=Path, metavar="FOLDER", help="of a kept run: dvc.lock, params.yaml, metrics.json, scores"
    )
    parser.add_argument("--out", type=Path, help="the page; index.html in the folder by default")


def run(args: argparse.Namespace) -> int:
    """Write the page."""
    check_output("--out", args.out)
    report = build(Kept(args.folder))
    out = args.out or args.folder / "index.html"
    text = page.html_page(report)
    for words in (text, *map(page.browser_json, page.browsers(report))):
        refuse_secrets(words, str(out))
    write_text(out, text)
    print(f"{out}: {len(text.encode()):,} bytes")
    return 0
