import random
import re

import pytest

from benchmarks.screen_data import paraphrase
from scalequest.io import read_jsonl
from scalequest.problems.paraphrases import Paraphrases
from scalequest.text import plain
from tests.fakes import real_data

CLIPS = "Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in May. How many clips in all?"
TRAIN = "A train leaves Geneva at noon and travels 90 miles per hour. When does it arrive at Milan, 225 miles away?"
ITEMS = [
    {"id": "exam/0", "question": CLIPS},
    {"id": "exam/1", "question": TRAIN},
    {"id": "exam/2", "question": "What is 5 + 7?"},
]


def found(*texts: str, threshold: float = 0.7) -> list[tuple[int, str]]:
    return [(row, item) for row, item, _ in Paraphrases(ITEMS, threshold)([plain(text) for text in texts])]


def test_the_same_in_another_order_and_other_words_is_found():
    text = "In April 48 of Natalia's friends bought clips from her; in May she sold half as many. How many clips were sold in all then?"
    assert found("Tom has 3 apples.", text, threshold=0.5) == [(1, "exam/0")]


@pytest.mark.parametrize(
    "text", ["What is 5 + 7?", "", "?", "Tom sold 3 red apples in May. How many apples has he now?"]
)
def test_another_question_is_not_found(text: str):
    assert found(text) == []


def test_the_evidence_is_the_cosine():
    assert list(Paraphrases(ITEMS, 0.9)([plain(TRAIN)])) == [
        (0, "exam/1", "paraphrase: cosine 1.00 (words 1.00, numbers 1.00)")
    ]
    assert list(Paraphrases([], 0.5)([TRAIN])) == []
    assert list(Paraphrases(ITEMS, 0.5)([])) == []


def test_equal_items_give_the_first_and_batches_change_nothing(monkeypatch: pytest.MonkeyPatch):
    index = Paraphrases([*ITEMS, {"id": "exam/9", "question": CLIPS}], 0.6)
    texts = [plain(text) for text in (CLIPS, TRAIN, "Why?", CLIPS.replace("48", "9"), CLIPS.replace("friends", "pals"))]
    at_once = list(index(texts))
    assert [(row, item) for row, item, _ in at_once] == [(0, "exam/0"), (1, "exam/1"), (4, "exam/0")]
    monkeypatch.setattr("scalequest.problems.paraphrases.AT_ONCE", 1)
    assert list(index(texts)) == at_once


def test_paraphrases_of_real_items_are_found_and_few_training_questions():
    rows = list(read_jsonl(real_data("gsm8k/test.jsonl")))[:400]
    items = [
        {"id": row["id"], "question": row["question"]} for row in rows if len(re.findall(r"\w+", row["question"])) >= 20
    ]
    index, rng = Paraphrases(items, 0.7), random.Random(1)
    hits = {row: item for row, item, _ in index([plain(paraphrase(item["question"], rng)) for item in items])}
    assert sum(hits.get(at) == item["id"] for at, item in enumerate(items)) >= 0.95 * len(items)
    others = [plain(row["question"]) for row in list(read_jsonl(real_data("gsm8k/train.jsonl")))[:2000]]
    assert len(list(index(others))) <= 0.01 * len(others)
