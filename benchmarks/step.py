"""How an engine step's time is spent: the host's work by part, the time it waits, and the GPU's kernels by kind.

    python benchmarks/step.py models/base/solver --shape qwen2-math-7b --dtype bfloat16 --out step.json [--runner v2]
        [--graphs decode] [--quantization fp8]

The engine answers as the stage `respond` does, to requests of 453 tokens on average. In a window in the middle, each call
of the engine's parts is timed, its own calls of other parts left out. In a second pass torch's profiler records the kernels
of --steps steps: `busy` is the share of the time in which at least one ran. Where the host's parts without its waiting take
nearly the whole step, the host is the limit; where the GPU is busy nearly always, the GPU is. Parts that this vLLM does not
have are listed under `missing`; runner v2 launches the model as a part of its own only where a graph was recorded. On a
CPU, where nothing waits for a GPU, the model is a part like the others.
"""

import argparse
import contextlib
import importlib
import json
import os
import re
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from engines import GRAPHS, MEAN, choose_graphs, choose_runner, of_length, params_of, ways_of
from shapes import add_shape, chosen_model

from scalequest.io import write_json
from scalequest.run.tune import STEPS, EnoughError, steady_pace
from scalequest.runtime.facts import hardware
from scalequest.sampling.vllm import prepare_environment

WAYS = ("bare", "ours", "top_p_1", "greedy")
WAITING = "wait for the GPU"
# Name of a part, the object that has its method, and the method; the objects are found by `objects_of`.
PARTS = (
    ("choose requests", "scheduler", "schedule"),
    ("update requests", "runner", "_update_states"),
    ("prepare inputs", "runner", "_prepare_inputs"),
    ("prepare attention", "runner", "_build_attention_metadata"),
    ("launch the model", "runner", "_model_forward"),
    ("launch the model", "graphs", "run_fullgraph"),
    ("launch the sampler", "runner", "_sample"),
    ("launch the sampler", "runner", "sample"),
    ("prepare inputs", "runner", "prepare_inputs"),
    ("prepare attention", "runner", "prepare_attn"),
    ("update requests", "runner", "add_requests"),
    ("update requests", "runner", "update_requests"),
    ("execute, the rest", "executor", "execute_model"),
    ("sample, the rest", "executor", "sample_tokens"),
    ("take tokens", "scheduler", "update_from_output"),
    ("texts and stops", "output_processor", "process_outputs"),
    ("step, the rest", "llm_engine", "step"),
)
# In this order: a kernel of attention may have cutlass in its name, and one that chooses tokens flashinfer. What Inductor
# writes is named after all that it fuses, such as a norm before a product.
OTHER = "other kernels"
KINDS = (
    (OTHER, re.compile(r"^triton_(per|poi|red)_fused")),
    ("choose tokens", re.compile(r"sampling|sort|top_?[kp]|gumbel|exponential|argmax|softmax|scan|cumsum", re.IGNORECASE)),
    ("attention", re.compile(r"flash|attn|attention|fmha", re.IGNORECASE)),
    ("matrix products", re.compile(r"gemm|cutlass|nvjet|cublas|xmma|wgmma|matmul|_mm_", re.IGNORECASE)),
    ("copies", re.compile(r"^mem(cpy|set)|direct_copy|catarray", re.IGNORECASE)),
)  # fmt: skip


class Clock:
    """Seconds per part, each without the parts that it calls; of this thread only."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._thread, self._stack, self._since = threading.get_ident(), list[str](), 0.0

    def wrap(self, owner: Any, method: str, part: str) -> bool:
        """Time this method of an object or a class as the part; False if it has none."""
        original = getattr(owner, method, None)
        if original is None:
            return False

        def timed(*args: Any, **kwargs: Any) -> Any:
            if threading.get_ident() != self._thread:
                return original(*args, **kwargs)
            self._change(part)
            try:
                return original(*args, **kwargs)
            finally:
                self._change(None)

        setattr(owner, method, timed)
        return True

    def _change(self, part: str | None) -> None:
        now = time.perf_counter()
        if self._stack:
            self.seconds[self._stack[-1]] += now - self._since
        if part is None:
            self._stack.pop()
        else:
            self._stack.append(part)
        self._since = now


def objects_of(llm: Any) -> dict[str, Any]:
    """The parts of an engine in this process that have the methods of PARTS."""
    core = llm.llm_engine.engine_core.engine_core
    runner = core.model_executor.driver_worker.worker.model_runner
    return {
        "llm_engine": llm.llm_engine,
        "output_processor": llm.llm_engine.output_processor,
        "scheduler": core.scheduler,
        "executor": core.model_executor,
        "runner": runner,
        "graphs": getattr(runner, "cudagraph_manager", None),
    }


class Event:
    """A CUDA event whose waiting is timed; vLLM's own may be of a type whose methods cannot be replaced."""

    def __init__(self, event: Any, clock: Clock) -> None:
        self._event = event
        clock.wrap(self, "synchronize", WAITING)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._event, name)

    def synchronize(self) -> None:
        """Wait for it."""
        self._event.synchronize()


def time_waiting(clock: Clock, runner: Any) -> None:
    """Time where the host waits for the GPU: for the tokens of a step, and for the inputs of the one before to be read."""
    if event := getattr(runner, "prepare_inputs_event", None):
        runner.prepare_inputs_event = Event(event, clock)
    for module, name, attribute in (
        ("vllm.v1.worker.gpu_model_runner", "AsyncGPUModelRunnerOutput", "async_copy_ready_event"),
        ("vllm.v1.worker.gpu.async_utils", "AsyncOutput", "copy_event"),
    ):
        with contextlib.suppress(ImportError):
            outputs = getattr(importlib.import_module(module), name)
            outputs.__init__ = with_timed_event(outputs.__init__, attribute, clock)


def with_timed_event(original: Callable[..., None], attribute: str, clock: Clock) -> Callable[..., None]:
    """That ``__init__``, and then the event that it made is one whose waiting is timed."""

    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        setattr(self, attribute, Event(getattr(self, attribute), clock))

    return init


def union(intervals: Iterable[tuple[float, float]]) -> float:
    """Length of what the intervals cover."""
    total, end = 0.0, float("-inf")
    for begin, stop in sorted(intervals):
        total += max(0.0, stop - max(begin, end))
        end = max(end, stop)
    return total


def kind_of(kernel: str) -> str:
    """What a kernel is for, by its name."""
    return next((kind for kind, pattern in KINDS if pattern.search(kernel)), OTHER)


def kernels(events: Iterable[Any], steps: int) -> dict[str, Any]:
    """The GPU's time per step, in ms, by kind of kernel, and the share in which it was busy.

    Args:
        events: of torch's profiler, with name, device_type and time_range in microseconds.
        steps: that they are of.
    """
    on_gpu = [event for event in events if event.device_type.name == "CUDA" and not event.is_user_annotation]
    if not on_gpu:
        return {}
    spans = [(event.time_range.start, event.time_range.end) for event in on_gpu]
    by_kind, by_name = Counter[str](), Counter[str]()
    for event, (begin, end) in zip(on_gpu, spans, strict=True):
        by_kind[kind_of(event.name)] += end - begin
        by_name[event.name[:90]] += end - begin
    whole = max(end for _, end in spans) - min(begin for begin, _ in spans)
    ms = 1000 * steps
    return {
        "busy": round(union(spans) / whole, 3),
        "gpu_ms_per_step": {kind: round(time / ms, 3) for kind, time in by_kind.most_common()},
        "largest_kernels_ms_per_step": {name: round(time / ms, 3) for name, time in by_name.most_common(15)},
        "kernels_per_step": round(len(on_gpu) / steps, 1),
    }


def counted(llm: Any, warm: int, then: Callable[[int], None]) -> None:
    """Have the next call of ``steady_pace`` call ``then`` with the number of each step after the first ``warm``."""
    core, steps = llm.llm_engine.engine_core, 0
    original = core.get_output

    def counting() -> Any:
        nonlocal steps
        outputs = original()
        steps += bool(outputs.outputs)
        if steps >= warm and outputs.outputs:
            then(steps - warm)
        return outputs

    core.get_output = counting


def main() -> None:
    """Start the engine, measure each way, print and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="a model of about 1.5B, or the tokenizer for --shape")
    add_shape(parser)
    parser.add_argument("--out", type=Path, default=Path("step.json"))
    parser.add_argument("--ways", default="ours,greedy", help="bare, ours, and ours as top_p_1 and greedy")
    parser.add_argument("--runner", choices=("auto", "v1", "v2"), default="auto", help="of vLLM; auto: its choice")
    parser.add_argument(
        "--graphs", choices=("whole", *GRAPHS), default="whole", help="see lengths.py; whole: as in our stages"
    )
    parser.add_argument("--quantization", choices=("fp8",), help="weights of 8 bits")
    parser.add_argument("--seconds", type=float, default=3.0, help="time that is counted per way")
    parser.add_argument("--steps", type=int, default=20, help="steps whose kernels are recorded")
    parser.add_argument("--mean", type=int, default=MEAN["response"], help="mean tokens per answer")
    parser.add_argument("--max-num-seqs", type=int, default=512)
    parser.add_argument("--max-model-len", type=int, default=1536)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), help="default: the profile's")
    parser.add_argument("--params", default="params.yaml", help="a profile or a parameter file")
    args = parser.parse_args()
    if unknown := set(args.ways.split(",")) - set(WAYS):
        parser.error(f"--ways: {', '.join(sorted(unknown))}: expected some of {', '.join(WAYS)}")
    MEAN["response"] = args.mean
    params = params_of(args, "shape" if args.shape else "real", args.quantization or "full")
    choose_runner(args.runner)
    choose_graphs(args.graphs)
    prepare_environment(params.engine, params.runtime)
    import torch
    import vllm

    from scalequest.sampling.engine import Engine

    with tempfile.TemporaryDirectory() as scratch:
        model, loading = chosen_model(args, Path(scratch))
        engine = Engine(model, params.engine, params.runtime, row_seeds=True, **loading)
        llm, clock = engine._llm, Clock()
        objects = objects_of(llm)
        missing = [f"{name}.{method}" for part, name, method in PARTS if not clock.wrap(objects[name], method, part)]
        time_waiting(clock, objects["runner"])
        n = args.max_num_seqs * (2 + -(-STEPS // args.mean))
        _, ways = ways_of(engine, params, "response", n, model)
        warm = max(2, args.mean // 2)
        found: dict[str, Any] = {
            "model": args.shape or str(args.model), "machine": hardware(), "max_num_seqs": args.max_num_seqs,
            "mean_tokens": args.mean, "runner": type(objects["runner"]).__module__, "graphs": args.graphs,
            "dtype": params.engine.dtype, "quantization": args.quantization,
            "versions": {"vllm": vllm.__version__, "torch": torch.__version__}, "missing": missing, "ways": {},
        }  # fmt: skip
        for way in args.ways.split(","):
            found["ways"][way] = measure(llm, ways[way], clock, n, warm, args)
            write_json(args.out, found)
            print(way, json.dumps(found["ways"][way], indent=1), flush=True)
    os._exit(0)  # vLLM and torch leave threads that can stall an interpreter's exit


def measure(
    llm: Any, generate: Callable[[], Any], clock: Clock, n: int, warm: int, args: argparse.Namespace
) -> dict[str, Any]:
    """One way: the host's parts in a window of steps, then the kernels of some steps."""
    import torch

    seen: list[dict[str, float]] = []
    llm.reset_prefix_cache()
    counted(llm, warm, lambda _: seen.append(dict(clock.seconds)))
    with of_length(args.mean, 2 * n):
        pace = steady_pace(llm, generate, warm, args.seconds)
    steps = max(1, pace.steps)
    parts = {part: 1000 * (time - seen[0].get(part, 0.0)) / steps for part, time in seen[-1].items()}
    result = {
        "tokens_per_s": round(pace.tokens_per_s, 1),
        "ms_per_step": round(1000 * pace.seconds / steps, 2),
        "host_ms_per_step": {part: round(ms, 3) for part, ms in sorted(parts.items(), key=lambda item: -item[1])},
        "host_busy_ms_per_step": round(sum(ms for part, ms in parts.items() if part != WAITING), 2),
    }
    if not torch.cuda.is_available():
        return result
    profiler, recorded = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]), False

    def record(step: int) -> None:
        nonlocal recorded
        if step == 2:
            profiler.start()
        elif step == 2 + args.steps and not recorded:
            torch.cuda.synchronize()
            profiler.stop()
            recorded = True
            raise EnoughError

    llm.reset_prefix_cache()
    counted(llm, warm, record)
    with of_length(args.mean, 2 * n):
        steady_pace(llm, generate, warm, 60.0)
    if not recorded:
        return result | {"error": f"the call ended before {args.steps} steps; set --steps lower"}
    return result | kernels(profiler.events() or (), args.steps)


if __name__ == "__main__":
    main()
