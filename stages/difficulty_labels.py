"""Sample the solver's answers to seed problems and check them: labels for difficulty and for the reward model.

    python -m stages.difficulty_labels --model models/solver --seeds data/seeds.parquet --out data/attempts --metrics M.json

A problem's label is its fail rate, the share of its n samples that are not right (paper, difficulty filter, after DART-Math). In a
code run right means that the seed's tests pass, in the sandbox; a seed without tests is left out and counted.
"""

import argparse
from collections import Counter
from collections.abc import Sequence
from typing import Any

from scalequest.answers.attempts import fail_rates
from scalequest.answers.check import check, final_answer
from scalequest.domains import wording
from scalequest.errors import UserError
from scalequest.io import rounded
from scalequest.outcomes import RIGHT
from scalequest.records import ATTEMPT, PROBLEM, read_rows, write_parts
from scalequest.runtime.stage import StageRun, run_stage
from scalequest.runtime.workers import Work
from scalequest.sampling.engine import Engine
from scalequest.sampling.shards import map_shards


def pick_evenly(seeds: list[dict[str, str]], n: int) -> list[dict[str, str]]:
    """At most ``n`` problems, as many of each source as the smallest allows, in the seeds' order."""
    position: Counter[str] = Counter()
    ranked = []
    for index, row in enumerate(seeds):
        ranked.append((position[row["source"]], index))
        position[row["source"]] += 1
    return [seeds[index] for index in sorted(index for _, index in sorted(ranked)[:n])]


def main(args: argparse.Namespace, run: StageRun) -> None:
    """Sample and check."""
    params, domain = run.params.difficulty_labels, run.params.domain
    ask = wording(domain).solve_prompt
    seeds = read_rows(args.seeds, PROBLEM)
    checkable = [row for row in seeds if row["answer"]]
    if not checkable:
        raise UserError(
            f"difficulty_labels: none of {len(seeds)} seeds has an answer or tests to check a response by; add a source that has "
            "(MBPP's train rows)"
        )
    problems = pick_evenly(checkable, params.n_seeds)

    def start() -> Work[dict[str, str]]:
        engine = Engine(args.model, run.params.engine, run.params.runtime)
        complete = engine.complete(params)

        def work(rows: Sequence[dict[str, str]], seed: int, _: int) -> tuple[list[dict[str, Any]], int]:
            samples = [(row, k) for row in rows for k in range(params.n_samples)]
            prompts = engine.chat.user_turns([ask(row["question"]) for row, _ in samples])
            completions = complete(prompts, seed)
            answers = [final_answer(domain, c.text) for c in completions]
            outcomes = check(domain, [row["answer"] for row, _ in samples], answers)
            made = [
                {"problem_id": row["id"], "sample": k, "response": c.text.strip(), "finish_reason": c.finish_reason,
                 "final_answer": answer or "", "outcome": outcome}
                for (row, k), c, answer, outcome in zip(samples, completions, answers, outcomes, strict=True)
            ]  # fmt: skip
            return made, sum(c.n_tokens for c in completions)

        return work

    table = map_shards(run, problems, start, ATTEMPT, params.shard_size)
    write_parts(args.out, table)
    attempts = table.to_pylist()
    rates = fail_rates(attempts)
    source = {row["id"]: row["source"] for row in problems}
    outcomes = Counter(row["outcome"] for row in attempts)
    run.metrics(
        args.metrics,
        {
            "problems": len(problems),
            "seeds_without_answer": len(seeds) - len(checkable),
            "samples": len(attempts),
            "outcomes": dict(outcomes),
            "right_frac": rounded(outcomes[RIGHT] / len(attempts)),
            "mean_fail_rate": {
                name: rounded(sum(r for p, r in rates.items() if source[p] == name) / n)
                for name, n in Counter(source.values()).items()
            },
            "distinct_fail_rates": len(set(rates.values())),
        },
        {"one_fail_rate": len(set(rates.values())) == 1, "one_class": outcomes[RIGHT] in (0, len(attempts))},
    )


if __name__ == "__main__":
    run_stage(main, __doc__, paths=("model", "seeds", "out", "metrics"))
