"""Score every response with the reward model, in vLLM's pooling runner (paper 2.5).

    python -m stages.reward --model models/reward --questions data/filtered.parquet --responses data/responses
        --out data/rewards --metrics M.json

The reward model reads the question plus the answer-format instruction, as the responder got it (the
paper's code leaves the instruction out). A released model reads both turns as its own template
closes them; a model that was trained here reads what it was trained on. Rewards are unbounded
logits, higher is better.
"""

import argparse

import pyarrow as pa

from scalequest.domains import wording
from scalequest.io import rounded
from scalequest.records import FILTERED, RESPONSE, REWARD, read_rows, read_table, write_parts
from scalequest.runtime.stage import StageRun, run_stage
from scalequest.sampling.score import score


def main(args: argparse.Namespace, run: StageRun) -> None:
    """Score all responses."""
    ask, asked_for = wording(run.params.domain).solve_prompt, run.params.respond.form
    prompts = {row["id"]: ask(row["question"], asked_for) for row in read_rows(args.questions, FILTERED)}
    responses = read_table(args.responses, RESPONSE, ["id", "question_id", "sample", "response"])

    rewards = score(
        run,
        args.model,
        list(zip(responses["question_id"].to_pylist(), responses["response"].to_pylist(), strict=True)),
        sequences=lambda row: (prompts[row[0]], row[1]),
        form="answered" if run.params.reward_model.method == "none" else "solutions",
        shard_size=run.params.reward.shard_size,
    )
    columns = [responses[name] for name in ("id", "question_id", "sample")]
    write_parts(args.out, pa.table([*columns, pa.array(rewards, pa.float32())], schema=REWARD).combine_chunks())
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
