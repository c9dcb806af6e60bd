"""Score every response with the reward model, in vLLM's pooling runner (paper 2.5).

    python -m stages.reward --model models/reward --questions data/filtered.parquet --responses data/responses
        --out data/rewards --metrics M.json

The reward model reads the question plus the answer-format instruction, as the responder got it (the
paper's code leaves the instruction out). A released model reads both turns as its own template
closes them; a model that was trained here reads what it was trained on. Rewards are unbounded
logits, higher is better.
"""

import argparse

from scalequest.domains import wording
from scalequest.io import rounded
from scalequest.records import FILTERED, RESPONSE, REWARD, read_rows, write_rows
from scalequest.runtime.stage import StageRun, run_stage
from scalequest.sampling.score import score


def main(args: argparse.Namespace, run: StageRun) -> None:
    """Score all responses."""
    ask, asked_for = wording(run.params.domain).solve_prompt, run.params.respond.form
    prompts = {row["id"]: ask(row["question"], asked_for) for row in read_rows(args.questions, FILTERED)}
    responses = read_rows(args.responses, RESPONSE)

    rewards = score(
        run,
        args.model,
        responses,
        sequences=lambda row: (prompts[row["question_id"]], row["response"]),
        form="answered" if run.params.reward_model.method == "none" else "solutions",
        shard_size=run.params.reward.shard_size,
    )
    rows = [
        {"id": row["id"], "question_id": row["question_id"], "sample": row["sample"], "reward": reward}
        for row, reward in zip(responses, rewards, strict=True)
    ]
    write_rows(args.out, rows, REWARD)
    run.metrics(
        args.metrics,
        {
            "responses": len(rewards),
            "mean": rounded(sum(rewards) / len(rewards), 4),
            "lowest": rounded(min(rewards), 4),
            "highest": rounded(max(rewards), 4),
        },
    )


if __name__ == "__main__":
    run_stage(main, __doc__, paths=("model", "questions", "responses", "out", "metrics"))
