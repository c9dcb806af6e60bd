"""Measure how many sequences an engine should decode at once, on this machine: ``engine.max_num_seqs``.

    scalequest tune models/base/solver --profile gpu-135m
    scalequest tune models/base/solver --values 8,16,32 --new-tokens 64

One engine starts with the largest value; smaller ones are set by its scheduler. At each value, answers of many lengths
are sampled until the batch is mixed, then tokens are counted for some seconds. The best value is the smallest that
writes within 3% of the most tokens per second: a larger batch leaves the engine half empty for longer at a shard's end.
"""

import argparse
import math
import os
import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from scalequest.errors import UserError
from scalequest.io import write_json
from scalequest.params import Params
from scalequest.run.evaluate import find_model
from scalequest.run.outputs import check_output
from scalequest.run.profile import load_profile
from scalequest.runtime.facts import hardware
from scalequest.runtime.threads import limit_spinning

GPU_VALUES, CPU_VALUES = (64, 128, 256, 512, 1024), (4, 8, 16, 32, 64)
# Rates closer than this are equal: a measurement of some seconds is not repeated better.
EQUAL = 0.97
# The paper's mean answer, and its question with the chat template around it.
NEW_TOKENS, PROMPT_TOKENS = 453, 83
# Steps that a window holds at most, from which follows how many requests are at hand.
STEPS = 400


class EnoughError(Exception):
    """Raised inside the engine's loop to end a call whose rate is known."""


@dataclass(frozen=True)
class Pace:
    """Tokens written in a time, in a number of steps of the engine.

    Attributes:
        begin: when counting began, on the clock of ``time.perf_counter``, which all processes of a machine share.
    """

    tokens: int
    seconds: float
    steps: int
    begin: float = 0.0

    @property
    def tokens_per_s(self) -> float:
        """Tokens per second; 0 where nothing was measured."""
        return self.tokens / self.seconds if self.seconds else 0.0


def scheduler_of(llm: Any) -> Any:
    """The scheduler of an engine in this process."""
    return llm.llm_engine.engine_core.engine_core.scheduler


@contextmanager
def limited_to(llm: Any, sequences: int) -> Iterator[None]:
    """Limit the sequences that the engine decodes at once; it has room for no more than it was started for."""
    scheduler = scheduler_of(llm)
    name = "max_num_active_reqs" if hasattr(scheduler, "max_num_active_reqs") else "max_num_running_reqs"
    before = getattr(scheduler, name)
    setattr(scheduler, name, min(before, sequences))
    try:
        yield
    finally:
        setattr(scheduler, name, before)


def steady_pace(llm: Any, generate: Callable[[], Any], warm_steps: int, seconds: float) -> Pace:
    """The pace of an engine in the middle of a call, between the first steps and the last sequences.

    Args:
        llm: an engine in this process.
        generate: a call that ends in ``llm.generate``; it is ended when enough was seen.
        warm_steps: steps before counting begins, until sequences of all ages are in the batch.
        seconds: length of the window. It ends early where no request waits any more.
    """
    core, scheduler = llm.llm_engine.engine_core, scheduler_of(llm)
    original = core.get_output
    begin, tokens, steps, end = 0.0, 0, 0, 0.0

    def counting() -> Any:
        nonlocal begin, tokens, steps, end
        outputs = original()
        if not outputs.outputs:  # a step was given to the GPU, and none has come back
            return outputs
        steps += 1
        now = time.perf_counter()
        if steps == warm_steps:
            begin = now
        elif begin:
            tokens += sum(len(output.new_token_ids) for output in outputs.outputs)
            end = now
            if end - begin >= seconds or not scheduler.waiting:
                raise EnoughError
        return outputs

    core.get_output = counting
    try:
        generate()
    except EnoughError:
        llm.llm_engine.abort_request(list(llm.llm_engine.output_processor.request_states), internal=True)
        # What was on its way to the GPU when the call was ended.
        while scheduler.has_requests() or getattr(core.engine_core, "batch_queue", None):
            original()
    finally:
        del core.get_output
    return Pace(tokens, end - begin if begin else 0.0, max(0, steps - warm_steps), begin)


def lengths(mean: int, n: int) -> list[int]:
    """``n`` lengths between 1 and ``2 * mean - 1``, evenly spread and in no order, so that any part has that mean."""
    return [1 + int((0.5 + row * 0.6180339887498949) % 1.0 * (2 * mean - 1)) for row in range(n)]


def prompts(vocabulary: int, length: int, n: int, samples: int) -> list[list[int]]:
    """``n`` prompts of random tokens, ``samples`` equal ones after each other, as answers to one question have them."""
    words = random.Random(0)
    made = [[words.randrange(vocabulary) for _ in range(length)] for _ in range(-(-n // samples))]
    return [prompt for prompt in made for _ in range(samples)][:n]


def sweep(
    llm: Any, params: Params, values: Sequence[int], new_tokens: int, prompt_tokens: int, seconds: float
) -> Iterator[dict[str, Any]]:
    """Rates at each value, from the smallest; the lengths and draws are those of ``respond``."""
    from vllm import SamplingParams

    vocabulary = len(llm.get_tokenizer())
    for value in sorted(values):
        n = value * (2 + -(-STEPS // new_tokens))
        asked = [{"prompt_token_ids": ids} for ids in prompts(vocabulary, prompt_tokens, n, params.respond.n_samples)]
        settings = [
            SamplingParams(
                temperature=params.respond.temperature, top_p=params.respond.top_p, max_tokens=length, ignore_eos=True,
                seed=row,
            )
            for row, length in enumerate(lengths(new_tokens, n))
        ]  # fmt: skip
        llm.reset_prefix_cache()
        with limited_to(llm, value):
            generate = partial(llm.generate, asked, settings, use_tqdm=False)
            pace = steady_pace(llm, generate, max(2, new_tokens // 2), seconds)
        step_ms = 1000 * pace.seconds / pace.steps if pace.steps else 0.0
        yield {
            "max_num_seqs": value,
            "tokens_per_s": round(pace.tokens_per_s, 1),
            "ms_per_step": round(step_ms, 2),
            "decoded_at_once": round(pace.tokens / pace.steps, 1) if pace.steps else 0.0,
        }


def best_of(rows: Sequence[dict[str, Any]]) -> int:
    """The smallest value whose rate is within 3% of the highest."""
    most = max(row["tokens_per_s"] for row in rows)
    return int(min(row["max_num_seqs"] for row in rows if row["tokens_per_s"] >= EQUAL * most))


def chosen_values(text: str | None, gpu: bool) -> list[int]:
    """The values of ``--values``, or those for this kind of machine.

    Raises:
        UserError: one is not a number above 0.
    """
    if text is None:
        return list(GPU_VALUES if gpu else CPU_VALUES)
    words = [word.strip() for word in text.split(",")]
    if not all(word.isdecimal() and int(word) for word in words):
        raise UserError(f"--values {text}: expected whole numbers above 0, separated by commas, such as 64,128,256")
    return sorted({int(word) for word in words})


def fitting_length(asked: int | None, params: Params, prompt_tokens: int) -> int:
    """Mean length of the answers: those asked for, or the paper's where the profile has room for it.

    Raises:
        UserError: answers of up to twice that length do not fit into the context.
    """
    room = params.engine.max_model_len - prompt_tokens
    mean = min(NEW_TOKENS, params.respond.max_tokens // 2, room // 2) if asked is None else asked
    if not 1 <= 2 * mean <= room:
        raise UserError(
            f"--prompt-tokens {prompt_tokens} --new-tokens {mean}: expected room for twice the new tokens in engine.max_model_len "
            f"{params.engine.max_model_len}. Lower them, or raise engine.max_model_len"
        )
    return mean


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``scalequest tune``."""
    parser.add_argument("model", help="a model's folder, or ORG/NAME of the hub")
    # As in `scalequest estimate`; --params is its name before.
    parser.add_argument(
        "--profile",
        "--params",
        dest="params",
        default="params.yaml",
        help="a profile or a parameter file (default: params.yaml)",
    )
    parser.add_argument("--values", help="numbers of sequences to try (default: by the machine)")
    parser.add_argument("--new-tokens", type=int, help="mean tokens per answer (default: the paper's 453, if it fits)")
    parser.add_argument(
        "--prompt-tokens", type=int, default=PROMPT_TOKENS, help="tokens per prompt (default: %(default)s)"
    )
    parser.add_argument(
        "--seconds", type=float, default=4.0, help="time that is counted per value (default: %(default)s)"
    )
    parser.add_argument("--out", type=Path, default=Path(".work", "tune.json"), help="the table (default: %(default)s)")


def tune(args: argparse.Namespace) -> dict[str, Any]:
    """Measure, print the table as it grows, and return it; it is written after each value."""
    from scalequest.sampling.engine import Engine

    if not 0 < args.seconds < math.inf:
        raise UserError(f"--seconds {args.seconds}: Expected a finite time above 0. Correct it.")
    params = load_profile(args.params)
    mean = fitting_length(args.new_tokens, params, args.prompt_tokens)
    machine = hardware()
    values = chosen_values(args.values, bool(machine.get("gpu")))
    model = find_model(args.model)
    check_output("--out", args.out)
    largest = params.engine.model_copy(update={"max_num_seqs": max(values)})
    engine = Engine(model, largest, params.runtime, row_seeds=True)
    table: dict[str, Any] = {
        "model": args.model, "machine": machine, "engine": params.engine.model_dump(exclude={"max_num_seqs"}),
        "prompt_tokens": args.prompt_tokens, "new_tokens": mean, "rows": [], "best": None,
    }  # fmt: skip
    print(f"{'max_num_seqs':>12}{'tokens/s':>12}{'ms per step':>13}", flush=True)
    for row in sweep(engine._llm, params, values, mean, args.prompt_tokens, args.seconds):
        table["rows"].append(row)
        table["best"] = best_of(table["rows"])
        write_json(args.out, table)
        print(f"{row['max_num_seqs']:>12}{row['tokens_per_s']:>12,.0f}{row['ms_per_step']:>13.1f}", flush=True)
    print(f"best: engine.max_num_seqs {table['best']} (now {params.engine.max_num_seqs}); the table is {args.out}")
    return table


def run(args: argparse.Namespace) -> int:
    """Measure, and end the process: vLLM and torch leave threads that can stall an interpreter's exit."""
    limit_spinning(os.environ)
    tune(args)
    sys.stdout.flush()
    os._exit(0)
