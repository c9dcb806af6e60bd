"""What can be said of a question without the others: cut, empty, unreadable, language, length, contamination.

A batch of questions becomes arrays: verdicts, and the hashes by which duplicates are found (`duplicates.py`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from scalequest.outcomes import KEPT, SCREEN_OUTCOMES
from scalequest.params import Screen
from scalequest.problems.contamination import Contamination, Phrases
from scalequest.problems.language import language_check
from scalequest.problems.meaning import Vectors
from scalequest.problems.paraphrases import Paraphrases
from scalequest.problems.semantic import vectors
from scalequest.problems.shingles import Hashes, Offsets, Tokenizer, shingle_hashes
from scalequest.problems.suspects import Suspects
from scalequest.problems.templates import Templates
from scalequest.text import plain, question_key, words

# A batch's verdicts are numbers: places in this list.
VERDICTS = (KEPT, *SCREEN_OUTCOMES)
CODES = {name: code for code, name in enumerate(VERDICTS)}


@dataclass(frozen=True)
class Batch:
    """What was found about N questions, in order.

    Attributes:
        verdicts: places in VERDICTS; KEPT where only duplicates are left to be looked for (N).
        matched: the benchmark item, empty where there is none (N).
        evidence: what is behind the verdict; of a question with KEPT, that it is an item with other numbers or words (N).
        keys: 128 bits of ``question_key``'s hash, of those with KEPT (K, 2).
        shingles: hashes of the distinct shingles of those with KEPT; empty where near duplicates are not looked for.
        offsets: of ``shingles`` (K + 1).
        vectors: from ``semantic.vectors``, of those with KEPT (K, 256); (K, 0) where semantic duplicates are not looked for.
        numbers: hashes of their numbers (K).
    """

    verdicts: NDArray[np.int8]
    matched: pa.Array
    evidence: pa.Array
    keys: Hashes
    shingles: Hashes
    offsets: Offsets
    vectors: Vectors
    numbers: Hashes


class Checker:
    """Checks questions one by one, without the others."""

    def __init__(self, params: Screen, items: Sequence[dict[str, str]], phrases: Phrases = frozenset()) -> None:
        self._min_words = params.min_words
        self._near = params.near_duplicate_jaccard < 1
        self._semantic = params.semantic_duplicate_cosine < 1
        self._foreign = language_check(params.language)
        self._tokens = Tokenizer()
        self._contamination = Contamination(items, params.decontaminate_ngram, phrases)
        self._templates = Templates(items if params.compares_templates else [])
        self._template_verdict = "template_match" if params.template_match == "drop" else KEPT
        self._paraphrases = Paraphrases(items if params.compares_paraphrases else [], params.paraphrase_cosine)
        self._suspects = Suspects(items, self._contamination, self._tokens)

    def __call__(self, questions: Sequence[str | bytes | None], finish_reasons: Sequence[str]) -> Batch:
        """Check N questions. One that is given as bytes or holds lone surrogates is no text."""
        found = [self._verdict(*row) for row in zip(questions, finish_reasons, strict=True)]
        left = [at for at, row in enumerate(found) if row[0] == KEPT]
        texts = [str(questions[at]) for at in left]
        keys = [question_key(text) for text in texts]
        seen = [plain(text) for text in texts]
        tokens = self._tokens([text.casefold() for text in seen])
        # Before the duplicates, so that a contaminated question does not stand for its clean neighbors.
        clean = np.ones(len(left), bool)
        for place in np.flatnonzero(self._suspects(texts, seen, keys, tokens)):
            if match := self._contamination.match(texts[place]):
                found[left[place]] = ("contaminated", *match)
                clean[place] = False
        for place, item, said in self._templates(seen):
            if clean[place]:
                found[left[place]] = (self._template_verdict, item, said)
                clean[place] = self._template_verdict == KEPT
        for place, item, said in self._paraphrases(seen):
            if clean[place] and not found[left[place]][1]:
                found[left[place]] = (KEPT, item, said)
        tokens = tokens.take(clean)
        hashed = b"".join(blake2b(keys[at].encode(), digest_size=16).digest() for at in np.flatnonzero(clean))
        nothing = np.zeros(0, np.uint64), np.zeros(int(clean.sum()) + 1, np.int64)
        shingles, offsets = shingle_hashes(tokens) if self._near else nothing
        kept = [seen[at].casefold() for at in np.flatnonzero(clean)] if self._semantic else []
        meant = vectors(kept) if self._semantic else (np.zeros((int(clean.sum()), 0), np.int8), nothing[0])
        return Batch(
            np.array([CODES[name] for name, _, _ in found], np.int8),
            pa.array([matched for _, matched, _ in found], pa.string()),
            pa.array([evidence for _, _, evidence in found], pa.string()),
            np.frombuffer(hashed, np.uint64).reshape(-1, 2),
            shingles,
            offsets,
            *meant,
        )

    def _verdict(self, question: str | bytes | None, finish_reason: str) -> tuple[str, str, str]:
        if finish_reason != "stop":
            return "cut", "", finish_reason
        if not question:
            return "empty", "", ""
        if evidence := unreadable(question):
            return "unreadable", "", evidence
        assert isinstance(question, str)
        if not (seen := plain(question)) or seen.isspace():
            return "empty", "", "only spaces" if question.isspace() else "only characters that print nothing"
        if foreign := self._foreign(question):
            return "language", "", foreign
        # After the language: without spaces, a Chinese question is one word.
        if (n := len(words(seen))) < self._min_words:
            return "too_short", "", f"{n} words"
        return KEPT, "", ""


def unreadable(question: str | bytes) -> str:
    """Why a question is no text: bytes that are not UTF-8, half of a character, or NUL; empty if it is text."""
    if isinstance(question, bytes):
        try:
            question = question.decode()
        except UnicodeDecodeError as error:
            return f"byte 0x{question[error.start]:02x} at {error.start}"
    if (at := question.find("\0")) >= 0:
        return f"U+0000 at {at}"
    if question.isascii():
        return ""
    return next((f"U+{ord(c):04X} at {at}" for at, c in enumerate(question) if "\ud800" <= c <= "\udfff"), "")


def printable(question: str | bytes | None) -> str:
    """A question as it can be written: what is no text becomes U+FFFD."""
    if isinstance(question, bytes):
        return question.decode(errors="replace")
    return (question or "").encode("utf-8", "surrogatepass").decode("utf-8", "replace")
