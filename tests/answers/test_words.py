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
        pytest.param("The answer is yes, because Ann lied.", "yes", "yes", id="yes_and_why"),
        pytest.param("The answer is yes since Ann lied.", "yes", "yes", id="yes_and_why_without_a_comma"),
        pytest.param("The answer is No: Ann lied.", "No", "No", id="no_and_why"),
        pytest.param("Answer: False (there is a cycle).", "False", "False", id="false_and_why_in_brackets"),
        pytest.param("The answer is true \u2014 there is an order.", "true", "true", id="true_and_why_after_a_dash"),
        pytest.param("The answer is Bob, because Ann lied.", "Bob", "Bob", id="a_name_and_why"),
        pytest.param("The answer is:\nYes, because Ann lied.\n\nDone.", "Yes", "Yes", id="why_in_the_line_below"),
        pytest.param("Ann lied.\nYes, because of Ann.", None, "Yes", id="why_in_the_last_line"),
        pytest.param("The answer is yes, no, and yes.", *["yes, no, and yes"] * 2, id="several_answers"),
        pytest.param("The answer is Yes (Ann), No (Bob)", *["Yes (Ann), No (Bob)"] * 2, id="several_by_name"),
        pytest.param("The answer is yes, then no, then yes.", *["yes, then no, then yes"] * 2, id="one_after_another"),
        pytest.param("The answer is Ann, a knight since Monday.", *["Ann, a knight since Monday"] * 2, id="since_a_day"),
        pytest.param("The answer is no one.", "no one", "no one", id="no_is_no_answer_here"),
        pytest.param("So the answer must be St. John.", "St. John", "St. John", id="saint"),
        pytest.param("The answer is Mr. Smith. He lied.", "Mr. Smith", "Mr. Smith", id="mister"),
        pytest.param("The answer is first. St. John lied.", "first", "first", id="a_word_that_ends_like_a_title"),
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


@pytest.mark.parametrize(
    "part",
    ["answer is ", "answer: \n", "\\text{", "**", "a. ", "\n", "\\boxed{", "answer", "answer is yes, ", " , because"],
)
def test_no_response_takes_long(part: str):
    text = part * (40_000 // len(part))
    started = time.process_time()
    closing_answer(text)
    spelling(text)
    assert time.process_time() - started < 1
