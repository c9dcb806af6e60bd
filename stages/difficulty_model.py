"""Train the difficulty scorer: question in, fail rate out, mean squared error (paper, difficulty filter).

    python -m stages.difficulty_model --base models/base/difficulty --seeds data/seeds.parquet --attempts data/attempts
        --out models/difficulty --metrics M.json --plot P.csv

A share of the labelled seeds is held out; the paper reports no accuracy of its scorer, this stage reports the correlation.
"""

import argparse
import random
from collections.abc import Sequence
from typing import Any

from scalequest.answers.attempts import fail_rates
from scalequest.errors import UserError
from scalequest.io import rounded
from scalequest.models.chat import ChatFormat
from scalequest.models.weights import load_chat
from scalequest.records import ATTEMPT, PROBLEM, read_rows
from scalequest.runtime.stage import StageRun, run_stage
from scalequest.statistics import (
    paired_difference,
    rank_correlation,
    rank_correlation_above_chance,
    rank_correlation_error,
    reported,
)
from scalequest.training.examples import ScoredText, hold_out
from scalequest.training.job import CURVE, train
from scalequest.training.regression import Regression


def labelled(chat: ChatFormat, seeds: list[dict[str, Any]], rates: dict[str, float]) -> dict[str, ScoredText]:
    """One text per labelled seed, by id; the input is the question alone."""
    return {
        row["id"]: ScoredText(chat.user_turn(row["question"]), rates[row["id"]], row["id"])
        for row in seeds
        if row["id"] in rates
    }


def held_out_metrics(
    scores: Sequence[float], labels: Sequence[float], mean: float
) -> tuple[dict[str, Any], dict[str, bool]]:
    """What the scorer is worth on N seeds that it was not trained on.

    Args:
        scores: its N scores.
        labels: the N fail rates.
        mean: mean fail rate of the seeds that it was trained on, the guess that needs no scorer.
    """
    correlation, n = rank_correlation(scores, labels), len(labels)
    own = [(score - label) ** 2 for score, label in zip(scores, labels, strict=True)]
    guess = [(mean - label) ** 2 for label in labels]
    gain = paired_difference(own, guess)
    metrics = {
        "problems": n,
        "spearman": rounded(correlation),
        "spearman_standard_error": reported(rank_correlation_error(n)),
        "mse": rounded(sum(own) / n),
        "mse_of_the_mean": rounded(sum(guess) / n),
        "mse_below_the_mean_by": rounded(gain.value),
        "mse_below_the_mean_by_standard_error": reported(gain.standard_error),
    }
    # A scorer may rank and yet be worse than a constant; a coin may rank 7 items a little.
    ranks = rank_correlation_above_chance(correlation, n)
    return metrics, {"no_correlation": not ranks or gain.value <= 0}


def main(args: argparse.Namespace, run: StageRun) -> None:
    """Split, train, correlate."""
    params = run.params.difficulty_model
    rates = fail_rates(read_rows(args.attempts, ATTEMPT))
    texts = labelled(load_chat(args.base), read_rows(args.seeds, PROBLEM), rates)
    learned, held_out = hold_out(sorted(texts), params.holdout_frac, run.params.seed, "held out/difficulty")
    if not learned or len(held_out) < 2:
        raise UserError(
            f"difficulty_model: {len(texts)} labelled seeds give {len(learned)} to train on and {len(held_out)} held out. "
            "Expected at least 1 and 2. Raise difficulty_labels.n_seeds."
        )
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
    mean = sum(texts[i].label for i in learned) / len(learned)
    held, warnings = held_out_metrics(trained.scores, [texts[i].label for i in held_out], mean)
    run.metrics(args.metrics, trained.metrics | {"held_out": held}, trained.flags | warnings)
    run.plot(args.plot, CURVE, trained.steps())


if __name__ == "__main__":
    run_stage(main, __doc__, paths=("base", "seeds", "attempts", "out", "metrics", "plot"))
