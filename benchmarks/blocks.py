"""What the size of the KV cache's blocks costs on a CPU: prompts share whole blocks only.

    python benchmarks/blocks.py models/base/judge [--sizes 32 128]

For each size an engine in a process of its own judges 64 made-up questions with the few-shot examples, and answers 16 of
them four times in 40 tokens. Prints CPU seconds, and how many tokens of the prompts were known already.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import scalequest.sampling.vllm as engines
from scalequest.domains import wording
from scalequest.params import ReasoningGymSource
from scalequest.problems.sources import load_problems
from scalequest.run.profile import load_profile


def measured(model: Path, size: int) -> dict[str, Any]:
    """CPU seconds and shared tokens of both kinds of request."""
    from vllm import SamplingParams

    from scalequest.sampling.engine import Engine

    engines.CPU_BLOCK_SIZE = size
    params, words = load_profile(), wording("maths")
    engine = Engine(model, params.engine, params.runtime, row_seeds=True)
    config: dict[str, Any] = {}
    source = ReasoningGymSource(
        kind="reasoning_gym", dataset="gsm_symbolic", n=64, seed=9_000_000, templates="all", config=config
    )
    questions = [row["question"] for row in load_problems("gsm_symbolic", source, 0, need_solution=False)]
    turns = {
        "judged": ([words.judge_turns(text, "few_shot") for text in questions], 8),
        "answered": ([[words.solve_prompt(text)] for text in questions[:16] for _ in range(4)], 40),
    }
    found: dict[str, Any] = {"block_size": engine._llm.llm_engine.vllm_config.cache_config.block_size}
    for kind, (conversations, tokens) in turns.items():
        prompts = [{"prompt_token_ids": ids} for ids in engine.chat.conversations(conversations)]
        settings = [SamplingParams(seed=i, max_tokens=tokens, ignore_eos=True) for i in range(len(prompts))]
        start = time.process_time()
        outputs = engine._llm.generate(prompts, settings, use_tqdm=False)
        found[kind] = {
            "cpu_s": round(time.process_time() - start, 1),
            "prompt_tokens": sum(len(output.prompt_token_ids) for output in outputs),
            "known": sum(output.num_cached_tokens for output in outputs),
            "generated": sum(len(output.outputs[0].token_ids) for output in outputs),
        }
    return found


def main() -> None:
    """Measure each size in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--sizes", type=int, nargs="+", default=[32, 128])
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print("RESULT " + json.dumps(measured(args.model, args.child)))
        return
    for size in args.sizes:
        command = [sys.executable, __file__, str(args.model), "--child", str(size)]
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        print(*(line.removeprefix("RESULT ") for line in output.splitlines() if line.startswith("RESULT ")))


if __name__ == "__main__":
    main()
