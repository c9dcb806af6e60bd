"""Finds questions that say what a benchmark's question says in other words, by vectors of their words.

A vector counts distinct words and numbers, hashed into DIMENSIONS places and weighted by how few items have them (tf-idf).
It needs no model. It finds a question that keeps most of the rare words and numbers in any order; one that keeps none of
the words is not found. A static embedding model would be the next step: the wheel of `wordllama` holds one.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from scalequest.problems.shingles import Tokenizer, distinct
from scalequest.text import plain, words

PARAPHRASE = "paraphrase"  # begins the evidence
DIMENSIONS = 1 << 18
# Items with fewer words besides their numbers are like too many questions.
LEAST_WORDS = 8
# Words of more than this share of the items say nothing.
MOST_ITEMS = 0.2
# Questions at once: their similarities with all items are in memory.
AT_ONCE = 4_096


class Paraphrases:
    """Finds the benchmark item whose words are most like a question's."""

    def __init__(self, items: Sequence[dict[str, str]], threshold: float) -> None:
        self._threshold = threshold
        self._tokens = Tokenizer()
        chosen = [item for item in items if sum(not word.isdigit() for word in words(item["question"])) >= LEAST_WORDS]
        self._ids = [item["id"] for item in chosen]
        counts = self._counts([plain(item["question"]) for item in chosen])
        frequency = np.bincount(counts.indices, minlength=DIMENSIONS)
        self._weights = np.log((1 + len(chosen)) / (1 + frequency)).astype(np.float32)
        if len(chosen) >= 1 / MOST_ITEMS:
            self._weights[frequency > MOST_ITEMS * len(chosen)] = 0
        self._items = self._weighted(counts).T.tocsr()

    def _counts(self, seen: Sequence[str]) -> Any:
        """A row per text: 1 where it has a word (N, DIMENSIONS)."""
        tokens = self._tokens([text.casefold() for text in seen])
        ends = np.zeros(len(tokens.hashes) + 1, np.int64)
        np.cumsum(tokens.is_word, out=ends[1:])
        places = (tokens.hashes[tokens.is_word] >> np.uint64(20)) % np.uint64(DIMENSIONS)
        columns, offsets = distinct(places, ends[tokens.offsets])
        return sparse.csr_matrix(
            (np.ones(len(columns), np.float32), columns.astype(np.int64), offsets), (len(seen), DIMENSIONS)
        )

    def _weighted(self, counts: Any) -> Any:
        """Rows of length 1, or 0 where no word has a weight."""
        counts.data = self._weights[counts.indices]
        squares = np.add.reduceat(np.append(counts.data**2, 0), counts.indptr[:-1]) if counts.shape[0] else np.zeros(0)
        squares[np.diff(counts.indptr) == 0] = 0
        lengths = np.sqrt(squares)
        lengths[lengths == 0] = 1
        counts.data /= np.repeat(lengths, np.diff(counts.indptr)).astype(np.float32)
        return counts

    def __call__(self, seen: Sequence[str]) -> Iterator[tuple[int, str, str]]:
        """Place, item and evidence of each of N questions whose cosine with an item is at least the threshold.

        The most similar item is named, the first one among equals.
        """
        for start in range(0, len(seen) if self._ids else 0, AT_ONCE):
            similar = self._weighted(self._counts(seen[start : start + AT_ONCE])).dot(self._items)
            similar.data = np.round(similar.data, 5)  # sums in another order end in other digits
            rows = np.repeat(np.arange(similar.shape[0]), np.diff(similar.indptr))
            above = np.flatnonzero(similar.data >= self._threshold)
            best: NDArray[np.int64] = above[np.lexsort((similar.indices[above], -similar.data[above], rows[above]))]
            first = np.ones(len(best), bool)
            first[1:] = rows[best[1:]] != rows[best[:-1]]
            for at in best[first]:
                yield (
                    start + int(rows[at]),
                    self._ids[int(similar.indices[at])],
                    f"{PARAPHRASE}: cosine {similar.data[at]:.2f}",
                )
