import random
from itertools import pairwise

import numpy as np
import pytest

from scalequest.io import read_jsonl
from scalequest.problems import shingles as module
from scalequest.problems.shingles import Tokenizer, distinct, jaccard, runs, shingle_hashes, shingles, word_runs
from scalequest.text import plain, words
from tests.fakes import real_data

TEXTS = [
    "What is 2 + 3?",
    "Two words",
    "",
    "?",
    "a b c a b c a b",
    "x² + π_1 = 3½ ‘no’",
    "one two three",
    "\ud800 x y z",
]


def hashed(texts: list[str]) -> list[set[int]]:
    values, offsets = shingle_hashes(Tokenizer()([plain(text).casefold() for text in texts]))
    return [set(values[a:b].tolist()) for a, b in pairwise(offsets)]


def test_hashes_are_as_many_as_shingles_and_equal_where_they_are():
    found, expected = hashed(TEXTS), [shingles(text) for text in TEXTS]
    assert [len(values) for values in found] == [len(values) for values in expected]
    for i in range(len(TEXTS)):
        for j in range(len(TEXTS)):
            assert len(found[i] & found[j]) == len(expected[i] & expected[j]), (TEXTS[i], TEXTS[j])


def test_the_similarity_of_hashes_is_that_of_real_questions():
    texts = [row["question"] for row in list(read_jsonl(real_data("math/train.jsonl")))[:300]]
    rng = random.Random(1)
    texts += [" ".join(w for w in text.split() if rng.random() < 0.9) for text in texts]
    found, expected = hashed(texts), [shingles(text) for text in texts]
    for i in range(300):
        assert jaccard(found[i], found[i + 300]) == jaccard(expected[i], expected[i + 300])  # type: ignore[arg-type]


def test_a_hash_depends_neither_on_the_batch_nor_on_what_is_remembered(monkeypatch: pytest.MonkeyPatch):
    alone = [hashed([text])[0] for text in TEXTS]
    monkeypatch.setattr(module, "MOST_REMEMBERED", 2)
    assert hashed(TEXTS) == alone
    # Pinned: worker processes on other machines must find the same groups.
    assert min(hashed(["What is 2 + 3?"])[0]) == PINNED


PINNED = 4886721222303818936


@pytest.mark.parametrize("n", [1, 2, 3, 13])
def test_runs_of_words_are_those_of_the_text(n: int):
    texts = [*TEXTS, "It is, it is: a run - of 13 words and (more) than that! So it is, it is."]
    values, offsets = word_runs(Tokenizer()([plain(text).casefold() for text in texts]), n)
    seen: dict[int, str] = {}
    for text, a, b in zip(texts, offsets, offsets[1:], strict=False):
        tokens = words(text)
        expected = [" ".join(tokens[i : i + n]) for i in range(max(1, len(tokens) - n + 1))]
        assert b - a == len(expected)
        for value, run in zip(values[a:b].tolist(), expected, strict=True):
            assert seen.setdefault(value, run) == run
    assert len(set(seen.values())) == len(seen)


def test_no_texts_have_no_runs():
    values, offsets = runs(np.zeros(0, np.uint64), np.zeros(1, np.int64), 3)
    assert (len(values), offsets.tolist()) == (0, [0])
    assert distinct(values, offsets)[1].tolist() == [0]


def test_taking_some_texts_keeps_their_tokens():
    tokens = Tokenizer()(["a b + c", "", "d e", "f"])
    taken = tokens.take(np.array([False, True, True, False]))
    assert taken.offsets.tolist() == [0, 0, 2]
    assert taken.hashes.tolist() == tokens.hashes[4:6].tolist()
    assert tokens.is_word.tolist() == [True, True, False, True, True, True, True]
