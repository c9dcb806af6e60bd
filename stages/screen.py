"""Screen all generated questions with what needs no model: cut or empty, language, duplicates, contamination.

    python -m stages.screen --questions data/questions --benchmarks data/benchmarks --seeds data/seeds.parquet
        --out data/screened --metrics M.json

Every row stays, with the first verdict that applies, what it matched and the evidence. The questions are read twice, a row group
at a time: once by a process per core to check them (on Ray by its actors, with `runtime.engine: ray`), once to write them. In
between only hashes are in memory.
"""

import argparse
import pickle
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from scalequest.errors import UserError
from scalequest.io import read_jsonl, rounded
from scalequest.outcomes import DUPLICATES, KEPT, SCREEN_OUTCOMES
from scalequest.params import Runtime, Screen
from scalequest.problems.contamination import Contamination, Phrases, set_phrases
from scalequest.problems.diversity import SAMPLE, diversity, places
from scalequest.problems.grouping import Grouping, Screened
from scalequest.problems.paraphrases import PARAPHRASE
from scalequest.problems.screening import CODES, VERDICTS, Batch, Checker, printable
from scalequest.problems.templates import TEMPLATE_MATCH
from scalequest.records import PROBLEM, QUESTION, SCREENED, StoredRows, parts_of, write_stream
from scalequest.runtime.processes import cores, map_tasks
from scalequest.runtime.stage import StageRun, run_stage
from scalequest.runtime.workers import Work, work_on_ray

# Fewer rows are checked in this process: another one takes seconds to start.
LEAST_FOR_PROCESSES = 20_000
EXAMPLES = 5  # set phrases in the metrics, the first of each item
# What a Ray actor returns of a piece.
CHECKED = pa.schema([pa.field("checked", pa.binary())])


@dataclass(frozen=True)
class Piece:
    """Rows that are read at once: a row group of a generator's file.

    Attributes:
        path: the file.
        group: number of the row group.
        generator: its place in the mix.
        rows: how many.
    """

    path: Path
    group: int
    generator: int
    rows: int


def pieces(folder: Path, mix: Sequence[str], own: Collection[str] = ()) -> list[Piece]:
    """The questions of the mix's generators, in the mix's order; a generator that left the mix may still have a folder.

    Args:
        folder: with a folder per generator.
        mix: the generators, and the files of own questions.
        own: which of them are files.

    Raises:
        UserError: a generator of the mix has no folder.
    """
    found = sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    if missing := sorted(set(mix) - set(found)):
        stages = " ".join(f"{'own_questions' if name in own else 'generate'}@{name}" for name in missing)
        raise UserError(
            f"{folder}: no questions of {missing}. Expected a folder for each generator of the mix, found {found}. "
            f"Run the stages that write them: dvc repro {stages}"
        )
    return [
        Piece(part, group, at, facts.row_group(group).num_rows)
        for at, generator in enumerate(mix)
        for part in parts_of(folder / generator, QUESTION)
        for facts in [pq.ParquetFile(part).metadata]
        for group in range(facts.num_row_groups)
    ]


def read_benchmarks(folder: Path, names: Sequence[str]) -> list[dict[str, str]]:
    """The items of all benchmarks that are there, which ``names`` must be.

    Raises:
        UserError: one of ``names`` has no file, or an item lacks its id or question.
    """
    if missing := sorted(set(names) - {path.stem for path in folder.glob("*.jsonl")}):
        raise UserError(
            f"{folder}: no items of {missing}. Expected NAME.jsonl for each benchmark of params.yaml. "
            "Run: dvc repro benchmarks"
        )
    items = [row for path in sorted(folder.glob("*.jsonl")) for row in read_jsonl(path)]
    if broken := [
        row for row in items if not (isinstance(row.get("id"), str) and isinstance(row.get("question"), str))
    ]:
        raise UserError(f"{folder}: item {broken[0]}. Expected `id` and `question`. Run: dvc repro benchmarks")
    return items


def texts(column: pa.ChunkedArray) -> list[str | bytes | None]:
    """The values of a text column; those that are not UTF-8 as bytes."""
    try:
        found: list[str | bytes | None] = column.to_pylist()
        return found
    except UnicodeDecodeError:
        return [_text(value) for value in column.cast(pa.binary()).to_pylist()]


def _text(value: bytes | None) -> str | bytes | None:
    try:
        return value.decode() if value is not None else None
    except UnicodeDecodeError:
        return value


# ------------------------------------------------------------------------------------------------------------- checking

_checker: Checker | None = None


def _start(params: Screen, items: Sequence[dict[str, str]], phrases: Phrases) -> None:
    global _checker
    _checker = Checker(params, items, phrases)


def _check(piece: Piece) -> tuple[Batch, pa.Array]:
    """Check a piece's questions, in a process that ``_start`` has prepared."""
    assert _checker is not None
    data = pq.ParquetFile(piece.path).read_row_group(piece.group, columns=["id", "question", "finish_reason"])
    return _checker(texts(data["question"]), data["finish_reason"].to_pylist()), data["id"].combine_chunks()


def check_all(
    work: Sequence[Piece],
    params: Screen,
    items: Sequence[dict[str, str]],
    processes: int,
    phrases: Phrases = frozenset(),
) -> Iterator[tuple[Batch, pa.Array]]:
    """Check all pieces, in order. The number of processes changes only the time."""
    few = sum(piece.rows for piece in work) < LEAST_FOR_PROCESSES
    return map_tasks(_check, work, 1 if few else processes, _start, (params, items, phrases))


def _checks(params: Screen, items: Sequence[dict[str, str]], phrases: Phrases) -> Work[Piece]:
    """What a Ray actor does: a piece's batch as bytes."""
    _start(params, items, phrases)
    return lambda work, _seed, _number: ([{"checked": pickle.dumps(_check(piece))} for piece in work], 0)


def check_on_ray(
    work: Sequence[Piece], params: Screen, items: Sequence[dict[str, str]], phrases: Phrases, runtime: Runtime
) -> Iterator[tuple[Batch, pa.Array]]:
    """Check all pieces, in order, in the actors of ``runtime``. In memory are those that came before their turn."""
    shards = [(number, 0, [piece]) for number, piece in enumerate(work)]
    early, due = {}, 0
    for number, data, _ in work_on_ray(partial(_checks, params, items, phrases), shards, CHECKED, runtime, {}, 0):
        early[number] = data["checked"][0].as_py()
        while due in early:
            yield pickle.loads(early.pop(due))
            due += 1


def screen(rows: Sequence[dict[str, Any]], benchmark: Sequence[dict[str, str]], params: Screen) -> list[dict[str, Any]]:
    """Give each of N questions its verdict, in order; the first of a group of duplicates is the one kept."""
    mix = list(dict.fromkeys(row["generator"] for row in rows))
    checked = Checker(params, benchmark)([row["question"] for row in rows], [row["finish_reason"] for row in rows])
    screened = Screened()
    places = np.array([mix.index(row["generator"]) for row in rows], np.int16)
    screened.add(checked, pa.array([row["id"] for row in rows], pa.string()), places)
    columns = screened.group(params.near_duplicate_jaccard, params.semantic_duplicate_cosine).columns(0, len(rows))
    return [
        {
            "id": row["id"],
            "generator": row["generator"],
            "question": printable(row["question"]),
            "verdict": verdict,
            "matched": matched,
            "evidence": evidence,
        }
        for row, verdict, matched, evidence in zip(rows, *(column.to_pylist() for column in columns), strict=True)
    ]


# -------------------------------------------------------------------------------------------------------------- writing


def written(work: Sequence[Piece], grouping: Grouping) -> Iterator[pa.Table]:
    """The screened questions, piece by piece."""
    start = 0
    for piece in work:
        data = pq.ParquetFile(piece.path).read_row_group(piece.group, columns=["id", "generator", "question"])
        questions = texts(data["question"])
        # Nothing that is no text may be written: readers of the ledger would fail.
        if any(isinstance(question, bytes) for question in questions):
            data = data.set_column(2, "question", pa.array([printable(q) for q in questions], pa.string()))
        for name, column in zip(SCREENED.names[3:], grouping.columns(start, start + piece.rows), strict=True):
            data = data.append_column(name, column)
        yield data.cast(SCREENED)
        start += piece.rows


def counts(work: Sequence[Piece], grouping: Grouping, mix: Sequence[str], params: Screen) -> dict[str, Any]:
    """The metrics: verdicts in all and by generator, and the groups of duplicates; null for what was not looked for."""
    generator = np.repeat([piece.generator for piece in work], [piece.rows for piece in work])
    by_generator = {
        name: {
            verdict: n
            for code, verdict in enumerate(VERDICTS)
            if (n := int(np.sum(grouping.verdicts[generator == place] == code)))
        }
        for place, name in enumerate(mix)
    }
    total: Counter[str] = Counter()
    for own in by_generator.values():
        total.update(own)
    sizes = np.unique(grouping.kept[grouping.kept >= 0], return_counts=True)[1]
    n = len(grouping.verdicts)
    return {
        "questions": n,
        "kept": total[KEPT],
        "kept_frac": rounded(total[KEPT] / max(1, n)),
        "dropped": {name: total[name] for name in SCREEN_OUTCOMES},
        "by_generator": by_generator,
        # A group is a kept question with its duplicates.
        "template_matches": like_items(grouping, TEMPLATE_MATCH) if params.compares_templates else None,
        "paraphrases": like_items(grouping, PARAPHRASE) if params.compares_paraphrases else None,
        "overlap": overlap(grouping, generator, mix),
        "duplicate_groups": {"n": len(sizes), "largest": int(sizes.max()) + 1 if len(sizes) else 0},
    }


def like_items(grouping: Grouping, begins: str) -> dict[str, int]:
    """Numbers of kept questions whose evidence begins so, and of the benchmark items that they are like."""
    rows = (grouping.verdicts == CODES[KEPT]) & pc.starts_with(grouping.evidence, begins).to_numpy()
    return {"kept": int(rows.sum()), "items": len(pc.unique(grouping.matched.filter(pa.array(rows))))}


def overlap(
    grouping: Grouping, generator: NDArray[np.int64], mix: Sequence[str]
) -> dict[str, dict[str, dict[str, int]]]:
    """How many questions of a generator duplicate a kept one of each: kind of duplicate, generator, kept one's generator."""
    found: dict[str, dict[str, dict[str, int]]] = {}
    for verdict in DUPLICATES:
        own = np.flatnonzero(grouping.verdicts == CODES[verdict])
        pairs = np.zeros((len(mix), len(mix)), int)
        np.add.at(pairs, (generator[own], generator[grouping.kept[own]]), 1)
        found[verdict.removesuffix("_duplicate")] = {
            name: dict(zip(mix, map(int, row), strict=True)) for name, row in zip(mix, pairs, strict=True)
        }
    return found


def set_aside(contamination: Contamination, phrases: Phrases) -> dict[str, Any]:
    """The metrics of what was not looked for, because it is a set phrase: runs of items, by what has them, and examples."""
    pairs = contamination.set_aside
    of_seeds = [pair for pair in pairs if pair in phrases]
    examples: dict[str, str] = {}
    for run, item in of_seeds:
        examples.setdefault(item, run)
    return {
        "runs_of_items": len(pairs) - len(of_seeds),
        "runs_of_seeds": len(of_seeds),
        "items": len({item for _, item in pairs}),
        "examples": dict(list(examples.items())[:EXAMPLES]),
    }


def sampled(work: Sequence[Piece], grouping: Grouping, mix: Sequence[str]) -> dict[str, Sequence[str]]:
    """Questions of each generator, as many of each: those that ended, are text and in the language. Duplicates are among them."""
    generator = np.repeat([piece.generator for piece in work], [piece.rows for piece in work])
    usable = np.isin(grouping.verdicts, [CODES[name] for name in (KEPT, *DUPLICATES)])
    own = [np.flatnonzero(usable & (generator == place)) for place in range(len(mix))]
    n = min(SAMPLE, *(len(rows) for rows in own))
    chosen = np.concatenate([rows[places(len(rows), n)] for rows in own])
    found: dict[str, list[str]] = {name: [] for name in mix}
    start = 0
    for piece in work:
        if len(here := [int(at) - start for at in chosen if start <= at < start + piece.rows]):
            column = pq.ParquetFile(piece.path).read_row_group(piece.group, columns=["question"])["question"]
            found[mix[piece.generator]] += column.take(pa.array(here)).to_pylist()
        start += piece.rows
    return dict(found)


def main(args: argparse.Namespace, run: StageRun) -> None:
    """Screen the questions of all generators together."""
    params = run.params.screen
    items = read_benchmarks(args.benchmarks, list(run.params.benchmarks)) if params.decontaminate_ngram else []
    own = run.params.own.questions
    mix = [*run.params.mix, *own]
    work = pieces(args.questions, mix, own)
    screened = Screened()
    runtime = run.params.runtime
    seeds = (row["question"] for row in StoredRows(args.seeds, PROBLEM, ["question"]))
    index = Contamination(items, params.decontaminate_ngram)
    phrases = set_phrases(index, items, seeds)
    index.leave_out(phrases)
    if runtime.engine == "ray":
        checked = check_on_ray(work, params, items, phrases, runtime)
    else:
        checked = check_all(work, params, items, cores(), phrases)
    for piece, (batch, ids) in zip(work, checked, strict=True):
        screened.add(batch, ids, piece.generator)
    grouping = screened.group(params.near_duplicate_jaccard, params.semantic_duplicate_cosine)
    metrics = counts(work, grouping, mix, params)
    if not metrics["kept"]:
        found = {name: n for name, n in metrics["dropped"].items() if n}
        raise UserError(
            f"screen dropped all {metrics['questions']} questions: {found}; loosen the `screen` parameter that removed them"
        )
    write_stream(args.out, written(work, grouping), SCREENED)
    run.metrics(
        args.metrics,
        metrics | {"set_phrases": set_aside(index, phrases), "diversity": diversity(sampled(work, grouping, mix))},
    )


if __name__ == "__main__":
    run_stage(main, __doc__, paths=("questions", "benchmarks", "seeds", "out", "metrics"))
