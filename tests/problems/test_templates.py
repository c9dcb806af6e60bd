import random
import re

import pytest

from benchmarks.screen_data import other_numbers
from scalequest.io import read_jsonl
from scalequest.problems.templates import Templates
from scalequest.text import plain
from tests.fakes import real_data

CLIPS = (
    "Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in May. How many in all?"
)
BALLS = "How many ways are there to put 5 balls in 2 boxes?"
ITEMS = [
    {"id": "exam/0", "question": CLIPS},
    {"id": "exam/1", "question": BALLS},
    {"id": "exam/2", "question": "What is 5 + 7?"},
]


def found(*texts: str) -> list[tuple[int, str]]:
    return [(row, item) for row, item, _ in Templates(ITEMS)([plain(text) for text in texts])]


@pytest.mark.parametrize(
    ("text", "item"),
    [
        pytest.param(CLIPS.replace("48", "1,250"), "exam/0", id="another_number"),
        pytest.param(CLIPS.replace("48", "3.5").upper(), "exam/0", id="a_decimal_and_capitals"),
        pytest.param(CLIPS.replace("48", "twenty"), "exam/0", id="a_number_in_words"),
        pytest.param(f"Read this. {CLIPS.replace('48', '7')} Explain.", "exam/0", id="inside_another_text"),
        pytest.param(BALLS.replace("5", "9").replace("2", "three"), "exam/1", id="short"),
    ],
)
def test_an_item_with_other_numbers_is_found(text: str, item: str):
    assert found("Tom has 3 apples.", text) == [(1, item)]


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(CLIPS.replace("clips", "books").replace("friends", "aunts"), id="other_words"),
        pytest.param("What is 8 + 9?", id="too_short_to_be_a_template"),
        pytest.param("How many ways are there to put 5 hats on 2 cats?", id="half_of_a_short_one"),
        pytest.param("", id="nothing"),
    ],
)
def test_another_question_is_not_found(text: str):
    assert found(text) == []


def test_the_evidence_counts_the_shared_runs():
    # 22 words give 15 runs of 8.
    words = len(re.findall(r"\w+|[^\w\s]", CLIPS))
    assert list(Templates(ITEMS)([CLIPS.replace("48", "9")])) == [
        (0, "exam/0", f"template match: {words - 7} of {words - 7} runs of 8 words")
    ]


def test_without_items_nothing_is_found():
    assert list(Templates([])(["What is 5?"])) == []
    assert list(Templates(ITEMS)([])) == []


@pytest.mark.parametrize("name", ["gsm8k/test.jsonl", "math500/test.jsonl"])
def test_real_items_with_other_numbers_are_found_and_training_questions_hardly(name: str):
    rows = [row for row in read_jsonl(real_data(name)) if len(re.findall(r"\w+", row["question"])) >= 20]
    items = [
        {"id": row["id"], "question": row["question"]} for row in rows if len(re.findall(r"\d+", row["question"])) >= 2
    ]
    index, rng = Templates(items), random.Random(1)
    hits = {row: item for row, item, _ in index([plain(other_numbers(item["question"], rng)) for item in items])}
    # Two items may be one template.
    assert sum(hits.get(at) == item["id"] for at, item in enumerate(items)) >= 0.99 * len(items)
    others = [plain(row["question"]) for row in list(read_jsonl(real_data("math/train.jsonl")))[:2000]]
    assert len(list(index(others))) <= 0.01 * len(others)
