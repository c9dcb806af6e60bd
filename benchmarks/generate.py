"""Generated tokens a second of the generate stage, of a bare ``LLM.generate`` over all rows at
once, and of it with per-request seeds.

    python benchmarks/generate.py models/base/student [--rows 512] [--shard-size 64]
        [--max-tokens 128] [--rounds 3] [--max-num-seqs 64] [--shape qwen2-math-7b] [--params gpu-135m]
        [--dtype bfloat16] [--quantization fp8] [--kv-cache-dtype fp8] [--start quick]
        [--repeatability batch_invariant]

One engine in one process, the same prompts and sampling, the three in turn. The stage's time holds
its shards' seeding, its rows, its journal on disk and its output; starting the engine is in none of
them. Prints JSON. ``lengths.py`` measures the paper's three lengths, in several of these settings.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from shapes import add_shape, chosen_model

from scalequest.records import QUESTION, write_parts
from scalequest.run.profile import load_profile
from scalequest.runtime.facts import StageFacts
from scalequest.runtime.stage import StageRun
from scalequest.sampling.engine import Engine
from scalequest.sampling.questions import question_rows
from scalequest.sampling.shards import map_shards
from scalequest.sampling.vllm import seed_everything


def main() -> None:
    """Measure in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--rows", type=int, default=512)
    parser.add_argument("--shard-size", type=int, help="rows a shard; the profile's unless given")
    parser.add_argument("--max-tokens", type=int, help="tokens a row; the profile's unless given")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--max-num-seqs", type=int, help="sequences decoded at once; the profile's unless given")
    add_shape(parser)
    parser.add_argument("--params", default="params.yaml", help="a profile or a parameter file")
    for option, values in (
        ("--dtype", ("float32", "bfloat16")),
        ("--quantization", ("fp8",)),
        ("--kv-cache-dtype", ("fp8",)),
        ("--repeatability", ("seeded", "batch_invariant")),
    ):
        parser.add_argument(option, choices=values, help="engine setting; the profile's unless given")
    parser.add_argument(
        "--start", choices=("full", "quick", "vllm"), help="runtime.engine_start; the profile's unless given"
    )
    args = parser.parse_args()
    params = load_profile(args.params)
    given = {
        name: getattr(args, name)
        for name in ("dtype", "quantization", "kv_cache_dtype", "repeatability", "max_num_seqs")
    }
    engine_params = params.engine.model_copy(update={name: value for name, value in given.items() if value})
    runtime = params.runtime.model_copy(update={"engine_start": args.start or params.runtime.engine_start})
    sampling = params.generate.model_copy(update={"max_tokens": args.max_tokens or params.generate.max_tokens})
    shard_size = args.shard_size or sampling.shard_size
    scratch = tempfile.TemporaryDirectory()
    model, loading = chosen_model(args, Path(scratch.name))
    engine = Engine(model, engine_params, runtime, **loading)
    from vllm import SamplingParams

    complete = engine.complete(sampling, engine.chat.question_stops)
    prefix = engine.chat.question_prefix

    def settings(seed: int | None) -> SamplingParams:
        return SamplingParams(
            temperature=sampling.temperature, top_p=sampling.top_p, max_tokens=sampling.max_tokens, seed=seed,
            stop_token_ids=engine.chat.stop_ids, stop=list(engine.chat.question_stops),
        )  # fmt: skip

    def bare(round_: int, per_request_seeds: bool = False) -> int:
        seed_everything(round_)
        each = [settings(round_ * args.rows + row if per_request_seeds else None) for row in range(args.rows)]
        outputs = engine._llm.generate([{"prompt_token_ids": prefix}] * args.rows, each, use_tqdm=False)
        return sum(len(o.outputs[0].token_ids) for o in outputs)

    def stage(round_: int) -> int:
        def work(rows: Sequence[int], seed: int, shard: int) -> tuple[list[dict], int]:
            made = question_rows("benchmark", len(rows), shard, seed, prefix, complete)
            return made, sum(row["n_tokens"] for row in made)

        with tempfile.TemporaryDirectory() as folder:
            run = StageRun(params.model_copy(update={"seed": round_}), StageFacts("generate", Path(folder)))
            table = map_shards(run, range(args.rows), lambda: work, QUESTION, shard_size)
            write_parts(Path(folder) / "out", table)
        return sum(table["n_tokens"].to_pylist())

    ways: dict[str, Callable[[int], int]] = {
        "bare": bare,
        "stage": stage,
        "per_request_seeds": lambda round_: bare(round_, per_request_seeds=True),
    }
    bare(0)  # warm up
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for round_ in range(1, args.rounds + 1):
        for name, run in ways.items():
            start = time.perf_counter()
            tokens = run(round_)
            rates[name].append(round(tokens / (time.perf_counter() - start), 1))
    medians = {name: statistics.median(values) for name, values in rates.items()}
    print(
        json.dumps(
            {
                "model": args.shape or str(args.model), "rows": args.rows, "max_tokens": sampling.max_tokens, "shard_size": shard_size,
                "engine": engine_params.model_dump(), "tokens_per_s": rates,
                "ratio_to_bare": {name: round(value / medians["bare"], 3) for name, value in medians.items()},
            },
            indent=2,
        )
    )  # fmt: skip


if __name__ == "__main__":
    main()
