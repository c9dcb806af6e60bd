"""Sample the solver's answers to seed problems and check them: labels for difficulty and for the reward model.

    python -m stages.difficulty_labels --model models/solver --seeds data/seeds.parquet --out data/attempts --metrics M.json

A problem's label is its fail rate, the share of its n samples that are not right (paper, difficulty
filter, after DART-Math). In a code run right means that the seed's tests pass, in the sandbox; a
seed without tests is left out and counted.
"""

import argparse
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from scalequest.answers import sandbox
from scalequest.answers.attempts import fail_rates, label_reliability, right_share
from scalequest.answers.check import KINDS, check, final_answer
from scalequest.domains import wording
from scalequest.errors import UserError
from scalequest.io import rounded
from scalequest.problems.draw import draw
from scalequest.problems.split import split_for_solver
from scalequest.records import ATTEMPT, PROBLEM, read_rows, write_rows
from scalequest.runtime.stage import StageRun, run_stage
from scalequest.sampling.completion import STOP, Completion
from scalequest.sampling.sample import sample
from scalequest.statistics import reported
from scalequest.text import question_key


def pick_evenly(seeds: Sequence[dict[str, str]], n: int, seed: int) -> list[dict[str, str]]:
    """At most ``n`` problems by hash of seed and id, in the seeds' order: equal numbers of each source.

    A source that has fewer gives all it has, and the others fill up to ``n``. Within a source, subjects (``stratum``) keep
    their shares. Files are sorted by subject: the first 1,024 of MATH are Algebra.
    """
    ids, sources = [row["id"] for row in seeds], [row["source"] for row in seeds]
    drawn = draw(ids, n, seed, sources, evenly=True, purpose="difficulty_labels")
    quotas = Counter(sources[at] for at in drawn)
    chosen: list[int] = []
    for source, quota in quotas.items():
        own = [at for at, name in enumerate(sources) if name == source]
        subjects = [seeds[at]["stratum"] for at in own]
        chosen += [own[at] for at in draw([ids[at] for at in own], quota, seed, subjects, purpose="difficulty_labels")]
    return [seeds[at] for at in sorted(chosen)]


def answer_of(kind: str, completion: Completion) -> str | None:
    """The final answer of a completion; None without one.

    Where a text is cut, "The answer is 12" may be the beginning of 125. A cut one has an answer only in the form that the prompt
    asks for, a box or a block, and closed.
    """
    if completion.finish_reason == STOP:
        return final_answer(kind, completion.text)
    strict = KINDS[kind].strict
    found = strict(completion.text)
    # A box may have no braces: one more digit makes another answer of `\boxed 12`, and leaves a closed one as it is.
    return found if found == strict(completion.text + "0") else None


def attempt_rows(
    problems: Sequence[dict[str, str]], answers: Sequence[Sequence[Completion]], kind: str
) -> list[dict[str, Any]]:
    """One checked row per sample, the samples of one problem together."""
    samples = [(row, k, c) for row, n in zip(problems, answers, strict=True) for k, c in enumerate(n)]
    finals = [answer_of(kind, c) for _, _, c in samples]
    outcomes = check(kind, [row["answer"] for row, _, _ in samples], finals)
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


def label_metrics(
    attempts: Sequence[dict[str, Any]], sources: Mapping[str, str]
) -> tuple[dict[str, Any], dict[str, bool]]:
    """Numbers and warnings about N samples as labels.

    Args:
        attempts: rows of records.ATTEMPT.
        sources: source of each problem by its id.
    """
    rates = fail_rates(attempts)
    outcomes = Counter(row["outcome"] for row in attempts)
    right = right_share(attempts)
    reliability = label_reliability(attempts)
    by_source = {
        name: [rate for i, rate in rates.items() if sources[i] == name] for name in dict.fromkeys(sources.values())
    }
    metrics = {
        "problems": len(rates),
        "samples": len(attempts),
        "outcomes": dict(outcomes),
        "right_frac": rounded(right.share),
        "right_frac_standard_error": reported(right.standard_error),
        "mean_fail_rate": {name: rounded(sum(own) / len(own)) for name, own in by_source.items()},
        "distinct_fail_rates": len(set(rates.values())),
        "label_reliability": rounded(reliability.share),
        "label_reliability_p_value": rounded(reliability.p_value),
    }
    return metrics, {
        # One sample per problem cannot tell luck from difficulty; only labels that are all equal are known to be useless.
        "one_fail_rate": len(set(rates.values())) == 1 or (len(attempts) > len(rates) and not reliability.above_chance),
        "one_class": not right.two_classes,
    }


def main(args: argparse.Namespace, run: StageRun) -> None:
    """Sample and check."""
    sandbox.consent(run.params.runtime.sandbox)
    params, words = run.params.difficulty_labels, wording(run.params.domain)
    seeds = read_rows(args.seeds, PROBLEM)
    taught, unseen = split_for_solver(seeds, run.params.solver.method, run.params.solver.seeds_frac, run.params.seed)
    checkable = [row for row in unseen if row["answer"]]
    if not checkable:
        raise UserError(
            f"difficulty_labels: none of {len(unseen)} seeds that the solver was not trained on has an answer or tests to check a "
            "response by. Expected at least 1. Lower solver.seeds_frac, or add a source with answers (MBPP's train rows)."
        )
    problems = pick_evenly(checkable, params.n_seeds, run.params.seed)
    answers = sample(
        run, args.model, problems, prompts=lambda row: [words.solve_prompt(row["question"])], sampling=params, n_samples=params.n_samples
    )  # fmt: skip
    attempts = attempt_rows(problems, answers, words.ANSWERS)
    write_rows(args.out, attempts, ATTEMPT)
    metrics, warnings = label_metrics(attempts, {row["id"]: row["source"] for row in problems})
    known = {question_key(row["question"]) for row in taught}
    counts = {
        "seeds_without_answer": sum(not row["answer"] for row in seeds),
        "seeds_for_the_solver": len(taught),
        # 0 by construction; counted by the question, not by the id that the split was made by.
        "seen_by_the_solver": sum(question_key(row["question"]) in known for row in problems),
    }
    run.metrics(args.metrics, metrics | counts, warnings)


if __name__ == "__main__":
    run_stage(main, __doc__, paths=("model", "seeds", "out", "metrics"))
