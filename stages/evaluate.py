"""Score a model that the students are compared with on the benchmarks: greedy, pass@1, chat template on (paper 3.1).

    python -m stages.evaluate --model models/base/student --benchmarks data/benchmarks --tasks eval/tasks
        --seeds data/seeds.parquet --few-shot yes --samples data/samples/base.parquet --scores eval/scores/base.json

With `--few-shot yes` the model is asked twice: zero-shot as the students are, and after
`evaluate.few_shot` solved seeds, as papers score a base model; programs (`evaluate.form: program`)
are shown programs. For any other model or benchmark: `scalequest evaluate --help`.
"""

import argparse

from scalequest.domains import PROGRAM, wording
from scalequest.domains.maths import SOLVED_PROGRAMS
from scalequest.evaluation import evaluate_model, few_shot_examples
from scalequest.records import PROBLEM, read_rows
from scalequest.runtime.stage import StageRun, run_stage
from scalequest.sampling.remote import Remote


def main(args: argparse.Namespace, run: StageRun) -> None:
    """Ask, score, write."""
    k, form = run.params.evaluate.few_shot if args.few_shot == "yes" else 0, run.params.evaluate.form
    ask = wording(run.params.domain).solve_prompt
    solved = SOLVED_PROGRAMS[:k]
    if form != PROGRAM:
        solved = [(row["question"], row["solution"]) for row in few_shot_examples(read_rows(args.seeds, PROBLEM), k)]
    shown = [(ask(question, form), solution) for question, solution in solved]
    evaluate_model(args, run, shown, Remote.of(run, args.model))


if __name__ == "__main__":
    run_stage(main, __doc__, paths=("model", "benchmarks", "tasks", "seeds", "samples", "scores"), names=("few_shot",))
