"""Supervised training: tokens per second of ways to train on the same rows, FSDP against one process, repeated bytes.

    python benchmarks/train.py speed MODEL --file sources/gsm8k/train.jsonl [--shape qwen2.5-1.5b] [--out F.json]
    accelerate launch --config_file profiles/accelerate/fsdp-2.yaml benchmarks/train.py speed MODEL --shape qwen2-math-7b ...
    python benchmarks/train.py fsdp MODEL --file F.jsonl --config profiles/accelerate/fsdp-2.yaml
    python benchmarks/train.py deterministic MODEL --file F.jsonl

``speed`` runs each way in one process, one after another: a warm-up, counted apart because it
compiles, then rounds of steps, of which the median counts. A way that fails prints its error, and
the others go on; one that would begin after ``--limit-s`` is left out. Rows are questions with
their solutions, as the stage ``solver`` learns them. Tokens are those of rows: padding is work, not
tokens. The plain loops read the same tokens end to end in full batches, and learn all of them.

``--profile`` prints the kernels of three steps after the warm-up. ``--syncs`` lists the places where
the host waits for the GPU in three such steps, and how often: no kernel is launched meanwhile. Of a
way that reads the losses of several steps together, the reading itself is not among them.

share of peak = 6 * parameters * tokens per second / (cards * the card's peak in bfloat16)

``fsdp`` trains with the stage's own code in the processes of a configuration and in one process,
and compares losses and saved weights. ``deterministic`` trains twice with
``runtime.deterministic`` and twice without, and compares weights and time. All print JSON.
"""

import argparse
import contextlib
import gc
import json
import logging
import os
import statistics
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

from shapes import SHAPES

from scalequest.io import write_json
from scalequest.models.weights import load_chat, quiet_libraries
from scalequest.params import Params, SupervisedTraining
from scalequest.run.gpus import peak_tflops, share_of_peak
from scalequest.run.profile import load_profile
from scalequest.runtime.stage import StageRun
from scalequest.training.examples import Example, fitting, solved_example
from scalequest.training.job import Job, ready_trainer, repeat_bytes, train
from scalequest.training.launch import here
from scalequest.training.sft import SFT

SEED = 17
# Ways to train: what is set besides the common settings. `each` reads loss and gradient norm at each step, where the others
# read packed steps together on a GPU; `whole` compiles the layers as one graph instead of each by itself.
OURS: dict[str, dict[str, Any]] = {
    "unpacked": {"packing": False},
    "packed": {"packing": True},
    "packed_liger": {"packing": True, "fused_loss": "liger"},
    "packed_compiled": {"packing": True, "compile_training": True},
    "packed_compiled_liger": {"packing": True, "compile_training": True, "fused_loss": "liger"},
    "packed_compiled_each": {"packing": True, "compile_training": True, "steps_per_reading": 1},
    "packed_compiled_whole": {"packing": True, "whole": True},
}  # fmt: skip
PLAIN = {"plain": False, "plain_compiled": True}
ORDER = ["plain", "unpacked", "packed_compiled", "packed", "packed_compiled_liger", "plain_compiled"]


@dataclass(frozen=True)
class Loaded(SFT):
    """SFT on a model that is made here: random weights of a shape need no folder."""

    make: Callable[[Any], Any] = field(default=lambda dtype: None)

    def load(self, path: Path, dtype: Any, seed: int) -> Any:
        """The model."""
        from transformers import set_seed

        set_seed(seed)
        return self.make(dtype)


def device() -> str:
    """Where models go."""
    import torch

    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if torch.cuda.is_available() else "cpu"


def maker(args: argparse.Namespace) -> Callable[[Any], Any]:
    """Make the model in a precision: of the shape with random weights, or the folder's."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from scalequest.models.folder import local_path

    def make(dtype: Any) -> Any:
        if not args.shape:
            return AutoModelForCausalLM.from_pretrained(
                local_path(args.model), dtype=dtype, use_cache=False, trust_remote_code=False
            )
        values = {key: value for key, value in SHAPES[args.shape].items() if key not in ("model_type", "torch_dtype")}
        config = AutoConfig.for_model(str(SHAPES[args.shape]["model_type"]), **values)
        config.use_cache = False
        with torch.device(device()):
            return AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=False)

    return make


def read_rows(args: argparse.Namespace) -> list[Example]:
    """Questions and solutions of the file, as examples that fit."""
    chat = load_chat(args.model)
    lines = Path(args.file).read_text(encoding="utf-8").splitlines()
    made = [json.loads(line) for line in lines if line.strip()][: args.rows]
    examples = [solved_example(chat, row["question"], row["solution"], str(n)) for n, row in enumerate(made)]
    return fitting(examples, args.max_length, "rows")


def settings(args: argparse.Namespace, rows: Sequence[Any], **changes: Any) -> SupervisedTraining:
    """One training's parameters; as many epochs as the asked steps take."""
    steps = args.warmup + args.rounds * args.steps
    epochs = -(-steps * args.batch_size // len(rows))
    return SupervisedTraining(
        method=args.method, epochs=epochs, learning_rate=args.learning_rate, warmup_frac=0.0, batch_size=args.batch_size,
        per_device_batch_size=args.per_device, max_length=args.max_length, weight_decay=0.0, lora_r=16, lora_alpha=32,
        **{"optimizer": "adamw", "packing": False, **changes},
    )  # fmt: skip


def synchronize() -> None:
    """Wait for the GPU, if there is one."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


@contextlib.contextmanager
def listed_waits() -> Iterator[None]:
    """Print where the host waited for the GPU, and how often; innermost line of code first."""
    import torch

    places = Counter[str]()

    def count(message: Any, *_: Any) -> None:
        if "synchronizing CUDA operation" in str(message):
            lines = [line for line in traceback.extract_stack()[:-1] if Path(line.filename).name != "warnings.py"]
            inner = [f"{'/'.join(Path(line.filename).parts[-3:])}:{line.lineno}" for line in reversed(lines[-5:])]
            places[" < ".join(inner)] += 1

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = count  # type: ignore[assignment]
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode("default")
    print(f"the host waited for the GPU {places.total()} times", file=sys.stderr)
    for place, n in places.most_common():
        print(f"{n:5} {place}", file=sys.stderr)


class Clock:
    """Tokens and time of each step; ``rates`` are tokens per second of the rounds."""

    def __init__(self, args: argparse.Namespace, start: float) -> None:
        self.args, self.tokens, self.times = args, [0], [start]

    def step(self, tokens: int) -> bool:
        """Count a step, and say whether it was the last one; waits for the GPU where a round begins or ends."""
        done = len(self.times)
        if (done - self.args.warmup) % self.args.steps == 0:
            synchronize()
        self.tokens.append(tokens)
        self.times.append(time.perf_counter())
        return done >= self.args.warmup + self.args.rounds * self.args.steps

    def found(self, parameters: int, processes: int) -> dict[str, Any]:
        """What is reported."""
        rates = []
        for start in range(self.args.warmup, len(self.times) - self.args.steps, self.args.steps):
            end = start + self.args.steps
            rates.append(sum(self.tokens[start + 1 : end + 1]) / (self.times[end] - self.times[start]))
        rate = statistics.median(rates)
        peak = card_peak()
        return {
            "tokens_per_s": round(rate),
            "rounds": [round(value) for value in rates],
            "share_of_peak": round(share_of_peak(parameters, rate, 1, peak, processes), 4) if peak else None,
            "warmup_s": round(self.times[self.args.warmup] - self.times[0], 1),
            "tokens_per_step": round(statistics.mean(self.tokens[1:])),
        }


def card_peak() -> float | None:
    """The card's peak of gpus.yaml; None where there is no GPU or no line for it."""
    import torch

    return peak_tflops(torch.cuda.get_device_name()) if torch.cuda.is_available() else None


def ours(args: argparse.Namespace, params: Params, rows: list[Example], way: dict[str, Any]) -> dict[str, Any]:
    """Train as a stage does, without saving, and return what the clock found, losses and the weights' hash."""
    import torch
    from transformers import TrainerCallback

    runtime = params.runtime.model_copy(
        update={key: way[key] for key in way if key in type(params.runtime).model_fields}
    )
    few = settings(args, rows, packing=way.get("packing", False))
    kind = Loaded(make=maker(args))
    with tempfile.TemporaryDirectory() as folder:
        job = Job(kind, args.model, Path(folder, "out"), rows, few, args.dtype, SEED, runtime)
        trainer = ready_trainer(job, Path(folder))
        trainer.steps_per_reading = way.get("steps_per_reading", trainer.steps_per_reading)
        if way.get("whole"):
            inner = trainer.model.base_model
            inner.forward = torch.compile(inner.forward, dynamic=True)
        parameters = sum(p.numel() for p in trainer.model.parameters())
        lengths = [len(row) for row in rows]
        order, packs = trainer._get_train_sampler(), getattr(trainer, "packs", None)
        counts = []
        for epoch in range(few.epochs):
            order.set_epoch(epoch)
            items = [sum(lengths[place] for place in pack) if packs else lengths[pack] for pack in order]
            size = packs.per_step if packs else few.batch_size
            counts += [sum(items[at : at + size]) for at in range(0, len(items), size)]
        order.set_epoch(0)

        class Measured(TrainerCallback):
            clock: Clock
            profiler: Any = None

            def __init__(self, waits: contextlib.ExitStack) -> None:
                self.waits = waits

            def on_train_begin(self, *_: Any, **__: Any) -> None:
                synchronize()
                self.clock = Clock(args, time.perf_counter())

            def on_step_end(self, _: Any, state: Any, control: Any, **__: Any) -> None:  # type: ignore[override]
                if args.profile and state.global_step == args.warmup:
                    activities = [torch.profiler.ProfilerActivity.CPU]
                    if torch.cuda.is_available():
                        activities = [torch.profiler.ProfilerActivity.CUDA]
                    self.profiler = torch.profiler.profile(activities=activities)
                    self.profiler.start()
                if self.profiler and state.global_step == args.warmup + 3:
                    synchronize()
                    self.profiler.stop()
                    by = "self_device_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
                    table = self.profiler.key_averages().table(sort_by=by, row_limit=25, max_name_column_width=70)
                    print(table, file=sys.stderr)
                    self.profiler = None
                if state.global_step == args.warmup + 3:
                    self.waits.close()
                if self.clock.step(counts[state.global_step - 1]):
                    control.should_training_stop = True
                if args.syncs and state.global_step == args.warmup:
                    self.waits.enter_context(listed_waits())

        with contextlib.ExitStack() as waits:  # closed where a way fails, too
            measured = Measured(waits)
            trainer.add_callback(measured)
            trainer.train()
        history = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
        found = measured.clock.found(parameters, here())
        digest = sha256()
        if args.hash:
            for _, weight in sorted(trainer.model.named_parameters()):
                digest.update(weight.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
        return found | {
            "packs_per_step": packs.per_step if packs else None,
            "first_loss": round(history[0], 4),
            "last_loss": round(statistics.mean(history[-5:]), 4),
            **({"sha256": digest.hexdigest()} if args.hash else {}),
        }


def plain(args: argparse.Namespace, rows: list[Example], compiled: bool) -> dict[str, Any]:
    """A loop of plain PyTorch: full batches, float32 weights under bfloat16 autocast, fused AdamW, clipping."""
    import torch
    import torch.nn.functional as nn

    ids = [token for row in rows for token in row.prompt + row.target]
    length = args.plain_length or max(8, round(len(ids) / len(rows)) // 8 * 8)
    size = args.plain_rows or args.batch_size
    n = len(ids) // (size * length)
    batches = torch.tensor(ids[: n * size * length]).view(n, size, length)
    model = maker(args)(torch.float32).to(device()).train()
    parameters = sum(p.numel() for p in model.parameters())
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.learning_rate, weight_decay=0.0, fused=True)

    def loss_of(batch: Any) -> Any:
        logits = model(input_ids=batch, use_cache=False).logits
        return nn.cross_entropy(logits[:, :-1].reshape(-1, logits.shape[-1]), batch[:, 1:].reshape(-1))

    step = torch.compile(loss_of) if compiled else loss_of
    synchronize()
    clock, done, number = Clock(args, time.perf_counter()), False, 0
    while not done:
        batch = batches[number % n].to(device(), non_blocking=True)
        with torch.autocast(device().split(":")[0], torch.bfloat16, enabled=args.dtype == "bfloat16"):
            loss = step(batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        done, number = clock.step(batch.numel()), number + 1
    return clock.found(parameters, 1) | {"batch": [size, length], "last_loss": round(loss.item(), 4)}


def attempt(name: str, run: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What a way gives, with its peak memory; or its error, with everything it held given back."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    try:
        found = run()
    except Exception as error:
        traceback.print_exc()
        found = {"error": f"{type(error).__name__}: {str(error)[:500]}"}
    if torch.cuda.is_available():
        found["peak_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 1)
    found["seconds"] = round(time.perf_counter() - start, 1)
    print(name, json.dumps(found), file=sys.stderr, flush=True)
    torch._dynamo.reset()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return found


def report(args: argparse.Namespace, rows: list[Example], found: dict[str, Any], last: bool) -> None:
    """Print the JSON, and write it after each way, so that a stop from outside loses nothing."""
    import torch

    if os.environ.get("RANK", "0") != "0":
        return
    made = {
        "model": args.shape or str(args.model), "card": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "processes": here(), "torch": torch.__version__, "rows": len(rows),
        "mean_tokens": round(statistics.mean(len(row) for row in rows), 1),
        **{key: getattr(args, key) for key in ("batch_size", "per_device", "max_length", "steps", "rounds", "dtype", "method")},
        "ways": found,
    }  # fmt: skip
    if args.out:
        write_json(Path(args.out), made)
    if last:
        print(json.dumps(made, indent=1))


def speed(args: argparse.Namespace) -> None:
    """Measure the ways in turn."""
    params, rows = runtime(args), read_rows(args)
    started = time.perf_counter()
    found: dict[str, Any] = {}
    for name in args.ways:
        if time.perf_counter() - started > args.limit_s:
            found[name] = {"error": f"left out: {args.limit_s} s had passed"}
        elif name in PLAIN:
            found[name] = attempt(name, partial(plain, args, rows, PLAIN[name]))
        else:
            found[name] = attempt(name, partial(ours, args, params, rows, OURS[name]))
        report(args, rows, found, last=False)
    report(args, rows, found, last=True)


def deterministic(args: argparse.Namespace) -> None:
    """Train twice with the setting and twice without, packed and not; the weights' hashes say whether bytes repeat."""
    import torch

    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # read once, so it holds for all
    params, rows, found = runtime(args), read_rows(args), {}
    args.hash = True
    for packing in (False, True):
        for fixed in (True, False):
            name = f"{'packed' if packing else 'unpacked'}{' deterministic' if fixed else ''}"
            if fixed:
                repeat_bytes()
            way = {"packing": packing, "deterministic": fixed}
            runs = [attempt(name, partial(ours, args, params, rows, way)) for _ in range(2)]
            torch.use_deterministic_algorithms(False)
            hashes = [run.pop("sha256", None) for run in runs]
            found[name] = {"equal_bytes": None not in hashes and hashes[0] == hashes[1], "runs": runs}
            report(args, rows, found, last=False)
    report(args, rows, found, last=True)


def fsdp(args: argparse.Namespace) -> None:
    """Train in the processes of ``--config``, then in one, and compare losses, weights and the model as it is loaded."""
    rows, base = read_rows(args)[: args.batch_size * args.steps], runtime(args)
    few = settings(args, rows, packing=not args.unpacked).model_copy(update={"epochs": 1})
    made: dict[str, Any] = {}
    curves: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, config in (("processes", args.config), ("one", None)):
            if config is None:
                os.environ["CUDA_VISIBLE_DEVICES"] = "0"  # the trainer refuses two GPUs in one process
            params = base.model_copy(update={"runtime": base.runtime.model_copy(update={"accelerate": config})})
            start = time.perf_counter()
            trained = train(StageRun(params), SFT(), args.model, Path(folder, name), rows, few, seed=SEED)
            curves[name] = [step["loss"] for step in trained.curves]
            made[name] = {"seconds": round(time.perf_counter() - start, 1), "metrics": trained.metrics}
            print(name, json.dumps(made[name]), file=sys.stderr, flush=True)
        made |= compared(Path(folder, "processes"), Path(folder, "one"), args.model)
    pairs = list(zip(curves["processes"], curves["one"], strict=True))
    made["largest_loss_difference"] = max(abs(a - b) for a, b in pairs)
    made["losses"] = {"first": pairs[0], "last": pairs[-1]}
    if args.out:
        write_json(Path(args.out), made)
    print(json.dumps(made, indent=1))


def compared(a: Path, b: Path, base: Path) -> dict[str, Any]:
    """How far two saved models are from each other, beside how far training moved them."""
    import torch
    from transformers import AutoModelForCausalLM

    from scalequest.models.folder import local_path

    models = [
        AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, trust_remote_code=False)
        for folder in (a, b, Path(local_path(base)))
    ]
    weights = [dict(model.named_parameters()) for model in models]
    apart = sum(float((weights[0][key] - weights[1][key]).double().square().sum()) for key in weights[1])
    moved = sum(float((weights[1][key] - weights[2][key]).double().square().sum()) for key in weights[1])
    ids = torch.arange(5, 45)[None]
    with torch.no_grad():
        logits = [model(input_ids=ids).logits.log_softmax(-1) for model in models]
    return {
        "tensors": [len(weights[0]), len(weights[1])],
        "distance_over_moved": round((apart / moved) ** 0.5, 5) if moved else None,
        "largest_log_probability_difference": {
            "between": float((logits[0] - logits[1]).abs().max()), "to_base": float((logits[1] - logits[2]).abs().max())
        },
    }  # fmt: skip


def runtime(args: argparse.Namespace) -> Params:
    """The parameters, with the precision and the recomputation that were asked for, and no checkpoints."""
    params = load_profile(args.params)
    # What a way may turn on is off here, whatever the profile and the params.yaml below it say.
    changed = {"gradient_checkpointing": args.gradient_checkpointing, "checkpoint_minutes": 1e6, "accelerate": None}
    changed |= {"compile_training": False, "fused_loss": "trl", "deterministic": False}
    return params.model_copy(
        update={
            "engine": params.engine.model_copy(update={"dtype": args.dtype}),
            "runtime": params.runtime.model_copy(update=changed),
        }
    )


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["speed", "fsdp", "deterministic"])
    parser.add_argument("model", type=Path, help="folder; with --shape only its tokenizer is used")
    parser.add_argument("--shape", choices=SHAPES, help="random weights of this shape (speed and deterministic)")
    parser.add_argument("--file", required=True, help="JSONL with question and solution")
    parser.add_argument("--rows", type=int, help="of the file; default all")
    parser.add_argument("--ways", nargs="+", choices=[*PLAIN, *OURS], default=ORDER)
    parser.add_argument("--batch-size", type=int, default=64, help="rows of an optimizer step")
    parser.add_argument("--per-device", type=int, default=64, help="rows of a forward pass without packing")
    parser.add_argument("--max-length", type=int, default=512)
    parser.add_argument("--plain-rows", type=int, help="rows of a plain loop's batch; default --batch-size")
    parser.add_argument("--plain-length", type=int, help="tokens of such a row; default the file's mean")
    parser.add_argument("--steps", type=int, default=40, help="of a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--warmup", type=int, default=6, help="steps before the first round")
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument("--method", choices=["full", "lora"], default="full")
    parser.add_argument("--dtype", choices=["bfloat16", "float32"], default="bfloat16")
    parser.add_argument("--gradient-checkpointing", action="store_true")
    parser.add_argument("--profile", action="store_true", help="of three steps after the warm-up, to standard error")
    parser.add_argument("--syncs", action="store_true", help="list waits for the GPU, to standard error")
    parser.add_argument("--hash", action="store_true", help="hash the weights after the last step")
    parser.add_argument("--config", default="profiles/accelerate/fsdp-2.yaml", help="accelerate's configuration (fsdp)")
    parser.add_argument("--unpacked", action="store_true", help="fsdp: without packing")
    parser.add_argument("--limit-s", type=float, default=220, help="no way begins after so many seconds")
    parser.add_argument("--params", default="gpu-135m", help="a profile or a parameter file")
    parser.add_argument("--out", help="JSON file, written after each way")
    args = parser.parse_args()
    if args.syncs and device() == "cpu":
        parser.error("--syncs: no GPU is there. Expected one. Leave it out.")
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    quiet_libraries()
    {"speed": speed, "fsdp": fsdp, "deterministic": deterministic}[args.what](args)


if __name__ == "__main__":
    main()
