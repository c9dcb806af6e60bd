"""Sample the questions that QPO will have rewritten, from the question-tuned generator (paper 2.3).

    python -m stages.qpo_questions --generator sums --model models/qft/sums --out data/qpo_questions/sums --metrics M.json

It is its own stage because a process holds one engine, and sampling and rewriting need two. A generator with pairs of its own
(`own.preferences`) needs no such questions: no model is loaded, and the table is empty.
"""

import argparse

from scalequest.records import QUESTION, write_parts, write_rows
from scalequest.runtime.stage import StageRun, run_stage
from scalequest.sampling.questions import question_metrics, sample_questions


def main(args: argparse.Namespace, run: StageRun) -> None:
    """Sample, count, write."""
    if args.generator in run.params.own.preferences:
        write_rows(args.out, [], QUESTION)
        run.metrics(args.metrics, {"questions": 0})
        return
    params = run.params.qpo_questions
    questions = sample_questions(run, args.model, args.generator, params.n_questions, params)
    metrics, warnings = question_metrics(questions)
    write_parts(args.out, questions)
    run.metrics(args.metrics, metrics, warnings)


if __name__ == "__main__":
    run_stage(main, __doc__, paths=("model", "out", "metrics"), names=("generator",))
