import time

import pytest

from scalequest.answers.find import announced_answer, boxed, flexible_answer, strict_answer


@pytest.mark.parametrize(
    ("text", "content"),
    [
        pytest.param("so \\boxed{5}.", "5", id="plain"),
        pytest.param("\\boxed{ 5 }", "5", id="spaces"),
        pytest.param("\\boxed{\\frac{1}{2}}", "\\frac{1}{2}", id="nested"),
        pytest.param("\\boxed{\\sqrt{\\frac{a_{1}}{b^{2}}}} units", "\\sqrt{\\frac{a_{1}}{b^{2}}}", id="deep"),
        pytest.param("\\boxed{\\{1, 2\\}}", "\\{1, 2\\}", id="escaped_braces"),
        pytest.param("\\boxed{1} and then \\boxed{2}", "2", id="last_wins"),
        pytest.param("\\boxed{\\boxed{3}}", "3", id="box_in_a_box"),
        pytest.param("\\boxed{1} and \\boxed{2", "1", id="last_is_cut"),
        pytest.param("\\boxed{\\frac{1}{2}", None, id="unbalanced"),
        pytest.param("\\boxed{", None, id="cut_at_once"),
        pytest.param("\\boxed{}", "", id="empty"),
        pytest.param("boxed{5}", None, id="no_backslash"),
        pytest.param("the boxed answer is 5", None, id="the_word"),
        pytest.param("", None, id="nothing"),
    ],
)
def test_the_last_complete_box_counts(text: str, content: str | None):
    assert boxed(text) == content


# text -> announced (the paper's presence rule), flexible (evaluation's lenient score)
EXTRACTED = [
    ("box", "The answer is \\boxed{7}.", "7", "7"),
    ("box_before_phrase", "\\boxed{7} so the answer is 8", "7", "7"),
    ("phrase", "The answer is 12.", "12", "12"),
    ("lower_case_phrase", "so he answer is 12", "12", "12"),
    ("final_answer", "Final answer is: 12", "12", "12"),
    ("colon", "Answer: -5", "-5", "-5"),
    ("gsm8k_mark", "2 + 2 = 4\n#### 4", "4", "4"),
    ("next_line", "The answer is\n12", "12", "12"),
    ("unit", "The answer is 12 dollars.", "12", "12"),
    ("dollars", "The answer is $12.50.", "12.50", "12.50"),
    ("thousands", "The answer is 1,234.", "1,234", "1,234"),
    ("comma_after", "The answer is 1,000, I think.", "1,000", "1,000"),
    ("slash", "The answer is 3/4.", "3/4", "3/4"),
    ("point_first", "The answer is -.5", "-.5", "-.5"),
    ("word", "The answer is twelve. Good.", "twelve", "twelve"),
    ("last_phrase_wins", "The answer is 5.\nNo, the answer is 7.", "7", "7"),
    ("last_phrase_of_a_line_wins", "The answer is 5. No, the answer is 7.", "7", "7"),
    ("latex", "The answer is $\\frac{3}{4}$.", "\\frac{3}{4}", "\\frac{3}{4}"),
    ("latex_root", "The answer is $2\\sqrt{3}$.", "2\\sqrt{3}", "2\\sqrt{3}"),
    ("tuple", "The answer is (1, 2).", "(1, 2)", "(1, 2)"),
    ("empty_box", "I give up: \\boxed{}", None, None),
    ("phrase_with_an_empty_box", "The answer is \\boxed{}.", None, None),
    ("empty_box_and_phrase", "\\boxed{} The answer is 5", "5", "5"),
    ("phrase_without_an_answer", "The answer is", None, None),
    ("phrase_with_a_colon_only", "Answer is:", None, None),
    ("no_phrase", "3 apples and 4 pears make 7", None, "7"),
    ("no_phrase_sentence_end", "That makes 7.", None, "7"),
    ("isnt", "The answer isn't clear. It has 5 parts.", None, "5"),
    ("no_number", "I do not know.", None, None),
    ("nothing", "", None, None),
]


@pytest.mark.parametrize(("text", "announced", "flexible"), [pytest.param(*case, id=name) for name, *case in EXTRACTED])
def test_answers_are_found(text: str, announced: str | None, flexible: str | None):
    assert announced_answer(text) == announced
    assert flexible_answer(text) == flexible


@pytest.mark.parametrize(
    ("text", "answer"),
    [("\\boxed{7}", "7"), ("\\boxed{}", None), ("\\boxed{ }", None), ("The answer is 7.", None)],
    ids=["boxed", "empty", "blank", "announced"],
)
def test_the_strict_answer_is_boxed_and_not_empty(text: str, answer: str | None):
    assert strict_answer(text) == answer


def test_a_text_of_open_boxes_is_read_at_once():
    started = time.monotonic()
    assert boxed("\\boxed{" * 20_000) is None
    assert time.monotonic() - started < 1


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("The answer is \\frac{3}{4}.", "\\frac{3}{4}"),
        ("The answer is -\\frac{1}{2}.", "-\\frac{1}{2}"),
        ("The answer is (-\\infty, 3].", "(-\\infty, 3]"),
        ("The answer is \\sqrt{2} apples. So it is.", "\\sqrt{2} apples"),
    ],
)
def test_latex_without_its_dollars_is_taken_whole(text: str, answer: str):
    assert announced_answer(text) == answer
