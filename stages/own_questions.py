"""Take questions that a user brings into the pipeline at `screen`, beside those of the generators.

python -m stages.own_questions --generator textbook --out data/questions/textbook --metrics M.json

The name in `own.questions` is the rows' generator, so that the ledger and the audit name the file of each question.
"""

import argparse
from typing import Any

from scalequest.problems.own import own_questions
from scalequest.records import QUESTION, write_rows
from scalequest.runtime.stage import StageRun, run_stage


def question_row(name: str, row_id: str, question: str) -> dict[str, Any]:
    """A row as generators write them. No model counted its tokens and no seed drew it."""
    return {
        "id": row_id,
        "generator": name,
        "question": question,
        "completion": question,
        "finish_reason": "stop",
        "n_tokens": None,
        "seed": None,
    }


def main(args: argparse.Namespace, run: StageRun) -> None:
    """Read the file, and write its questions."""
    name, source = args.generator, run.params.own.questions[args.generator]
    rows = [question_row(name, *row) for row in own_questions(name, f"own.questions.{name}", source, run.params.seed)]
    write_rows(args.out, rows, QUESTION)
    run.metrics(args.metrics, {"questions": len(rows)})


if __name__ == "__main__":
    run_stage(main, __doc__, paths=("out", "metrics"), names=("generator",))
