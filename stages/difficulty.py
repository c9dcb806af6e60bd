"""Score the difficulty of each screened question, unbounded, higher is harder (paper, difficulty filter).

python -m stages.difficulty --model models/difficulty --screened data/screened --out data/difficulty --metrics M.json
"""

import argparse
from collections.abc import Sequence
from typing import Any

from scalequest.io import rounded
from scalequest.outcomes import KEPT
from scalequest.records import SCORE, SCREENED, read_rows, write_parts
from scalequest.runtime.stage import StageRun, run_stage
from scalequest.runtime.workers import Work
from scalequest.sampling.scorer import Scorer
from scalequest.sampling.shards import map_shards


def main(args: argparse.Namespace, run: StageRun) -> None:
    """Score what `screen` kept."""
    questions = [row for row in read_rows(args.screened, SCREENED) if row["verdict"] == KEPT]

    def start() -> Work[dict[str, Any]]:
        scorer = Scorer(args.model, run.params.engine, run.params.runtime)

        def work(rows: Sequence[dict[str, Any]], _seed: int, _: int) -> tuple[list[dict[str, Any]], int]:
            prompts = scorer.chat.user_turns([row["question"] for row in rows])
            scores = scorer.score(prompts)
            return [{"id": row["id"], "score": s} for row, s in zip(rows, scores, strict=True)], sum(map(len, prompts))

        return work

    table = map_shards(run, questions, start, SCORE, run.params.difficulty.shard_size)
    write_parts(args.out, table)
    scores = {row["id"]: row["score"] for row in table.to_pylist()}
    by_generator: dict[str, list[float]] = {}
    for row in questions:
        by_generator.setdefault(row["generator"], []).append(scores[row["id"]])
    run.metrics(
        args.metrics,
        {
            "questions": len(questions),
            "mean_score": {name: rounded(sum(values) / len(values), 4) for name, values in by_generator.items()},
        },
    )


if __name__ == "__main__":
    run_stage(main, __doc__, paths=("model", "screened", "out", "metrics"))
