"""Question preference optimization: DPO towards the rewritten questions, the tuned generator as reference (paper 2.3).

    python -m stages.qpo --generator sums --base models/qft/sums --preferences data/preferences/sums.parquet
        --out models/qpo/sums --metrics M.json

Prompt = the template up to the open user turn; both sides end with the token that QFT taught. Nothing of a sequence is
hidden from attention, and policy and reference share one precision.
"""

import argparse
from typing import Any

from scalequest.models.chat import ChatFormat
from scalequest.models.weights import load_chat
from scalequest.outcomes import KEPT
from scalequest.records import PREFERENCE, read_rows
from scalequest.runtime.stage import StageRun, run_stage
from scalequest.training.dpo import DPO
from scalequest.training.examples import Pair
from scalequest.training.job import train


def question_pair(chat: ChatFormat, row: dict[str, Any]) -> Pair:
    """Chosen: the rewrite. Rejected: the original. Both with their end token."""
    return Pair(chat.question_prefix, chat.question(row["rewrite"]), chat.question(row["question"]))


def main(args: argparse.Namespace, run: StageRun) -> None:
    """Train on the kept pairs."""
    params = run.params.qpo
    chat = load_chat(args.base)
    kept = [row for row in read_rows(args.preferences, PREFERENCE) if row["verdict"] == KEPT]
    pairs = [question_pair(chat, row) for row in kept]
    trained = train(run, DPO(beta=params.beta), args.base, args.out, pairs, params)
    run.metrics(args.metrics, trained.metrics, trained.flags)


if __name__ == "__main__":
    run_stage(main, __doc__, paths=("base", "preferences", "out", "metrics"), names=("generator",))
