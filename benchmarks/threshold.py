"""What a changed threshold moves: the answers to the questions that stay, with the shard's seed and with a seed per row.

    python benchmarks/threshold.py models/base/student --questions 80 --leave 10 --samples 4 --max-tokens 32

Asks about some questions as the stage `respond` does, then about most of them and some new ones.
Prints the share of the questions that stay whose answers are the same: with one seed per shard (as
the stage was until it got a seed per row), with a seed per row and an empty store (only rounding
can differ), and with the store that the first run left, with the number of requests that it paid
for.

    python benchmarks/threshold.py models/base/student --company --questions 32

Asks the judge's prompts, drawn at temperature 1, in one batch and then the same rows in other
batches. Prints the share of rows with the same answer: what a row's own seed does not decide is
left to rounding.
"""

import argparse
import random
import tempfile
from pathlib import Path
from typing import Any

from scalequest.domains.maths import judge_turns, solve_prompt
from scalequest.run.profile import load_profile
from scalequest.runtime.facts import StageFacts
from scalequest.runtime.stage import StageRun
from scalequest.sampling.engine import Engine
from scalequest.sampling.sample import sample
from scalequest.seeding import shard_seed

Answers = dict[str, list[str]]


def questions(numbers: list[int]) -> list[dict[str, str]]:
    """Made-up questions; the same number gives the same one."""
    made = []
    for number in numbers:
        draw = random.Random(number)
        text = f"Tom has {draw.randint(2, 99)} apples and buys {draw.randint(2, 99)} for {draw.randint(2, 9)} dollars each. "
        made.append({"id": f"sums/0/{number}", "question": text + "How much does he pay?"})
    return made


def by_shard(engine: Engine, rows: list[dict[str, str]], sampling: Any, samples: int) -> Answers:
    """Shards cut by position, one random stream each."""
    complete, found = engine.complete(sampling), []
    for number, at in enumerate(range(0, len(rows), sampling.shard_size)):
        asked = [solve_prompt(row["question"]) for row in rows[at : at + sampling.shard_size] for _ in range(samples)]
        found += complete(engine.chat.user_turns(asked), shard_seed(17, "respond", number))
    texts = [completion.text for completion in found]
    return {row["id"]: texts[k * samples : (k + 1) * samples] for k, row in enumerate(rows)}


def by_row(root: Path, model: Path, rows: list[dict[str, str]], params: Any, samples: int) -> tuple[Answers, float]:
    """As the stage does, and the requests that were paid for."""
    run = StageRun(params, StageFacts("respond", root, {str(model): "m"}, {"rows": len(rows)}))
    found = sample(
        run, model, rows, prompts=lambda row: [solve_prompt(row["question"])], sampling=params.respond, n_samples=samples
    )  # fmt: skip
    return {row["id"]: [c.text for c in n] for row, n in zip(rows, found, strict=True)}, run.logged["rows_paid"]


def company(model: Path, params: Any, n: int) -> None:
    """Print how many of N rows that a judge is asked about have the same answer in other company."""
    engine = Engine(model, params.engine, params.runtime, row_seeds=True)
    sampling = params.judge.model_copy(update={"temperature": 1.0})
    complete = engine.complete_rows(sampling)
    prompts = engine.chat.conversations(
        [judge_turns(row["question"], sampling.style) for row in questions(list(range(n)))]
    )

    def ask(rows: list[int]) -> dict[int, str]:
        found = complete([prompts[row] for row in rows], [1_000 + row for row in rows])
        return {row: completion.text for row, completion in zip(rows, found, strict=True)}

    rows = list(range(n))
    shuffled = random.Random(0).sample(rows, n)
    first = ask(rows)
    batches = {
        "the same batch again": [rows], "in another order": [shuffled], "every other row": [rows[1::2]],
        "batches of 3": [shuffled[at : at + 3] for at in range(0, n // 2, 3)], "alone": [[row] for row in shuffled[: n // 4]],
    }  # fmt: skip
    print(
        f"{n} prompts of {min(map(len, prompts))} to {max(map(len, prompts))} tokens, {len(set(first.values()))} different answers"
    )
    for name, parts in batches.items():
        answers = {row: text for part in parts for row, text in ask(part).items()}
        equal = sum(first[row] == text for row, text in answers.items())
        print(f"{name + ':':<22} {equal} of {len(answers)} the same", flush=True)


def main() -> None:
    """Ask twice each way and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    for name, default in (("questions", 80), ("leave", 10), ("samples", 4), ("max-tokens", 32), ("shard-size", 32)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--params", default="params.yaml", help="a profile or a parameter file")
    parser.add_argument(
        "--company", action="store_true", help="measure what a row's batch changes, with the judge's prompts"
    )
    args = parser.parse_args()
    params = load_profile(args.params)
    if args.company:
        company(args.model, params, args.questions)
        return
    sampling = params.respond.model_copy(update={"max_tokens": args.max_tokens, "shard_size": args.shard_size})
    params = params.model_copy(update={"respond": sampling})
    leaving = set(random.Random(0).sample(range(args.questions), args.leave))
    first = questions(list(range(args.questions)))
    second = questions([i for i in range(args.questions + args.leave) if i not in leaving])
    stay = {row["id"] for row in first} & {row["id"] for row in second}

    def same(before: Answers, after: Answers) -> str:
        equal = sum(a == b for name in stay for a, b in zip(before[name], after[name], strict=True))
        return f"{equal} of {len(stay) * args.samples} answers of the {len(stay)} questions that stay"

    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        before, paid_first = by_row(Path(one), args.model, first, params, args.samples)
        stored, paid = by_row(Path(one), args.model, second, params, args.samples)
        fresh, paid_fresh = by_row(Path(other), args.model, second, params, args.samples)
    print(f"a seed per row, nothing stored: {same(before, fresh)}; {paid_fresh:.0f} requests paid", flush=True)
    print(
        f"a seed per row, with the store: {same(before, stored)}; {paid:.0f} requests paid ({paid_first:.0f} before)",
        flush=True,
    )
    engine = Engine(args.model, params.engine, params.runtime)
    halves = [by_shard(engine, rows, sampling, args.samples) for rows in (first, second)]
    print(f"a seed per shard:               {same(*halves)}; {len(second) * args.samples} requests paid")


if __name__ == "__main__":
    main()
