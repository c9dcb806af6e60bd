"""Generate the data set's questions from the open user turn alone (paper 2.4); all are kept.

python -m stages.generate --generator sums --model models/qpo/sums
    --out data/questions/sums --metrics M.json
"""

import argparse

from scalequest.records import write_parts
from scalequest.runtime.stage import StageRun, run_stage
from scalequest.sampling.questions import question_metrics, sample_questions


def main(args: argparse.Namespace, run: StageRun) -> None:
    """Sample, count, write."""
    n = run.params.generators[args.generator].n_questions
    questions = sample_questions(run, args.model, args.generator, n, run.params.generate)
    metrics, warnings = question_metrics(questions)
    write_parts(args.out, questions)
    run.metrics(args.metrics, metrics, warnings)


if __name__ == "__main__":
    run_stage(main, __doc__, paths=("model", "out", "metrics"), names=("generator",))
