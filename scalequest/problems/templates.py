"""Finds questions that are a benchmark's with other numbers.

It is no leak of an answer, but a model that was trained on many of them has learned the item's template.
"""

import re
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from scalequest.problems.shingles import Hashes, Tokenizer, runs
from scalequest.text import plain, question_key, words

TEMPLATE_MATCH = "template match"  # begins the evidence
NUMBER = "0"
# Items with fewer words besides their numbers fit too many questions: "What is 0 + 0?".
LEAST_WORDS = 6
# Longer items are found inside other texts, by this share of their runs of words and numbers.
LEAST_SHARE = 0.8
RUN = 8
_NUMBERS = re.compile(r"\d+(?:[.,]\d+)*")
_NUMBER_WORDS = [
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "fifteen",
    "twenty",
    "thirty",
    "forty",
    "fifty",
    "hundred",
    "thousand",
]


# Bits of a hash that are looked up in a table before the sorted hashes are searched.
_TABLE_BITS = 22
_SHIFT = np.uint64(64 - _TABLE_BITS)


def masked(seen: str) -> str:
    """A text of ``plain`` in lower case, with every number in digits replaced by 0."""
    return _NUMBERS.sub(NUMBER, seen.casefold())


def _key(text: str) -> str:
    return question_key(" ".join(NUMBER if word in _NUMBER_WORDS else word for word in text.split(" ")))


class Templates:
    """Finds benchmark items with other numbers in N questions at once."""

    def __init__(self, items: Sequence[dict[str, str]]) -> None:
        self._tokens = Tokenizer(dict.fromkeys(_NUMBER_WORDS, NUMBER))
        self._ids: list[str] = []
        texts: list[str] = []
        self._whole: dict[str, int] = {}
        for item in items:
            text = masked(plain(item["question"]))
            found = [NUMBER if word in _NUMBER_WORDS else word for word in words(text)]
            if NUMBER in found and sum(word != NUMBER for word in found) >= LEAST_WORDS:
                self._whole.setdefault(_key(text), len(texts))
                texts.append(text)
                self._ids.append(item["id"])
        hashes, offsets = self._runs(texts)
        owners = np.repeat(np.arange(len(texts)), np.diff(offsets))
        # Each item's runs once, and which items hold a run.
        order = np.lexsort((owners, hashes))
        hashes, owners = hashes[order], owners[order]
        once = np.ones(len(hashes), bool)
        once[1:] = (hashes[1:] != hashes[:-1]) | (owners[1:] != owners[:-1])
        self._hashes: Hashes = hashes[once]
        self._owners = owners[once]
        self._table = np.zeros(1 << _TABLE_BITS, bool)
        self._table[self._hashes >> _SHIFT] = True
        self._n_runs = np.bincount(self._owners, minlength=len(texts))

    def _runs(self, texts: Sequence[str]) -> tuple[Hashes, NDArray[np.int64]]:
        tokens = self._tokens(texts)
        return runs(tokens.hashes, tokens.offsets, RUN)

    def __call__(self, seen: Sequence[str]) -> Iterator[tuple[int, str, str]]:
        """Place, item and evidence of each of N questions that is an item with other numbers, or holds one.

        Args:
            seen: the questions as from ``plain``.
        """
        if not self._ids or not len(seen):
            return
        texts = [masked(text) for text in seen]
        hashes, offsets = self._runs(texts)
        likely = np.flatnonzero(self._table[hashes >> _SHIFT])
        first = np.searchsorted(self._hashes, hashes[likely])
        same = self._hashes[np.minimum(first, len(self._hashes) - 1)] == hashes[likely]
        known, first = likely[same], first[same]
        rows = np.searchsorted(offsets, known, side="right") - 1
        shared: dict[int, dict[int, set[int]]] = {}
        for row, value, at in zip(rows.tolist(), hashes[known].tolist(), first.tolist(), strict=True):
            while at < len(self._hashes) and int(self._hashes[at]) == value:
                shared.setdefault(row, {}).setdefault(int(self._owners[at]), set()).add(value)
                at += 1
        for row in sorted(shared):
            owner, found = max(shared[row].items(), key=lambda pair: (len(pair[1]) / self._n_runs[pair[0]], -pair[0]))
            if len(found) >= LEAST_SHARE * self._n_runs[owner] and self._n_runs[owner] > 1:
                yield (
                    row,
                    self._ids[owner],
                    f"{TEMPLATE_MATCH}: {len(found)} of {self._n_runs[owner]} runs of {RUN} words",
                )
            elif (whole := self._whole.get(_key(texts[row]))) is not None:
                yield row, self._ids[whole], f"{TEMPLATE_MATCH}: all words"
