"""Question fine-tuning: teach a solver to ask (paper 2.2). Loss on the question and its end token only.

python -m stages.qft --generator sums --base models/base/sums --seeds data/seeds.parquet --out models/qft/sums
    --metrics M.json --plot P.csv
"""

import argparse

from scalequest.errors import UserError
from scalequest.models.chat import ChatFormat
from scalequest.models.weights import load_chat
from scalequest.params import with_own
from scalequest.problems.draw import draw
from scalequest.records import PROBLEM, read_rows
from scalequest.runtime.stage import StageRun, run_stage
from scalequest.training.examples import Example
from scalequest.training.job import CURVE, train
from scalequest.training.sft import SFT


def pick_seeds(seeds: list[dict[str, str]], seed_mix: dict[str, int], seed: int) -> list[dict[str, str]]:
    """Draw ``seed_mix[source]`` problems of each source by hash, in the seeds' order.

    Draws of growing size are nested. Within a source, subjects (``stratum``) keep their shares.

    Raises:
        UserError: a source has fewer (a question that two sources share is kept once, so a source can come out short).
    """
    chosen: list[int] = []
    for source, n in seed_mix.items():
        have = [index for index, row in enumerate(seeds) if row["source"] == source]
        if len(have) < n:
            raise UserError(f"seed_mix.{source}: {n} asked for, the seeds hold {len(have)} distinct ones; lower it or raise seeds.{source}.n")  # fmt: skip
        ids, subjects = [seeds[at]["id"] for at in have], [seeds[at]["stratum"] for at in have]
        chosen += [have[at] for at in draw(ids, n, seed, subjects, purpose="qft")]
    return [seeds[index] for index in sorted(chosen)]


def question_example(chat: ChatFormat, question: str, row_id: str = "") -> Example:
    """Masked: the template up to the user's words. Learned: the question and its end, nothing after it."""
    return Example(chat.question_prefix, chat.question(question), row_id)


def main(args: argparse.Namespace, run: StageRun) -> None:
    """Pick this generator's seed questions and tune on them."""
    generator = run.params.generators[args.generator]
    chat = load_chat(args.base)
    picked = pick_seeds(read_rows(args.seeds, PROBLEM), generator.seed_mix, run.params.seed)
    examples = [question_example(chat, row["question"], row["id"]) for row in picked]
    trained = train(run, SFT(), args.base, args.out, examples, with_own(run.params.qft, generator.qft))
    run.metrics(args.metrics, trained.metrics, trained.flags)
    run.plot(args.plot, CURVE, trained.steps())


if __name__ == "__main__":
    run_stage(main, __doc__, paths=("base", "seeds", "out", "metrics", "plot"), names=("generator",))
