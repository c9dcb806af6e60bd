"""Question preference optimization: DPO towards the rewritten questions, the tuned generator as reference (paper 2.3).

    python -m stages.qpo --generator sums --base models/qft/sums --preferences data/preferences/sums.parquet
        --out models/qpo/sums --metrics M.json --plot P.csv

Prompt = the template up to the open user turn; both sides end with the token that QFT taught. Nothing of a sequence is
hidden from attention, and policy and reference share one precision.
"""

import argparse
from typing import Any

from scalequest.models.chat import ChatFormat
from scalequest.models.weights import load_chat
from scalequest.outcomes import KEPT
from scalequest.params import with_own
from scalequest.records import PREFERENCE, read_rows
from scalequest.runtime.stage import StageRun, run_stage
from scalequest.training.dpo import DPO, FEWEST_HELD_OUT
from scalequest.training.examples import Pair, hold_out
from scalequest.training.job import ACCURACY, CURVE, MARGIN, train


def question_pair(chat: ChatFormat, row: dict[str, Any]) -> Pair:
    """Chosen: the rewrite. Rejected: the original. Both with their end token."""
    return Pair(chat.question_prefix, chat.question(row["rewrite"]), chat.question(row["question"]), row["id"])


def split_pairs(pairs: list[Pair], frac: float, seed: int) -> tuple[list[Pair], list[Pair]]:
    """Pairs to learn from and pairs to test on, by a hash of seed and id.

    All are learned from, and none held out, where fewer than FEWEST_HELD_OUT would be. The warning `few_held_out` says so.
    """
    learned, tested = hold_out([pair.id for pair in pairs], frac, seed, "held out/qpo")
    if len(tested) < FEWEST_HELD_OUT or not learned:
        return pairs, []
    held = set(tested)
    return [p for p in pairs if p.id not in held], [p for p in pairs if p.id in held]


def main(args: argparse.Namespace, run: StageRun) -> None:
    """Train on the kept pairs."""
    params = with_own(run.params.qpo, run.params.generators[args.generator].qpo)
    chat = load_chat(args.base)
    kept = [row for row in read_rows(args.preferences, PREFERENCE) if row["verdict"] == KEPT]
    pairs = [question_pair(chat, row) for row in kept]
    learned, held_out = split_pairs(pairs, params.holdout_frac, run.params.seed)
    trained = train(run, DPO(beta=params.beta), args.base, args.out, learned, params, held_out=held_out)
    run.metrics(args.metrics, trained.metrics, trained.flags)
    run.plot(args.plot, (*CURVE, MARGIN, ACCURACY), trained.steps())


if __name__ == "__main__":
    run_stage(main, __doc__, paths=("base", "preferences", "out", "metrics", "plot"), names=("generator",))
