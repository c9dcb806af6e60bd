"""Collect the seed problems: questions, worked solutions and answers (or tests) from every configured source.

python -m stages.seeds --out data/seeds.parquet --metrics reports/metrics/seeds.json
"""

import argparse
from collections import Counter
from collections.abc import Mapping

from scalequest.params import FileSource, ReasoningGymSource
from scalequest.problems.problem import Problem
from scalequest.problems.sources import load_problems
from scalequest.records import PROBLEM, write_rows
from scalequest.runtime.stage import StageRun, run_stage
from scalequest.text import question_key


def collect(sources: Mapping[str, ReasoningGymSource | FileSource], seed: int, domain: str) -> list[Problem]:
    """All problems, in the order of the sources; a question that an earlier source has is dropped.

    A code problem may come without tests: its question teaches a generator all the same, only its difficulty has no label.
    """
    problems: list[Problem] = []
    seen: set[str] = set()
    for name, source in sources.items():
        for problem in load_problems(name, source, seed, need_solution=True, need_answer=domain != "code"):
            if (key := question_key(problem["question"])) not in seen:
                seen.add(key)
                problems.append(problem)
    return problems


def main(args: argparse.Namespace, run: StageRun) -> None:
    """Load, merge, write."""
    problems = collect(run.params.seeds, run.params.seed, run.params.domain)
    write_rows(args.out, problems, PROBLEM)
    run.metrics(args.metrics, {"problems": len(problems), "by_source": dict(Counter(p["source"] for p in problems))})


if __name__ == "__main__":
    run_stage(main, __doc__, paths=("out", "metrics"))
