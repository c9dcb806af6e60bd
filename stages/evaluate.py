"""Score a model that the students are compared with on the benchmarks: greedy, pass@1, chat template on (paper 3.1).

    python -m stages.evaluate --model models/base/student --benchmarks data/benchmarks --tasks eval/tasks
        --seeds data/seeds.parquet --few-shot yes --samples data/samples/base.parquet --scores eval/scores/base.json

With `--few-shot yes` the model is asked twice: zero-shot as the students are, and after `evaluate.few_shot` solved seeds, as
papers score a base model. For any other model or benchmark: `scalequest evaluate --help`.
"""

import argparse

from scalequest.domains import wording
from scalequest.evaluation import evaluate_model, few_shot_examples
from scalequest.records import PROBLEM, read_rows
from scalequest.runtime.stage import StageRun, run_stage


def main(args: argparse.Namespace, run: StageRun) -> None:
    """Ask, score, write."""
    k = run.params.evaluate.few_shot if args.few_shot == "yes" else 0
    ask = wording(run.params.domain).solve_prompt
    shown = few_shot_examples(read_rows(args.seeds, PROBLEM), k)
    evaluate_model(args, run, [(ask(row["question"]), row["solution"]) for row in shown])


if __name__ == "__main__":
    run_stage(main, __doc__, paths=("model", "benchmarks", "tasks", "seeds", "samples", "scores"), names=("few_shot",))
