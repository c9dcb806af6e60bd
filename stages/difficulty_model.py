"""Train the difficulty scorer: question in, fail rate out, mean squared error (paper, difficulty filter).

    python -m stages.difficulty_model --base models/base/difficulty --seeds data/seeds.parquet --attempts data/attempts
        --out models/difficulty --metrics M.json

A share of the labelled seeds is held out; the paper reports no accuracy of its scorer, this stage reports the correlation.
"""

import argparse
import random
from typing import Any

from scalequest.answers.attempts import fail_rates
from scalequest.errors import UserError
from scalequest.io import rounded
from scalequest.models.chat import ChatFormat
from scalequest.models.weights import load_chat
from scalequest.records import ATTEMPT, PROBLEM, read_rows
from scalequest.runtime.stage import StageRun, run_stage
from scalequest.training.examples import ScoredText, hold_out
from scalequest.training.job import train
from scalequest.training.regression import Regression


def ranks(values: list[float]) -> list[float]:
    """Rank of each value, ties sharing their mean rank."""
    order = sorted(range(len(values)), key=values.__getitem__)
    result = [0.0] * len(values)
    start = 0
    for end in range(1, len(order) + 1):
        if end == len(order) or values[order[end]] != values[order[start]]:
            for index in order[start:end]:
                result[index] = (start + end - 1) / 2
            start = end
    return result


def spearman(first: list[float], second: list[float]) -> float:
    """Rank correlation in [-1, 1]; 0 where one side does not vary, because then nothing is ranked."""
    a, b = ranks(first), ranks(second)
    mean = (len(a) - 1) / 2
    covariance = sum((x - mean) * (y - mean) for x, y in zip(a, b, strict=True))
    spread = (sum((x - mean) ** 2 for x in a) * sum((y - mean) ** 2 for y in b)) ** 0.5
    return covariance / spread if spread else 0.0


def labelled(chat: ChatFormat, seeds: list[dict[str, Any]], rates: dict[str, float]) -> dict[str, ScoredText]:
    """One text a labelled seed, by id; the input is the question alone."""
    return {
        row["id"]: ScoredText(chat.user_turn(row["question"]), rates[row["id"]]) for row in seeds if row["id"] in rates
    }


def main(args: argparse.Namespace, run: StageRun) -> None:
    """Split, train, correlate."""
    params = run.params.difficulty_model
    rates = fail_rates(read_rows(args.attempts, ATTEMPT))
    texts = labelled(load_chat(args.base), read_rows(args.seeds, PROBLEM), rates)
    learned, held_out = hold_out(sorted(texts), params.holdout_frac, run.params.seed)
    if not learned or len(held_out) < 2:
        raise UserError(f"difficulty_model: {len(texts)} labelled seeds give {len(learned)} to train on and {len(held_out)} held out, at least 1 and 2 needed; raise difficulty_labels.n_seeds")  # fmt: skip
    random.Random(run.params.seed).shuffle(learned)
    trained = train(
        run,
        Regression(),
        args.base,
        args.out,
        [texts[i] for i in learned],
        params,
        probe=[texts[i].ids for i in held_out],
    )
    scores = trained.scores
    labels = [texts[i].label for i in held_out]
    correlation = spearman(scores, labels)
    mean = sum(texts[i].label for i in learned) / len(learned)
    held = {
        "problems": len(held_out),
        "spearman": rounded(correlation),
        "mse": rounded(sum((s - y) ** 2 for s, y in zip(scores, labels, strict=True)) / len(labels)),
        "mse_of_the_mean": rounded(sum((mean - y) ** 2 for y in labels) / len(labels)),
    }
    flags = trained.flags | {"no_correlation": correlation <= 0}
    run.metrics(args.metrics, trained.metrics | {"held_out": held}, flags)


if __name__ == "__main__":
    run_stage(main, __doc__, paths=("base", "seeds", "attempts", "out", "metrics"))
