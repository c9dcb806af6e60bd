import time

import pytest

from scalequest.answers.words import closing_answer, spelling, stated_answer


@pytest.mark.parametrize(
    ("text", "stated", "closing"),
    [
        pytest.param("So \\boxed{Ann is a knight, and Bob is a knave.}", *["Ann is a knight, and Bob is a knave."] * 2, id="box"),
        pytest.param("\\boxed{red}, or rather \\boxed{blue}", "blue", "blue", id="last_box"),
        pytest.param("The answer is Ann is a knight, and Bob is a knave.", *["Ann is a knight, and Bob is a knave"] * 2, id="phrase"),
        pytest.param("Final answer: **gray**. It was turned twice.", "gray", "gray", id="label_and_emphasis"),
        pytest.param("The answer is 3. Two of them are false.", "3", "3", id="number"),
        pytest.param("Answer:\n1 2 3 4\n3 4 1 2\n\nI checked it.", "1 2 3 4\n3 4 1 2", "1 2 3 4\n3 4 1 2", id="lines_below"),
        pytest.param("The answer is given below.\nBob", None, "Bob", id="about_the_answer"),
        pytest.param("The answer is not blue.\nIt is red", None, "It is red", id="denied"),
        pytest.param("The cube is turned.\n\nGray\n", None, "Gray", id="last_line"),
        pytest.param("<think>The answer is 5.</think>", None, None, id="thought"),
        pytest.param("word " * 100, None, None, id="a_long_last_line"),
        pytest.param(" \n**\n", None, None, id="no_words"),
        pytest.param("\\boxed{}", None, "\\boxed{}", id="empty_box"),
    ],
)  # fmt: skip
def test_an_answer_is_read_as_it_is_stated(text: str, stated: str | None, closing: str | None):
    assert (stated_answer(text), closing_answer(text)) == (stated, closing)


@pytest.mark.parametrize(
    "answer",
    ["Ann is a knight", "ann is a knight.", " Ann  is a\nknight ", "**Ann** is a knight", "$\\text{Ann is a knight}$", "'Ann is a knight'",
     "\u201cAnn is a knight\u201d", "\\textbf{\\text{Ann}} is a knight!"],
)  # fmt: skip
def test_spelling_leaves_the_words(answer: str):
    assert spelling(answer) == "ann is a knight"


@pytest.mark.parametrize("part", ["answer is ", "answer: \n", "\\text{", "**", "a. ", "\n", "\\boxed{", "answer"])
def test_no_response_takes_long(part: str):
    text = part * (40_000 // len(part))
    started = time.process_time()
    closing_answer(text)
    spelling(text)
    assert time.process_time() - started < 1
