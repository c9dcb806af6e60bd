"""Keep, for each question, the response with the highest reward among those that give an answer (paper 2.5).

python -m stages.reward_select --questions data/filtered.parquet --responses data/responses --rewards data/rewards
    --out data/instruct.parquet --metrics M.json
"""

import argparse
from collections import Counter
from typing import Any

from scalequest.answers import announced_answer, normalise
from scalequest.errors import UserError
from scalequest.records import FILTERED, INSTRUCTION, RESPONSE, REWARD, read_rows, write_rows
from scalequest.stage import StageRun, rounded, run_stage


def select(
    question: dict[str, Any], responses: list[dict[str, Any]], rewards: dict[str, float], min_reward: float | None
) -> dict[str, Any] | str:
    """The training row of one question, or why it has none.

    A candidate ended by itself and gives an answer (the paper's rule: a box or an announcing phrase). The highest reward
    wins, the lowest sample number among equals. ``agreement``: share of all responses with the winner's final answer.
    """
    answers = {row["id"]: announced_answer(row["response"]) for row in responses}
    candidates = [row for row in responses if row["finish_reason"] == "stop" and answers[row["id"]]]
    if not candidates:
        return "no_answer"
    best = max(candidates, key=lambda row: (rewards[row["id"]], -row["sample"]))
    reward = rewards[best["id"]]
    if min_reward is not None and reward < min_reward:
        return "low_reward"
    final = answers[best["id"]] or ""
    same = sum(answer is not None and normalise(answer) == normalise(final) for answer in answers.values())
    return {
        "id": question["id"],
        "generator": question["generator"],
        "question": question["question"],
        "response": best["response"],
        "final_answer": final,
        "reward": reward,
        "agreement": same / len(responses),
        "n_candidates": len(candidates),
    }


def main(args: argparse.Namespace, run: StageRun) -> None:
    """Select for every question."""
    questions = read_rows(args.questions, FILTERED)
    rewards = {row["id"]: row["reward"] for row in read_rows(args.rewards, REWARD)}
    responses: dict[str, list[dict[str, Any]]] = {row["id"]: [] for row in questions}
    for row in read_rows(args.responses, RESPONSE):
        responses[row["question_id"]].append(row)
    selected = [select(q, responses[q["id"]], rewards, run.params.reward_select.min_reward) for q in questions]
    rows = [row for row in selected if isinstance(row, dict)]
    dropped = Counter(row for row in selected if isinstance(row, str))
    if not rows:
        raise UserError(
            f"no question is left after reward_select: of {len(questions)}, {dict(dropped)}; raise respond.max_tokens or "
            "n_samples, lower reward_select.min_reward, or take a solver that boxes its answer"
        )
    write_rows(args.out, rows, INSTRUCTION)
    mean_all = sum(rewards.values()) / len(rewards)
    run.metrics(
        args.metrics,
        {
            "questions": len(questions),
            "kept": len(rows),
            "dropped": {name: dropped[name] for name in ("no_answer", "low_reward")},
            "mean_reward": {
                "kept": rounded(sum(r["reward"] for r in rows) / len(rows), 4),
                "all": rounded(mean_all, 4),
            },
            "mean_agreement": rounded(sum(r["agreement"] for r in rows) / len(rows), 4),
            "mean_candidates": rounded(sum(r["n_candidates"] for r in rows) / len(rows), 4),
        },
    )


if __name__ == "__main__":
    run_stage(main, __doc__, paths=("questions", "responses", "rewards", "out", "metrics"))
