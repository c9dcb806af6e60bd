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
        pytest.param("\\boxed{12}. As asked, it is in \\boxed{}.", "12", id="an_empty_one_after_it"),
        pytest.param("In \\boxed{ }: \\boxed{12}", "12", id="an_empty_one_before_it"),
        pytest.param("boxed{5}", None, id="no_backslash"),
        pytest.param("the boxed answer is 5", None, id="the_word"),
        pytest.param("", None, id="nothing"),
        pytest.param("so $\\boxed 2$.", "2", id="no_braces"),
        pytest.param("so $\\boxed -12$.", "-12", id="no_braces_sign"),
        pytest.param("so $\\boxed 2\\sqrt{3}$.", "2\\sqrt{3}", id="no_braces_formula"),
        pytest.param("\\boxed 25 apples are left.", "25", id="no_braces_in_prose"),
        pytest.param("\\boxed{1}, no: $\\boxed 2$", "2", id="last_without_braces_wins"),
        pytest.param("so $\\boxed\\frac{1}{2}$", "\\frac{1}{2}", id="no_braces_fraction"),
        pytest.param("\\boxed\\frac12 of it", "\\frac12", id="no_braces_short_fraction"),
        pytest.param("\\boxed -\\dfrac{1}{2}", "-\\dfrac{1}{2}", id="no_braces_negative_fraction"),
        pytest.param("\\boxed\\pi", "\\pi", id="no_braces_command"),
        pytest.param("\\boxed \\text{A}", "\\text{A}", id="no_braces_text"),
        pytest.param("\\boxed\\mathrm{B}.", "\\mathrm{B}", id="no_braces_roman"),
        pytest.param("\\boxed\\sqrt{\\frac{1}{2}}", "\\sqrt{\\frac{1}{2}}", id="no_braces_root"),
        pytest.param("\\boxed(1,2) is it", "(1,2)", id="no_braces_pair"),
        pytest.param("\\boxed\\left(1,2\\right)", "\\left(1,2\\right)", id="no_braces_sized_pair"),
        pytest.param("\\boxed\\{1,2\\}", "\\{1,2\\}", id="no_braces_set"),
        pytest.param("\\(\\boxed\\frac{3}{4} + 1\\)", "\\frac{3}{4} + 1", id="no_braces_up_to_the_end_of_the_formula"),
        pytest.param("\\boxedtext 5", None, id="another_command"),
        pytest.param("\\boxed {5}", "5", id="blank_before_the_brace"),
        pytest.param("\\fbox{5}", "5", id="fbox"),
        pytest.param("\\framebox{\\frac{1}{2}}", "\\frac{1}{2}", id="framebox"),
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
    ("formulas", "The answers are $x=1$ and $x=-4$.", "x=1, x=-4", "x=1, x=-4"),
    ("three_formulas", "The answers are $1$, $2$, and $3$.", "1, 2, 3", "1, 2, 3"),
    ("pairs", "The answer is $(3,4)$ and $(4,3)$.", "(3,4), (4,3)", "(3,4), (4,3)"),
    ("formula_and_a_sentence", "The answer is $3$ and $4$ is too large.", "3", "3"),
    ("formula_and_words", "The answer is $5$, which is $2+3$.", "5", "5"),
    ("relation", "The answer is x > 3.", "x > 3", "x > 3"),
    ("relation_of_three", "Answer: 3 < x < 5", "3 < x < 5", "3 < x < 5"),
    ("relations", "The answer is x < -2 or x > 3.", "x < -2 or x > 3", "x < -2 or x > 3"),
    ("latex_relation", "The answer is x \\ge 4.", "x \\ge 4", "x \\ge 4"),
    ("relation_of_numbers", "The answer is 5 > 3, so yes.", "5", "5"),
    ("equation_and_relation", "The answer is x = 5 > 3.", "5", "5"),
    ("plus_minus", "The answer is \u00b15.", "\u00b15", "\u00b15"),
    ("plus_minus_of_a_name", "The answer is x = \\pm 3.", "\\pm 3", "\\pm 3"),
    ("pythons_power", "The answer is 10**6", "10**6", "10**6"),
    ("latex_factors", "The answer is 288 \\pi.", "288 \\pi", "288 \\pi"),
    ("factors", "The answer is 2 pi cm.", "2 pi", "2 pi"),
    ("latex_mixed_number_with_a_blank", "The answer is 137 \\frac{1}{2}", "137 \\frac{1}{2}", "137 \\frac{1}{2}"),
    ("union", "The answer is (0,9) \\cup (9,36)", "(0,9) \\cup (9,36)", "(0,9) \\cup (9,36)"),
    ("two_units", "The answer is 3 hours and 20 minutes.", "3 hours 20 minutes", "3 hours 20 minutes"),
    ("cents", "The answer is 50 cents.", "50 cents", "50 cents"),
    ("small_number", "It prints 1e-05", None, "1e-05"),
    ("large_number", "So it is 1.5e+16.", None, "1.5e+16"),
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
    ("unicode_minus", "The answer is \u22125.", "-5", "-5"),
    ("en_dash_as_minus", "The answer is \u20135.", "-5", "-5"),
    ("unicode_minus_unannounced", "That makes \u22125.", None, "-5"),
    ("display_math", "The answer is \\[\n\\frac{3}{4}\n\\]", "\\frac{3}{4}", "\\frac{3}{4}"),
    ("double_dollars", "The answer is:\n$$\n\\frac{3}{4}\n$$", "\\frac{3}{4}", "\\frac{3}{4}"),
    ("inline_math", "The answer is \\(\\frac{3}{4}\\).", "\\frac{3}{4}", "\\frac{3}{4}"),
    ("heading", "#### Conclusion\nSo she has 7 apples.", None, "7"),
    ("numbered_heading", "#### Step 1\nx\n#### Step 2\nSo it is 7.", None, "7"),
    ("heading_with_a_number_first", "#### 2. Adding\nSo it is 7.", None, "7"),
    ("deeper_heading", "##### 3\nSo it is 7.", None, "7"),
    ("mark_with_a_unit", "#### 72 dollars", "72", "72"),
    ("mark_with_money", "#### $72", "72", "72"),
    ("answer_heading", "## Final Answer\n42", "42", "42"),
    ("answer_heading_and_prose", "## Answer\nWe add 3 and 4. That gives 7.", None, "7"),
    ("equation", "The answer is 2 + 3 = 5.", "5", "5"),
    ("equation_chain", "The answer is 2 + 3 + 1 = 5 + 1 = 6.", "6", "6"),
    ("times_sign", "The answer is 2 \u00d7 3 = 6.", "6", "6"),
    ("letter_x_as_times", "The answer is 3 x 4 = 12.", "12", "12"),
    ("named", "The answer is x = 5.", "5", "5"),
    ("equation_after_the_answer", "The answer is 5, since 2 + 4 = 6.", "5", "5"),
    ("label_and_prose", "Answer:\nWe add 3 and 4. That gives 7 in total.", None, "7"),
    ("label_and_prose_in_one_line", "Answer: We add 3 and 4. That gives 7 in total.", None, "7"),
    ("label_and_a_sentence", "Answer: Tom has 5 apples left.", "5", "5"),
    ("thought", "<think>The answer is 5? no</think>\nIt is 6.", None, "6"),
    ("box_in_a_thought", "<think>\\boxed{5}</think>\nThe answer is 6.", "6", "6"),
    ("thought_opened_by_the_prompt", "The answer is 5? no</think>\nIt is 6.", None, "6"),
    ("thought_that_was_cut", "<think>The answer is 5", None, None),
    ("bold_label", "**Answer**: 42", "42", "42"),
    ("bold_label_and_colon", "**Answer:** 42", "42", "42"),
    ("bold_answer", "The answer is **42**.", "42", "42"),
    ("italic_label", "*Answer*: 42", "42", "42"),
    ("difference", "The answer is 10-5.", "10-5", "10-5"),
    ("difference_unannounced", "10-5", None, "5"),
    ("negative_after_equals", "3-8=-5", None, "-5"),
    ("percent", "The answer is 10%.", "10%", "10%"),
    ("latex_percent", "The answer is 10\\%.", "10\\%", "10\\%"),
    ("mixed", "The answer is 1 1/2.", "1 1/2", "1 1/2"),
    ("million", "The answer is 5 million.", "5 million", "5 million"),
    ("date", "The answer is 2024-05-12.", "2024-05-12", "2024-05-12"),
    ("time", "The answer is 3:30 pm.", "3:30", "3:30"),
    ("two_prices", "The answer is $12 and $13.", "12 and 13", "12 and 13"),
    ("list", "The answer is 3, 4, 5.", "3, 4, 5", "3, 4, 5"),
    ("two_numbers", "The answer is 5 and 7.", "5 and 7", "5 and 7"),
    ("two_equations", "The answer is x = 5 and y = 3.", "x = 5 and y = 3", "x = 5 and y = 3"),
    ("set", "The answer is {1, 2}.", "{1, 2}", "{1, 2}"),
    ("unicode_root", "The answer is 3\u221a2.", "3\u221a2", "3\u221a2"),
    ("unicode_pi", "The answer is \u03c0/4.", "\u03c0/4", "\u03c0/4"),
    ("unicode_power", "The answer is x\u00b2 + 1.", "x^{2} + 1", "x^{2} + 1"),
    ("plain_formula", "The answer is 5x + 3.", "5x + 3", "5x + 3"),
    ("thousands_by_blanks", "The answer is 1 000.", "1 000", "1 000"),
    ("thousands_by_thin_blanks", "The answer is 1\\,000.", "1\\,000", "1\\,000"),
    ("equation_of_two_variables", "The answer is x + y = 5.", "x + y = 5", "x + y = 5"),
    ("latex_after_equals", "The answer is 6/8 = \\frac{3}{4}.", "\\frac{3}{4}", "\\frac{3}{4}"),
    ("formula_after_equals", "The answer is x = $\\frac{3}{4}$.", "\\frac{3}{4}", "\\frac{3}{4}"),
    ("exponent", "The answer is 1.5e3.", "1.5e3", "1.5e3"),
    ("share_of", "The answer is 20% of 50 = 10.", "10", "10"),
    ("escaped_money", "The answer is \\$5.", "5", "5"),
    ("number_then_a_reason", "The answer is 5, because 2 + 3 = 5.", "5", "5"),
    ("choice", "The answer is (B).", "(B)", "(B)"),
    ("letter", "The answer is B.", "B", "B"),
    ("dash", "Answer \u2013 42", "42", "42"),
    ("time_of_day", "The answer is 9:30 a.m.", "9:30", "9:30"),
    ("negated", "The answer is not 5. It is 6.", None, "6"),
    ("minerva", "Final Answer: The final answer is $5$. I hope it is correct.", "5", "5"),
    ("an_empty_phrase_after", "The answer is 7.\n\nAnswer:", "7", "7"),
    ("thin_blanks_unannounced", "That makes 1\\,000 in all.", None, "1\\,000"),
    ("braced_comma_unannounced", "1{,}000", None, "1{,}000"),
    ("thousands_by_blanks_unannounced", "That makes 1 000.", None, "1 000"),
    ("mixed_sign", "She eats 1\u00bd.", None, "1 1/2"),
    ("mixed_sign_announced", "The answer is 1\u00bd.", "1 1/2", "1 1/2"),
    ("raised_minus", "\u207b5", None, "-5"),
    ("raised_minus_announced", "The answer is \u207b5.", "-5", "-5"),
    ("minus_in_words", "minus 5", None, "-5"),
    ("minus_in_words_announced", "The answer is minus 5.", "-5", "-5"),
    ("negative_in_words", "So it is negative 5.", None, "-5"),
    ("minus_that_subtracts", "It costs 10 minus 5", None, "5"),
    ("dash_before_a_number", "That is the total - 5 apples", None, "5"),
    ("power_unannounced", "It is 2\u2075.", None, "2^{5}"),
    ("fraction_unannounced", "It is $\\frac{3}{4}$.", None, "\\frac{3}{4}"),
    ("sum_in_words", "The answer is the sum of 3 and 4, which is 7", "7", "7"),
    ("product_in_words", "The answer is the product of 3 and 4, or 12.", "12", "12"),
    ("more_than", "The answer is 3 more than 4, so 7.", "7", "7"),
    ("times_in_words", "The answer is 3 times 4, which equals 12 apples.", "12", "12"),
    ("half_of", "The answer is half of $10$, which is $5$.", "5", "5"),
    ("gerund", "The answer is found by adding 3 and 4, giving 7.", "7", "7"),
    ("sum_without_its_value", "The answer is the sum of 3 and 4.", None, "4"),
    ("value_before_its_sum", "The answer is 7, which is the sum of 3 and 4.", "7", "7"),
    ("value_and_comparison", "The answer is 12 dollars, which is 3 more than 9.", "12", "12"),
    ("range_in_words", "The answer is between 3 and 5.", "between 3 and 5", "between 3 and 5"),
    ("scientific", "That makes 3.2\u00d710\u2075.", None, "3.2\u00d710^{5}"),
    ("negative_money", "So she owes -$5.", None, "-5"),
    ("unicode_negative_money", "So it is \u2212$1,250.50", None, "-1,250.50"),
    ("money_in_a_formula", "The answer is $\\$675$.", "675", "675"),
    ("money_in_a_spaced_formula", "The answer is $ \\$ 54.60$", "54.60", "54.60"),
    ("money_with_thin_blanks", "The answer is $\\$306,\\!956.63$", "306,\\!956.63", "306,\\!956.63"),
    ("negative_before_a_formula", "The answer is negative $\\frac{1}{2}$.", "-\\frac{1}{2}", "-\\frac{1}{2}"),
    ("minus_after_the_mark", "#### minus 5", "-5", "-5"),
    ("average_in_words", "The answer is the average of 2, 4 and 6, which is 4.", "4", "4"),
    ("approximation_first", "The answer is about 12 dollars, or 12.50 with tax.", "12", "12"),
    ("yes_and_a_reason", "The answer is yes, it is.", "yes", "yes"),
    ("evident", "The answer is self-evident.", None, None),
    ("kind_of_answer", "The answer is an integer.", None, None),
    ("this", "The answer is this:", None, None),
    ("obvious", "The answer is obvious.", None, None),
    ("very_easy", "The answer is very easy to find.", None, None),
    ("given_below", "The answer is given below.", None, None),
    ("unknown", "The answer is unknown.", None, None),
    ("about_the_answer", "The answer is the same as before.", None, None),
    ("about_the_answer_after_one", "The answer is 7. The answer is correct.", "7", "7"),
    ("word_answer", "The answer is Tuesday.", "Tuesday", "Tuesday"),
    ("no_such", "The answer is none of the above.", "none of the above", "none of the above"),
    ("right_angle", "The answer is right triangle.", "right triangle", "right triangle"),
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


@pytest.mark.parametrize(
    "part",
    ["\\boxed{", "\\boxed ", "\\boxed 1", "(", "{", "1+", "x ", "\\frac{1}{", "answer ", "answer:\n", "1, ", "$", "12 ", "1=1", "<think>",
     "#### ", "a", "-", "3 and ", "1,", "2^", "|1", "`*_", "\\frac{1}{2}", "\u221a", "10%"],
)  # fmt: skip
def test_no_text_takes_long(part: str):
    started = time.monotonic()
    for start in ("", "The answer is ", "#### ", "The answer is $"):
        flexible_answer(start + part * (8_000 // len(part)))
    assert time.monotonic() - started < 2


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


@pytest.mark.parametrize(
    ("opened", "closed"),
    [
        ("<think>", "</think>"),
        ("\u25c1think\u25b7", "\u25c1/think\u25b7"),
        ("[THINK]", "[/THINK]"),
        ("<|begin_of_thought|>", "<|end_of_thought|>"),
        ("<reasoning>", "</reasoning>"),
    ],
)
def test_thoughts_of_every_published_form_are_no_answer(opened: str, closed: str):
    assert flexible_answer(f"{opened}The answer is 3.{closed} It is 4.") == "4"
    assert flexible_answer(f"The answer is 3.{closed} It is 4.") == "4"
    assert flexible_answer(f"{opened}The answer is 3.") is None
    assert flexible_answer("Let [think] be 1. The answer is 3.") == "3"
