"""Write the report of the run: results, warnings, funnel, training, the data itself, settings.

    python -m stages.report --scores eval/scores --metrics reports/metrics --ledger data/ledger.parquet
        --data data/instruct.parquet --samples data/samples --markdown reports/report.md --page reports/index.html
        --scores-plot reports/plots/scores.csv --funnel-plot reports/plots/funnel.csv --seeds data/seeds.parquet
        --attempts data/attempts --qpo-questions data/qpo_questions --preferences data/preferences
        --preference-check data/preference_check --judged data/judged --responses data/responses --rewards data/rewards
        --curves reports/plots/train --summary reports/summary.json --distributions reports/plots/distributions

Nothing in report.md depends on when, where or how fast the run was: a second run writes the same bytes. The exceptions are
two warnings: of a local source and of a package lock that changed since the stages ran. The page also has the record of the
run: commit, machine, packages and lineage. Neither has times.
"""

import argparse
import csv
import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from scalequest.io import write_text
from scalequest.redaction import refuse_secrets
from scalequest.report import page
from scalequest.report.blocks import Block, Report, Section
from scalequest.report.browse import data_browser, item_browser, rewrite_browser
from scalequest.report.chain import funnel, funnel_steps, measured, preferences, raised, training, warnings
from scalequest.report.data import look
from scalequest.report.distributions import bins_csv, curves, distributions, for_plots
from scalequest.report.identity import identity, paper_scores, work
from scalequest.report.overlap import diversity_blocks, overlap
from scalequest.report.provenance import contamination, repeatability, settings
from scalequest.report.record import lineage, record_in_words
from scalequest.report.results import percent, results, results_in_words
from scalequest.report.run import Run, read_run
from scalequest.report.summary import summary
from scalequest.runtime.stage import StageRun, run_stage


def right_answers(run: Run) -> tuple[str, str]:
    """A figure and its label: how many of the training answers that a program can check are right.

    Plain arithmetic is the part that can be checked without a model. Where the data have none, that is said.
    """
    found = run.metrics["reward_select"].get("checkable", {})
    checkable, right = found.get("n", 0), found.get("right", 0)
    if not checkable:
        return "none", "of the training answers can be checked by a program"
    share = f"{percent(right / checkable)} %"
    return share, f"of the {checkable:,} training answers that a program can check are right"


def more(section: Section, *blocks: Block | None) -> Section:
    """A section with more blocks at its end."""
    return replace(section, blocks=[*section.blocks, *(block for block in blocks if block)])


def build(run: Run, args: argparse.Namespace) -> Report:
    """Make the report as data, for both renderings."""
    trained, student = run.student_metrics["examples"], run.scores.get("student", {})
    generated, up = run.ledger.num_rows, raised(run)
    share, label = right_answers(run)
    figures = [
        (f"{generated:,}", "questions generated"),
        (f"{run.kept:,}", f"kept by the filters ({percent(run.kept / generated)} %)"),
        (f"{trained:,}", "pairs trained on"),
        (share, label),
        *((f"{percent(student[task]['flexible'])} %", f"student on `{task}`") for task in run.tasks if task in student),
        (f"{len(up):,}", "warnings"),
    ]
    sections = [
        identity(run),
        warnings(run),
        more(results(run), *paper_scores(run), item_browser(run)),
        funnel(run),
        data_browser(run, args),
        distributions(run, args),
        measured(run),
        more(training(run), *curves(run, args)),
        more(preferences(run), rewrite_browser(run, args)),
        more(overlap(run), *diversity_blocks(run, args)),
        look(run),
        contamination(run),
        work(run),
        lineage(run, Path()),
        settings(run),
        repeatability(run),
    ]
    return Report(
        name="ScaleQuest run report",
        headline=f"{generated:,} questions generated, {trained:,} trained on, {share} {label}",
        lead=results_in_words(run),
        figures=figures,
        sections=sections,
        record=record_in_words(run, Path()),
    )


def to_csv(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table for `dvc plots`."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([head, *rows])
    return text.getvalue()


def scores_csv(run: Run) -> str:
    """A row per task and model, scores in percent."""
    rows = [
        [f"{task}: {model}", task, model, s["n"], *(round(100 * s[key], 2) for key in ("flexible", "flexible_stderr", "strict", "strict_stderr"))]
        for task in run.tasks
        for model, scores in run.scores.items()
        if (s := scores.get(task))
    ]  # fmt: skip
    return to_csv(("name", "task", "model", "items", "flexible", "flexible_stderr", "strict", "strict_stderr"), rows)


def funnel_csv(run: Run) -> str:
    """A row per step of the funnel; the number before its name keeps the order in a plot."""
    rows = [[f"{at:02d} {name}", left, taken] for at, (name, left, taken) in enumerate(funnel_steps(run), start=1)]
    return to_csv(("step", "left", "removed"), rows)


def main(args: argparse.Namespace, run: StageRun) -> None:
    """Read, build, render."""
    facts = read_run(args, run.params)
    report = build(facts, args)
    texts = {
        args.markdown: page.markdown(report),
        args.page: page.html_page(report),
        args.scores_plot: scores_csv(facts),
        args.funnel_plot: funnel_csv(facts),
        **{args.distributions / f"{name}.csv": bins_csv(chart) for name, chart in for_plots(facts).items()},
    }
    # The rows of the browsers are packed in the page, where no secret could be seen.
    packed = [(args.page, page.browser_json(browser)) for browser in page.browsers(report)]
    for path, text in [*texts.items(), *packed]:
        refuse_secrets(text, str(path), run.params.runtime.api.key_variable)
    for path, text in texts.items():
        write_text(path, text)
    run.metrics(args.summary, summary(facts))


if __name__ == "__main__":
    run_stage(
        main,
        __doc__,
        paths=(
            "scores",
            "metrics",
            "ledger",
            "data",
            "samples",
            "markdown",
            "page",
            "scores_plot",
            "funnel_plot",
            "seeds",
            "attempts",
            "qpo_questions",
            "preferences",
            "preference_check",
            "judged",
            "responses",
            "rewards",
            "curves",
            "summary",
            "distributions",
        ),
    )
