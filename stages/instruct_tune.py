"""Train the student on the selected pairs, loss on the response only (paper 3.1).

python -m stages.instruct_tune --base models/base/student --data data/instruct.parquet --out models/student --metrics M.json
"""

import argparse

from scalequest.domains import wording
from scalequest.models.weights import load_chat
from scalequest.records import INSTRUCTION, read_rows
from scalequest.runtime.stage import StageRun, run_stage
from scalequest.training.examples import solved_example
from scalequest.training.job import train
from scalequest.training.sft import SFT


def main(args: argparse.Namespace, run: StageRun) -> None:
    """Train."""
    chat, ask = load_chat(args.base), wording(run.params.domain).solve_prompt
    rows = read_rows(args.data, INSTRUCTION)
    examples = [solved_example(chat, ask(row["question"]), row["response"]) for row in rows]
    trained = train(run, SFT(), args.base, args.out, examples, run.params.instruct_tune)
    run.metrics(args.metrics, trained.metrics, trained.flags)


if __name__ == "__main__":
    run_stage(main, __doc__, paths=("base", "data", "out", "metrics"))
