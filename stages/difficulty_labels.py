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
from scalequest.records import ATTEMPT, PROBLEM, read_rows, write_rows
from scalequest.runtime.stage import StageRun, run_stage
from scalequest.sampling.completion import Completion
from scalequest.sampling.sample import sample


def pick_evenly(seeds: list[dict[str, str]], n: int) -> list[dict[str, str]]:
    """At most ``n`` problems, as many of each source as the smallest allows, in the seeds' order."""
    position: Counter[str] = Counter()
    ranked = []
    for index, row in enumerate(seeds):
        ranked.append((position[row["source"]], index))
        position[row["source"]] += 1
    return [seeds[index] for index in sorted(index for _, index in sorted(ranked)[:n])]


def attempt_rows(
    problems: Sequence[dict[str, str]], answers: Sequence[Sequence[Completion]], domain: str
) -> list[dict[str, Any]]:
    """One checked row per sample, the samples of one problem together."""
    samples = [(row, k, c) for row, n in zip(problems, answers, strict=True) for k, c in enumerate(n)]
    finals = [final_answer(domain, c.text) for _, _, c in samples]
    outcomes = check(domain, [row["answer"] for row, _, _ in samples], finals)
    return [
        {
            "problem_id": row["id"],
            "sample": k,
            "response": c.text.strip(),
            "finish_reason": c.finish_reason,
            "final_answer": final or "",
            "outcome": outcome,
        }
        for (row, k, c), final, outcome in zip(samples, finals, outcomes, strict=True)
    ]


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
    answers = sample(
        run, args.model, problems, prompts=lambda row: [ask(row["question"])], sampling=params, n_samples=params.n_samples
    )  # fmt: skip
    attempts = attempt_rows(problems, answers, domain)
    write_rows(args.out, attempts, ATTEMPT)
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
