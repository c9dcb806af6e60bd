"""Scores, and what training changed."""

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any, Protocol

from scalequest.outcomes import MANY_CUT, MANY_UNPARSED, WARNINGS
from scalequest.report.blocks import Bar, Bars, Block, Section, Table, Text
from scalequest.report.provenance import gsm8k_notice
from scalequest.report.run import Run
from scalequest.statistics import paired_difference

# A difference is called one if chance alone gives it less often than this (exact McNemar test, two-sided).
SIGNIFICANT = 0.05
# What a student is compared with, in this order; each that was scored on the same items.
COMPARED = ("base", "base_fewshot", "solver")
DASH = "–"
SCORES_NOTE = """
Strict: the final answer has the form that was asked for (a box; for code, a Python block). Flexible: an announcing phrase or
the last number will do; for code, a block that was cut or bare code. Code is right if the benchmark's tests pass in the sandbox.
Greedy, one answer per item. Cut: the answer reached `evaluate.max_tokens`. Standard errors are of the plus-four estimate of a
share, so that 0 of n has one, too."""
DIFFERENCES_NOTE = """
Both models answered the same items, so they are compared item by item: the p-value is that of the exact McNemar test, the
interval a bootstrap over items. Neither contains the variation between training runs."""
ONE_STUDENT_NOTE = """
One student was trained. How much another training seed would change is not measured;
`dvc exp run -S +instruct_tune.seeds.student_2=2` adds a second one on the same data."""


def percent(value: float, error: float | None = None) -> str:
    """Give a share of 1 in percent, with its standard error if there is one."""
    return f"{100 * value:.1f}" + ("" if error is None else f" ± {100 * error:.1f}")


def signed(value: float) -> str:
    """Give one decimal and the sign."""
    return f"{value:+.1f}".replace("-", "−")


def p_in_words(p: float) -> str:
    """Give a p-value to two digits, and no digits that nobody can use."""
    return f"p {'< 0.0001' if p < 0.0001 else f'= {p:.2g}'}"


class Scored(Protocol):
    """Scores of a run that ended here, or of one that was kept."""

    @property
    def scores(self) -> dict[str, dict[str, Any]]:
        """Model to task to its scores on the test items."""

    @property
    def dev(self) -> dict[str, dict[str, Any]]:
        """The same on the development items."""

    @property
    def tasks(self) -> list[str]:
        """Tasks in the order of the tables."""

    @property
    def students(self) -> list[str]:
        """Students that were scored."""


@dataclass(frozen=True)
class Difference:
    """Student minus another model on one task by one score, item by item.

    Attributes:
        task: the task.
        score: "flexible" or "strict".
        other: the other model's name.
        n: items that both answered.
        points: of 100.
        low: lower end of the 95% interval, in points.
        high: its upper end.
        gained: items that the student alone got right.
        lost: items that the other one alone got right.
        p_value: of the exact McNemar test, two-sided.
    """

    task: str
    score: str
    other: str
    n: int
    points: float
    low: float
    high: float
    gained: int
    lost: int
    p_value: float

    @property
    def words(self) -> str:
        """Say what the difference shows."""
        if self.p_value >= SIGNIFICANT:
            return f"not significant ({p_in_words(self.p_value)} on {self.n:,} items)"
        return f"the student is {'better' if self.points > 0 else 'worse'} ({p_in_words(self.p_value)})"


def differences(run: Run, student: str = "student") -> Iterator[Difference]:
    """Yield flexible, then strict, for each task and each model that was scored on the student's items."""
    for task in run.tasks:
        for other in COMPARED:
            first, second = run.items.get(other, {}), run.items.get(student, {})
            keys = sorted(key for key in first.keys() & second.keys() if key[0] == task)
            for score in ("flexible", "strict") if keys else ():
                d = paired_difference([first[key][score] for key in keys], [second[key][score] for key in keys])
                yield Difference(
                    task, score, other, d.n, 100 * d.value, 100 * d.low, 100 * d.high, d.better, d.worse, d.p_value
                )


def results_in_words(run: Run) -> list[str]:
    """Say for each task what training changed, by the flexible score, beside the base and beside the few-shot base."""
    names = {"base": "base", "base_fewshot": f"base after {run.params.evaluate.few_shot} solved examples"}
    sentences = []
    for d in differences(run):
        if d.score == "flexible" and d.other in names:
            other, student = (percent(run.scores[model][d.task]["flexible"]) for model in (d.other, "student"))
            size = f"{signed(d.points)} points, 95% interval {signed(d.low)} to {signed(d.high)}"
            sentences.append(f"`{d.task}`: {names[d.other]} {other} %, student {student} % ({size}): {d.words}.")
    return sentences or ["Base and student were not both scored, so it is not known what training changed."]


def items_in_words(scores: dict[str, Any]) -> str:
    """The number of items, and of answers to each where there are several (avg@k)."""
    return f"{scores['n']:,}" + (f" × {scores['samples']}" if "samples" in scores else "")


def results_table(run: Scored) -> Table:
    """Make a row per task and model."""
    rows = []
    for task in run.tasks:
        for model, scores in run.scores.items():
            cells = [DASH] * 5
            if found := scores.get(task):
                both = [percent(found[score], found[f"{score}_stderr"]) for score in ("flexible", "strict")]
                cut = percent(found["cut"]) if "cut" in found else DASH
                cells = [*both, items_in_words(found), percent(found["unparsed"]), cut]
            rows.append([f"`{task}`", model, *cells])
    head = ["task", "model", "flexible, %", "strict, %", "items", "unparsed, %", "cut, %"]
    return Table("Right answers in percent, ± one standard error", head, rows, "llrrrrr")


def difference_table(run: Run) -> Table:
    """Make a row per task, score and compared model."""
    rows = [
        [
            f"`{d.task}`",
            d.score,
            d.other,
            signed(d.points),
            f"{signed(d.low)} to {signed(d.high)}",
            f"{d.gained:,}",
            f"{d.lost:,}",
            d.words,
        ]
        for d in differences(run)
    ]
    head = ["task", "score", "minus", "points", "95% interval", "only student right", "only other right", "in words"]
    return Table("Student minus each model it is compared with, on the same items", head, rows, "lllrrrrl")


def students_scores(run: Scored, task: str, score: str = "flexible") -> list[float]:
    """Scores of all students on a task, in percent."""
    return [100 * run.scores[model][task][score] for model in run.students if task in run.scores[model]]


def students_table(run: Scored) -> Table:
    """Make a row per task and score over all students: mean and standard deviation over training seeds."""
    rows = []
    for task in run.tasks:
        for score in ("flexible", "strict"):
            values = students_scores(run, task, score)
            if len(values) > 1:
                base = run.scores.get("base", {}).get(task)
                gain = signed(mean(values) - 100 * base[score]) if base else DASH
                each = ", ".join(f"{value:.1f}" for value in values)
                rows.append(
                    [f"`{task}`", score, str(len(values)), f"{mean(values):.1f} ± {stdev(values):.1f}", gain, each]
                )
    head = ["task", "score", "students", "mean ± standard deviation, %", "mean minus base", "each, %"]
    return Table("Students that differ in their training seed alone", head, rows, "llrrrl")


def dev_table(run: Scored) -> Table:
    """Make a row per task and model of the development items."""
    rows = [
        [f"`{task}`", model, items_in_words(s), percent(s["flexible"], s["flexible_stderr"]), percent(s["strict"], s["strict_stderr"])]
        for task in run.tasks
        for model, scores in run.dev.items()
        if (s := scores.get(task))
    ]  # fmt: skip
    title = "Development items: choose settings by these, and report the scores above"
    return Table(title, ["task", "model", "items", "flexible, %", "strict, %"], rows, "llrrr", folded=True)


def doubtful_scores(run: Scored) -> list[Block]:
    """Warn of every score that is exactly 0, and of answers that could not be read, were cut or could not be checked."""
    warnings = []
    for task in run.tasks:
        for model, scores in run.scores.items():
            if not (found := scores.get(task)):
                continue
            who = f"`{task}`, {model}"
            if found["flexible"] == 0:
                warnings.append(f"{who}: {WARNINGS['score_zero']}.")
            if found["unparsed"] > MANY_UNPARSED:
                warnings.append(f"{who}: {percent(found['unparsed'])} % of the answers could not be parsed.")
            if found.get("cut", 0) > MANY_CUT:
                warnings.append(f"{who}: {percent(found['cut'])} % of the answers were cut at `evaluate.max_tokens`.")
            if found.get("too_long"):
                warnings.append(
                    f"{who}: {found['too_long']:,} prompts did not fit into the context and count as wrong."
                )
            if found["timeouts"]:
                warnings.append(f"{who}: {found['timeouts']:,} checks ran into their time limit and count as wrong.")
    return [Text(warning, alert=True) for warning in warnings]


def results(run: Run) -> Section:
    """Show what the models score and what training changed."""
    groups: dict[str, list[Bar]] = {}
    for task in run.tasks:
        for model, scores in run.scores.items():
            if s := scores.get(task):
                bar = Bar(model, 100 * s["flexible"], 100 * s["flexible_stderr"], strong=model == "student")
                groups.setdefault(task, []).append(bar)
    compared = difference_table(run)
    blocks: list[Block] = [
        *gsm8k_notice(run.params),
        Bars("Flexible score; whiskers reach one standard error to each side", list(groups.items())),
        results_table(run),
        Text(SCORES_NOTE),
        *([compared, Text(DIFFERENCES_NOTE)] if compared.rows else map(Text, results_in_words(run))),
        *([students_table(run)] if len(run.students) > 1 else [Text(ONE_STUDENT_NOTE)]),
        *([dev_table(run)] if run.dev else []),
        *doubtful_scores(run),
    ]
    if (limit := run.params.evaluate.limit) is not None:
        drawn = f"{limit:,} items of each task were drawn by a hash of their ids (`evaluate.limit`)."
        blocks.append(Text(drawn, alert=True))
    return Section("Results", blocks)
