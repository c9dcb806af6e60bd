"""Made-up rows for `benchmarks/scale.py`, in the real schemas and part sizes of the stages from `screen` to `reward_select`.

A question is a story with numbers or a formula. Its answers are worked solutions of 400 to 700 characters, most of them
right. A tenth of the final answers are formulas that only sympy can compare, some are spelled otherwise (1/2, 0.5), 3 %
have no answer and 2 % are cut. Tables are made a part at a time, so any number of rows fits.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from screen_data import NAMES, PLACES, THINGS

from scalequest.records import (
    FILTERED,
    INSTRUCTION,
    JUDGED,
    RESPONSE,
    REWARD,
    ROWS_PER_PART,
    SCORE,
    SCREENED,
    write_stream,
)

GENERATORS = ("sums", "stories")
SHARD = 16_384
# Verdicts of the screen and of the judge, with their shares.
SCREENED_AS = (("kept", 0.88), ("near_duplicate", 0.06), ("exact_duplicate", 0.03), ("language", 0.03))
JUDGED_AS = (("solvable", 0.82), ("unsolvable", 0.17), ("no_verdict", 0.01))

SOLUTION = r"""To determine the answer, we first define the variables and set up the equation from what is given.

Let \( x \) be the number of {thing} that {name} starts with. In the morning {name} has {a} boxes of {b} {thing} each, so
\[ {a} \times {b} = {ab} \]

In the afternoon {c} more {thing} arrive at the {place}, which gives
\[ {ab} + {c} = {total} \]

According to the problem, {d} of these {thing} are given away. Then the rest is {total} - {d} = {rest}, and checking again,
{a} * {b} + {c} - {d} = {rest}.

{end}"""
FORMULA = r"""To determine the value, we write the area of the figure as a function of the side \( s \).

The side is \( s = {a} \), so the square has the area \( {a}^2 = {square} \). The diagonal divides it into two triangles,
each of which has the area \( {square} / 2 \). The circle around it has the radius \( \frac{{{a}\sqrt{{2}}}}{{2}} \).

Multiplying by the {b} copies that the problem asks for, and simplifying the radical, we get

{end}"""


def identity(at: int, n: int) -> tuple[str, str]:
    """Generator and id of question ``at`` of N: the first half is one generator's, in shards."""
    half = (n + 1) // 2
    generator, row = divmod(at, half)
    return GENERATORS[generator], f"{GENERATORS[generator]}/{row // SHARD}/{row % SHARD}"


def numbers(at: int) -> random.Random:
    """The random numbers of one question: the same whichever table is made."""
    return random.Random(at)


def question(at: int) -> tuple[str, Callable[[random.Random], str]]:
    """A question, and a function that writes one more answer to it."""
    rng = numbers(at)
    a, b, c, d = (rng.randint(2, 90) for _ in range(4))
    name, thing, place = rng.choice(NAMES[:16]), rng.choice(THINGS[:14]), rng.choice(PLACES)
    if at % 10 == 0:  # one question in ten has a formula for its answer
        text = (
            f"A square has side ${a}$. {name} draws {b} circles around copies of it. "
            "What is the total length, in simplest form?"
        )
        ends = [rf"\[ \boxed{{{a * b}\sqrt{{2}}\pi}} \]"] * 6 + [rf"\[ \boxed{{{b}\pi\cdot {a}\sqrt{{2}}}} \]"] * 2
        ends += [rf"\[ \boxed{{{a + k}\pi\sqrt{{{b}}}}} \]" for k in range(2)]
        return text, lambda draw: FORMULA.format(a=a, b=b, square=a * a, end=draw.choice(ends))
    text = (
        f"{name} has {a} boxes with {b} {thing} each and gets {c} more at the {place}. Then {name} gives {d} {thing} away. "
        f"How many {thing} does {name} have now?"
    )
    total, rest = a * b + c, a * b + c - d
    answers = [f"{rest}"] * 7 + [f"{rest}.0", rf"{rest} \text{{ {thing}}}", f"{rest + 1}", f"{total}", f"{rest:,}"]

    def answer(draw: random.Random) -> str:
        way = draw.random()
        found = draw.choice(answers)
        end = f"Therefore, {name} has \\(\\boxed{{{found}}}\\) {thing} now."
        if way < 0.2:
            end = f"The answer is {found.removesuffix('.0')}."
        elif way < 0.23:
            end = "I cannot say more about it"
        return SOLUTION.format(
            name=name, thing=thing, place=place, a=a, b=b, ab=a * b, c=c, total=total, d=d, rest=rest, end=end
        )

    return text, answer


def in_parts(
    places: Sequence[int], make: Callable[[int], list[dict[str, Any]]], schema: pa.Schema
) -> Iterator[pa.Table]:
    """Tables of the rows that ``make`` gives for each of some questions, some thousands at a time."""
    for start in range(0, len(places), ROWS_PER_PART // 5):
        rows = [row for at in places[start : start + ROWS_PER_PART // 5] for row in make(at)]
        yield pa.Table.from_pylist(rows, schema=schema)


def write_kept(folder: Path, n: int) -> None:
    """FOLDER/filtered.parquet, responses/ and rewards/ of N kept questions."""

    def filtered(at: int) -> list[dict[str, Any]]:
        generator, row_id = identity(at, n)
        return [
            {"id": row_id, "generator": generator, "question": question(at)[0], "difficulty": (at * 7919 % 1000) / 1000}
        ]

    write_stream(folder / "filtered.parquet", in_parts(range(n), filtered, FILTERED), FILTERED)
    write_answers(folder, range(n), n)


def write_answers(folder: Path, places: Sequence[int], n: int, samples: int = 5) -> None:
    """FOLDER/responses/ and rewards/ of the questions at some places of N."""

    def responses(at: int) -> list[dict[str, Any]]:
        _, row_id = identity(at, n)
        draw, answer = random.Random(-1 - at), question(at)[1]
        return [
            {
                "id": f"{row_id}#{k}",
                "question_id": row_id,
                "sample": k,
                "response": answer(draw),
                "finish_reason": "length" if draw.random() < 0.02 else "stop",
                "n_tokens": 180,
            }
            for k in range(samples)
        ]

    def rewards(at: int) -> list[dict[str, Any]]:
        _, row_id = identity(at, n)
        draw = random.Random(f"r{at}")
        return [
            {"id": f"{row_id}#{k}", "question_id": row_id, "sample": k, "reward": draw.gauss(0, 1)}
            for k in range(samples)
        ]

    write_stream(folder / "responses", in_parts(places, responses, RESPONSE), RESPONSE)
    write_stream(folder / "rewards", in_parts(places, rewards, REWARD), REWARD)


def place(row_id: str, n: int) -> int:
    """The place of a question among N, from its id."""
    generator, shard, row = row_id.split("/")
    return GENERATORS.index(generator) * ((n + 1) // 2) + int(shard) * SHARD + int(row)


def write_instruct(path: Path, rows: Sequence[dict[str, Any]], n: int) -> None:
    """A training row of each of some kept questions, by rows of FILTERED."""

    def row(at: int) -> list[dict[str, Any]]:
        kept = rows[at]
        where = place(kept["id"], n)
        facts = {
            "response": question(where)[1](random.Random(-1 - where)),
            "final_answer": str(where % 1000),
            "reward": numbers(where).gauss(0, 1),
            "agreement": (1 + where % 5) / 5,
            "n_candidates": 5,
        }
        return [{key: kept[key] for key in ("id", "generator", "question")} | facts]

    write_stream(path, in_parts(range(len(rows)), row, INSTRUCTION), INSTRUCTION)


def outcomes(n: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """The verdicts of screen and judge of N questions, as places in the lists above."""
    draw = np.random.default_rng(0)
    return (
        draw.choice(len(SCREENED_AS), n, p=[share for _, share in SCREENED_AS]),
        draw.choice(len(JUDGED_AS), n, p=[share for _, share in JUDGED_AS]),
    )


def write_generated(folder: Path, n: int) -> None:
    """FOLDER/screened/, judged/ and difficulty/ of N generated questions."""
    found, judgements = outcomes(n)

    def screened(at: int) -> list[dict[str, Any]]:
        generator, row_id = identity(at, n)
        verdict = SCREENED_AS[found[at]][0]
        twin = identity(max(0, at - 17), n)[1] if verdict.endswith("duplicate") else ""
        evidence = "Jaccard 0.91" if verdict == "near_duplicate" else "es" if verdict == "language" else ""
        text = question(at)[0]
        return [
            {
                "id": row_id,
                "generator": generator,
                "question": text,
                "verdict": verdict,
                "matched": twin,
                "evidence": evidence,
            }
        ]

    def judged(at: int) -> list[dict[str, Any]]:
        if found[at]:
            return []
        text = "The question states all that is needed and asks for one number. Yes" if not judgements[at] else "No"
        return [
            {
                "id": identity(at, n)[1],
                "verdict": JUDGED_AS[judgements[at]][0],
                "completion": text,
                "finish_reason": "stop",
            }
        ]

    def difficulty(at: int) -> list[dict[str, Any]]:
        return [] if found[at] else [{"id": identity(at, n)[1], "score": numbers(at).random()}]

    write_stream(folder / "screened", in_parts(range(n), screened, SCREENED), SCREENED)
    write_stream(folder / "judged", in_parts(range(n), judged, JUDGED), JUDGED)
    write_stream(folder / "difficulty", in_parts(range(n), difficulty, SCORE), SCORE)
