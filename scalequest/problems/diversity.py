"""How different the questions of one set are from each other, as one number."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scalequest.io import rounded
from scalequest.problems.meaning import meanings
from scalequest.problems.shingles import Tokenizer, runs
from scalequest.text import plain

DIMENSIONS = 4096
# Texts of a set that are compared; the time grows with the third power.
SAMPLE = 1_000


def vendi(texts: Sequence[str]) -> float:
    """The Vendi score of N texts by their words.

    A text is the counts of its words and pairs of words, hashed into DIMENSIONS places. Texts in other words for the same
    count as different.
    """
    tokens = Tokenizer()([plain(text).casefold() for text in texts])
    vectors = np.zeros((len(texts), DIMENSIONS))
    for n in (1, 2):
        hashes, offsets = runs(tokens.hashes, tokens.offsets, n)
        rows = np.repeat(np.arange(len(texts)), np.diff(offsets))
        np.add.at(vectors, (rows, (hashes >> np.uint64(20)).astype(np.int64) % DIMENSIONS), 1.0)
    return _score(vectors)


def vendi_of_meaning(texts: Sequence[str]) -> float:
    """The Vendi score of N texts by their meaning (`meaning.py`): other words for the same, or other numbers, count little."""
    return _score(meanings([plain(text).casefold() for text in texts]).astype(float))


def _score(vectors: NDArray[np.float64]) -> float:
    """The effective number of different ones of N vectors, from 1 (all equal) to N (nothing shared); 0 without any.

    exp of the entropy of the eigenvalues of the matrix of cosines over N (Friedman and Dieng 2023, TMLR). It grows with N,
    so compare sets of equal size. Vectors of length 0 are left out.
    """
    lengths = np.linalg.norm(vectors, axis=1)
    vectors = vectors[lengths > 0] / lengths[lengths > 0, None]
    if not len(vectors):
        return 0.0
    # The smaller of the two matrices with these eigenvalues.
    matrix = vectors @ vectors.T if len(vectors) <= vectors.shape[1] else vectors.T @ vectors
    values = np.linalg.eigvalsh(matrix / len(vectors))
    values = values[values > 1e-12]
    return float(np.exp(-np.sum(values * np.log(values))))


def diversity(sets: dict[str, Sequence[str]]) -> dict[str, dict[str, Any]]:
    """Size of the sample and both Vendi scores of each set, of as many texts of each, at equal distances."""
    n = min([SAMPLE, *map(len, sets.values())]) if sets else 0
    found = {}
    for name, texts in sets.items():
        chosen = [texts[at] for at in places(len(texts), n)]
        found[name] = {
            "n": n,
            "vendi": rounded(vendi(chosen), 1),
            "vendi_of_meaning": rounded(vendi_of_meaning(chosen), 1),
        }
    return found


def places(n: int, of_these: int) -> NDArray[np.int64]:
    """``of_these`` places of N at equal distances."""
    return np.linspace(0, n - 1, of_these).astype(np.int64) if of_these else np.zeros(0, np.int64)
