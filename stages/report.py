"""Write the report of the run: results, funnel, training, the data itself, settings. As Markdown, as a page, in the README.

    python -m stages.report --scores eval/scores --metrics reports/metrics --ledger data/ledger.parquet
        --data data/instruct.parquet --samples data/samples --readme README.md --markdown reports/report.md
        --page reports/index.html

Nothing in it depends on when, where or how fast the run was: a second run writes the same bytes. Of the README only what
stands between the two marks is replaced; it is no output of the stage, because DVC removes outputs before a run.
"""

import argparse
import os
from pathlib import Path

from scalequest.errors import UserError
from scalequest.io import write_text
from scalequest.report import page
from scalequest.report.chain import funnel, funnel_line, preferences, training, warnings
from scalequest.report.data import look
from scalequest.report.page import Report, Text
from scalequest.report.provenance import contamination, gsm8k_notice, repeatability, settings
from scalequest.report.results import percent, results, results_in_words, results_table
from scalequest.report.run import Run, read_run
from scalequest.runtime.stage import StageRun, run_stage

BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"


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
    parts = (results, funnel, warnings, training, preferences, look, contamination, settings, repeatability)
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
