"""Score a model on the benchmarks with lm-eval through vLLM: zero-shot, greedy, pass@1, chat template on (paper 3.1).

    python -m stages.evaluate --model models/student --benchmarks data/benchmarks --tasks eval/tasks
        --samples data/samples/student.parquet --scores eval/scores/student.json

Each task reports a strict and a flexible score, the share that could not be parsed, standard errors and its items. For any other
model or benchmark: `scalequest evaluate --help`.
"""

import argparse
import tempfile
from pathlib import Path

from scalequest.evaluation import doubts, resolve_tasks, run_tasks, sample_rows, summarize
from scalequest.records import SAMPLE, write_rows
from scalequest.runtime.stage import StageRun, run_stage


def main(args: argparse.Namespace, run: StageRun) -> None:
    """Resolve the tasks, run them, write scores and samples."""
    params = run.params.evaluate
    with tempfile.TemporaryDirectory() as folder:
        resolve_tasks(args.tasks, args.benchmarks, Path(folder), params.tasks)
        result = run_tasks(
            args.model,
            Path(folder),
            params.tasks,
            params.limit,
            params.max_tokens,
            run.params.engine,
            run.params.runtime,
        )
    scores = summarize(result, params.tasks)
    write_rows(args.samples, sample_rows(result, params.tasks), SAMPLE)
    run.metrics(args.scores, scores, doubts(scores))


if __name__ == "__main__":
    run_stage(main, __doc__, paths=("model", "benchmarks", "tasks", "samples", "scores"))
