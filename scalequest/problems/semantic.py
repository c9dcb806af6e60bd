"""Semantic duplicates among millions of questions: the same numbers in clauses that say the same in other words.

A question's vector is the sum of its clauses' word vectors (`meaning.py`). Before it is added, a clause's vector is
rotated by a hash of the numbers, signs and variables in the clause, so clauses may change places, but "3 apples, 5
pears" is unlike "5 apples, 3 pears". Only questions with the same numbers are compared.
Many questions have no number. Where a group is too large to compare all, sign bits of random projections (Charikar
2002, STOC) choose what is compared: a pair at the threshold is missed with a probability of MISSED at most.
"""

import re
from collections.abc import Sequence
from hashlib import blake2b
from itertools import pairwise

import numpy as np
from numba import njit
from numpy.typing import NDArray

from scalequest.problems.duplicates import NONE, Twins
from scalequest.problems.meaning import (
    DIMENSIONS,
    MOST_CHARACTERS,
    Vectors,
    directions,
    lengths,
    word_sums,
)
from scalequest.problems.numerals import NUMBER, is_number, number
from scalequest.problems.shingles import Hashes, mixed

# Up to this many questions with the same numbers, each is compared with all before it that stay.
MOST_COMPARED = 2_048
# Of a larger group, questions expected per bucket, and the tables of buckets at most.
PER_BUCKET = 8
MOST_TABLES = 64
MISSED = 0.02
_CLAUSE = re.compile(r"(?<=[.?!;,:])\s+")
# Numbers, signs and single letters, in the order of the text. "a" and the s of "Tom's" are words.
_TERM = re.compile(rf"{NUMBER.pattern}|[+*/^=<>]|(?<![a-z][a-z])-(?![a-z][a-z])|(?<![\w'’])[b-z](?![\w'’])")


def _hash(text: str) -> int:
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def vectors(texts: Sequence[str]) -> tuple[Vectors, Hashes]:
    """The vector (N, 256) and a hash of the sorted numbers (N) of each of N texts of ``plain`` in lower case."""
    clauses: list[str] = []
    turns: list[int] = []
    ends = np.zeros(len(texts) + 1, np.int64)
    keys = np.zeros(len(texts), np.uint64)
    for at, text in enumerate(texts):
        values: list[str] = []
        for clause in _CLAUSE.split(text[:MOST_CHARACTERS]):
            if terms := _TERM.findall(clause):
                own = [number(term) for term in terms if is_number(term)]
                turns.append(_hash(" ".join(map(number, terms))) % DIMENSIONS)
                clauses.append(NUMBER.sub(" ", clause) if own else clause)
                values += own
            else:
                turns.append(0)
                clauses.append(clause)
        keys[at] = _hash(" ".join(sorted(values)))
        ends[at + 1] = len(clauses)
    return directions(word_sums(clauses, np.array(turns, np.int64), ends)), keys


def semantic_twins(vectors: Vectors, keys: Hashes, threshold: float) -> Twins:
    """For each of N questions in order, the most similar earlier one with the same key that is no duplicate itself.

    Args:
        vectors: of every question (N, 256).
        keys: hash of the numbers of every question (N).
        threshold: least cosine, in (0, 1].

    Returns:
        The twins; similarity is the cosine. Ties go to the earliest.
    """
    first, similarity = np.full(len(keys), NONE, np.int64), np.zeros(len(keys))
    size = lengths(vectors)
    order = np.argsort(keys, kind="stable")
    bounds = np.append(np.flatnonzero(np.append(True, keys[order][1:] != keys[order][:-1])), len(keys))
    for start, stop in pairwise(bounds) if len(keys) else ():
        group = order[start:stop]
        if 1 < len(group) <= MOST_COMPARED:
            _compare_all(vectors, size, group, threshold, first, similarity)
        elif len(group) > 1:
            bits, tables = tables_for(len(group), threshold)
            codes = _codes(vectors, group, bits, tables)
            _compare_buckets(vectors, size, group, codes, bits, threshold, first, similarity)
    return Twins(first, similarity)


def tables_for(n: int, threshold: float) -> tuple[int, int]:
    """Bits of a bucket's code, and tables that miss a pair of N questions at the threshold with MISSED at most."""
    same = 1 - np.arccos(threshold) / np.pi  # probability that a bit of both is equal
    bits = int(np.clip(np.log2(n / PER_BUCKET), 1, 20))
    while True:
        tables = int(np.ceil(np.log(MISSED) / np.log1p(-min(1 - 1e-9, same**bits))))
        if tables <= MOST_TABLES or bits == 1:
            return bits, min(tables, MOST_TABLES)
        bits -= 1


def _codes(vectors: Vectors, group: NDArray[np.int64], bits: int, tables: int) -> NDArray[np.int32]:
    """The bucket of each of G questions in each table (G, tables)."""
    seeds = mixed(np.arange(1, DIMENSIONS * bits * tables + 1, dtype=np.uint64))
    planes = np.where(seeds >> np.uint64(63), 1, -1).astype(np.float32).reshape(DIMENSIONS, bits * tables)
    powers = (1 << np.arange(bits)).astype(np.int32)
    codes = np.empty((len(group), tables), np.int32)
    for start in range(0, len(group), 8_192):
        part = vectors[group[start : start + 8_192]].astype(np.float32) @ planes > 0  # whole numbers: exact
        codes[start : start + 8_192] = part.reshape(len(part), tables, bits) @ powers
    return codes


@njit(cache=True, inline="always")
def _dot(one, other):
    total = np.int32(0)
    for k in range(len(one)):
        total += np.int32(one[k]) * np.int32(other[k])
    return total


@njit(cache=True)
def _compare_all(vectors, size, group, threshold, first, similarity):
    stay = np.empty(len(group), np.int64)
    n = 0
    for x in group:
        for y in stay[:n]:
            cosine = _dot(vectors[x], vectors[y]) / (size[x] * size[y])
            if cosine >= threshold and cosine > similarity[x]:
                first[x], similarity[x] = y, cosine
        if first[x] == NONE:
            stay[n] = x
            n += 1


@njit(cache=True)
def _compare_buckets(vectors, size, group, codes, bits, threshold, first, similarity):
    n, tables = codes.shape
    head = np.full((tables, 1 << bits), NONE, np.int32)
    following = np.empty((tables, n), np.int32)
    compared_with = np.full(n, NONE, np.int32)
    for at in range(n):
        x = group[at]
        for table in range(tables):
            other = head[table, codes[at, table]]
            while other != NONE:
                if compared_with[other] != at:
                    compared_with[other] = at
                    y = group[other]
                    cosine = _dot(vectors[x], vectors[y]) / (size[x] * size[y])
                    if cosine >= threshold and (cosine > similarity[x] or (cosine == similarity[x] and y < first[x])):
                        first[x], similarity[x] = y, cosine
                other = following[table, other]
        if first[x] == NONE:
            for table in range(tables):
                following[table, at] = head[table, codes[at, table]]
                head[table, codes[at, table]] = at
