"""Score every response with the reward model, in vLLM's pooling runner (paper 2.5).

    python -m stages.reward --model models/reward --questions data/filtered.parquet --responses data/responses
        --out data/rewards --metrics M.json

The reward model reads the question with the asking for an answer in a certain form, as the responder got it (the paper's code
leaves it out). A released one reads both turns as its own template closes them; one that was trained here reads what it was
trained on. Rewards are unbounded logits, higher is better.
"""

import argparse
from collections.abc import Sequence
from typing import Any

from scalequest.domains import wording
from scalequest.io import rounded
from scalequest.records import FILTERED, RESPONSE, REWARD, read_rows, write_parts
from scalequest.runtime.stage import StageRun, run_stage
from scalequest.runtime.workers import Work
from scalequest.sampling.scorer import Scorer
from scalequest.sampling.shards import map_shards


def main(args: argparse.Namespace, run: StageRun) -> None:
    """Score all responses."""
    ask = wording(run.params.domain).solve_prompt
    prompts = {row["id"]: ask(row["question"]) for row in read_rows(args.questions, FILTERED)}
    responses = read_rows(args.responses, RESPONSE)

    def start() -> Work[dict[str, Any]]:
        scorer = Scorer(args.model, run.params.engine, run.params.runtime)
        encode = scorer.chat.answered if run.params.reward_model.method == "none" else scorer.chat.solutions

        def work(rows: Sequence[dict[str, Any]], _seed: int, _: int) -> tuple[list[dict[str, Any]], int]:
            solved = [(prompts[row["question_id"]], row["response"]) for row in rows]
            sequences = [ids + scorer.end for ids in encode(solved)]
            rewards = scorer.score(sequences)
            made = [
                {"id": row["id"], "question_id": row["question_id"], "sample": row["sample"], "reward": reward}
                for row, reward in zip(rows, rewards, strict=True)
            ]
            return made, sum(map(len, sequences))

        return work

    table = map_shards(run, responses, start, REWARD, run.params.reward.shard_size)
    write_parts(args.out, table)
    rewards = table["reward"].to_pylist()
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
