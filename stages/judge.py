"""Ask the judge whether each screened question can be solved (paper, question filtering; Fig. 12).

    python -m stages.judge --model models/base/judge --screened data/screened --seeds data/seeds.parquet
        --out data/judged --metrics M.json

No verdict is an outcome of its own, never a yes. The judge is measured in the same call: on seeds,
which can be solved, and on the same seeds broken mechanically, which cannot.
"""

import argparse
from collections import Counter
from collections.abc import Sequence
from typing import Any

from scalequest.answers.verdict import OUTCOME, both_words, unreasoned, verdict_of
from scalequest.domains import wording
from scalequest.io import rounded
from scalequest.outcomes import KEPT, MANY_UNREASONED, NO_VERDICT, SOLVABLE
from scalequest.problems.calibration import calibration_metrics, calibration_rows, calibration_seeds
from scalequest.records import JUDGED, PROBLEM, SCREENED, read_rows, write_rows
from scalequest.runtime.stage import StageRun, run_stage
from scalequest.sampling.completion import Completion
from scalequest.sampling.sample import sample
from scalequest.statistics import occurs, proportion_error, reported


def judged_row(row: dict[str, Any], answer: Completion, style: str) -> dict[str, Any]:
    """One row of the output from the judge's answer."""
    return {
        "id": row["id"],
        "verdict": verdict_of(answer, style),
        "completion": answer.text,
        "finish_reason": answer.finish_reason,
    }


def verdict_metrics(
    questions: Sequence[dict[str, Any]], judged: Sequence[dict[str, Any]], style: str
) -> tuple[dict[str, Any], dict[str, bool]]:
    """Verdicts on N questions, in all and by generator, and the warnings about them."""

    def summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        counts = Counter(row["verdict"] for row in rows)
        return {
            "questions": len(rows),
            **{name: counts[name] for name in OUTCOME.values()},
            "solvable_frac": rounded(counts[SOLVABLE] / len(rows)),
            "solvable_frac_standard_error": reported(proportion_error(counts[SOLVABLE], len(rows))),
        }

    generators: dict[str, list[dict[str, Any]]] = {}
    for question, row in zip(questions, judged, strict=True):
        generators.setdefault(question["generator"], []).append(row)
    metrics = summary(judged) | {
        "cut_at_max_tokens": sum(row["finish_reason"] == "length" for row in judged),
        "both_words": sum(both_words(row["completion"]) for row in judged),
        "by_generator": {name: summary(rows) for name, rows in generators.items()},
    }
    counts = Counter(row["verdict"] for row in judged)
    most = counts.most_common(1)[0][1]
    # A few different verdicts among thousands are an accident, not a decision.
    others = occurs(len(judged) - most, len(judged), proportion_error(most, len(judged)))
    warnings = {"one_verdict": not others, "no_verdicts": counts[NO_VERDICT] > len(judged) / 2}
    if style == "reasoned":
        metrics["unreasoned"] = sum(unreasoned(row["completion"]) for row in judged)
        warnings["unreasoned"] = metrics["unreasoned"] > MANY_UNREASONED * len(judged)
    return metrics, warnings


def main(args: argparse.Namespace, run: StageRun) -> None:
    """Judge what `screen` kept, and the calibration problems with it."""
    params, words = run.params.judge, wording(run.params.domain)
    questions = [row for row in read_rows(args.screened, SCREENED) if row["verdict"] == KEPT]
    seeds = calibration_seeds(read_rows(args.seeds, PROBLEM), params.n_calibration, run.params.seed)
    checks = calibration_rows(seeds, words.asks, run.params.seed)
    # In one call, so that the calibration measures the very engine that judges.
    answers = sample(
        run,
        args.model,
        [*questions, *checks],
        prompts=lambda row: words.judge_turns(row["question"], params.style),
        sampling=params,
    )
    rows = [judged_row(row, answer, params.style) for row, [answer] in zip([*questions, *checks], answers, strict=True)]
    judged, checked = rows[: len(questions)], rows[len(questions) :]
    write_rows(args.out, judged, JUDGED)
    metrics, warnings = verdict_metrics(questions, judged, params.style)
    calibration, flags = calibration_metrics(checks, [row["verdict"] for row in checked], run.params.seed)
    run.metrics(args.metrics, metrics | {"calibration": calibration}, warnings | flags)


if __name__ == "__main__":
    run_stage(main, __doc__, paths=("model", "screened", "seeds", "out", "metrics"))
