"""Take questions that a user brings into the pipeline at `respond`: they are answered as they are, screened by nobody.

python -m stages.own_filtered --generator textbook --out data/own/textbook.parquet --metrics M.json
"""

import argparse

from scalequest.problems.own import own_questions
from scalequest.records import FILTERED, write_rows
from scalequest.runtime.stage import StageRun, run_stage
from scalequest.text import question_key


def main(args: argparse.Namespace, run: StageRun) -> None:
    """Read the file, and write each question once."""
    name, source = args.generator, run.params.own.filtered[args.generator]
    rows, seen, duplicates = [], set(), 0
    for row_id, question in own_questions(name, f"own.filtered.{name}", source, run.params.seed):
        if (key := question_key(question)) in seen:
            duplicates += 1
            continue
        seen.add(key)
        rows.append({"id": row_id, "generator": name, "question": question, "difficulty": None})
    write_rows(args.out, rows, FILTERED)
    run.metrics(args.metrics, {"kept": len(rows), "duplicates": duplicates})


if __name__ == "__main__":
    run_stage(main, __doc__, paths=("out", "metrics"), names=("generator",))
