"""Train one student, loss on the response only (paper 3.1).

    python -m stages.instruct_tune --seed 1 --base models/base/student --instruct data/instruct.parquet
        --seeds data/seeds.parquet --out models/student --metrics M.json --plot P.csv

`instruct_tune.data` chooses the pairs: those of the pipeline, or a control's: the seeds with their own solutions, or a file.
Only its training seed distinguishes a student from the others: all see the same rows.
"""

import argparse
from pathlib import Path
from typing import Any

from scalequest.domains import wording
from scalequest.errors import UserError
from scalequest.models.weights import load_chat
from scalequest.params import InstructTune
from scalequest.problems.draw import draw
from scalequest.problems.pinned import pinned_pairs
from scalequest.records import INSTRUCTION, PROBLEM, read_rows
from scalequest.runtime.stage import StageRun, run_stage
from scalequest.training.examples import solved_example
from scalequest.training.external import question_and_response, rows_of
from scalequest.training.job import CURVE, train
from scalequest.training.sft import SFT

Pair = tuple[str, str, str]  # id, question, response


def external_pairs(data: str, pinned: str | None) -> list[Pair]:
    """The pairs of a .parquet or .jsonl file (also .jsonl.gz), with row numbers as ids.

    Args:
        data: path of the file.
        pinned: sha256 of its bytes.

    Raises:
        UserError: the file is missing, is not the pinned one, or has a row of a form that is not known (its line is named).
    """
    path = pinned_pairs(data, pinned)
    return [(str(number), *question_and_response(row, where)) for number, (where, row) in enumerate(rows_of(path))]


def training_pairs(params: InstructTune, instruct: Path, seeds: Path, run_seed: int) -> list[Pair]:
    """What every student of the run is trained on, in the file's order.

    Args:
        params: the section; ``n_examples`` pairs are drawn by hash of run seed and id, so that sizes are nested. Generators
            (or the seeds' sources and subjects) keep their shares.
        instruct: the pipeline's training set.
        seeds: the seed problems.
        run_seed: the run's seed. A student's training seed has no part in this.

    Raises:
        UserError: fewer than ``n_examples`` pairs.
    """
    strata: list[Any] | None = None
    if params.data == "instruct":
        rows = read_rows(instruct, INSTRUCTION)
        pairs = [(row["id"], row["question"], row["response"]) for row in rows]
        strata = [row["generator"] for row in rows]
    elif params.data == "seeds":
        rows = [row for row in read_rows(seeds, PROBLEM) if row["solution"]]
        pairs = [(row["id"], row["question"], row["solution"]) for row in rows]
        strata = [(row["source"], row["stratum"]) for row in rows]
    else:
        pairs = external_pairs(params.data, params.data_sha256)
    if params.n_examples is not None and len(pairs) < params.n_examples:
        raise UserError(
            f"instruct_tune.n_examples: {params.n_examples}, but `{params.data}` has {len(pairs)} pairs. Lower n_examples, or "
            "set null for all"
        )
    ids = [row_id for row_id, _, _ in pairs]
    return [pairs[at] for at in draw(ids, params.n_examples, run_seed, strata, purpose="instruct_tune")]


def main(args: argparse.Namespace, run: StageRun) -> None:
    """Train."""
    params = run.params.instruct_tune
    chat, ask = load_chat(args.base), wording(run.params.domain).solve_prompt
    pairs = training_pairs(params, args.instruct, args.seeds, run.params.seed)
    form = run.params.evaluate.form  # a student is asked as it was trained
    examples = [solved_example(chat, ask(question, form), response, row_id) for row_id, question, response in pairs]
    trained = train(run, SFT(), args.base, args.out, examples, params, seed=int(args.seed))
    run.metrics(args.metrics, {"pairs": len(pairs), "training_seed": int(args.seed)} | trained.metrics, trained.flags)
    run.plot(args.plot, CURVE, trained.steps())


if __name__ == "__main__":
    run_stage(main, __doc__, paths=("base", "instruct", "seeds", "out", "metrics", "plot"), names=("seed",))
