"""How different the questions of one set are from each other, as one number."""

from collections.abc import Sequence

import numpy as np

from scalequest.problems.shingles import Tokenizer, runs
from scalequest.text import plain

DIMENSIONS = 4096


def vendi(texts: Sequence[str]) -> float:
    """The Vendi score of N texts: the effective number of different ones, from 1 (all equal) to N (nothing shared).

    exp of the entropy of the eigenvalues of the similarity matrix over N (Friedman and Dieng 2023, TMLR). A text is the
    counts of its words and pairs of words, hashed into DIMENSIONS places and scaled to length 1; similarity is their
    product. It grows with N, so compare sets of equal size. Texts in other words for the same count as different.
    """
    if not texts:
        return 0.0
    tokens = Tokenizer()([plain(text).casefold() for text in texts])
    vectors = np.zeros((len(texts), DIMENSIONS))
    for n in (1, 2):
        hashes, offsets = runs(tokens.hashes, tokens.offsets, n)
        rows = np.repeat(np.arange(len(texts)), np.diff(offsets))
        np.add.at(vectors, (rows, (hashes >> np.uint64(20)).astype(np.int64) % DIMENSIONS), 1.0)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    values = np.linalg.eigvalsh(vectors @ vectors.T / len(texts))
    values = values[values > 1e-12]
    return float(np.exp(-np.sum(values * np.log(values))))
