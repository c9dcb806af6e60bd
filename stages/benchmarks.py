"""Write the test sets: what `evaluate` scores, and what `seeds` and `screen` decontaminate against. Local and pinned.

python -m stages.benchmarks --out data/benchmarks --metrics reports/metrics/benchmarks.json
"""

import argparse

from scalequest.io import write_jsonl
from scalequest.problems.problem import benchmark_row
from scalequest.problems.sources import load_source
from scalequest.runtime.stage import StageRun, run_stage


def main(args: argparse.Namespace, run: StageRun) -> None:
    """Load each benchmark, write one JSONL file each."""
    metrics = {}
    for name, source in run.params.benchmarks.items():
        loaded = load_source(name, source, run.params.seed, need_solution=False)
        write_jsonl(args.out / f"{name}.jsonl", map(benchmark_row, loaded.problems))
        metrics[name] = {"items": len(loaded.problems), "left_out": loaded.left_out}
    run.metrics(args.metrics, metrics)


if __name__ == "__main__":
    run_stage(main, __doc__, paths=("out", "metrics"))
