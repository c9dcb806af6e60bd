import random

import numpy as np
import pytest

from benchmarks.screen_data import paraphrase, with_two_numbers_exchanged
from scalequest.io import read_jsonl
from scalequest.problems import semantic
from scalequest.problems.duplicates import NONE
from scalequest.problems.meaning import directions, lengths
from scalequest.problems.semantic import semantic_twins, tables_for, vectors
from scalequest.text import plain
from tests.fakes import real_data

SOLD = "Tom sold 48 clips in April. Then he sold twice as many clips in May, so how many clips did he sell altogether?"


def alike(first: str, second: str) -> float:
    """The cosine of two questions; 0 where their numbers differ."""
    found, keys = vectors([plain(first).casefold(), plain(second).casefold()])
    return float(np.prod(1 / lengths(found)) * (found[0].astype(int) @ found[1])) if keys[0] == keys[1] else 0.0


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        (SOLD, SOLD.replace("altogether", "in total").replace("sold", "has sold"), True),
        (SOLD, SOLD.replace("twice", "2 times"), True),
        # The sentences may change places, the numbers in them may not.
        ("Ann has 3 red pens. Tom buys 5 big bags of rice.", "Tom buys 5 big bags of rice. Ann has 3 red pens.", True),
        ("Ann has 3 red pens. Tom buys 5 big bags of rice.", "Ann has 5 red pens. Tom buys 3 big bags of rice.", False),
        (SOLD, SOLD.replace("48", "49"), False),
        ("Solve $x + 2y = 3$ for x.", "Solve $2x + y = 3$ for x.", False),
        ("What is 12 - 7?", "What is 12 + 7?", False),
    ],
)
def test_a_duplicate_says_the_same_with_the_same_numbers(first: str, second: str, same: bool):
    assert (alike(first, second) >= 0.9) == same


def compared_with_all(found: np.ndarray, keys: np.ndarray, threshold: float) -> list[int]:
    wide, size, stay, first = found.astype(int), lengths(found), [], []
    for at in range(len(found)):
        best = max(
            ((wide[at] @ wide[i] / (size[at] * size[i]), -i) for i in stay if keys[i] == keys[at]), default=(0.0, 1)
        )
        first.append(-best[1] if best[0] >= threshold else NONE)
        if first[-1] == NONE:
            stay.append(at)
    return first


def crowd(n: int, seed: int = 3) -> np.ndarray:
    """Vectors of which about half are another one's with noise: cosines from 0.8 to 1."""
    rng = np.random.default_rng(seed)
    base = rng.normal(size=(n // 2, 256))
    noisy = base[rng.integers(0, n // 2, n - n // 2)] + rng.normal(size=(n - n // 2, 256)) * rng.uniform(
        0, 0.7, (n - n // 2, 1)
    )
    return directions(np.rint(1000 * rng.permutation(np.concatenate([base, noisy]))).astype(np.int32))


def test_the_most_similar_earlier_question_with_the_same_numbers_is_named():
    found, keys = crowd(300), np.arange(300, dtype=np.uint64) % np.uint64(3)
    expected = compared_with_all(found, keys, 0.9)
    assert semantic_twins(found, keys, 0.9).first.tolist() == expected
    assert 10 < sum(first != NONE for first in expected) < 100
    assert semantic_twins(found[:0], keys[:0], 0.9).first.tolist() == []


def test_a_large_group_is_searched_by_buckets_and_loses_few(monkeypatch: pytest.MonkeyPatch):
    found, keys = crowd(2_000), np.zeros(2_000, np.uint64)
    every = semantic_twins(found, keys, 0.9)
    monkeypatch.setattr(semantic, "MOST_COMPARED", 64)
    some = semantic_twins(found, keys, 0.9)
    assert np.sum(some.first != NONE) >= 0.97 * np.sum(every.first != NONE) > 300
    assert np.all(some.similarity[some.first != NONE] >= 0.9)
    bits, tables = tables_for(2_000, 0.9)
    assert bits == 7
    # A bit of both is equal with 1 - acos(0.9) / pi = 0.856; 1 - 0.856^7 to the power of the tables is at most 2 %.
    assert (1 - 0.8564**7) ** tables <= 0.02 < (1 - 0.8564**7) ** (tables - 1)


def test_paraphrases_of_real_questions_are_found_and_exchanged_numbers_are_not():
    texts = [row["question"] for row in list(read_jsonl(real_data("gsm8k/test.jsonl")))[:400]]
    rng = random.Random(1)
    same = [alike(text, paraphrase(text, rng)) for text in texts]
    others = [alike(text, other) for text in texts if (other := with_two_numbers_exchanged(text, rng))]
    assert np.mean(np.array(same) >= 0.9) >= 0.85
    assert np.mean(np.array(others) >= 0.9) <= 0.15
