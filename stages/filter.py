"""Apply the thresholds and the mix, and write the ledger of EVERY generated question. No model runs here.

python -m stages.filter --screened data/screened --judged data/judged --difficulty data/difficulty
    --out data/filtered.parquet --ledger data/ledger.parquet --metrics M.json
"""

import argparse
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from scalequest.errors import UserError
from scalequest.io import rounded
from scalequest.outcomes import FILTER_OUTCOMES, KEPT, MARKED_BAD, SOLVABLE
from scalequest.params import Filter
from scalequest.problems.draw import draw
from scalequest.problems.marks import BAD, GOOD, Mark, check_marks, read_marks
from scalequest.records import FILTERED, JUDGED, LEDGER, SCORE, SCREENED, read_rows, write_rows
from scalequest.runtime.stage import StageRun, run_stage

log = logging.getLogger("scalequest")


def easiness_cut(scores: list[float], frac: float) -> float:
    """Lowest score that stays when the easiest ``frac`` of N scores go (paper: about 0.3 of one generator's)."""
    return sorted(scores)[int(frac * len(scores))] if scores else 0.0


def share_quotas(available: dict[str, int], shares: dict[str, float], n: int) -> dict[str, int]:
    """How many questions of each generator: the most, up to ``n`` in all, that keep the shares exact to one question."""
    total = sum(shares[name] for name in available)
    fractions = {name: shares[name] / total for name in available}
    size = min([float(n)] + [count / fractions[name] for name, count in available.items()])
    # Rounded down (a product may lie just under a whole number), so that the sum never exceeds n.
    return {name: int(size * fractions[name] + 1e-9) for name in available}


def apply_filters(
    screened: list[dict[str, Any]],
    verdicts: dict[str, str],
    scores: dict[str, float],
    params: Filter,
    mix: list[str],
    seed: int,
    marks: Mapping[str, Mark] = MappingProxyType({}),
) -> list[dict[str, Any]]:
    """The ledger: one row per generated question, in order, with its outcome and what it was judged by.

    Which questions a full share gives up is drawn by a hash of seed and id: no order of generation is favoured.
    """
    ledger = [
        {"id": row["id"], "generator": row["generator"], "question": row["question"], "outcome": row["verdict"],
         "matched": row["matched"], "evidence": row["evidence"], "verdict": verdicts.get(row["id"]),
         "difficulty": scores.get(row["id"]), "min_difficulty": None}
        for row in screened
    ]  # fmt: skip
    # A reader's word comes first, so that thresholds and shares are of what is left.
    for row in ledger:
        if row["outcome"] == KEPT and row["id"] in marks and marks[row["id"]].mark == BAD:
            row["outcome"] = MARKED_BAD
    if params.require_solvable:
        for row in ledger:
            if row["outcome"] == KEPT and row["verdict"] != SOLVABLE:
                row["outcome"] = row["verdict"]
    remaining: dict[str, list[dict[str, Any]]] = {name: [] for name in mix}
    for generator in mix:
        own = [row for row in ledger if row["generator"] == generator and row["outcome"] == KEPT]
        cut = easiness_cut([row["difficulty"] for row in own], params.drop_easiest_frac[generator])
        for row in own:
            row["min_difficulty"] = cut
            if row["difficulty"] < cut:
                row["outcome"] = "too_easy"
            else:
                remaining[generator].append(row)
    quotas = share_quotas({name: len(rows) for name, rows in remaining.items()}, params.shares, params.n_questions)
    for generator, rows in remaining.items():
        within = set(draw([row["id"] for row in rows], quotas[generator], seed, purpose="filter"))
        for at, row in enumerate(rows):
            if at not in within:
                row["outcome"] = "over_share"
    return ledger


def require_some(ledger: list[dict[str, Any]]) -> None:
    """Refuse an empty result, and say which filter removed the questions."""
    outcomes = Counter(row["outcome"] for row in ledger)
    if outcomes[KEPT]:
        return
    worst, n = outcomes.most_common(1)[0]
    by_generator = Counter((row["generator"], row["outcome"]) for row in ledger)
    details = ", ".join(f"{g}: {n} {o}" for (g, o), n in sorted(by_generator.items()))
    raise UserError(
        f"no question is left after the filters: of {len(ledger)} generated, '{worst}' took {n} ({details}); loosen that filter, "
        f"generate more, or give the generator that has none left no place in the mix"
    )


def supply(
    ledger: Sequence[dict[str, Any]], params: Filter, mix: Sequence[str]
) -> tuple[dict[str, Any], dict[str, bool]]:
    """What each generator was asked for, had left after the filters and gave, and whether the set is smaller than asked.

    The shares are exact, so the generator with the fewest questions for its share decides the size of the whole set. Two arms of
    an ablation may differ by that alone.
    """
    asked = share_quotas(dict.fromkeys(mix, params.n_questions), params.shares, params.n_questions)
    left = Counter(row["generator"] for row in ledger if row["outcome"] in (KEPT, "over_share"))
    kept = Counter(row["generator"] for row in ledger if row["outcome"] == KEPT)
    scarcest = min(mix, key=lambda name: left[name] / params.shares[name])
    metrics = {
        "asked": params.n_questions,
        "by_generator": {name: {"asked": asked[name], "left": left[name], "kept": kept[name]} for name in mix},
        "scarcest": scarcest,
    }
    # The quotas are rounded down: a question less per generator is no shortage.
    return metrics, {"fewer_than_asked": sum(kept.values()) < sum(asked.values())}


def marked(ledger: Sequence[dict[str, Any]], marks: Mapping[str, Mark]) -> dict[str, dict[str, int]]:
    """Outcomes of the questions that a reader marked good, and of those marked bad: where the filters agree with the reader."""
    found: dict[str, Counter[str]] = {GOOD: Counter(), BAD: Counter()}
    for row in ledger:
        if row["id"] in marks:
            found[marks[row["id"]].mark][row["outcome"]] += 1
    return {mark: dict(outcomes) for mark, outcomes in found.items()}


def main(args: argparse.Namespace, run: StageRun) -> None:
    """Join, filter, account."""
    params = run.params.filter
    screened = read_rows(args.screened, SCREENED)
    verdicts = {row["id"]: row["verdict"] for row in read_rows(args.judged, JUDGED)}
    scores = {row["id"]: row["score"] for row in read_rows(args.difficulty, SCORE)}
    marks = {}
    if params.marks:
        marks = read_marks(Path(params.marks.path).expanduser(), params.marks.sha256)
        check_marks(marks, ((row["id"], row["question"]) for row in screened))
    ledger = apply_filters(screened, verdicts, scores, params, run.params.mix, run.params.seed, marks)
    require_some(ledger)
    write_rows(args.ledger, ledger, LEDGER)
    kept = [{k: row[k] for k in FILTERED.names} for row in ledger if row["outcome"] == KEPT]
    write_rows(args.out, kept, FILTERED)
    outcomes = Counter(row["outcome"] for row in ledger)
    assert sum(outcomes.values()) == len(screened)
    supplied, warnings = supply(ledger, params, run.params.mix)
    if warnings["fewer_than_asked"]:
        scarcest = supplied["by_generator"][supplied["scarcest"]]
        log.warning(
            "filter.n_questions: %d kept of %d asked for. Generator '%s' has %d questions left and would need %d for its share, and "
            "the others shrink with it. Raise generators.%s.n_questions, loosen the filters, or change filter.shares.",
            len(kept), params.n_questions, supplied["scarcest"], scarcest["left"], scarcest["asked"], supplied["scarcest"],
        )  # fmt: skip
    run.metrics(
        args.metrics,
        {
            "generated": len(ledger),
            "kept": len(kept),
            "kept_frac": rounded(len(kept) / len(ledger)),
            "outcomes": dict(outcomes),
            "kept_by_generator": dict(Counter(row["generator"] for row in kept)),
            "removed_frac": {name: rounded(outcomes[name] / len(ledger)) for name in FILTER_OUTCOMES},
        }
        | ({"marked": marked(ledger, marks)} if marks else {})
        | supplied,
        warnings,
    )


if __name__ == "__main__":
    run_stage(main, __doc__, paths=("screened", "judged", "difficulty", "out", "ledger", "metrics"))
