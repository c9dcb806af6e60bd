import random

import pytest

from scalequest.io import read_jsonl
from scalequest.problems.diversity import SAMPLE, diversity, vendi, vendi_of_meaning
from tests.fakes import real_data


def test_equal_texts_count_once_and_texts_that_share_nothing_each():
    assert vendi(["What is 2 + 3?"] * 20) == pytest.approx(1)
    texts = [f"a{i} b{i} c{i} d{i}" for i in range(20)]
    # Few of the 140 words and pairs fall into one of 4,096 places.
    assert vendi(texts) == pytest.approx(20, rel=0.02)
    # Ten of each of two that share nothing.
    assert vendi(["a b c"] * 10 + ["x y z"] * 10) == pytest.approx(2)
    # Three quarters and one quarter: exp(-(0.75 ln 0.75 + 0.25 ln 0.25)).
    assert vendi(["a b c"] * 15 + ["x y z"] * 5) == pytest.approx(1.7548, abs=1e-3)
    assert vendi([]) == 0


def test_real_questions_are_more_diverse_than_one_template():
    rng = random.Random(1)
    real = [row["question"] for row in list(read_jsonl(real_data("gsm8k/train.jsonl")))[:200]]
    template = [
        f"Tom has {rng.randrange(99)} apples and buys {rng.randrange(99)} more. How many now?" for _ in range(200)
    ]
    assert vendi(real) > 5 * vendi(template)


def test_the_order_does_not_matter():
    texts = [f"Tom has {i} apples." for i in range(30)]
    assert vendi(texts) == pytest.approx(vendi(texts[::-1]))


def test_other_words_for_the_same_count_little_by_meaning():
    texts = [
        "How many apples does Tom buy?",
        "What number of apples does Tom purchase?",
        "Find the area of a triangle.",
    ]
    assert vendi_of_meaning(texts) < 2.2 < vendi(texts)
    assert vendi_of_meaning(texts[:1] * 5) == pytest.approx(1)
    assert vendi_of_meaning([]) == vendi_of_meaning([""]) == 0


def test_sets_are_compared_at_the_size_of_the_smallest():
    same, others = ["a b c"] * (SAMPLE + 5), [f"a{i} b{i} c{i}" for i in range(10)]
    found = diversity({"same": same, "others": others})
    assert [own["n"] for own in found.values()] == [10, 10]
    assert found["same"]["vendi"] == 1.0
    assert found["others"]["vendi"] > 9
    assert diversity({"same": same})["same"]["n"] == SAMPLE
    assert diversity({}) == {}
