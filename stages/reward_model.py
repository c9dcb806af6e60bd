"""Train an outcome reward model on right against wrong answers to the seeds.

    python -m stages.reward_model --base models/base/reward --seeds data/seeds.parquet --attempts data/attempts
        --out models/reward --metrics M.json

Not in the paper, which takes InternLM2-7B-Reward: with `reward_model.method: none` the fetched model is taken as it is.
"""

import argparse
from typing import Any

from scalequest.domains import wording
from scalequest.errors import UserError
from scalequest.io import rounded
from scalequest.models.chat import ChatFormat
from scalequest.models.folder import link_model
from scalequest.models.weights import load_chat
from scalequest.outcomes import MISSING, RIGHT, WRONG
from scalequest.records import ATTEMPT, PROBLEM, read_rows
from scalequest.runtime.stage import StageRun, run_stage
from scalequest.training.examples import Pair, hold_out
from scalequest.training.job import train
from scalequest.training.reward import Reward


def answer_pairs(
    chat: ChatFormat, prompt: str, problem: dict[str, Any], attempts: list[dict[str, Any]], most: int
) -> list[Pair]:
    """Right against wrong solutions of one seed to ``prompt``, at most ``most`` pairs.

    Right are the sampled ones that match, then the seed's own: a sampled one first, so that the model learns what is right
    rather than who wrote it. Wrong are those that do not match or give no answer. Cut samples take no part. Pairs with equal texts cannot occur: one is right, one wrong.
    """
    ended = [row for row in attempts if row["finish_reason"] == "stop"]
    right = [*dict.fromkeys(row["response"] for row in ended if row["outcome"] == RIGHT), problem["solution"]]
    wrong = list(dict.fromkeys(row["response"] for row in ended if row["outcome"] in (WRONG, MISSING)))
    asked = chat.user_turn(prompt)
    pairs = [(right[i % len(right)], text) for i, text in enumerate(wrong)][:most]
    return [Pair(asked, chat.encode(good), chat.encode(bad)) for good, bad in pairs]


def main(args: argparse.Namespace, run: StageRun) -> None:
    """Pair, split, train, test."""
    params = run.params.reward_model
    if params.method == "none":
        link_model(args.base, args.out)
        run.metrics(args.metrics, {"examples": 0})
        return
    chat, ask = load_chat(args.base), wording(run.params.domain).solve_prompt
    attempts: dict[str, list[dict[str, Any]]] = {}
    for row in read_rows(args.attempts, ATTEMPT):
        attempts.setdefault(row["problem_id"], []).append(row)
    pairs = {
        row["id"]: found
        for row in read_rows(args.seeds, PROBLEM)
        if (tried := attempts.get(row["id"]))
        and (found := answer_pairs(chat, ask(row["question"]), row, tried, params.pairs_per_question))
    }
    learned, held_out = hold_out(sorted(pairs), params.holdout_frac, run.params.seed)
    if not learned or not held_out:
        raise UserError(
            f"reward_model: {len(pairs)} of {len(attempts)} labelled seeds have a wrong answer to set against a right one, at "
            "least 2 needed; raise difficulty_labels.n_seeds or temperature, or add harder seeds"
        )
    tests = [pair for i in held_out for pair in pairs[i]]
    trained = train(
        run, Reward(), args.base, args.out, [pair for i in learned for pair in pairs[i]], params,
        probe=[ids for pair in tests for ids in (pair.prompt + pair.chosen, pair.prompt + pair.rejected)],
    )  # fmt: skip
    correct = [good > bad for good, bad in zip(trained.scores[::2], trained.scores[1::2], strict=True)]
    accuracy = sum(correct) / len(correct)
    held = {"pairs": len(tests), "accuracy": rounded(accuracy)}
    flags = trained.flags | {"coin_reward": accuracy <= 0.5}
    run.metrics(args.metrics, trained.metrics | {"held_out": held}, flags)


if __name__ == "__main__":
    run_stage(main, __doc__, paths=("base", "seeds", "attempts", "out", "metrics"))
