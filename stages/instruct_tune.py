"""Train the student on the selected pairs, loss on the response only (paper 3.1).

python -m stages.instruct_tune --base models/base/student --data data/instruct.parquet --out models/student --metrics M.json
"""

import argparse

from scalequest.domains import wording
from scalequest.models.weights import load_chat
from scalequest.records import INSTRUCTION, read_rows
from scalequest.runtime.stage import StageRun, run_stage
from scalequest.seeding import shard_seed
from scalequest.training.examples import solved_example
from scalequest.training.job import train_causal


def main(args: argparse.Namespace, run: StageRun) -> None:
    """Train."""
    chat, ask = load_chat(args.base), wording(run.params.domain).solve_prompt
    rows = read_rows(args.data, INSTRUCTION)
    examples = [solved_example(chat, ask(row["question"]), row["response"]) for row in rows]
    seed = shard_seed(run.params.seed, "instruct_tune", 0)
    metrics = train_causal(args.base, args.out, examples, run.params.instruct_tune, run.params.engine.dtype, run, seed)
    run.metrics(args.metrics, metrics)


if __name__ == "__main__":
    run_stage(main, __doc__, paths=("base", "data", "out", "metrics"))
