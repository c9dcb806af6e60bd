"""Write the test sets: what `evaluate` scores, and what `screen` decontaminates against. Local and pinned.

python -m stages.benchmarks --seeds data/seeds.parquet --out data/benchmarks --metrics reports/metrics/benchmarks.json
"""

import argparse

from scalequest.errors import UserError
from scalequest.io import write_jsonl
from scalequest.problems.problem import Problem, benchmark_row
from scalequest.problems.sources import load_problems
from scalequest.records import PROBLEM, read_rows
from scalequest.runtime.stage import StageRun, run_stage
from scalequest.text import question_key


def unseen(problems: list[Problem], seed_questions: set[str]) -> list[Problem]:
    """The problems whose question is no seed."""
    return [p for p in problems if question_key(p["question"]) not in seed_questions]


def main(args: argparse.Namespace, run: StageRun) -> None:
    """Load each benchmark, drop what is a seed, write one JSONL file each."""
    seeds = {question_key(row["question"]) for row in read_rows(args.seeds, PROBLEM)}
    metrics = {}
    for name, source in run.params.benchmarks.items():
        problems = load_problems(name, source, run.params.seed, need_solution=False)
        kept = unseen(problems, seeds)
        if not kept:
            raise UserError(
                f"benchmarks.{name}: all {len(problems)} questions are seeds too; choose another source or seed"
            )
        write_jsonl(args.out / f"{name}.jsonl", map(benchmark_row, kept))
        metrics[name] = {"items": len(kept), "dropped_as_seed": len(problems) - len(kept)}
    run.metrics(args.metrics, metrics)


if __name__ == "__main__":
    run_stage(main, __doc__, paths=("seeds", "out", "metrics"))
