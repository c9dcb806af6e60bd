"""Texts as arrays of hashes: the shingles that near duplicates share, and runs of words, for many texts at once."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from scalequest.text import plain

Hashes = NDArray[np.uint64]
Offsets = NDArray[np.int64]

SHINGLE = 3  # words and signs
# Signs count as words: "2 + 3" is not "2 - 3".
_TOKEN = re.compile(r"\w+|[^\w\s]")
_WORD = re.compile(r"\w")
# Distinct tokens whose hashes are remembered. Numbers have no end, so the table is emptied when it is full.
MOST_REMEMBERED = 500_000


def shingles(question: str) -> set[str]:
    """Word 3-grams; the whole question where it is shorter."""
    tokens = _TOKEN.findall(plain(question).casefold())
    return {" ".join(tokens[i : i + SHINGLE]) for i in range(max(1, len(tokens) - SHINGLE + 1))}


def jaccard(first: set[str], second: set[str]) -> float:
    """Shared share of two sets, in [0, 1]."""
    return len(first & second) / len(first | second)


@dataclass(frozen=True)
class Tokens:
    """Words and signs of N texts.

    Attributes:
        hashes: of all texts, one after another (T).
        offsets: text i has the tokens ``offsets[i]:offsets[i + 1]`` (N + 1).
        is_word: whether a token is a word or number, and no sign (T).
    """

    hashes: Hashes
    offsets: Offsets
    is_word: NDArray[np.bool_]

    def take(self, chosen: NDArray[np.bool_]) -> "Tokens":
        """The tokens of some of the texts (N)."""
        lengths = np.diff(self.offsets)
        inside = np.repeat(chosen, lengths)
        ends = np.zeros(int(chosen.sum()) + 1, np.int64)
        np.cumsum(lengths[chosen], out=ends[1:])
        return Tokens(self.hashes[inside], ends, self.is_word[inside])


class Tokenizer:
    """Makes ``Tokens``. It remembers the hashes of tokens; they are the same in every process.

    Args:
        same: tokens that count as another one.
    """

    def __init__(self, same: Mapping[str, str] | None = None) -> None:
        self._known: dict[str, int] = {}
        self._same = same or {}

    def __call__(self, texts: Sequence[str]) -> Tokens:
        """The tokens of N texts that ``plain`` has normalized and ``casefold`` lowered."""
        flat: list[int] = []
        lengths = np.zeros(len(texts) + 1, np.int64)
        known = self._known
        for at, text in enumerate(texts, start=1):
            found = _TOKEN.findall(text)
            lengths[at] = len(found)
            try:
                flat += [known[token] for token in found]
            except KeyError:
                flat += [known[token] if token in known else self._learn(token) for token in found]
        hashes = np.array(flat, np.uint64)
        return Tokens(hashes, np.cumsum(lengths), (hashes & np.uint64(1)).astype(bool))

    def _learn(self, token: str) -> int:
        if len(self._known) >= MOST_REMEMBERED:
            self._known.clear()
        counted = self._same.get(token, token)
        value = int.from_bytes(blake2b(counted.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")
        self._known[token] = value = value & ~1 | bool(_WORD.match(token))  # the lowest bit says whether it is a word
        return value


def mixed(values: Hashes) -> Hashes:
    """The finalizer of splitmix64: every bit of the input changes half of the output's."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def runs(hashes: Hashes, offsets: Offsets, n: int) -> tuple[Hashes, Offsets]:
    """Hashes of the runs of ``n`` tokens inside each of N texts; the whole text where it is shorter.

    Returns:
        The runs in order, and their offsets (N + 1). A text without tokens has one run as well.
    """
    lengths = np.diff(offsets)
    # n - 1 empty tokens after each text make a short text's run; those that only begin the next text are cut off.
    counts = np.maximum(1, lengths - n + 1)
    ends = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=ends[1:])
    starts = np.repeat(offsets[:-1] - ends[:-1], counts) + np.arange(ends[-1])
    stops = np.repeat(offsets[1:], counts)
    padded = np.concatenate([hashes, np.zeros(1, np.uint64)])
    found = np.full(len(starts), 0x9E3779B97F4A7C15, np.uint64)
    for k in range(n):
        at = starts + k
        token = padded[np.minimum(at, len(hashes))]
        token[at >= stops] = 0
        found = mixed(found + token)
    return found, ends


def distinct(values: Hashes, offsets: Offsets) -> tuple[Hashes, Offsets]:
    """Each text's values, sorted and each once, with their new offsets."""
    rows = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    order = np.lexsort((values, rows))
    values, rows = values[order], rows[order]
    first = np.ones(len(values), bool)
    first[1:] = (values[1:] != values[:-1]) | (rows[1:] != rows[:-1])
    ends = np.zeros(len(offsets), np.int64)
    np.cumsum(np.bincount(rows[first], minlength=len(offsets) - 1), out=ends[1:])
    return values[first], ends


def shingle_hashes(tokens: Tokens) -> tuple[Hashes, Offsets]:
    """The ``shingles`` of N texts as hashes, with their offsets (N + 1)."""
    return distinct(*runs(tokens.hashes, tokens.offsets, SHINGLE))


def word_runs(tokens: Tokens, n: int) -> tuple[Hashes, Offsets]:
    """Hashes of the runs of ``n`` words of N texts, signs left out, with their offsets (N + 1)."""
    ends = np.zeros(len(tokens.hashes) + 1, np.int64)
    np.cumsum(tokens.is_word, out=ends[1:])
    return runs(tokens.hashes[tokens.is_word], ends[tokens.offsets], n)
