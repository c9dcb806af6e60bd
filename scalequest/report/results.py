"""Scores, and what training changed."""

from collections.abc import Iterator
from dataclasses import dataclass

from scalequest.outcomes import MANY_UNPARSED, WARNINGS
from scalequest.report.page import Bar, Bars, Block, Section, Table, Text
from scalequest.report.provenance import gsm8k_notice
from scalequest.report.run import Run

# From so many standard errors on a difference counts as one.
SHOWS = 2
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
                warnings.append(f"`{task}`, {model}: {WARNINGS['score_zero']}.")
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
