"""Measure the preference pairs: are chosen questions better than rejected ones (paper, Fig. 4)?

    python -m stages.preference_check --by solvability --model models/base/judge --preferences data/preferences
        --out data/preference_check/solvability.parquet --metrics M.json
    python -m stages.preference_check --by difficulty --model models/difficulty --preferences data/preferences
        --out data/preference_check/difficulty.parquet --metrics M.json

A sample of pairs is asked about on both sides: the judge says which can be solved, the difficulty
scorer which are harder. Nothing is filtered by it. Both sides are written with their verdict or
score, ids ending in `/chosen` and `/rejected`. One engine fits into a process, so each measure is a
run of its own.
"""

import argparse
from collections.abc import Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

from scalequest.answers.verdict import verdict_of
from scalequest.domains import DIFFICULTY, GIVEN, SOLVABILITY, wording
from scalequest.errors import UserError
from scalequest.io import rounded
from scalequest.outcomes import KEPT, SOLVABLE
from scalequest.problems.draw import draw
from scalequest.records import JUDGED, PREFERENCE, SCORE, read_rows, write_rows
from scalequest.runtime.stage import StageRun, run_stage
from scalequest.sampling.sample import sample
from scalequest.sampling.score import score
from scalequest.statistics import mean_error, paired_difference, proportion_error, reported, worse_error

CHOSEN, REJECTED = "rewrite", "question"  # the columns of records.PREFERENCE


def draw_pairs(pairs: Sequence[dict[str, Any]], n: int, seed: int) -> list[dict[str, Any]]:
    """At most ``n`` kept pairs of one generator by hash, equal numbers of each direction that has enough.

    Where one has fewer, the other fills up to ``n``: whether rewrites are better is decided within a direction, and more pairs
    decide it better. So the quality in all may be mostly that of one direction.
    """
    kept = [row for row in pairs if row["verdict"] == KEPT]
    directions = [row["direction"] for row in kept]
    return [kept[at] for at in draw([r["id"] for r in kept], n, seed, directions, True, purpose="preference_check")]


def sides(pairs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Two questions per pair, chosen before rejected, with an id each."""
    return [
        {"id": f"{row['id']}/{side}", "question": row[column]}
        for row in pairs
        for side, column in (("chosen", CHOSEN), ("rejected", REJECTED))
    ]


def compared(values: Sequence[float], share: bool, seed: int) -> dict[str, Any]:
    """Means of both sides of N pairs and their difference, with standard errors.

    Args:
        values: 2N numbers, chosen and rejected in turn.
        share: whether they are 0 or 1.
        seed: of the bootstrap.
    """
    both = {"chosen": values[::2], "rejected": values[1::2]}
    difference = paired_difference(both["rejected"], both["chosen"], seed)
    found: dict[str, Any] = {"pairs": difference.n}
    for side, numbers in both.items():
        error = worse_error(
            mean_error(numbers), proportion_error(sum(numbers), len(numbers)) if share else float("nan")
        )
        found[side] = {"mean": rounded(sum(numbers) / len(numbers)), "standard_error": reported(error)}
    return found | {
        "difference": rounded(difference.value),
        "difference_standard_error": reported(difference.standard_error),
        "p_value": rounded(difference.p_value),
        "better": difference.above_zero,
    }


def quality(
    pairs: Sequence[dict[str, Any]], values: Sequence[float], by: str, seed: int
) -> tuple[dict[str, Any], dict[str, bool]]:
    """Chosen against rejected on N pairs, in all, by direction and by generator.

    Args:
        pairs: rows of records.PREFERENCE.
        values: 2N numbers of their sides: 1 for solvable and else 0, or difficulties.
        by: what was measured. Pairs that were rewritten for it should have improved in it.
        seed: of the bootstrap.
    """

    def where(column: str) -> dict[str, dict[str, Any]]:
        return {
            name: compared(
                [v for i, row in enumerate(pairs) if row[column] == name for v in values[2 * i : 2 * i + 2]],
                by == SOLVABILITY,
                seed,
            )
            for name in dict.fromkeys(row[column] for row in pairs)
        }

    directions = where("direction")
    metrics = compared(values, by == SOLVABILITY, seed) | {
        "by_direction": directions,
        "by_generator": where("generator"),
    }
    # A user's pairs have no aim, so all of them count for both.
    improved = metrics["better"] if set(directions) == {GIVEN} else directions.get(by, {}).get("better", False)
    return {"measure": by, "quality": metrics}, {"rewrites_no_better": not improved}


def measure(run: StageRun, by: str, model: Path, questions: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row per question: its difficulty (records.SCORE), or the judge's word (records.JUDGED)."""
    if by == DIFFICULTY:
        size = run.params.difficulty.shard_size
        scores = score(run, model, questions, sequences=itemgetter("question"), form="user_turns", shard_size=size)
        return [{"id": row["id"], "score": value} for row, value in zip(questions, scores, strict=True)]
    params, words = run.params.judge, wording(run.params.domain)
    answers = sample(
        run, model, questions, prompts=lambda row: words.judge_turns(row["question"], params.style), sampling=params
    )
    return [
        {"id": row["id"], "verdict": verdict_of(answer, params.style), "completion": answer.text, "finish_reason": answer.finish_reason}
        for row, [answer] in zip(questions, answers, strict=True)
    ]  # fmt: skip


def main(args: argparse.Namespace, run: StageRun) -> None:
    """Draw, ask, compare."""
    if args.by not in (SOLVABILITY, DIFFICULTY):
        raise UserError(f"preference_check: --by {args.by}. Expected {SOLVABILITY} or {DIFFICULTY}.")
    n, seed = run.params.preference_check.n_pairs, run.params.seed
    pairs = [
        row
        for generator in run.params.mix
        for row in draw_pairs(read_rows(args.preferences / f"{generator}.parquet", PREFERENCE), n, seed)
    ]
    if not pairs:  # own questions alone: nothing is optimized
        write_rows(args.out, [], SCORE if args.by == DIFFICULTY else JUDGED)
        run.metrics(args.metrics, {"measure": args.by, "quality": {"pairs": 0}})
        return
    rows = measure(run, args.by, args.model, sides(pairs))
    write_rows(args.out, rows, SCORE if args.by == DIFFICULTY else JUDGED)
    values = [row["score"] if args.by == DIFFICULTY else float(row["verdict"] == SOLVABLE) for row in rows]
    run.metrics(args.metrics, *quality(pairs, values, args.by, seed))


if __name__ == "__main__":
    run_stage(main, __doc__, paths=("model", "preferences", "out", "metrics"), names=("by",))
