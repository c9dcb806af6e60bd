"""Score the difficulty of each screened question (paper, difficulty filter); higher is harder.

python -m stages.difficulty --model models/difficulty --screened data/screened
    --out data/difficulty --metrics M.json
"""

import argparse
from operator import itemgetter

from scalequest.io import rounded
from scalequest.outcomes import KEPT
from scalequest.records import SCORE, SCREENED, read_rows, write_rows
from scalequest.runtime.stage import StageRun, run_stage
from scalequest.sampling.score import score


def main(args: argparse.Namespace, run: StageRun) -> None:
    """Score what `screen` kept."""
    questions = [row for row in read_rows(args.screened, SCREENED) if row["verdict"] == KEPT]

    size = run.params.difficulty.shard_size
    scores = score(run, args.model, questions, sequences=itemgetter("question"), form="user_turns", shard_size=size)
    write_rows(args.out, [{"id": row["id"], "score": s} for row, s in zip(questions, scores, strict=True)], SCORE)
    by_generator: dict[str, list[float]] = {}
    for row, value in zip(questions, scores, strict=True):
        by_generator.setdefault(row["generator"], []).append(value)
    run.metrics(
        args.metrics,
        {
            "questions": len(questions),
            "mean_score": {name: rounded(sum(values) / len(values), 4) for name, values in by_generator.items()},
        },
    )


if __name__ == "__main__":
    run_stage(main, __doc__, paths=("model", "screened", "out", "metrics"))
