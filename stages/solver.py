"""Train the problem solver on a share of the seeds' worked solutions, loss on the solution only.

    python -m stages.solver --base models/base/solver --seeds data/seeds.parquet --out models/solver --metrics M.json
        --plot P.csv

Not in the paper, whose solvers are strong models as released: with `solver.method: none` the fetched one is taken as it is.
"""

import argparse

from scalequest.domains import wording
from scalequest.errors import UserError
from scalequest.models.folder import link_model
from scalequest.models.weights import load_chat
from scalequest.problems.split import split_for_solver
from scalequest.records import PROBLEM, read_rows
from scalequest.runtime.stage import StageRun, run_stage
from scalequest.training.examples import solved_example
from scalequest.training.job import CURVE, train
from scalequest.training.sft import SFT


def main(args: argparse.Namespace, run: StageRun) -> None:
    """Train, or take the fetched model."""
    params = run.params.solver
    if params.method == "none":
        link_model(args.base, args.out)
        run.metrics(args.metrics, {"examples": 0})
        run.plot(args.plot, CURVE, [])
        return
    chat, ask = load_chat(args.base), wording(run.params.domain).solve_prompt
    taught, unseen = split_for_solver(read_rows(args.seeds, PROBLEM), params.method, params.seeds_frac, run.params.seed)
    if not taught or not unseen:
        raise UserError(
            f"solver: {len(taught)} seeds to train on and {len(unseen)} left to label. Expected at least 1 of each. "
            "Change solver.seeds_frac, or add seeds."
        )
    examples = [solved_example(chat, ask(row["question"]), row["solution"], row["id"]) for row in taught]
    trained = train(run, SFT(), args.base, args.out, examples, params)
    run.metrics(args.metrics, trained.metrics, trained.flags)
    run.plot(args.plot, CURVE, trained.steps())


if __name__ == "__main__":
    run_stage(main, __doc__, paths=("base", "seeds", "out", "metrics", "plot"))
