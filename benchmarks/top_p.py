"""Generated tokens a second with vLLM's own top-p and with ours, in turn, in one process, on the same prompts and seed.

    python benchmarks/top_p.py models/base/student [--rows 128] [--tokens 48] [--rounds 3]

Prints the tokens/s of each round, the ratio of the medians, and whether every token was the same.
"""

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

from scalequest.params import load_all
from scalequest.sampling.engine import Engine
from scalequest.sampling.vllm import seed_everything


def main() -> None:
    """Measure in pairs: stock, ours, stock, ours, ..."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--rows", type=int, default=128)
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    params = load_all()
    engine = Engine(args.model, params.engine, params.runtime)
    from vllm import SamplingParams
    from vllm.v1.sample.ops import topk_topp_sampler as sampler

    ours = sampler.apply_top_k_top_p
    stock = sampler.apply_top_k_top_p_pytorch
    settings = SamplingParams(temperature=1.0, top_p=params.generate.top_p, max_tokens=args.tokens, ignore_eos=True)
    prompts = [{"prompt_token_ids": engine.chat.question_prefix}] * args.rows

    def draw(top_p: Any) -> tuple[float, list[list[int]]]:
        sampler.apply_top_k_top_p = top_p
        seed_everything(1)
        start = time.perf_counter()
        outputs = engine._llm.generate(prompts, settings, use_tqdm=False)
        return args.rows * args.tokens / (time.perf_counter() - start), [list(o.outputs[0].token_ids) for o in outputs]

    draw(ours)  # warm up
    rates: dict[str, list[float]] = {"stock": [], "ours": []}
    same = True
    for _ in range(args.rounds):
        (stock_rate, expected), (our_rate, tokens) = draw(stock), draw(ours)
        rates["stock"].append(stock_rate)
        rates["ours"].append(our_rate)
        same &= tokens == expected
    for name, values in rates.items():
        print(f"{name}: {' '.join(f'{v:.0f}' for v in values)} tokens/s, median {statistics.median(values):.0f}")
    print(f"ratio {statistics.median(rates['ours']) / statistics.median(rates['stock']):.2f}, tokens equal: {same}")


if __name__ == "__main__":
    main()
