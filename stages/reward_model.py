"""Train an outcome reward model on right against wrong answers to the seeds.

    python -m stages.reward_model --base models/base/reward --seeds data/seeds.parquet --attempts data/attempts
        --out models/reward --metrics M.json --plot P.csv

Reports on held-out seeds whether it ranks right samples above wrong ones, and whether best-of-n by reward beats random.
Not in the paper, which takes InternLM2-7B-Reward: with `reward_model.method: none` the fetched model is taken as it is, and
measured on all labelled seeds, because it was trained on none of these samples.
"""

import argparse
import math
from collections.abc import Mapping, Sequence
from typing import Any

from scalequest.answers.best_of import best_of_n
from scalequest.domains import wording
from scalequest.errors import UserError
from scalequest.io import rounded
from scalequest.models.chat import ChatFormat
from scalequest.models.folder import link_model
from scalequest.models.weights import load_chat
from scalequest.outcomes import MISSING, RIGHT, WRONG
from scalequest.records import ATTEMPT, PROBLEM, read_rows
from scalequest.runtime.stage import StageRun, run_stage
from scalequest.sampling.score import score
from scalequest.statistics import (
    mean_error,
    proportion_above_chance,
    proportion_error,
    reported,
    shares_error,
    worse_error,
)
from scalequest.training.examples import Pair, hold_out
from scalequest.training.job import CURVE, train
from scalequest.training.reward import Reward

# Samples that go to the engine at once, where a released model is measured.
AT_ONCE = 4096


def answer_pairs(
    chat: ChatFormat,
    prompt: str,
    problem: dict[str, Any],
    attempts: list[dict[str, Any]],
    most: int,
    gold: bool = False,
) -> list[Pair]:
    """Right against wrong samples of one seed, at most ``most`` pairs.

    Both sides are one model's samples: against a person's solution the model would learn who wrote it, not what is right.
    Wrong samples do not match the answer or give none. Cut samples take no part.

    Args:
        chat: the reward model's chat format.
        prompt: what the solver was asked.
        problem: the seed.
        attempts: its samples (records.ATTEMPT).
        most: number of pairs at most; right samples take turns over the wrong ones.
        gold: use the seed's own solution as the chosen side where no sample is right.
    """
    ended = [row for row in attempts if row["finish_reason"] == "stop"]
    right = list(dict.fromkeys(row["response"] for row in ended if row["outcome"] == RIGHT))
    wrong = list(dict.fromkeys(row["response"] for row in ended if row["outcome"] in (WRONG, MISSING)))
    if not right and gold:
        right = [problem["solution"]]
    asked = chat.user_turn(prompt)
    pairs = [(right[i % len(right)], text) for i, text in enumerate(wrong)][:most] if right else []
    return [Pair(asked, chat.encode_words(good), chat.encode_words(bad), problem["id"]) for good, bad in pairs]


def ranking(attempts: Mapping[str, Sequence[Mapping[str, Any]]]) -> tuple[dict[str, Any], dict[str, bool]]:
    """How often a right sample of a seed has a higher reward than a wrong one of the same seed; equal rewards do not count.

    Each seed with both kinds counts once, by the share of its pairs: pairs of one seed are not independent.

    Args:
        attempts: ended samples with ``outcome`` and ``reward``, by seed.
    """
    shares, pairs = [], 0
    for rows in attempts.values():
        right = [row["reward"] for row in rows if row["outcome"] == RIGHT]
        wrong = [row["reward"] for row in rows if row["outcome"] in (WRONG, MISSING)]
        if right and wrong:
            pairs += len(right) * len(wrong)
            shares.append(sum(good > bad for good in right for bad in wrong) / (len(right) * len(wrong)))
    n = len(shares)
    error = worse_error(mean_error(shares), proportion_error(sum(shares), n))
    metrics = {
        "pairs": pairs,
        "problems_with_pairs": n,
        "accuracy": reported(sum(shares) / n if n else math.nan),
        "accuracy_standard_error": reported(error if n else math.nan),
    }
    return metrics, {"coin_reward": not proportion_above_chance(sum(shares), n, 0.5, error)}


def choosing(
    kind: str, attempts: Mapping[str, Sequence[Mapping[str, Any]]], seed: int
) -> tuple[dict[str, Any], dict[str, bool]]:
    """Right share of best-of-n by reward beside random, first and majority on the same seeds, and whether it beats random.

    ``best_of_n`` is of all seeds, ``by_difficulty`` of those of which few, half or most answers are right.
    """
    found = best_of_n(kind, list(attempts.values()), seed)
    if not found:
        return {"best_of_n": {"problems": 0}, "by_difficulty": {}}, {"best_of_n_is_random": True}
    metrics: dict[str, Any] = {"problems": found.problems}
    for rule, share in found.shares.items():
        metrics[rule] = {"right_frac": rounded(share), "standard_error": reported(found.errors[rule])}
    for rule, difference in found.reward_minus.items():
        metrics[f"reward_minus_{rule}"] = {
            "value": rounded(difference.value),
            "standard_error": reported(difference.standard_error),
            "p_value": rounded(difference.p_value),
        }
    by_difficulty = {band: in_band(band, rules) for band, rules in found.bands.items()}
    flags = {"best_of_n_is_random": not found.reward_minus["random"].above_zero}
    return {"best_of_n": metrics, "by_difficulty": by_difficulty}, flags


def in_band(band: str, rules: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """Right share of three rules on the seeds of a band; their number alone where every choice is as right as another."""
    n = len(rules["reward"])
    metrics: dict[str, Any] = {"problems": n}
    if band in ("none_right", "all_right"):
        return metrics
    for rule in ("reward", "majority", "random"):
        right_frac, error = sum(rules[rule]) / n, shares_error(rules[rule])
        metrics[rule] = {"right_frac": rounded(right_frac), "standard_error": rounded(error)}
    return metrics


def quality(
    kind: str, tested: Sequence[Mapping[str, Any]], rewards: Sequence[float], seed: int
) -> tuple[dict[str, Any], dict[str, bool]]:
    """What the rewards of N samples are worth: ``ranking`` and ``choosing``, seed problem by seed problem."""
    scored: dict[str, list[dict[str, Any]]] = {}
    for row, reward in zip(tested, rewards, strict=True):
        scored.setdefault(row["problem_id"], []).append({**row, "reward": reward})
    held, flags = ranking(scored)
    best, more = choosing(kind, scored, seed)
    return {"held_out": {"problems": len(scored)} | held} | best, flags | more


def main(args: argparse.Namespace, run: StageRun) -> None:
    """Pair, split, train, test; or test the fetched model."""
    params, words = run.params.reward_model, wording(run.params.domain)
    attempts: dict[str, list[dict[str, Any]]] = {}
    for row in read_rows(args.attempts, ATTEMPT):
        attempts.setdefault(row["problem_id"], []).append(row)
    problems = {row["id"]: row for row in read_rows(args.seeds, PROBLEM) if row["id"] in attempts}
    prompts = {i: words.solve_prompt(row["question"]) for i, row in problems.items()}
    if params.method == "none":
        link_model(args.base, args.out)
        tested = [row for rows in attempts.values() for row in rows if row["finish_reason"] == "stop"]
        # Scored by the engine and in the form that stage `reward` uses.
        rewards = score(
            run,
            args.base,
            tested,
            sequences=lambda row: (prompts[row["problem_id"]], row["response"]),
            form="answered",
            shard_size=AT_ONCE,
        )
        metrics, flags = quality(words.ANSWERS, tested, rewards, run.params.seed)
        run.metrics(args.metrics, {"examples": 0} | metrics, flags)
        run.plot(args.plot, CURVE, [])
        return
    chat = load_chat(args.base)
    learned, held_out = hold_out(sorted(problems), params.holdout_frac, run.params.seed, "held out/reward")
    pairs = [
        pair
        for i in learned
        for pair in answer_pairs(chat, prompts[i], problems[i], attempts[i], params.pairs_per_question, params.gold)
    ]
    if not pairs or not held_out:
        raise UserError(
            f"reward_model: {len(pairs)} right/wrong pairs from {len(learned)} labelled seeds, {len(held_out)} seeds held out. "
            "Expected at least 1 of each. Raise difficulty_labels.n_seeds, n_samples or temperature, add harder or easier seeds, or "
            "set reward_model.gold to use the seeds' own solutions where no sample is right."
        )
    tested = [row for i in held_out for row in attempts[i] if row["finish_reason"] == "stop"]
    trained = train(
        run,
        Reward(),
        args.base,
        args.out,
        pairs,
        params,
        probe=[chat.solution(prompts[row["problem_id"]], row["response"]) for row in tested],
    )
    metrics, flags = quality(words.ANSWERS, tested, trained.scores, run.params.seed)
    run.metrics(args.metrics, trained.metrics | metrics, trained.flags | flags)
    run.plot(args.plot, CURVE, trained.steps())


if __name__ == "__main__":
    run_stage(main, __doc__, paths=("base", "seeds", "attempts", "out", "metrics", "plot"))
