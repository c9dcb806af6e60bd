import numpy as np
import pytest

from scalequest.problems import meaning
from scalequest.problems.meaning import lengths, meanings, word_sums
from scalequest.problems.numerals import numbers

TEXTS = ["tom buys 3 red apples.", "ann purchases 3 red apples.", "find the area of the triangle.", ""]


def cosines(texts: list[str]) -> np.ndarray:
    found = meanings(texts)
    return found.astype(int) @ found.T.astype(int) / lengths(found)[:, None] / lengths(found)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$1,200.50 and 3.0 of 007, twelve times, twice", ["1200.5", "3", "7", "12", "2"]),
        ("one of them often weighs 0.5", ["0.5"]),
        ("1.2.3 is a version, 10,000 is 10000", ["1.2.3", "10000", "10000"]),
        ("", []),
    ],
)
def test_a_number_has_one_spelling(text: str, expected: list[str]):
    assert numbers(text) == expected


def test_the_same_in_other_words_is_nearer_than_another_subject():
    found = cosines(TEXTS)
    assert found[0, 1] > 0.6 > 0.2 > found[0, 2]
    assert found[3].tolist() == [0, 0, 0, 0]


def test_neither_batches_nor_remembered_words_change_a_vector(monkeypatch: pytest.MonkeyPatch):
    once = meanings(TEXTS)
    monkeypatch.setattr(meaning, "MOST_REMEMBERED", 0)
    assert np.array_equal(np.concatenate([meanings([text]) for text in TEXTS]), once)
    assert meanings([]).shape == (0, 256)


def test_the_pieces_of_words_are_those_of_the_whole_text():
    tokenizer, table = meaning._model()
    text = "how many of tom's 12 apples, at $3.50 each, are left after he has eaten \\frac{1}{2}?"
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    assert word_sums([text])[0].tolist() == table[ids].astype(int).sum(axis=0).tolist()


def test_a_megabyte_is_read_up_to_a_page():
    assert np.array_equal(meanings(["apples " * 200_000]), meanings(["apples " * 1_000]))
    assert meanings(["a" * 1_000_000]).any()
