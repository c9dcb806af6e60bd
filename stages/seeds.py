"""Collect the seed problems: questions, worked solutions and answers from every configured source.

python -m stages.seeds --out data/seeds.parquet --metrics reports/metrics/seeds.json
"""

import argparse
from collections import Counter

from scalequest.params import JsonlSource, ReasoningGymSource
from scalequest.records import PROBLEM, write_rows
from scalequest.sources import Problem, load_problems, question_key
from scalequest.stage import StageRun, run_stage


def collect(sources: dict[str, ReasoningGymSource | JsonlSource], seed: int) -> list[Problem]:
    """All problems, in the order of the sources; a question that an earlier source has is dropped."""
    problems: list[Problem] = []
    seen: set[str] = set()
    for name, source in sources.items():
        for problem in load_problems(name, source, seed, need_solution=True):
            if (key := question_key(problem["question"])) not in seen:
                seen.add(key)
                problems.append(problem)
    return problems


def main(args: argparse.Namespace, run: StageRun) -> None:
    """Load, merge, write."""
    problems = collect(run.params.seeds, run.params.seed)
    write_rows(args.out, problems, PROBLEM)
    run.metrics(args.metrics, {"problems": len(problems), "by_source": dict(Counter(p["source"] for p in problems))})


if __name__ == "__main__":
    run_stage(main, __doc__, paths=("out", "metrics"))
