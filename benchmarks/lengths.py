"""Generated tokens per second at the paper's lengths, of bare vLLM and of our stages: the rates of `scalequest estimate`.

    python benchmarks/lengths.py models/base/solver --out lengths.json [--variants real:full,shape:fp8] [--seconds 3]

Lengths: questions of 53 tokens, judgements of 250, answers of 453, each on average, spread evenly from 1 to twice that.
A rate is measured in the middle of a call, when sequences of all ages are decoded, and holds no end of a shard.

A variant is MODEL:HOW. MODEL is `real`, the weights given, or `shape`, those of a 7B model, random. HOW:
full: as `runtime.engine_start: full` | quick: as `quick` | fp8: weights of 8 bits | fp8-all: KV cache, too | v1, v2: with
that model runner of vLLM, its code between scheduler and model | fp8-v2, fp8-all-v2: both | invariant: `engine.repeatability:
batch_invariant`. VLLM 0.23 takes runner v2 for Llama, Mistral and Qwen3 and v1 for other architectures, 0.32 takes v2.

Our stages record whole CUDA graphs for steps of up to twice as many tokens as sequences. `pieces` (v2-pieces, fp8-v2-pieces)
has vLLM's own kinds for steps of that size: whole where all sequences decode, in pieces around attention where prompts are
read. `decode` (v2-decode) has these for no more tokens than sequences, and quick-decode for decoding alone. Then a step in
which the end of a prompt is read beside a full batch is launched kernel by kernel: with answers of 453 tokens, by
arithmetic, two thirds of all steps.

Each variant is a process of its own, so one that fails leaves the others. All import vLLM at the beginning, side by side;
`--together` of them start their engines side by side, with a KV cache of a fixed size, and then measure in turn, while the
others wait, `--rounds` times. (`start_s` is that of an engine alone with `--together 1`.) With `--beside 2` a variant is two
engines that measure at the same time: its rate is the sum of theirs, and `overlap` the part of the time in which both were
counted.

`full` measures bare vLLM and our stages at each length, `quick`s and `invariant` our answers, the others our stages, unless
--ways and --kinds say otherwise. The ways `top_p_1` and `greedy` are our stages without `top_p` and without any draw: what
choosing a token costs. `same_in_company` is the share of --rows rows, with seeds, that get the same 48 tokens in reversed
halves as together; `same_as_full` those that get what the variant `full` of that model gave, where both have one runner.
The JSON is written after each measurement; the lines for gpus.yaml are printed where no engines share the GPU.
"""

import argparse
import contextlib
import json
import logging
import math
import os
import queue
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from engines import HOWS, MEAN, choose_graphs, choose_runner, of_length, params_of, questions, ways_of
from shapes import with_shape

from scalequest.domains import wording
from scalequest.io import write_json
from scalequest.params import Params
from scalequest.run.tune import STEPS, steady_pace
from scalequest.runtime.facts import hardware
from scalequest.sampling.vllm import prepare_environment

USED = ("fp8-all", "fp8-all-v2", "fp8", "fp8-v2", "full", "v2")  # whose rates gpus.yaml takes; a later one wins
VARIANTS = "real:full,shape:full,real:fp8,shape:fp8-all,real:quick,real:invariant"
SHAPE = "qwen2-math-7b"
# Lines of vLLM's log and of ours that say what a start was spent on.
TOOK = re.compile(r"took|finished in|seconds|\bsecs\b|ready after|follows its seeds", re.IGNORECASE)
TOKENS = 48  # per row of the comparison of bytes


# --------------------------------------------------------------------------------------------------- one variant, alone


def kinds_and_ways(args: argparse.Namespace, how: str) -> tuple[list[str], list[str]]:
    """What a variant measures in a round."""
    kinds = args.kinds or ("response" if how in ("quick", "quick-decode", "invariant") else ",".join(MEAN))
    ways = args.ways or ("bare,ours" if how == "full" else "ours")
    return kinds.split(","), ways.split(",")


def bytes_of(engine: Any, params: Params, n: int) -> dict[str, Any]:
    """Whether ``n`` rows with seeds keep their tokens in other company, and their texts, to compare with other variants."""
    from scalequest.params import Sampling

    sampling = Sampling(temperature=1.0, top_p=0.95, max_tokens=TOKENS, shard_size=n)
    words, complete = wording(params.domain), engine.complete_rows(sampling)
    prompts = engine.chat.conversations([[words.solve_prompt(text)] for text in questions(n)])
    together = [c.text for c in complete(prompts, range(n))]
    halves: dict[int, str] = {}
    for part in (range(1, n, 2)[::-1], range(0, n, 2)):
        found = complete([prompts[row] for row in part], list(part))
        halves |= dict(zip(part, [c.text for c in found], strict=True))
    same = sum(together[row] == text for row, text in halves.items())
    return {"same_in_company": f"{same} of {n}", "texts": together}


def child(args: argparse.Namespace) -> None:
    """Measure one variant; results are lines on standard output. It waits before its start and before each measurement."""

    def tell(**found: Any) -> None:
        print("RESULT " + json.dumps(found), flush=True)

    def wait() -> None:
        if not sys.stdin.readline():  # the parent is gone
            os._exit(1)

    logging.basicConfig(format="%(message)s")
    logging.getLogger("scalequest").setLevel(logging.INFO)
    begin = time.perf_counter()
    model_name, how = args.child.split(":")
    params = params_of(args, model_name, how)
    kinds, each = kinds_and_ways(args, how)
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "INFO")
    choose_runner(how)
    choose_graphs(how)
    prepare_environment(params.engine, params.runtime)
    import torch
    import vllm

    from scalequest.sampling.engine import Engine

    _ = vllm.LLM  # it imports what it needs when it is first asked for
    tell(
        import_s=round(time.perf_counter() - begin, 1), versions={"vllm": vllm.__version__, "torch": torch.__version__}
    )
    wait()
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        model, loading = (args.model, {}) if model_name == "real" else with_shape(args.model, SHAPE, scratch)
        begin = time.perf_counter()
        engine = Engine(model, params.engine, params.runtime, row_seeds=True, **loading)
        tell(start_s=round(time.perf_counter() - begin, 1), started=True)
        wait()
        if model_name == "real":
            tell(**bytes_of(engine, params, args.rows))
        for kind in args.rounds * kinds:
            n = args.max_num_seqs * (2 + -(-STEPS // MEAN[kind]))
            prompt, ways = ways_of(engine, params, kind, n, model)
            for way in each:
                engine._llm.reset_prefix_cache()
                tell(due=f"{kind} {way}")
                wait()
                try:
                    with of_length(MEAN[kind], 2 * n):
                        pace = steady_pace(engine._llm, ways[way], max(2, MEAN[kind] // 2), args.seconds)
                except Exception as error:
                    tell(**{f"error_{kind}_{way}": f"{type(error).__name__}: {error}"[:500]})
                    continue
                tell(
                    kind=kind, way=way, tokens_per_s=round(pace.tokens_per_s, 1), steps=pace.steps,
                    ms_per_step=round(1000 * pace.seconds / max(1, pace.steps), 2), mean_prompt_tokens=round(prompt, 1),
                    window=[pace.begin, pace.begin + pace.seconds],
                )  # fmt: skip
    tell(done=True)
    os._exit(0)


# --------------------------------------------------------------------------------------------------------- all of them


class EngineProcess:
    """One engine of a variant: it imports at once, and starts and measures when it is let go."""

    def __init__(self, name: str, arguments: Sequence[str], log: Path) -> None:
        self.name, self._lines, self.ended = name, queue.Queue[str | None](), False
        self._log = log.open("a", encoding="utf-8")
        command = [sys.executable, __file__, *arguments, "--child", name]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put(None)

    def go(self) -> None:
        """Let it go on: to its engine's start, then to each measurement."""
        assert self._process.stdin
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write("go\n")
            self._process.stdin.flush()

    def results(self, limit_s: float, *last: str) -> Iterator[dict[str, Any]]:
        """Its results as they come, until one has a key of ``last`` or it ends; an ``error`` if it ends badly."""
        if self.ended:
            return
        end, tail = time.monotonic() + limit_s, [""]
        try:
            while (line := self._lines.get(timeout=max(0.1, end - time.monotonic()))) is not None:
                self._log.write(line)
                if line.startswith("RESULT "):
                    result = json.loads(line.removeprefix("RESULT "))
                    yield result
                    if not result.keys().isdisjoint(last):
                        return
                    continue
                if TOOK.search(line):
                    yield {"log": line.strip()[-160:]}
                tail = [*tail, line.strip()][-12:]
        except queue.Empty:
            self.ended = True
            self._process.kill()
            yield {"error": f"not done after {limit_s:.0f} s: {tail[-1][-300:]}"}
            return
        self.ended = True
        if self._process.wait() != 0:
            yield {"error": " | ".join(tail)[-1500:]}

    def stop(self) -> None:
        """End the process and wait until the card's memory is free again."""
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()


def measured(
    engines: Sequence[EngineProcess], limit_s: float, note: Callable[[dict[str, Any]], None], most: float = math.inf
) -> None:
    """Let engines of one variant, whose starts are over, measure ``most`` times at the same time; note the rates of all of
    them together.
    """
    if any(engine.ended for engine in engines):  # one that did not start; its error was noted
        return
    going, done = list(engines), 0
    while going and done < most:
        round_of: list[dict[str, Any]] = []
        tried = False
        for engine in going:
            engine.go()
        for engine in list(going):
            for result in engine.results(limit_s, "due", "done"):
                tried |= "kind" in result or any(key.startswith("error_") for key in result)
                if "kind" in result:
                    round_of.append(result)
                elif "due" not in result:
                    note(result)
                if "done" in result:
                    going.remove(engine)
            if engine.ended and engine in going:
                going.remove(engine)
        if len(round_of) == len(engines):
            note(together(round_of))
        done += tried


def together(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One result of engines that measured the same at the same time: the sum of their rates."""
    windows = [result.pop("window") for result in results]
    if len(results) == 1:
        return results[0]
    common = min(end for _, end in windows) - max(begin for begin, _ in windows)
    return results[0] | {
        "tokens_per_s": round(sum(result["tokens_per_s"] for result in results), 1),
        "ms_per_step": round(sum(result["ms_per_step"] for result in results) / len(results), 2),
        "steps": sum(result["steps"] for result in results),
        "engines": len(results),
        "overlap": round(max(0.0, common) / max(end - begin for begin, end in windows), 2),
    }


def gpus_yaml(results: Sequence[dict[str, Any]]) -> str:
    """The lines of a GPU in gpus.yaml, of variants as stages use them: our stages' rates, else bare vLLM's; medians."""
    sizes, lines = {"real": 1.5, "shape": 7.6}, []
    for key, fp8 in (("generated_tokens_per_s", False), ("generated_tokens_per_s_fp8", True)):
        hows = [how for how in USED if how.startswith("fp8") == fp8]
        found = []
        for kind in MEAN:
            rates: dict[float, float] = {}
            for how, way in ((how, way) for way in ("bare", "ours") for how in hows):
                for model, size in sizes.items():
                    wanted = (f"{model}:{how}", kind, way)
                    of_rounds = [r["tokens_per_s"] for r in results if (r["variant"], r["kind"], r["way"]) == wanted]
                    rates |= {size: statistics.median(of_rounds)} if of_rounds else {}
            found += [f"      {kind}: {[list(row) for row in sorted(rates.items())]}"] if rates else []
        lines += [f"    {key}:", *found] if found else []
    return "\n".join(lines)


def main() -> None:
    """Measure all variants in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="a model of about 1.5B; `shape` takes its tokenizer")
    parser.add_argument("--out", type=Path, default=Path("lengths.json"))
    parser.add_argument("--variants", default=VARIANTS)
    parser.add_argument("--kinds", help="question,judgement,response, or some; default: by the variant")
    parser.add_argument("--ways", help="of bare, ours, and ours as top_p_1 and greedy; default: by the variant")
    parser.add_argument("--together", type=int, default=3, help="variants that start side by side; 1 with --beside")
    parser.add_argument("--beside", type=int, default=1, help="engines of a variant that measure at the same time")
    parser.add_argument("--rounds", type=int, default=1, help="times that the variants of --together measure in turn")
    parser.add_argument("--rows", type=int, default=64, help="rows whose bytes are compared")
    parser.add_argument("--seconds", type=float, default=3.0, help="time that is counted per measurement")
    parser.add_argument("--limit", type=float, default=150.0, help="seconds for a start, or for a measurement")
    parser.add_argument("--max-num-seqs", type=int, default=512)
    parser.add_argument("--max-model-len", type=int, default=1536)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), help="default: the profile's")
    parser.add_argument("--params", default="params.yaml", help="a profile or a parameter file")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(args)
    if args.beside > 1:
        args.together = 1
    if args.rounds < 1:
        parser.error(f"--rounds {args.rounds}: expected 1 or more")
    names = args.variants.split(",")
    if unknown := [n for n in names if n.split(":")[0] not in ("real", "shape") or n.partition(":")[2] not in HOWS]:
        parser.error(f"--variants: {unknown[0]}: expected real or shape, a colon, and one of {', '.join(HOWS)}")
    found: dict[str, Any] = {
        "model": str(args.model), "machine": hardware(), "max_num_seqs": args.max_num_seqs, "mean_tokens": MEAN,
        "together": args.together, "beside": args.beside, "rounds": args.rounds,
        "variants": {name: {"log": []} for name in names}, "results": [],
    }  # fmt: skip
    begin, texts = time.monotonic(), {}

    def note(name: str, result: dict[str, Any]) -> None:
        """Keep one result, and write all."""
        facts = found["variants"][name]
        if "log" in result:
            facts["log"].append(result["log"])
            return
        if "texts" in result:
            texts[name] = result.pop("texts")
            if (full := texts.get("real:full")) and name != "real:full":
                result["same_as_full"] = f"{sum(map(str.__eq__, full, texts[name]))} of {args.rows}"
        if "kind" in result:
            found["results"].append({"variant": name} | result)
        else:
            facts.update(result)
        write_json(args.out, found)
        print(f"{time.monotonic() - begin:6.1f} s  {name:<16}{json.dumps(result)[:400]}", flush=True)

    variants = [
        [EngineProcess(name, sys.argv[1:], args.out.with_suffix(".log")) for _ in range(args.beside)] for name in names
    ]
    for group in (variants[at : at + args.together] for at in range(0, len(variants), args.together)):
        engines = [engine for variant in group for engine in variant]
        for engine in engines:
            engine.go()
        for engine in engines:
            for result in engine.results(args.limit, "started"):
                note(engine.name, result)
        for turn in range(1, args.rounds + 1):
            for variant in group:
                name = variant[0].name
                kinds, ways = kinds_and_ways(args, name.partition(":")[2])
                most = len(kinds) * len(ways) if turn < args.rounds else math.inf
                measured(variant, args.limit, partial(note, name), most)
        for engine in engines:
            engine.stop()
    if args.beside == 1:
        print(gpus_yaml(found["results"]))


if __name__ == "__main__":
    main()
