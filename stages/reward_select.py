"""Keep, for each question, the response with the highest reward among those that give an answer (paper 2.5).

python -m stages.reward_select --questions data/filtered.parquet --responses data/responses --rewards data/rewards
    --out data/instruct.parquet --metrics M.json

In a code run `reward_select.execute` runs every candidate in the sandbox first, with the assertions that its question states, and
drops those that raise, die or do not end. (A program that waits for input gets none, and raises.)
"""

import argparse
from collections import Counter
from collections.abc import Collection
from typing import Any

from scalequest.answers.check import final_answer, same_answer, with_examples
from scalequest.answers.sandbox import FAILED, KILLED, TIMEOUT, run_programs
from scalequest.errors import UserError
from scalequest.io import rounded
from scalequest.records import FILTERED, INSTRUCTION, RESPONSE, REWARD, read_rows, write_rows
from scalequest.runtime.stage import StageRun, run_stage


def select(
    question: dict[str, Any],
    responses: list[dict[str, Any]],
    rewards: dict[str, float],
    min_reward: float | None,
    domain: str,
    crashed: Collection[str] = (),
) -> dict[str, Any] | str:
    """The training row of one question, or why it has none.

    A candidate ended by itself and gives an answer (the paper's rule: a box or an announcing phrase; for code, a block that
    compiles), and its id is not among the ``crashed``. The highest reward wins, the lowest sample number among equals.
    ``agreement``: share of all responses with the winner's final answer.
    """
    answers = {row["id"]: final_answer(domain, row["response"]) for row in responses}
    complete = [row for row in responses if row["finish_reason"] == "stop" and answers[row["id"]]]
    candidates = [row for row in complete if row["id"] not in crashed]
    if not candidates:
        return "crashed" if complete else "no_answer"
    best = max(candidates, key=lambda row: (rewards[row["id"]], -row["sample"]))
    reward = rewards[best["id"]]
    if min_reward is not None and reward < min_reward:
        return "low_reward"
    final = answers[best["id"]] or ""
    same = sum(answer is not None and same_answer(domain, answer, final) for answer in answers.values())
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


def find_crashes(questions: list[dict[str, Any]], responses: dict[str, list[dict[str, Any]]]) -> set[str]:
    """Ids of the responses whose program raises, dies or does not end when it is run with its question's assertions."""
    sources = {
        row["id"]: with_examples(question["question"], program)
        for question in questions
        for row in responses[question["id"]]
        if (program := final_answer("code", row["response"]))
    }
    verdicts = dict(zip(sources, run_programs(list(sources.values())), strict=True)) if sources else {}
    return {name for name, verdict in verdicts.items() if verdict.outcome in (FAILED, KILLED, TIMEOUT)}


def main(args: argparse.Namespace, run: StageRun) -> None:
    """Select for every question."""
    params, domain = run.params.reward_select, run.params.domain
    questions = read_rows(args.questions, FILTERED)
    rewards = {row["id"]: row["reward"] for row in read_rows(args.rewards, REWARD)}
    responses: dict[str, list[dict[str, Any]]] = {row["id"]: [] for row in questions}
    for row in read_rows(args.responses, RESPONSE):
        responses[row["question_id"]].append(row)
    crashed = find_crashes(questions, responses) if params.execute else set()
    selected = [select(q, responses[q["id"]], rewards, params.min_reward, domain, crashed) for q in questions]
    rows = [row for row in selected if isinstance(row, dict)]
    dropped = Counter(row for row in selected if isinstance(row, str))
    if not rows:
        raise UserError(
            f"no question is left after reward_select: of {len(questions)}, {dict(dropped)}; raise respond.max_tokens or "
            "n_samples, lower reward_select.min_reward, or take a solver that answers as it is asked to (a box, a Python block)"
        )
    write_rows(args.out, rows, INSTRUCTION)
    mean_all = sum(rewards.values()) / len(rewards)
    run.metrics(
        args.metrics,
        {
            "questions": len(questions),
            "kept": len(rows),
            "dropped": {name: dropped[name] for name in ("no_answer", "crashed", "low_reward")},
            "crashed_responses": len(crashed),
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
