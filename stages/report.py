"""Write the report of the run: results, funnel, training, the data itself, settings. As Markdown, as a page, in the README.

    python -m stages.report --scores eval/scores --metrics reports/metrics --ledger data/ledger.parquet
        --data data/instruct.parquet --samples data/samples --readme README.md --markdown reports/report.md
        --page reports/index.html

Nothing in it depends on when, where or how fast the run was: a second run writes the same bytes. Of the README only what
stands between the two marks is replaced; it is no output of the stage, because DVC removes outputs before a run.
"""

import argparse
import heapq
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic import BaseModel

from scalequest import page
from scalequest.errors import UserError
from scalequest.io import read_json, write_text
from scalequest.lineage import package_versions
from scalequest.page import Bar, Bars, Block, Funnel, Report, Sample, Samples, Section, Table, Text, code
from scalequest.params import Params
from scalequest.records import INSTRUCTION, LEDGER, SAMPLE, read_rows, read_table
from scalequest.stage import DEGENERATE, MANY_UNPARSED, StageRun, run_stage

BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"
# Every section but the one that cannot change a result.
SETTINGS = tuple(name for name in Params.model_fields if name != "runtime")
# The stages that write metrics: once, and once a generator.
SINGLE = ("seeds", "benchmarks", "solver", "difficulty_labels", "difficulty_model", "difficulty", "screen", "judge",
          "filter", "respond", "reward_model", "reward", "reward_select", "instruct_tune")  # fmt: skip
EACH = ("qft", "qpo_questions", "preferences", "qpo", "generate")

KEPT = "kept"
# What takes a question out, in the order of the checks.
OUTCOMES = {
    "cut": "not ended within `generate.max_tokens`",
    "empty": "no text",
    "too_short": "fewer words than `screen.min_words`",
    "language": "not in the language asked for",
    "contaminated": "shares a run of words with a benchmark",
    "exact_duplicate": "the same as an earlier question",
    "near_duplicate": "nearly the same as an earlier question",
    "unsolvable": "the judge says it cannot be solved",
    "no_verdict": "the judge gave no readable verdict",
    "too_easy": "among the easiest of its generator",
    "over_share": "more than the mix or `filter.n_questions` takes",
}
# Shares of the original 2M questions: only so do the paper's three rates leave its 1M.
PAPER = {"language": "20.1", "unsolvable": "19.4", "no_verdict": "in the line above", "too_easy": "9.2"}

# From so many standard errors on a difference counts as one.
SHOWS = 2
KEPT_SHOWN, BROWSE_KEPT, BROWSE_REJECTED = 3, 200, 100
DASH = "–"

SCORES_NOTE = """
Strict: the final answer stands in the form that was asked for (a box; for code, a Python block). Flexible: an announcing phrase or
the last number will do; for code, a block that was cut or bare code. Code is right if the benchmark's tests pass in the sandbox.
Zero-shot, greedy, one answer an item. The error of a difference is √(se₁² + se₂²), as if the two models had answered different
items; they answered the same ones, so it is more likely too large than too small. It speaks of the choice of items only: this
is one run with one seed, and how much another seed would change the trained model is not in it."""
EXACT_NOTE = """
A score of exactly 0 or 100 % gets the error 0 from the formula √(p(1−p)/(n−1)). That is no certainty: none right of n is still
compatible with a true share of about 3/n."""
PAIRS_NOTE = """
Each usable question (ended, not empty, no exact duplicate) is rewritten for one aim, drawn by a coin; a pair is chosen =
rewrite, rejected = original. Pairs and the rejects of each reason sum to the usable questions, and so do the aims."""
REPEATABILITY = [
    ("seeds, test sets, screening, filter, selection (no model of a role runs)", "same bytes", "same bytes for the same inputs"),
    ("questions, rewrites, verdicts, responses, rewards", "same bytes", "same distribution"),
    ("trained models", "same bytes", "same data and method, other rounding: same distribution of what they write"),
    ("scores", "same bytes", "within the stated error"),
    ("rewrites of an optimizer behind an API, where one is used", "frozen: kept and hashed, not asked for again", "the same frozen data"),
    ("this report", "same bytes", "same bytes for the same inputs and packages"),
]  # fmt: skip


@dataclass(frozen=True)
class Run:
    """Everything the report tells of.

    Attributes:
        params: the declared parameters.
        scores: model to its scores file; base, solver, student, then others by name.
        metrics: DVC's stage name to its metrics.
        outcomes: what became of the generated questions to its count for each generator of the mix; ``kept`` comes last.
        ledger: every generated question.
        data: the training rows.
        items: model to the scores of its items by task and id; base and student if both were scored, else empty.
        versions: the packages that can change a result.
    """

    params: Any
    scores: dict[str, dict[str, Any]]
    metrics: dict[str, dict[str, Any]]
    outcomes: dict[str, list[int]]
    ledger: pa.Table
    data: pa.Table
    items: dict[str, dict[tuple[str, str], dict[str, Any]]]
    versions: dict[str, str]

    @property
    def tasks(self) -> list[str]:
        """List the tasks in the order of ``evaluate.tasks``, then others that were scored."""
        found = {task for scores in self.scores.values() for task in scores} - {"degenerate", "environment"}
        return [*self.params.evaluate.tasks, *sorted(found - set(self.params.evaluate.tasks))]

    @property
    def kept(self) -> int:
        """Count the questions that passed every filter."""
        return sum(self.outcomes[KEPT])


# ------------------------------------------------------------------------------------------------------------- reading


def read_scores(folder: Path) -> dict[str, dict[str, Any]]:
    """Read the scores by model: base, solver, student, then others by name.

    Raises:
        UserError: there are none.
    """
    order = {"base": 0, "solver": 1, "student": 2}
    paths = sorted(folder.glob("*.json"), key=lambda path: (order.get(path.stem, len(order)), path.stem))
    if not paths:
        raise UserError(f"{folder}: no scores there; run: dvc repro evaluate")
    return {path.stem: read_json(path) for path in paths}


def read_metrics(folder: Path, mix: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Read the metrics by DVC's stage name; those of a generator that has left the mix are passed over.

    Raises:
        UserError: a stage has written none.
    """
    found = {}
    for path in sorted(folder.rglob("*.json")):
        stage, *generator = path.relative_to(folder).with_suffix("").parts
        if not generator or generator[0] in mix:
            found["@".join([stage, *generator])] = read_json(path)
    expected = [*SINGLE, *(f"{stage}@{generator}" for stage in EACH for generator in mix)]
    if missing := [name for name in expected if name not in found]:
        raise UserError(f"{folder}: no metrics of {', '.join(missing)}; run: dvc repro {' '.join(missing)}")
    return found


def count_outcomes(ledger: pa.Table, generated: dict[str, int]) -> dict[str, list[int]]:
    """Count the ledger's rows by outcome, for each generator in the order of ``generated``.

    Raises:
        UserError: the ledger does not have as many rows of each generator as it generated.
    """
    counts = Counter(zip(ledger["generator"].to_pylist(), ledger["outcome"].to_pylist(), strict=True))
    found = Counter(ledger["generator"].to_pylist())
    if found != generated:
        raise UserError(
            f"ledger: {dict(found)} questions by generator, but {generated} were generated; run: dvc repro filter"
        )
    names = [*OUTCOMES, *sorted({outcome for _, outcome in counts} - {*OUTCOMES, KEPT}), KEPT]
    return {name: [counts[generator, name] for generator in generated] for name in names}


def read_run(args: argparse.Namespace, params: Any) -> Run:
    """Read what the stages wrote."""
    scores, metrics = read_scores(args.scores), read_metrics(args.metrics, params.mix)
    ledger = read_table(args.ledger, LEDGER)
    both = ("base", "student") if {"base", "student"} <= scores.keys() else ()
    rows = {model: read_rows(args.samples / f"{model}.parquet", SAMPLE) for model in both}
    return Run(
        params=params,
        scores=scores,
        metrics=metrics,
        outcomes=count_outcomes(ledger, {g: metrics[f"generate@{g}"]["questions"] for g in params.mix}),
        ledger=ledger,
        data=read_table(args.data, INSTRUCTION),
        items={model: {(row["task"], row["id"]): row for row in found} for model, found in rows.items()},
        versions=package_versions(),
    )


def split_readme(path: Path) -> tuple[str, str]:
    """Split the README into what stands before and after the results, marks included.

    Raises:
        UserError: the file or a mark is missing, or the marks are not one pair in order.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; the results go between the lines '{BEGIN}' and '{END}' in it")
    text = path.read_text(encoding="utf-8")
    for mark in (BEGIN, END):
        if text.count(mark) != 1:
            raise UserError(
                f"{path}: has the line '{mark}' {text.count(mark)} times, expected once; the results go between "
                f"'{BEGIN}' and '{END}'"
            )
    before, after = text.split(BEGIN)
    if END not in after:
        raise UserError(f"{path}: '{END}' stands before '{BEGIN}'; swap them")
    return before + BEGIN, END + after.split(END)[1]


# ------------------------------------------------------------------------------------------------------------- numbers


def percent(value: float, error: float | None = None) -> str:
    """Give a share of 1 in percent, with its standard error if there is one."""
    return f"{100 * value:.1f}" + ("" if error is None else f" ± {100 * error:.1f}")


def signed(value: float) -> str:
    """Give one decimal and the sign."""
    return f"{value:+.1f}".replace("-", "−")


@dataclass(frozen=True)
class Difference:
    """Student minus base on one task by one score, in points of 100.

    ``gained`` and ``lost`` count the items that only the student, and only the base, got right.
    """

    task: str
    score: str
    points: float
    error: float
    gained: int
    lost: int

    @property
    def errors(self) -> float | None:
        """The size in standard errors; None where both scores are exactly 0 or 1, which have none."""
        return self.points / self.error if self.error else None

    @property
    def words(self) -> str:
        """Say what the difference shows."""
        if self.points == 0 or (self.errors is not None and abs(self.errors) < SHOWS):
            return "no difference that this many items could show"
        return f"the student is {'better' if self.points > 0 else 'worse'}"


def differences(run: Run) -> Iterator[Difference]:
    """Yield flexible, then strict, for each task that base and student were both scored on."""
    for task in run.tasks if run.items else []:
        base, student = run.scores["base"].get(task), run.scores["student"].get(task)
        if not base or not student:
            continue
        for score in ("flexible", "strict"):
            right = {
                model: {key for key, row in items.items() if key[0] == task and row[score] == 1}
                for model, items in run.items.items()
            }
            yield Difference(
                task=task,
                score=score,
                points=round(100 * (student[score] - base[score]), 4),
                error=100 * (base[f"{score}_stderr"] ** 2 + student[f"{score}_stderr"] ** 2) ** 0.5,
                gained=len(right["student"] - right["base"]),
                lost=len(right["base"] - right["student"]),
            )


# ------------------------------------------------------------------------------------------------------------- results


def results_in_words(run: Run) -> list[str]:
    """Say for each task what training changed, by the flexible score."""
    sentences = []
    for d in differences(run):
        if d.score == "flexible":
            base, student = (percent(run.scores[model][d.task]["flexible"]) for model in ("base", "student"))
            size = f"{signed(d.points)} ± {d.error:.1f} points"
            if d.errors is not None:
                size += f", {abs(d.errors):.1f} standard errors"
            sentences.append(f"`{d.task}`: base {base} %, student {student} % ({size}): {d.words}.")
    return sentences or ["Base and student were not both scored, so nothing can be said of what training changed."]


def results_table(run: Run) -> Table:
    """Make a row a task and model."""
    rows = []
    for task in run.tasks:
        for model, scores in run.scores.items():
            cells = [DASH] * 4
            if found := scores.get(task):
                both = [percent(found[score], found[f"{score}_stderr"]) for score in ("flexible", "strict")]
                cells = [f"{found['n']:,}", *both, percent(found["unparsed"])]
            rows.append([f"`{task}`", model, *cells])
    head = ["task", "model", "items", "flexible, %", "strict, %", "unparsed, %"]
    return Table("Right answers in percent, ± one standard error", head, rows, "llrrrr")


def difference_table(run: Run) -> Table:
    """Make a row a task and score."""
    head = ["task", "score", "points", "standard errors", "would show from", "only student right", "only base right", "in words"]  # fmt: skip
    rows = [
        [
            f"`{d.task}`",
            d.score,
            f"{signed(d.points)} ± {d.error:.1f}",
            DASH if d.errors is None else signed(d.errors),
            DASH if d.errors is None else f"{SHOWS * d.error:.1f}",
            f"{d.gained:,}",
            f"{d.lost:,}",
            d.words,
        ]
        for d in differences(run)
    ]
    return Table("Student minus base", head, rows, "llrrrrrl")


def doubtful_scores(run: Run) -> list[Block]:
    """Warn of every score that is exactly 0, rests on answers that could not be read, or on checks that were not finished."""
    warnings = []
    for task in run.tasks:
        for model, scores in run.scores.items():
            if not (found := scores.get(task)):
                continue
            if found["flexible"] == 0:
                warnings.append(f"`{task}`, {model}: {DEGENERATE['score_zero']}.")
            if found["unparsed"] > MANY_UNPARSED:
                warnings.append(
                    f"`{task}`, {model}: {percent(found['unparsed'])} % of the answers could not be parsed."
                )
            if found["timeouts"]:
                warnings.append(
                    f"`{task}`, {model}: {found['timeouts']:,} checks ran into their time limit and count as wrong."
                )
    return [Text(warning, alert=True) for warning in warnings]


def results(run: Run) -> Section:
    """Show what the models score and what training changed."""
    scored = [(task, model, s[task]) for task in run.tasks for model, s in run.scores.items() if task in s]
    groups: dict[str, list[Bar]] = {}
    for task, model, s in scored:
        bar = Bar(model, 100 * s["flexible"], 100 * s["flexible_stderr"], strong=model == "student")
        groups.setdefault(task, []).append(bar)
    blocks: list[Block] = [
        *gsm8k_notice(run.params),
        Bars("Flexible score; whiskers reach one standard error to each side", list(groups.items())),
        results_table(run),
        difference_table(run) if run.items else Text(results_in_words(run)[0]),
        Text(SCORES_NOTE),
        *doubtful_scores(run),
    ]
    if any(s[score] in (0, 1) for _, _, s in scored for score in ("flexible", "strict")):
        blocks.append(Text(EXACT_NOTE))
    if (limit := run.params.evaluate.limit) is not None:
        blocks.append(Text(f"Only the first {limit:,} items of each task were asked (`evaluate.limit`).", alert=True))
    return Section("Results", blocks)


# -------------------------------------------------------------------------------------------------------------- funnel


def funnel_line(run: Run) -> str:
    """Say the funnel in a sentence."""
    select, tune = run.metrics["reward_select"], run.metrics["instruct_tune"]
    return (
        f"Of {run.ledger.num_rows:,} generated questions the filters kept {run.kept:,}, {select['kept']:,} of them got a response "
        f"that gives an answer, and the student was trained on {tune['examples']:,}."
    )


def funnel_table(run: Run) -> Table:
    """Make a row an outcome, with its count for each generator."""
    generated = [run.metrics[f"generate@{generator}"]["questions"] for generator in run.params.mix]
    rows = []
    for name, counts in {"generated": generated, **run.outcomes}.items():
        numbers = [f"{n:,}" for n in (*counts, sum(counts))]
        share = percent(sum(counts) / run.ledger.num_rows)
        rows.append([f"`{name}`", OUTCOMES.get(name, ""), *numbers, share, PAPER.get(name, "")])
    head = ["outcome", "meaning", *run.params.mix, "all", "of generated, %", "paper, % of its 2M"]
    return Table("Every generated question, by the first filter that took it", head, rows, "ll" + "r" * (len(head) - 2))


def after_filters_table(run: Run) -> Table:
    """Make a row each for the responses, the selection and the training."""
    respond, select, tune = (run.metrics[name] for name in ("respond", "reward_select", "instruct_tune"))
    responses = f"{respond['cut_at_max_tokens']:,} cut at `respond.max_tokens`; {respond['mean_distinct']:.2f} distinct ones a question"
    selection = (
        f"{select['dropped']['no_answer']:,} questions without a response that gives an answer, "
        f"{select['dropped']['low_reward']:,} below `reward_select.min_reward`; mean reward {select['mean_reward']['kept']:.3f} "
        f"of the chosen, {select['mean_reward']['all']:.3f} of all; on average {percent(select['mean_agreement'])} % of a "
        "question's responses give the chosen answer"
    )
    too_long = tune["dropped_too_long"]
    rows = [
        ["`respond`", f"{respond['questions']:,} questions", f"{respond['responses']:,} responses", responses],
        ["`reward_select`", f"{select['questions']:,} questions", f"{select['kept']:,} pairs", selection],
        [
            "`instruct_tune`",
            f"{tune['examples'] + too_long:,} pairs",
            f"{tune['examples']:,} examples",
            f"{too_long:,} longer than `instruct_tune.max_length`",
        ],
    ]
    return Table("After the filters", ["stage", "in", "out", "remarks"], rows, "lrrl")


def funnel(run: Run) -> Section:
    """Show every filter's toll, and what became of the rest."""
    select, tune = run.metrics["reward_select"], run.metrics["instruct_tune"]
    left = run.ledger.num_rows
    steps = [("generated", left, 0)]
    for name, counts in run.outcomes.items():
        if name != KEPT and (taken := sum(counts)):
            left -= taken
            steps.append((name, left, taken))
    steps.append(("no usable response", select["kept"], select["questions"] - select["kept"]))
    steps.append(("too long to train on", tune["examples"], tune["dropped_too_long"]))
    asked = f"The questions were asked by the `{run.params.generate.from_}` models (`generate.from`)."
    blocks: list[Block] = [
        Text(f"{funnel_line(run)} {asked}"),
        Funnel("Questions left after each step that took some", steps),
        funnel_table(run),
        Text("The paper's rates are shares of its 2M questions; its other filters and thresholds are not this run's."),
        after_filters_table(run),
    ]
    return Section("The funnel", blocks)


# ---------------------------------------------------------------------------------------- degenerate, training, preferences


def degenerate(run: Run) -> Section:
    """Show every flag that is up, with its sentence."""
    everything = run.metrics | {f"evaluate@{model}": scores for model, scores in run.scores.items()}
    rows = [
        [f"`{stage}`", f"`{flag}`", DEGENERATE.get(flag, "")]
        for stage, values in everything.items()
        for flag, up in values.get("degenerate", {}).items()
        if up
    ]
    nothing = Text("Nothing: no stage found that its step had lost its meaning.")
    head = ["stage", "flag", "what was found"]
    table = Table("Steps that may have lost their meaning in this run", head, rows, "lll")
    return Section("What is degenerate", [table if rows else nothing])


def check_in_words(metrics: dict[str, Any]) -> str:
    """Say what a training run knows of itself beyond its loss."""
    held = metrics.get("held_out", {})
    if "spearman" in held:
        return (
            f"rank correlation {held['spearman']:.2f} on {held['problems']:,} held-out seeds; squared error {held['mse']:.3f}, "
            f"{held['mse_of_the_mean']:.3f} for always saying the mean"
        )
    if "accuracy" in held:
        return f"right in {percent(held['accuracy'])} % of {held['pairs']:,} held-out pairs"
    if "reward_accuracy" in metrics:
        return f"chosen above rejected in {percent(metrics['reward_accuracy'])} % of the last steps' training pairs"
    return ""


def training(run: Run) -> Section:
    """Show a row a training run."""
    names = [f"{stage}@{generator}" for stage in ("qft", "qpo") for generator in run.params.mix]
    rows = []
    for name in ["solver", *names, "difficulty_model", "reward_model", "instruct_tune"]:
        metrics = run.metrics[name]
        cells = [*[DASH] * 5, "not trained: the model is taken as it was fetched"]
        if "steps" in metrics:
            counts = [f"{metrics[key]:,}" for key in ("examples", "dropped_too_long", "steps")]
            cells = [*counts, *(f"{metrics[key]:.3f}" for key in ("first_loss", "last_loss")), check_in_words(metrics)]
        rows.append([f"`{name}`", *cells])
    head = ["stage", "examples", "too long", "steps", "first loss", "last loss", "check"]
    title = "Examples of `qpo` and `reward_model` are pairs; the losses are those of the first and the last step"
    return Section("Training runs", [Table(title, head, rows, "lrrrrrl")])


def preferences(run: Run) -> Section:
    """Show how many rewrites made a pair, and why the others did not."""
    found = {generator: run.metrics[f"preferences@{generator}"] for generator in run.params.mix}
    reasons = sorted({reason for metrics in found.values() for reason in metrics["rejected"]})
    aims = sorted({aim for metrics in found.values() for aim in metrics["direction"]}, reverse=True)
    rows = []
    for generator, metrics in found.items():
        counts = [metrics[key] for key in ("questions", "usable", "pairs")]
        counts += [metrics["rejected"].get(reason, 0) for reason in reasons]
        counts += [metrics["direction"].get(aim, 0) for aim in aims]
        rows.append([generator, *(f"{count:,}" for count in counts)])
    head = ["generator", "sampled", "usable", "pairs"]
    head += [*(f"`{reason}`" for reason in reasons), *(f"for {aim}" for aim in aims)]
    table = Table("Rewrites by generator, rejects by reason", head, rows, "l" + "r" * (len(head) - 1))
    return Section("Preference data", [Text(PAIRS_NOTE), table])


# ------------------------------------------------------------------------------------------------------------ the data


def draw(table: pa.Table, n: int, *by: str) -> dict[tuple[str, ...], list[dict[str, Any]]]:
    """Draw, for each value of the columns ``by``, the at most ``n`` rows with the lowest hash of their id.

    A fixed draw that favours no order of generation.
    """
    places: dict[tuple[str, ...], list[int]] = {}
    for place, key in enumerate(zip(*(table[name].to_pylist() for name in by), strict=True)):
        places.setdefault(key, []).append(place)
    ids = table["id"].to_pylist()
    return {
        key: table.take(heapq.nsmallest(n, found, key=lambda place: sha256(ids[place].encode()).digest())).to_pylist()
        for key, found in places.items()
    }


def kept_sample(row: dict[str, Any]) -> Sample:
    """Show a training row."""
    facts = (
        f"reward {row['reward']:.3f} · agreement {row['agreement']:.2f} · candidates {row['n_candidates']} · answer "
        f"{code(row['final_answer'])}"
    )
    texts = (("Question", row["question"]), ("Response", row["response"]))
    return Sample(code(row["id"]), facts, texts, row["generator"])


def rejected_sample(row: dict[str, Any]) -> Sample:
    """Show a rejected question and why."""
    facts = [f"`{row['outcome']}`: {OUTCOMES.get(row['outcome'], 'dropped')}"]
    if row["matched"]:
        facts.append(f"matches {code(row['matched'])}")
    if row["evidence"]:
        facts.append(f"evidence {code(row['evidence'])}")
    if row["outcome"] == "too_easy":
        facts.append(f"difficulty {row['difficulty']:.3f}, lowest kept {row['min_difficulty']:.3f}")
    return Sample(code(row["id"]), " · ".join(facts), (("Question", row["question"]),), row["outcome"])


def look(run: Run) -> Section:
    """Show rows of the data, kept and rejected."""
    mix, filters = run.params.mix, [name for name in run.outcomes if name != KEPT]
    blocks: list[Block] = [Text("Drawn by a hash of the ids, not picked: model text as it is, right or wrong.")]
    kept, rejected = draw(run.data, KEPT_SHOWN, "generator"), draw(run.ledger, 1, "generator", "outcome")
    for g in mix:
        good = [kept_sample(row) for row in kept.get((g,), [])]
        bad = [rejected_sample(row) for name in filters for row in rejected.get((g, name), [])]
        blocks += [Samples(f"Kept: `{g}`", good), Samples(f"Rejected: `{g}`, one for each filter", bad, folded=True)]
    n_filters = sum(1 for name in filters if any(run.outcomes[name]))
    kept = draw(run.data, BROWSE_KEPT // len(mix), "generator")
    rejected = draw(run.ledger, BROWSE_REJECTED // max(1, n_filters), "outcome")
    good = [kept_sample(row) for g in mix for row in kept.get((g,), [])]
    bad = [rejected_sample(row) for name in filters for row in rejected.get((name,), [])]
    n_rejected = run.ledger.num_rows - run.kept
    blocks.append(Samples(f"Training rows: {len(good):,} of {run.data.num_rows:,}", good, browse=True))
    blocks.append(Samples(f"Rejected questions: {len(bad):,} of {n_rejected:,}", bad, browse=True))
    return Section("A look at the data", blocks)


# -------------------------------------------------------------------------------- contamination, settings, repeatability


def quoted(names: Iterable[str]) -> str:
    """List names as code."""
    return ", ".join(f"`{name}`" for name in names)


def gsm_symbolic_seeds(params: Any) -> list[str]:
    """Name the seed sources whose templates come from GSM8K's test set."""
    return [name for name, source in params.seeds.items() if getattr(source, "dataset", None) == "gsm_symbolic"]


def gsm8k_notice(params: Any) -> list[Block]:
    """Warn wherever a contaminated GSM8K score stands."""
    tasks = [task for task in params.evaluate.tasks if task.startswith("gsm8k")]
    seeds = gsm_symbolic_seeds(params)
    if not tasks or not seeds:
        return []
    text = (
        f"The score on {quoted(tasks)} must not be quoted as clean: the seeds {quoted(seeds)} are drawn from gsm_symbolic, "
        "whose templates come from GSM8K's test set."
    )
    return [Text(text, alert=True)]


def contamination(run: Run) -> Section:
    """Tell what may have leaked from the test sets into training."""
    params, blocks = run.params, gsm8k_notice(run.params)
    if not blocks and (seeds := gsm_symbolic_seeds(params)):
        text = (
            f"The seeds {quoted(seeds)} are drawn from gsm_symbolic, whose templates come from GSM8K's test set. No GSM8K score "
            "is reported here, and this run must not quote a GSM8K score as clean."
        )
        blocks.append(Text(text, alert=True))
    drawn = {getattr(source, "dataset", None) for source in params.seeds.values()} - {None}
    if alike := [t for t in params.evaluate.tasks if getattr(params.benchmarks[t], "dataset", None) in drawn]:
        text = (
            f"The items of {quoted(alike)} come from the same generating programs as seeds do: other items, none of them a seed, but "
            "of the seeds' kind. A score there says nothing of other kinds of problem."
        )
        blocks.append(Text(text))
    if n := params.screen.decontaminate_ngram:
        text = (
            f"Questions that had ended in the language asked for were compared with every benchmark of the run: "
            f"{sum(run.outcomes['contaminated']):,} shared a run of {n} words with one, or a shorter one as a whole, and were dropped. "
            "A paraphrase passes this check, and what the fetched models have read before is not known."
        )
        blocks.append(Text(text))
    else:
        text = "Decontamination is off (`screen.decontaminate_ngram`): no question was compared with the benchmarks."
        blocks.append(Text(text, alert=True))
    return Section("Contamination notice", blocks)


def flatten_settings(params: Any) -> list[list[str]]:
    """List every parameter but ``runtime`` as dotted key and value."""
    flat: list[list[str]] = []

    def walk(key: str, value: Any) -> None:
        if isinstance(value, BaseModel):
            value = value.model_dump(by_alias=True)
        if isinstance(value, dict) and value:
            for name, inner in value.items():
                walk(f"{key}.{name}", inner)
        else:
            flat.append([code(key), code(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))])

    for name in SETTINGS:
        walk(name, getattr(params, name))
    return flat


def settings(run: Run) -> Section:
    """Show the parameters of the run."""
    rows = flatten_settings(run.params)
    note = "The whole parameter file but `runtime`, which holds what cannot change a result."
    table = Table(f"All {len(rows)} parameters", ["parameter", "value"], rows, "ll", folded=True)
    return Section("Settings", [Text(note), table])


def repeatability(run: Run) -> Section:
    """Tell what comes out the same again, and where."""
    head = ["artifact", "same machine kind and lock file", "another CPU or GPU"]
    packages = [[f"`{name}`", code(version)] for name, version in sorted(run.versions.items())]
    return Section(
        "Repeatability",
        [
            Table("What a second run gives", head, REPEATABILITY, "lll"),
            Table("Packages that can change a result", ["package", "version"], packages, "ll"),
        ],
    )


# -------------------------------------------------------------------------------------------------------------- report


def build(run: Run) -> Report:
    """Make the report as data, for both renderings."""
    trained, student = run.metrics["instruct_tune"]["examples"], run.scores.get("student", {})
    generated = run.ledger.num_rows
    figures = [
        (f"{generated:,}", "questions generated"),
        (f"{run.kept:,}", f"kept by the filters ({percent(run.kept / generated)} %)"),
        (f"{trained:,}", "pairs trained on"),
        *((f"{percent(student[task]['flexible'])} %", f"student on `{task}`") for task in run.tasks if task in student),
    ]
    parts = (results, funnel, degenerate, training, preferences, look, contamination, settings, repeatability)
    return Report(
        name="ScaleQuest run report",
        headline=f"{generated:,} questions generated, {trained:,} trained on",
        lead=results_in_words(run),
        figures=figures,
        sections=[part(run) for part in parts],
    )


def readme_results(run: Run, link: str) -> str:
    """Make what goes into the README."""
    more = f"{funnel_line(run)} More in [the full report]({link})."
    blocks = [*gsm8k_notice(run.params), results_table(run), *map(Text, results_in_words(run))]
    return f"{page.markdown_blocks(blocks)}\n\n{more}"


def main(args: argparse.Namespace, run: StageRun) -> None:
    """Read, build, render, and put the results into the README."""
    before, after = split_readme(args.readme)
    facts = read_run(args, run.params)
    report = build(facts)
    write_text(args.markdown, page.markdown(report))
    write_text(args.page, page.html_page(report))
    link = Path(os.path.relpath(args.markdown, args.readme.parent)).as_posix()
    text = f"{before}\n\n{readme_results(facts, link)}\n\n{after}"
    if text != args.readme.read_text(encoding="utf-8"):
        write_text(args.readme, text)


if __name__ == "__main__":
    run_stage(main, __doc__, paths=("scores", "metrics", "ledger", "data", "samples", "readme", "markdown", "page"))
