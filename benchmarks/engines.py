"""An engine as a benchmark varies it, and the calls of it whose pace is measured.

HOWS names the variants, as `lengths.py` explains them. ``choose_runner`` and ``choose_graphs`` come before vLLM is imported.
"""

import argparse
import contextlib
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from scalequest.domains import wording
from scalequest.params import Params, ReasoningGymSource
from scalequest.problems.sources import load_problems
from scalequest.run.profile import load_profile
from scalequest.run.tune import lengths
from scalequest.runtime.facts import StageFacts
from scalequest.runtime.stage import StageRun

MEAN = {"question": 53, "judgement": 250, "response": 453}
HOWS: dict[str, dict[str, Any]] = {
    "full": {},
    "quick": {},
    "v1": {},
    "v2": {},
    "fp8": {"quantization": "fp8"},
    "v2-decode": {},
    "v2-pieces": {},
    "quick-decode": {},
    "fp8-v2": {"quantization": "fp8"},
    "fp8-v2-pieces": {"quantization": "fp8"},
    "fp8-all": {"quantization": "fp8", "kv_cache_dtype": "fp8"},
    "fp8-all-v2": {"quantization": "fp8", "kv_cache_dtype": "fp8"},
    "invariant": {"repeatability": "batch_invariant"},
}
RUNNERS = {"v1": "0", "v2": "1"}  # values of vLLM's variable
GRAPHS = ("decode", "pieces")
KV_GIB = {"real": 12.0, "shape": 20.0}  # for 512 sequences of 600 tokens


@contextlib.contextmanager
def of_length(mean: int, n: int) -> Iterator[None]:
    """Let the next ``n`` requests end after tokens of that mean, and at no end token: random weights write none."""
    import vllm

    original, each = vllm.SamplingParams, iter(lengths(mean, n))

    def fixed(**settings: Any) -> Any:
        return original(**settings | {"max_tokens": next(each), "ignore_eos": True, "stop_token_ids": []})

    vllm.SamplingParams = fixed  # type: ignore[misc,assignment]
    try:
        yield
    finally:
        vllm.SamplingParams = original  # type: ignore[misc]


def params_of(args: argparse.Namespace, model: str, how: str) -> Params:
    """The profile, with room for the lengths, and for other engines on the GPU."""
    params = load_profile(args.params)
    dtype = {} if args.dtype is None else {"dtype": args.dtype}
    engine = {"max_num_seqs": args.max_num_seqs, "max_model_len": args.max_model_len} | dtype | HOWS[how]
    start = "quick" if how.startswith("quick") else "full"
    gib = KV_GIB[model] * args.max_num_seqs / 512 / (2 if how.startswith("fp8-all") else 1)
    runtime = {"gpu_memory_utilization": 0.2, "gpu_kv_cache_gib": gib, "engine_start": start, "workers": 1}
    return params.model_copy(
        update={
            "engine": params.engine.model_copy(update=engine),
            "runtime": params.runtime.model_copy(update=runtime),
            "judge": params.judge.model_copy(update={"style": "reasoned"}),
        }
    )


def choose_runner(how: str) -> None:
    """Have vLLM, which is not imported yet, take the model runner of this variant; its own choice where it names none."""
    for part in how.split("-"):
        if part in RUNNERS:
            os.environ["VLLM_USE_V2_MODEL_RUNNER"] = RUNNERS[part]


def choose_graphs(how: str) -> None:
    """Have our engines record the CUDA graphs of this variant; those of our stages where it names none."""
    import scalequest.sampling.vllm as starting

    chosen = [part for part in how.split("-") if part in GRAPHS]
    if not chosen:
        return
    original = starting.hardware_settings

    def changed(engine: Any, *args: Any) -> dict[str, Any]:
        settings = original(engine, *args)
        graphs = settings.get("compilation_config", {})
        if "cudagraph_capture_sizes" not in graphs:
            sys.exit(f"{how}: no CUDA graphs here. Expected a GPU. Leave the variant out")
        graphs.pop("cudagraph_mode", None)
        if "decode" in chosen:
            sizes = graphs["cudagraph_capture_sizes"]
            graphs["cudagraph_capture_sizes"] = [size for size in sizes if size <= engine.max_num_seqs]
        if graphs.get("mode") == 0:  # pieces need a compiled model
            graphs["cudagraph_mode"] = "FULL_DECODE_ONLY"
        return settings

    starting.hardware_settings = changed  # type: ignore[assignment]


def questions(n: int) -> list[str]:
    """``n`` word problems, made up, some of them more than once."""
    config: dict[str, Any] = {}
    source = ReasoningGymSource(
        kind="reasoning_gym", dataset="gsm_symbolic", n=min(n, 500), seed=9_000_000, templates="all", config=config
    )
    found = [row["question"] for row in load_problems("gsm_symbolic", source, 0, need_solution=False)]
    return [found[row % len(found)] for row in range(n)]


def ways_of(engine: Any, params: Params, kind: str, n: int, model: Path) -> tuple[float, dict[str, Callable[[], Any]]]:
    """Mean tokens per prompt, and the calls to measure: bare vLLM, and the stage's own function."""
    import scalequest.sampling.questions as asking
    import scalequest.sampling.sample as answering

    asking.Engine = answering.Engine = lambda *_, **__: engine  # type: ignore[misc,assignment]
    words, chat = wording(params.domain), engine.chat
    section = {"question": params.generate, "judgement": params.judge, "response": params.respond}[kind]
    samples = params.respond.n_samples if kind == "response" else 1
    sampling = section.model_copy(update={"max_tokens": 2 * MEAN[kind], "shard_size": n})
    rows = [{"id": str(number), "question": text} for number, text in enumerate(questions(-(-n // samples)))]
    if kind == "question":
        turns: Callable[[dict[str, Any]], list[str]] = lambda _: []  # noqa: E731
        prompts = [chat.question_prefix] * n
    else:
        turns = (
            (lambda row: words.judge_turns(row["question"], params.judge.style))
            if kind == "judgement"
            else (lambda row: [words.solve_prompt(row["question"])])
        )
        prompts = [ids for ids in chat.conversations([turns(row) for row in rows]) for _ in range(samples)]

    stops = chat.question_stops if kind == "question" else chat.answer_stops

    def bare() -> None:
        from vllm import SamplingParams

        settings = [
            SamplingParams(
                temperature=sampling.temperature, top_p=sampling.top_p, stop_token_ids=chat.stop_ids, stop=stops
            )
            for _ in prompts
        ]
        engine._llm.generate([{"prompt_token_ids": ids} for ids in prompts], settings, use_tqdm=False)

    def ours(**changes: float) -> None:
        with tempfile.TemporaryDirectory() as folder:
            run = StageRun(params, StageFacts(kind, Path(folder), deps={str(model): "benchmark"}))
            how = sampling.model_copy(update=changes)
            if kind == "question":
                asking.sample_questions(run, model, "benchmark", n, how)
            else:
                answering.sample(run, model, rows, prompts=turns, sampling=how, n_samples=samples)

    return sum(map(len, prompts)) / len(prompts), {
        "bare": bare,
        "ours": ours,
        "top_p_1": partial(ours, top_p=1.0),
        "greedy": partial(ours, temperature=0.0),
    }
