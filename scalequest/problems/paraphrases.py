"""Finds questions that say what a benchmark's question says in other words: by their meaning and their numbers.

The meaning is the cosine of static word vectors (`meaning.py`): "purchased" is like "bought". The numbers are
compared apart, as counts weighted by how few items have them (tf-idf). A paraphrase keeps the numbers, and
questions about the same things with other numbers are many. The similarity is the mean of both cosines, and the
cosine of the meaning alone where neither text has a number.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from scalequest.problems.meaning import MOST_CHARACTERS, lengths, meanings
from scalequest.problems.numerals import numbers
from scalequest.text import plain, words

PARAPHRASE = "paraphrase"  # begins the evidence
# Items with fewer words besides their numbers are like too many questions.
LEAST_WORDS = 8
# Questions at once: their similarities with all items are in memory.
AT_ONCE = 2_048


class Paraphrases:
    """Finds the benchmark item that a question is most like."""

    def __init__(self, items: Sequence[dict[str, str]], threshold: float) -> None:
        self._threshold = threshold
        chosen = [item for item in items if sum(not word.isdigit() for word in words(item["question"])) >= LEAST_WORDS]
        self._ids = [item["id"] for item in chosen]
        texts = [plain(item["question"]).casefold() for item in chosen]
        # Place of each number of the items. All others share the last place.
        self._places: dict[str, int] = {}
        for text in texts:
            for number in numbers(text):
                self._places.setdefault(number, len(self._places))
        frequency = np.zeros(len(self._places) + 1)
        for text in texts:
            frequency[[self._places[number] for number in set(numbers(text))]] += 1
        self._weights = np.log(1 + (1 + len(chosen)) / (1 + frequency))
        self._numbers = self._weighted_numbers(texts).T.tocsr()
        self._has_number = np.array([bool(numbers(text)) for text in texts], bool)
        vectors = meanings(texts)
        self._vectors = vectors.T.astype(np.float32)
        self._lengths = lengths(vectors)

    def _weighted_numbers(self, texts: Sequence[str]) -> Any:
        """A row per text of length 1: its distinct numbers by their weight; 0 without numbers (N, places)."""
        values: list[float] = []
        columns: list[int] = []
        ends = [0]
        for text in texts:
            own = {number: self._places.get(number, len(self._places)) for number in numbers(text[:MOST_CHARACTERS])}
            weights = self._weights[list(own.values())]
            values += (weights / max(1e-9, np.sqrt(np.sum(weights**2)))).tolist()
            columns += own.values()
            ends.append(len(values))
        # Numbers that no item has are several entries of the last column, which no item has an entry in.
        return sparse.csr_matrix(
            (np.array(values), np.array(columns, np.int64), ends), (len(texts), len(self._weights))
        )

    def __call__(self, seen: Sequence[str]) -> Iterator[tuple[int, str, str]]:
        """Place, item and evidence of each of N questions whose similarity with an item is at least the threshold.

        The most similar item is named, the first one among equals.

        Args:
            seen: the questions as from ``plain``.
        """
        for start in range(0, len(seen) if self._ids else 0, AT_ONCE):
            texts = [text.casefold() for text in seen[start : start + AT_ONCE]]
            vectors = meanings(texts)
            # Products of whole numbers are exact, in any order.
            by_words = vectors.astype(np.float32) @ self._vectors / lengths(vectors)[:, None] / self._lengths
            counts = self._weighted_numbers(texts)
            by_number = counts.dot(self._numbers).toarray()
            without = (np.diff(counts.indptr) == 0)[:, None] & ~self._has_number[None, :]
            # Rounded, because sums in another order end in other digits.
            similar = np.round(np.where(without, by_words, (by_words + by_number) / 2), 5)
            best: NDArray[np.int64] = similar.argmax(axis=1)
            for row in np.flatnonzero(similar[np.arange(len(best)), best] >= self._threshold):
                at = best[row]
                said = f"words {by_words[row, at]:.2f}, numbers {by_number[row, at]:.2f}"
                yield (
                    start + int(row),
                    self._ids[int(at)],
                    f"{PARAPHRASE}: cosine {similar[row, at]:.2f}" + ("" if without[row, at] else f" ({said})"),
                )
