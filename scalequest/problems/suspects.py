"""Which of many questions may hold a benchmark question: a quick test before `contamination.py` looks closely."""

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from scalequest.problems.contamination import Contamination, light_names, without_markup
from scalequest.problems.shingles import Tokenizer, Tokens, word_runs
from scalequest.text import question_key, spellings

# Bits of a hash that are looked up in a table before the sorted hashes are searched.
_TABLE_BITS = 22


class Suspects:
    """Marks questions that ``Contamination.match`` may find something in; the others hold nothing.

    It costs a tenth of that look. Runs of words are compared as hashes, for a batch at once.
    """

    def __init__(self, items: Sequence[dict[str, str]], contamination: Contamination, tokens: Tokenizer) -> None:
        self._n = n = contamination.n
        self._whole = contamination.whole_keys
        self._tokens = tokens
        texts = [without_markup(item["question"]).casefold() for item in items] if n else []
        hashes, _ = word_runs(tokens(texts), max(1, n))
        # A text of fewer words has one run all the same, which no longer text can have.
        self._runs = np.unique(hashes) if len(texts) else np.zeros(0, np.uint64)
        self._table = np.zeros(1 << _TABLE_BITS, bool)
        self._table[self._slots(self._runs)] = True
        # Of a short item the three tokens in a row that the items have least often.
        frequency = Counter(run for text in texts for run in _threes(light_names(text)))
        threes = [list(_threes(names)) for names in contamination.short_items]
        self._rarest = {min(own, key=lambda run: (frequency[run], run)) for own in threes if own}
        # Items such as "5! = ?" have too few tokens without the sign.
        self._factorials = not all(threes)

    @staticmethod
    def _slots(hashes: NDArray[np.uint64]) -> NDArray[np.uint64]:
        return hashes >> np.uint64(64 - _TABLE_BITS)

    def __call__(
        self, questions: Sequence[str], seen: Sequence[str], keys: Sequence[str], tokens: Tokens
    ) -> NDArray[np.bool_]:
        """Whether each of N questions is worth a look.

        Args:
            questions: the texts.
            seen: ``plain`` of each.
            keys: ``question_key`` of each.
            tokens: of ``seen`` in lower case.
        """
        if not self._n:
            return np.zeros(len(questions), bool)
        marked = self._marked(questions, seen, keys, tokens)
        # The close look reads texts without markup; most have none.
        bare = {place: text for place, known in enumerate(seen) if (text := without_markup(known)) != known}
        if bare:
            texts = list(bare.values())
            others = self._tokens([text.casefold() for text in texts])
            marked[list(bare)] |= self._marked(texts, texts, list(map(question_key, texts)), others)
        return marked

    def _marked(
        self, questions: Sequence[str], seen: Sequence[str], keys: Sequence[str], tokens: Tokens
    ) -> NDArray[np.bool_]:
        marked = np.array(
            [key in self._whole or len(spellings(q)) > 1 for q, key in zip(questions, keys, strict=True)], bool
        )
        if self._rarest or self._factorials:
            marked |= np.array([self._may_hold(text) for text in seen], bool)
        if len(self._runs) and len(questions):
            hashes, offsets = word_runs(tokens, self._n)
            likely = np.flatnonzero(self._table[self._slots(hashes)])
            found = hashes[likely]
            at = np.minimum(np.searchsorted(self._runs, found), len(self._runs) - 1)
            hits = likely[self._runs[at] == found]
            marked[np.searchsorted(offsets, hits, side="right") - 1] = True
        return marked

    def _may_hold(self, text: str) -> bool:
        if self._factorials and "!" in text:
            return True
        return not self._rarest.isdisjoint(_threes(light_names(text)))


def _threes(names: Sequence[str]) -> Iterator[tuple[str, ...]]:
    return zip(names, names[1:], names[2:], strict=False)
