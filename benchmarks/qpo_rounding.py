"""How much of a DPO update is left in a bfloat16 model, rounded to nearest and rounded stochastically.

    python -m benchmarks.qpo_rounding models/base/student [--held-out 32] [--steps 12]

The model is put on the bfloat16 grid first, as a generator that QFT wrote is. It is then trained by
the pipeline's own DPO (full fine-tuning in float32, batch 4) on made-up pairs: chosen is a word
problem, rejected the bare sum. The trained weights are cast both ways, and the margin on held-out
pairs is computed in float32 for each, so that only the cast differs. Prints one row of a Markdown
table per setting.
"""

import argparse
import random
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scalequest.models.weights import load_chat, load_tokenizer, quiet_libraries, save_model
from scalequest.run.profile import load_profile
from scalequest.runtime.stage import StageRun
from scalequest.training.causal import load_causal
from scalequest.training.dpo import DPO
from scalequest.training.examples import Pair
from scalequest.training.job import train
from scalequest.training.rounding import round_model

BETA, SEED = 0.1, 17
# name, learning rate, warm-up fraction, steps of 4 pairs
SETTINGS = (("gpu-135m: 5e-6, warm-up 0.1", 5e-6, 0.1, 44), ("paper: 5e-7, warm-up 0.26", 5e-7, 0.26, 60))
HEAD = (
    "settings", "steps", "margin in float32", "saved to nearest", "saved stochastically", "weights moved (nearest)",
    "update kept (nearest)", "update kept (stochastic)",
)  # fmt: skip


def make_pairs(model: Path, n: int) -> list[Pair]:
    """Word problems against bare sums, with numbers drawn from SEED."""
    chat, draw = load_chat(model), random.Random(SEED)
    pairs = []
    for number in range(n):
        a, b, name = draw.randint(2, 99), draw.randint(2, 99), draw.choice(["Tom", "Ada", "Lin", "Sam"])
        thing = draw.choice(["apples", "books", "coins", "eggs"])
        chosen = f"{name} has {a} {thing} and buys {b} more. How many {thing} does {name} have?"
        pairs.append(
            Pair(chat.question_prefix, chat.question(chosen), chat.question(f"What is {a} + {b}?"), str(number))
        )
    return pairs


def flat(model: Any) -> dict[str, Any]:
    """The parameters by name; tied ones once."""
    return {name: parameter.detach().double() for name, parameter in model.named_parameters()}


def row(base: Path, trained: Path, tests: Sequence[Pair], dpo: DPO) -> list[float]:
    """Margins (float32, nearest, stochastic), share of weights moved, shares of the update kept (nearest, stochastic)."""
    import torch

    def margin(model: Any) -> float:
        values = dpo.measure(model.eval(), tests)
        return BETA * sum(new - old for new, old in zip(values, reference, strict=True)) / len(tests)

    start = load_causal(base, torch.float32, SEED)
    reference, before = dpo.measure(start.eval(), tests), flat(start)
    exact = load_causal(trained, torch.float32, SEED)
    margins, update = [margin(exact)], {name: weight - before[name] for name, weight in flat(exact).items()}
    size = sum(float((step * step).sum()) for step in update.values())
    moved, kept = 0.0, []
    for cast in (lambda net: net.to(torch.bfloat16), lambda net: round_model(net, "bfloat16", SEED)):
        net = cast(load_causal(trained, torch.float32, SEED)).to(torch.float32)  # computed in float32 again
        margins.append(margin(net))
        found = {name: weight - before[name] for name, weight in flat(net).items()}
        kept.append(sum(float((found[name] * step).sum()) for name, step in update.items()) / size)
        if len(kept) == 1:
            changed = sum(int((step != 0).sum()) for step in found.values())
            moved = changed / sum(step.numel() for step in found.values())
    return [*margins, moved, *kept]


def main() -> None:
    """Print the table."""
    import torch

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--held-out", type=int, default=32, help="pairs to measure the margin on")
    parser.add_argument("--steps", type=int, help="optimizer steps at most (default: 44 and 60)")
    args = parser.parse_args()
    quiet_libraries()
    params = load_profile()
    print("| " + " | ".join(HEAD) + " |\n|" + "---|" * len(HEAD))
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder) / "base"
        save_model(load_causal(args.model, torch.bfloat16, SEED), load_tokenizer(args.model), base)
        for name, rate, warmup, whole in SETTINGS:
            steps = min(whole, args.steps or whole)
            pairs = make_pairs(base, 4 * steps + args.held_out)
            settings = params.qpo.model_copy(
                update={
                    "method": "full", "learning_rate": rate, "warmup_frac": warmup, "epochs": 1, "batch_size": 4,
                    "per_device_batch_size": 4,
                }
            )  # fmt: skip
            run = StageRun(params)
            train(run, DPO(BETA), base, Path(folder) / "out", pairs[: 4 * steps], settings, held_out=pairs[-4:])
            *margins, moved, nearest, stochastic = row(base, Path(folder) / "out", pairs[4 * steps :], DPO(BETA))
            cells = [name, str(steps), *(f"{margin:.4f}" for margin in margins)]
            cells += [f"{100 * share:.2f}%" for share in (moved, nearest, stochastic)]
            print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
