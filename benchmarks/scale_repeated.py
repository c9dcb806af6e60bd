"""The tables of `scale_data.py` for many millions of rows, in a tenth of the time: the texts of 100,000 questions, repeated.

Ids, verdicts, scores and rewards are each row's own. A question carries the number of its repetition at its end, so no
two questions, and no two prompts with a response, are the same text.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from scale_data import GENERATORS, JUDGED_AS, SCREENED_AS, SHARD, numbers, outcomes, question

from scalequest.records import (
    FILTERED,
    INSTRUCTION,
    JUDGED,
    RESPONSE,
    REWARD,
    ROWS_PER_PART,
    SCORE,
    SCREENED,
    row_groups,
    write_stream,
)

# Questions that are made one by one.
MADE = 100_000
Places = NDArray[np.int64]


@cache
def questions_made() -> pa.Array:
    """The texts that are repeated."""
    return pa.array([question(at)[0] for at in range(MADE)])


@cache
def answers_made(samples: int) -> tuple[pa.Array, pa.Array]:
    """Answers to each of them, and how each ended."""
    texts, ends = [], []
    for at in range(MADE):
        draw, answer = numbers(-1 - at), question(at)[1]
        for _ in range(samples):
            texts.append(answer(draw))
            ends.append("length" if draw.random() < 0.02 else "stop")
    return pa.array(texts), pa.array(ends)


def joined(*parts: Any) -> pa.Array:
    """Texts and numbers, row by row, one after another."""
    found = (part if isinstance(part, str) else pc.cast(pa.array(part), pa.string()) for part in parts)
    return pc.binary_join_element_wise(*found, "")


def names(places: Places, n: int) -> tuple[pa.Array, pa.Array]:
    """Generators and ids of the questions at some places of N, as ``scale_data.identity`` makes them."""
    generator, row = np.divmod(places, (n + 1) // 2)
    named = pa.array(GENERATORS).take(pa.array(generator))
    return named, joined(named, "/", row // SHARD, "/", row % SHARD)


def places_of(ids: pa.Array, n: int) -> Places:
    """The places of questions among N, from their ids."""
    parts = pc.split_pattern(ids, "/")
    shard, row = (pc.list_element(parts, at).cast(pa.int64()).to_numpy() for at in (1, 2))
    generator = pc.index_in(pc.list_element(parts, 0), pa.array(GENERATORS)).to_numpy().astype(np.int64)
    found: Places = generator * ((n + 1) // 2) + shard * SHARD + row
    return found


def texts(places: Places) -> pa.Array:
    """The questions at some places."""
    return joined(questions_made().take(pa.array(places % MADE)), " (", places // MADE, ")")


def in_parts(places: Places, make: Callable[[Places], list[Any]], schema: pa.Schema) -> Iterator[pa.Table]:
    """Tables of what ``make`` gives for some thousand places at a time: the schema's columns."""
    for start in range(0, len(places), ROWS_PER_PART // 5):
        yield pa.table(make(places[start : start + ROWS_PER_PART // 5]), schema=schema)


def drawn(places: Places) -> np.random.Generator:
    """Random numbers for some places: others for others."""
    return np.random.default_rng(int(places[0]))


def write_generated(folder: Path, n: int) -> None:
    """FOLDER/screened/, judged/ and difficulty/ of N generated questions."""
    found, judgements = (own.astype(np.int8) for own in outcomes(n))
    said = pa.array([["", "Jaccard 0.91", "", "es"][at] for at in range(len(SCREENED_AS))])

    def screened(at: Places) -> list[Any]:
        generator, row_ids = names(at, n)
        verdict = pa.array([name for name, _ in SCREENED_AS]).take(pa.array(found[at]))
        twins = names(np.maximum(0, at - 17), n)[1]
        matched = pc.if_else(pc.ends_with(verdict, "duplicate"), twins, "")
        return [row_ids, generator, texts(at), verdict, matched, said.take(pa.array(found[at]))]

    def judged(at: Places) -> list[Any]:
        verdict = pa.array([name for name, _ in JUDGED_AS]).take(pa.array(judgements[at]))
        word = pc.if_else(
            pa.array(judgements[at] == 0), "The question states all that is needed and asks for one number. Yes", "No"
        )
        return [names(at, n)[1], verdict, word, pa.array(["stop"] * len(at))]

    def difficulty(at: Places) -> list[Any]:
        return [names(at, n)[1], drawn(at).random(len(at), np.float32)]

    every, left = np.arange(n), np.flatnonzero(found == 0)
    write_stream(folder / "screened", in_parts(every, screened, SCREENED), SCREENED)
    write_stream(folder / "judged", in_parts(left, judged, JUDGED), JUDGED)
    write_stream(folder / "difficulty", in_parts(left, difficulty, SCORE), SCORE)


def write_kept(folder: Path, n: int) -> None:
    """FOLDER/filtered.parquet, responses/ and rewards/ of N kept questions."""

    def filtered(at: Places) -> list[Any]:
        generator, row_ids = names(at, n)
        return [row_ids, generator, texts(at), (at * 7919 % 1000 / 1000).astype(np.float32)]

    write_stream(folder / "filtered.parquet", in_parts(np.arange(n), filtered, FILTERED), FILTERED)
    write_answers(folder, np.arange(n), n)


def write_answers(folder: Path, places: Sequence[int] | Places, n: int, samples: int = 5) -> None:
    """FOLDER/responses/ and rewards/ of the questions at some places of N."""
    answers, ends = answers_made(samples)

    def named(at: Places) -> tuple[pa.Array, pa.Array, NDArray[np.int32]]:
        rows = names(np.repeat(at, samples), n)[1]
        sample = np.tile(np.arange(samples, dtype=np.int32), len(at))
        return joined(rows, "#", sample), rows, sample

    def responses(at: Places) -> list[Any]:
        own = named(at)
        made = pa.array(np.repeat(at % MADE * samples, samples) + own[2])
        return [*own, answers.take(made), ends.take(made), np.full(len(made), 180, np.int32)]

    def rewards(at: Places) -> list[Any]:
        return [*named(at), drawn(at).standard_normal(len(at) * samples, np.float32)]

    every = np.asarray(places)
    write_stream(folder / "responses", in_parts(every, responses, RESPONSE), RESPONSE)
    write_stream(folder / "rewards", in_parts(every, rewards, REWARD), REWARD)


def write_instruct(path: Path, filtered: Path, n: int, samples: int = 5) -> Places:
    """A training row of each kept question of a FILTERED table; their places among N are returned."""
    answers, found = answers_made(samples)[0], []

    def tables() -> Iterator[pa.Table]:
        for group in row_groups(filtered, FILTERED):
            data = group.read(["id", "generator", "question"]).combine_chunks()
            at = places_of(data["id"].chunk(0), n)
            found.append(at)
            facts = [
                answers.take(pa.array(at % MADE * samples)),
                joined(at % 1000),
                drawn(at).standard_normal(len(at), np.float32),
                ((1 + at % 5) / 5).astype(np.float32),
                np.full(len(at), 5, np.int32),
            ]
            yield pa.table([*data.select(["id", "generator", "question"]).columns, *facts], schema=INSTRUCTION)

    write_stream(path, tables(), INSTRUCTION)
    return np.concatenate(found)
