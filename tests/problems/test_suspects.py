import random

import numpy as np
import pytest

from scalequest.io import read_jsonl
from scalequest.problems.contamination import Contamination
from scalequest.problems.shingles import Tokenizer
from scalequest.problems.suspects import Suspects
from scalequest.text import plain, question_key
from tests.fakes import real_data


def suspected(items: list[dict[str, str]], texts: list[str], n: int = 13) -> list[bool]:
    tokens = Tokenizer()
    seen = [plain(text) for text in texts]
    check = Suspects(items, Contamination(items, n), tokens)
    keys = [question_key(text) for text in texts]
    marked: list[bool] = check(texts, seen, keys, tokens([text.casefold() for text in seen])).tolist()
    return marked


def disguised(text: str, rng: random.Random) -> str:
    way = rng.randrange(8)
    tokens = text.split(" ")
    start = rng.randrange(max(1, len(tokens) - 14))
    return (
        text, text.upper(), f"Tom reads: {text} Explain.", " ".join(tokens[start : start + 14]), text.replace(" ", "\u200b"),
        text.replace("-", "\u2212"), text.replace("$", ""), text.replace("\\frac", "\\dfrac").replace(" ", "~"),
    )[way]  # fmt: skip


@pytest.mark.parametrize("name", ["math500/test.jsonl", "gsm8k/test.jsonl", "deepmind_mathematics/test.jsonl"])
def test_whatever_the_close_look_finds_is_suspected(name: str):
    items = [{"id": row["id"], "question": row["question"]} for row in list(read_jsonl(real_data(name)))[:400]]
    rng = random.Random(2)
    others = [row["question"] for row in list(read_jsonl(real_data("math/train.jsonl")))[:1500]]
    texts = [disguised(item["question"], rng) for item in items] + others
    index = Contamination(items, 13)
    found = [index.match(text) is not None for text in texts]
    marked = suspected(items, texts)
    assert not [text for text, hit, mark in zip(texts, found, marked, strict=True) if hit and not mark]
    assert sum(found) > 300
    # And it spares the close look at most of the others.
    assert np.mean(marked[len(items) :]) < 0.2


@pytest.mark.parametrize(
    ("item", "text"),
    [
        ("What is 5!?", "Say it: what is 5!?"),
        ("5! = ?", "Compute 5! = ?"),
        ("$2 + 3$", "Compute $2+3$."),
        ("What is 17 + 25?", "Say: what\u200bis\u200b17 + 25?"),
        ("Why?", "why"),
        ("What is 17 + 25?", "Say: what is $17{+}25$?"),
        ("What is $\\frac{1}{2} + \\frac{1}{3}$?", "Say: what is 1/2 + 1/3?"),
        ("What is 1,000 + 1?", "What is $1{,}000 + 1$?"),
    ],
)
def test_a_short_item_is_suspected(item: str, text: str):
    assert suspected([{"id": "x", "question": item}], [text, "Tom has 3 apples."]) == [True, False]


def test_nothing_is_suspected_where_decontamination_is_off():
    assert suspected([{"id": "x", "question": "What is 5?"}], ["What is 5?"], n=0) == [False]
    assert suspected([], ["What is 5?"]) == [False]
