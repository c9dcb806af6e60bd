"""Apply the thresholds and the mix, and write the ledger of EVERY generated question. No model runs here.

python -m stages.filter --screened data/screened --judged data/judged --difficulty data/difficulty
    --out data/filtered.parquet --ledger data/ledger.parquet --metrics M.json

The questions are read by row group. What all of them share the thresholds by is in memory: 30 bytes each.
"""

import argparse
import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from scalequest.errors import UserError
from scalequest.io import rounded
from scalequest.outcomes import FILTER_OUTCOMES, KEPT, MARKED_BAD, SOLVABLE
from scalequest.params import Filter
from scalequest.problems.draw import hash_place
from scalequest.problems.marks import BAD, GOOD, Mark, check_marks, read_marks
from scalequest.records import (
    FILTERED,
    JUDGED,
    LEDGER,
    SCORE,
    SCREENED,
    RowGroup,
    places,
    read_table,
    row_groups,
    write_stream,
)
from scalequest.runtime.stage import StageRun, run_stage

log = logging.getLogger("scalequest")


def whole(number: float) -> int:
    """A product rounded down. 0.29 * 100 is just under 29 as a float, and means 29."""
    return int(number + 1e-9)


def easiness_cut(scores: Sequence[float] | NDArray[np.float64], frac: float) -> float:
    """Lowest score that stays when the easiest ``frac`` of N scores go (paper: about 0.3 of one generator's)."""
    at = min(whole(frac * len(scores)), len(scores) - 1)
    return float(np.partition(scores, at)[at]) if len(scores) else 0.0


def share_quotas(available: dict[str, int], shares: dict[str, float], n: int) -> dict[str, int]:
    """How many questions of each generator: the most, up to ``n`` in all, that keep the shares exact to one question."""
    total = sum(shares[name] for name in available)
    fractions = {name: shares[name] / total for name in available}
    size = min([float(n)] + [count / fractions[name] for name, count in available.items()])
    # Rounded down, so that the sum never exceeds n.
    return {name: whole(size * fractions[name]) for name in available}


class Names:
    """Names as small numbers, in the order in which they come up."""

    def __init__(self, first: Sequence[str] = ()) -> None:
        self.codes = {name: code for code, name in enumerate(first)}

    def __getitem__(self, name: str) -> int:
        return self.codes.setdefault(name, len(self.codes))

    def encoded(self, names: pa.Array) -> NDArray[np.int16]:
        """The numbers of N names; -1 for null."""
        found = names.dictionary_encode()
        own = np.array([*(self[name] for name in found.dictionary.to_pylist()), -1], np.int16)
        return own[found.indices.fill_null(-1).to_numpy(zero_copy_only=False)]

    def decoded(self, codes: NDArray[np.int16]) -> pa.Array:
        """The names of N numbers; null for -1."""
        return pa.array(list(self.codes), pa.string()).take(pa.array(codes, pa.int16(), mask=codes < 0))


@dataclass
class Ledger:
    """What is known of N generated questions but their texts and ids; 30 bytes each.

    Attributes:
        generator: its place in ``generators``.
        outcome: its place in ``outcomes``.
        verdict: the judge's, its place in ``outcomes``; -1 without one.
        difficulty: the score; NaN without one.
        min_difficulty: the cut that the question was held against; NaN if it was dropped before.
        generators: names of the generators, those of the mix first.
        outcomes: names of outcomes and verdicts.
    """

    generator: NDArray[np.int16]
    outcome: NDArray[np.int16]
    verdict: NDArray[np.int16]
    difficulty: NDArray[np.float64]
    generators: Names
    outcomes: Names
    min_difficulty: NDArray[np.float64] = field(init=False)

    def __post_init__(self) -> None:
        self.min_difficulty = np.full(len(self.outcome), np.nan)

    def counts(self) -> Counter[tuple[str, str]]:
        """Number of questions by generator and outcome, in the order of the questions."""
        pairs = self.generator.astype(np.int32) << 16 | self.outcome
        found, first, n = np.unique(pairs, return_index=True, return_counts=True)
        generators, outcomes = list(self.generators.codes), list(self.outcomes.codes)
        order = np.argsort(first)
        return Counter(
            {
                (generators[pair >> 16], outcomes[pair & 0xFFFF]): int(k)
                for pair, k in zip(found[order], n[order], strict=True)
            }
        )

    def columns(self, rows: slice) -> dict[str, pa.Array]:
        """The ledger's columns that are decided here, of some questions in order."""

        def real(values: NDArray[np.float64]) -> pa.Array:
            return pa.array(values[rows], pa.float32(), mask=np.isnan(values[rows]))

        return {
            "outcome": self.outcomes.decoded(self.outcome[rows]),
            "verdict": self.outcomes.decoded(self.verdict[rows]),
            "difficulty": real(self.difficulty),
            "min_difficulty": real(self.min_difficulty),
        }


def decide(
    ledger: Ledger,
    bad: NDArray[np.bool_],
    places: Callable[[NDArray[np.intp]], NDArray[np.float64]],
    params: Filter,
    mix: Sequence[str],
) -> None:
    """Give each of N questions its outcome.

    Which questions a full share gives up is drawn by a hash of seed and id: no order of generation is favoured.

    Args:
        ledger: with the screen's verdicts as outcomes; changed.
        bad: whether a reader marked the question bad.
        places: of questions by their number, in [0, 1); the lowest of each generator are kept.
        params: thresholds and shares.
        mix: the generators.

    Raises:
        UserError: a question that passed the filters before has no judgement or no score.
    """
    outcome, code = ledger.outcome, ledger.outcomes
    # A reader's word comes first, so that thresholds and shares are of what is left.
    outcome[(outcome == code[KEPT]) & bad] = code[MARKED_BAD]
    if params.require_solvable:
        asked = (outcome == code[KEPT]) & (ledger.verdict != code[SOLVABLE])
        _require("judgement", ledger.verdict[asked] >= 0, "judge")
        outcome[asked] = ledger.verdict[asked]
    remaining: dict[str, NDArray[np.intp]] = {}
    for generator in mix:
        own = np.flatnonzero((ledger.generator == ledger.generators[generator]) & (outcome == code[KEPT]))
        scores = ledger.difficulty[own]
        _require("score", ~np.isnan(scores), "difficulty")
        cut = easiness_cut(scores, params.drop_easiest_frac[generator])
        ledger.min_difficulty[own] = cut
        outcome[own[scores < cut]] = code["too_easy"]
        remaining[generator] = own[scores >= cut]
    quotas = share_quotas({name: len(rows) for name, rows in remaining.items()}, params.shares, params.n_questions)
    for generator, rows in remaining.items():
        order = np.argsort(places(rows), kind="stable")
        outcome[rows[order[quotas[generator] :]]] = code["over_share"]


def _require(what: str, there: NDArray[np.bool_], stage: str) -> None:
    if not there.all():
        raise UserError(
            f"{what} of {int((~there).sum()):,} questions that passed the screen: none. Expected one for each. Rerun: dvc repro {stage}"
        )


def apply_filters(
    screened: Sequence[dict[str, Any]],
    verdicts: Mapping[str, str],
    scores: Mapping[str, float],
    params: Filter,
    mix: Sequence[str],
    seed: int,
    marks: Mapping[str, Mark] = MappingProxyType({}),
) -> list[dict[str, Any]]:
    """The ledger of a few questions as rows: one per question, in order, with its outcome and what it was judged by."""
    generators, outcomes = Names(mix), Names()
    ids = [row["id"] for row in screened]
    ledger = Ledger(
        generators.encoded(pa.array([row["generator"] for row in screened], pa.string())),
        outcomes.encoded(pa.array([row["verdict"] for row in screened], pa.string())),
        outcomes.encoded(pa.array([verdicts.get(name) for name in ids], pa.string())),
        np.array([scores.get(name, np.nan) for name in ids], float),
        generators,
        outcomes,
    )
    bad = np.array([name in marks and marks[name].mark == BAD for name in ids], bool)
    decide(ledger, bad, lambda rows: np.array([hash_place(seed, ids[k], "filter") for k in rows]), params, mix)
    found = ledger.columns(slice(None)) | {"min_difficulty": pa.array(ledger.min_difficulty, from_pandas=True)}
    decided = pa.table(found).to_pylist()
    return [
        {"id": row["id"], "generator": row["generator"], "question": row["question"], "outcome": own["outcome"],
         "matched": row["matched"], "evidence": row["evidence"], "verdict": own["verdict"],
         "difficulty": scores.get(row["id"]), "min_difficulty": own["min_difficulty"]}
        for row, own in zip(screened, decided, strict=True)
    ]  # fmt: skip


def require_some(found: Counter[tuple[str, str]]) -> None:
    """Refuse an empty result, and say which filter removed the questions.

    Args:
        found: number of questions by generator and outcome.
    """
    outcomes = by_outcome(found)
    if outcomes[KEPT]:
        return
    worst, n = outcomes.most_common(1)[0]
    details = ", ".join(f"{g}: {n} {o}" for (g, o), n in sorted(found.items()))
    raise UserError(
        f"no question is left after the filters: of {found.total()} generated, '{worst}' took {n} ({details}); loosen that filter, "
        f"generate more, or give the generator that has none left no place in the mix"
    )


def by_outcome(found: Mapping[tuple[str, str], int]) -> Counter[str]:
    """Number of questions by outcome."""
    outcomes: Counter[str] = Counter()
    for (_, outcome), n in found.items():
        outcomes[outcome] += n
    return outcomes


def supply(
    found: Mapping[tuple[str, str], int], params: Filter, mix: Sequence[str]
) -> tuple[dict[str, Any], dict[str, bool]]:
    """What each generator was asked for, had left after the filters and gave, and whether the set is smaller than asked.

    The shares are exact, so the generator with the fewest questions for its share decides the size of the whole set. Two arms of
    an ablation may differ by that alone.

    Args:
        found: number of questions by generator and outcome.
        params: the shares, and how many are asked for.
        mix: the generators.
    """
    asked = share_quotas(dict.fromkeys(mix, params.n_questions), params.shares, params.n_questions)
    kept = {name: found.get((name, KEPT), 0) for name in mix}
    left = {name: kept[name] + found.get((name, "over_share"), 0) for name in mix}
    scarcest = min(mix, key=lambda name: left[name] / params.shares[name])
    metrics = {
        "asked": params.n_questions,
        "by_generator": {name: {"asked": asked[name], "left": left[name], "kept": kept[name]} for name in mix},
        "scarcest": scarcest,
    }
    # The quotas are rounded down: a question less per generator is no shortage.
    return metrics, {"fewer_than_asked": sum(kept.values()) < sum(asked.values())}


def marked(rows: Iterable[tuple[str, str]], marks: Mapping[str, Mark]) -> dict[str, dict[str, int]]:
    """Outcomes of the questions that a reader marked good, and of those marked bad: where the filters agree with the reader.

    Args:
        rows: id and outcome of questions.
        marks: by id.
    """
    found: dict[str, Counter[str]] = {GOOD: Counter(), BAD: Counter()}
    for name, outcome in rows:
        if name in marks:
            found[marks[name].mark][outcome] += 1
    return {mark: dict(outcomes) for mark, outcomes in found.items()}


# ---------------------------------------------------------------------------------------------------- by row group


def joined(groups: Sequence[RowGroup], ids: pa.Array) -> NDArray[np.int32]:
    """Where each generated question is among ``ids``, those of a later stage; -1 where it is not.

    A later stage works on what the screen kept, in order, so those are looked for in order. Were some of ``ids`` not among them,
    every question would be looked for everywhere.
    """
    parts, after, hits = [], 0, 0
    for group in groups:
        data = group.read(["id", "verdict"])
        asked = pc.equal(data["verdict"], KEPT).to_numpy()
        at = places(data["id"].filter(pa.array(asked)).combine_chunks(), ids, after).fill_null(-1).to_numpy()
        found = np.full(group.rows, -1, np.int32)
        found[asked] = at
        parts.append(found)
        after, hits = max(after, int(at.max(initial=-1)) + 1), hits + int((at >= 0).sum())
    if hits < len(ids):
        found_anywhere = (pc.index_in(group.read(["id"])["id"], value_set=ids) for group in groups)
        parts = [at.fill_null(-1).to_numpy() for at in found_anywhere]
    return np.concatenate([np.empty(0, np.int32), *parts])


def column(path: Path, schema: pa.Schema, name: str) -> pa.Array:
    """A column of a file or a folder of parts, in one piece."""
    return pa.concat_arrays([pa.array([], schema.field(name).type), *read_table(path, schema, [name])[name].chunks])


def read_ledger(groups: Sequence[RowGroup], judged: Path, difficulty: Path, mix: Sequence[str]) -> Ledger:
    """The generated questions with the screen's verdicts as outcomes, the judge's verdicts and the scores."""
    generators, outcomes = Names(mix), Names()
    generator, outcome = [np.empty(0, np.int16)], [np.empty(0, np.int16)]
    for group in groups:
        data = group.read(["generator", "verdict"]).combine_chunks()
        generator.append(generators.encoded(data["generator"].chunk(0)))
        outcome.append(outcomes.encoded(data["verdict"].chunk(0)))
    at = joined(groups, column(judged, JUDGED, "id"))
    verdict = np.append(outcomes.encoded(column(judged, JUDGED, "verdict")), np.int16(-1))[at]
    at = joined(groups, column(difficulty, SCORE, "id"))
    score = np.append(column(difficulty, SCORE, "score").to_numpy().astype(float), np.nan)[at]
    return Ledger(np.concatenate(generator), np.concatenate(outcome), verdict, score, generators, outcomes)


class Generated:
    """The generated questions, read by row group.

    Attributes:
        groups: of their table.
        starts: number of the first question of each group.
    """

    def __init__(self, groups: Sequence[RowGroup]) -> None:
        self.groups = groups
        self.starts = np.cumsum([0, *(group.rows for group in groups)])

    def read(self, columns: Sequence[str]) -> Iterator[tuple[slice, pa.Table]]:
        """Numbers and rows of each group."""
        for start, group in zip(self.starts, self.groups, strict=False):
            yield slice(start, start + group.rows), group.read(columns)

    def among(self, ids: Collection[str]) -> NDArray[np.bool_]:
        """Whether the id of each question is among ``ids``."""
        wanted = pa.array(sorted(ids), pa.string())
        found = [pc.is_in(data["id"], value_set=wanted).to_numpy() for _, data in self.read(["id"])] if ids else []
        return np.concatenate(found) if found else np.zeros(self.starts[-1], bool)

    def places(self, rows: NDArray[np.intp], seed: int) -> NDArray[np.float64]:
        """The hashes by which some questions, in ascending order, are drawn."""
        found = []
        for numbers, data in self.read(["id"]):
            low, high = np.searchsorted(rows, [numbers.start, numbers.stop])
            own = data["id"].take(pa.array(rows[low:high] - numbers.start)).to_pylist()
            found.append(np.fromiter((hash_place(seed, name, "filter") for name in own), float, len(own)))
        return np.concatenate(found)

    def ledger(self, ledger: Ledger) -> Iterator[pa.Table]:
        """The ledger's rows, group by group."""
        for numbers, data in self.read(["id", "generator", "question", "matched", "evidence"]):
            own = {name: data[name] for name in data.column_names} | ledger.columns(numbers)
            yield pa.table([own[name] for name in LEDGER.names], schema=LEDGER)


def main(args: argparse.Namespace, run: StageRun) -> None:
    """Join, filter, account."""
    # A file of own questions has a share like a generator.
    params, mix = run.params.filter, [*run.params.mix, *run.params.own.questions]
    generated = Generated(row_groups(args.screened, SCREENED))
    ledger = read_ledger(generated.groups, args.judged, args.difficulty, mix)
    marks: Mapping[str, Mark] = {}
    if params.marks:
        marks = read_marks(Path(params.marks.path).expanduser(), params.marks.sha256)
        pairs = (
            zip(*(data[c].to_pylist() for c in data.column_names), strict=True)
            for _, data in generated.read(["id", "question"])
        )
        check_marks(marks, chain.from_iterable(pairs))
    bad = generated.among({name for name, mark in marks.items() if mark.mark == BAD})
    decide(ledger, bad, lambda rows: generated.places(rows, run.params.seed), params, mix)
    found = ledger.counts()
    require_some(found)
    write_stream(args.ledger, generated.ledger(ledger), LEDGER)
    passed = (data.filter(pc.equal(data["outcome"], KEPT)).select(FILTERED.names) for data in generated.ledger(ledger))
    kept = write_stream(args.out, passed, FILTERED)
    outcomes = by_outcome(found)
    supplied, warnings = supply(found, params, mix)
    if warnings["fewer_than_asked"]:
        scarcest = supplied["by_generator"][supplied["scarcest"]]
        log.warning(
            "filter.n_questions: %d kept of %d asked for. Generator '%s' has %d questions left and would need %d for its share, and "
            "the others shrink with it. Raise generators.%s.n_questions, loosen the filters, or change filter.shares.",
            kept, params.n_questions, supplied["scarcest"], scarcest["left"], scarcest["asked"], supplied["scarcest"],
        )  # fmt: skip
    n = found.total()
    metrics: dict[str, Any] = {
        "generated": n,
        "kept": kept,
        "kept_frac": rounded(kept / n),
        "outcomes": dict(outcomes),
        "kept_by_generator": {generator: k for (generator, outcome), k in found.items() if outcome == KEPT},
        "removed_frac": {name: rounded(outcomes[name] / n) for name in FILTER_OUTCOMES},
    }
    if marks:
        own = generated.among(marks)
        names = [
            name
            for numbers, data in generated.read(["id"])
            for name in data["id"].filter(pa.array(own[numbers])).to_pylist()
        ]
        metrics["marked"] = marked(
            zip(names, ledger.outcomes.decoded(ledger.outcome[own]).to_pylist(), strict=True), marks
        )
    run.metrics(args.metrics, metrics | supplied, warnings)


if __name__ == "__main__":
    run_stage(main, __doc__, paths=("screened", "judged", "difficulty", "out", "ledger", "metrics"))
