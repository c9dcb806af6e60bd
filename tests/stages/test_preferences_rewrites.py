"""What a completion of the optimizer holds as its rewrite."""

import time

import pytest

from stages.preferences import parse_rewrite

# --------------------------------------------------------------------------------------------------- what a completion says

Q = "Tom has 3 apples. How many?"


@pytest.mark.parametrize(
    ("completion", "rewrite"),
    [
        pytest.param(f"CREATED QUESTION: a\nVERIFICATION AND MODIFICATION: b\nFINAL QUESTION: {Q}", Q, id="as_asked"),
        pytest.param(f"STEP 1, METHODS: a\nSTEP 2, PLAN: b\nSTEP 3, REWRITE: c\nSTEP 4, REVIEW: d\nFINAL QUESTION: {Q}", Q, id="four_steps"),
        pytest.param(f"FINAL QUESTION:\n{Q}", Q, id="on_the_next_line"),
        pytest.param(f"FINAL QUESTION:\n\n\n{Q}\n", Q, id="after_blank_lines"),
        pytest.param(f"FINAL QUESTION : {Q}", Q, id="space_before_the_colon"),
        pytest.param(f"final question: {Q}", Q, id="lower_case"),
        pytest.param(f"**FINAL QUESTION:** {Q}", Q, id="bold_colon_inside"),
        pytest.param(f"**Final Question**: {Q}", Q, id="bold_colon_outside"),
        pytest.param(f"**Final Question**\n\n{Q}", Q, id="bold_without_a_colon"),
        pytest.param(f"### FINAL QUESTION\n{Q}", Q, id="markdown_heading"),
        pytest.param(f"### **Final Question:**\n{Q}", Q, id="bold_markdown_heading"),
        pytest.param(f"# Final Question #\n{Q}", Q, id="closed_markdown_heading"),
        pytest.param(f"3. Final Question: {Q}", Q, id="numbered"),
        pytest.param(f"## 3. Final Question:\n{Q}", Q, id="numbered_heading"),
        pytest.param(f"3) **Final Question:** {Q}", Q, id="numbered_with_a_bracket"),
        pytest.param(f"Section 3: Final Question: {Q}", Q, id="numbered_section"),
        pytest.param(f"**Section 3: Final Question**\n{Q}", Q, id="bold_numbered_section"),
        pytest.param(f"STEP 5: FINAL QUESTION\n{Q}", Q, id="numbered_step"),
        pytest.param(f"> FINAL QUESTION: {Q}", Q, id="block_quote"),
        pytest.param(f"#Finally Rewritten Question#:\n{Q}", Q, id="papers_header"),
        pytest.param(f"#Finally Rewritten Question#: {Q}", Q, id="papers_header_one_line"),
        pytest.param(f"Final Rewritten Question: {Q}", Q, id="rewritten"),
        pytest.param(f"Finally Created Question: {Q}", Q, id="created"),
        pytest.param(f"Final Problem: {Q}", Q, id="problem"),
        pytest.param(f"Final Question - {Q}", Q, id="dash"),
        pytest.param(f"The final question is: {Q}", Q, id="sentence_with_a_colon"),
        pytest.param(f'FINAL QUESTION: "{Q}"', Q, id="quoted"),
        pytest.param(f"FINAL QUESTION: draft\nBetter:\nFINAL QUESTION: {Q}", Q, id="last_header_wins"),
        pytest.param("FINAL QUESTION: Ann has 3.\nShe buys 2.\nHow many?", "Ann has 3.\nShe buys 2.\nHow many?", id="several_lines"),
        pytest.param("FINAL QUESTION: What is it?\nFinal speed is in m/s.", "What is it?\nFinal speed is in m/s.", id="final_in_the_question_is_no_header"),
        pytest.param("FINAL QUESTION: Ann takes a test.\nThe final question asks for 5. What is it?", "Ann takes a test.\nThe final question asks for 5. What is it?", id="sentence_about_a_final_question_is_no_header"),
        pytest.param("Final speed was 3 m/s.", "", id="final_alone_is_no_header"),
        pytest.param("Final answer: 3", "", id="final_answer_is_no_header"),
        pytest.param("Finally, rewrite the question: it is hard.", "", id="finally_comma_is_no_header"),
        pytest.param("Here is my harder question: 2 + 2?", "", id="no_header"),
        pytest.param("CREATED QUESTION: a\nVERIFICATION AND MODIFICATION: b", "", id="cut_before_the_last_section"),
        pytest.param("FINAL QUESTION:", "", id="header_without_a_question"),
        pytest.param("FINAL QUESTION: ***\n", "", id="header_with_decoration_only"),
        pytest.param("", "", id="empty"),
    ],
)  # fmt: skip
def test_a_rewrite_in_sections_is_what_follows_the_last_final_header(completion: str, rewrite: str):
    assert parse_rewrite(completion, "sections") == rewrite


@pytest.mark.parametrize(
    ("completion", "rewrite"),
    [
        pytest.param(Q, Q, id="alone"),
        pytest.param(f"\n  {Q} \n", Q, id="spaces"),
        pytest.param(f'"{Q}"', Q, id="quoted"),
        pytest.param(f"**{Q}**", Q, id="bold"),
        pytest.param(f"Here is a harder problem:\n\n{Q}", Q, id="here_is"),
        pytest.param(f"Here is a harder problem: {Q}", Q, id="here_is_one_line"),
        pytest.param(f"Here's the corrected problem:\n{Q}", Q, id="heres"),
        pytest.param(f"Here’s the corrected problem:\n{Q}", Q, id="heres_typographic"),
        pytest.param(f"Sure!\n\nHere is a harder problem:\n{Q}", Q, id="sure_line"),
        pytest.param(f"Sure! Here is a harder version: {Q}", Q, id="sure_here_is_one_line"),
        pytest.param(f"Certainly! Here's the corrected problem:\n\n{Q}", Q, id="certainly_heres"),
        pytest.param(f"Of course, here is a new problem:\n\n{Q}", Q, id="of_course_here_is"),
        pytest.param(f"Problem: {Q}", Q, id="problem"),
        pytest.param(f"Question:\n{Q}", Q, id="question"),
        pytest.param(f"New problem: {Q}", Q, id="new_problem"),
        pytest.param(f"The new problem is: {Q}", Q, id="the_new_problem_is"),
        pytest.param(f"The corrected math problem is:\n{Q}", Q, id="the_corrected_math_problem_is"),
        pytest.param(f"Rewritten question:\n{Q}", Q, id="rewritten_question"),
        pytest.param(f"A harder problem:\n{Q}", Q, id="a_harder_problem"),
        pytest.param(f"Better question: {Q}", Q, id="better_question"),
        pytest.param(f"Harder question: {Q}", Q, id="harder_question"),
        # The prompt shows pairs of questions; a base model may go on with the next pair.
        pytest.param(f"{Q}\n\nQuestion: Ann has 2.\nBetter question: Ann has 2. How many?", Q, id="next_example"),
        pytest.param(f"**New problem:** {Q}", Q, id="bold_label"),
        pytest.param(f"### Problem\n{Q}", Q, id="markdown_heading"),
        pytest.param("The problem set has 3 items. How many?", "The problem set has 3 items. How many?", id="a_question_about_a_problem_stays"),
        pytest.param("Problems 1 to 9 take 5 minutes each. How long?", "Problems 1 to 9 take 5 minutes each. How long?", id="problems_stay"),
        pytest.param("Here is a list of prices: 3, 4, 5. What is their mean?", "Here is a list of prices: 3, 4, 5. What is their mean?", id="a_question_that_shows_something_stays"),
        pytest.param("Tom says: here is a problem: 2 + 2?", "Tom says: here is a problem: 2 + 2?", id="not_at_the_start"),
        pytest.param("", "", id="empty"),
        pytest.param("Here is a harder problem:\n", "", id="remark_alone"),
    ],
)  # fmt: skip
def test_a_direct_rewrite_loses_the_remark_before_it(completion: str, rewrite: str):
    assert parse_rewrite(completion, "few_shot") == rewrite


@pytest.mark.parametrize("read", [lambda t: parse_rewrite(t, "sections"), lambda t: parse_rewrite(t, "few_shot")])
def test_a_runaway_of_blank_lines_is_read_at_once(read):
    # A model that repeats one token until max_tokens is common; a pattern that backtracks over it takes minutes a shard.
    text = "\n" * 4_000 + "- " * 1_000
    started = time.perf_counter()
    read(text)
    # Linear reading takes under 1 ms; quadratic backtracking took 0.4 to 1.1 s.
    assert time.perf_counter() - started < 0.2


QUESTION_ALONE = "Tom has 5 apples and buys 3. How many has he?"


@pytest.mark.parametrize(
    "completion",
    [
        "\u25c1think\u25b7harder\u25c1/think\u25b7{}",
        "\u201c{}\u201d",
        "```\n{}\n```",
        "> {}",
        "1. {}",
        "Q: {}",
        "Rewrite: {}",
        "Harder version: {}",
        "**{}**",
        "<question>{}</question>",
        "<answer>\n{}\n</answer>",
        "{}<|im_end|>",
        "{}</s>",
        "{}\n\n(Note: I changed the numbers.)",
        "{}\n\n---\n\nThe conditions hold.",
        "{}\n\nHere's how to solve it: 5 + 3 = 8",
        "{}\nA: 8",
        "{}\n\nCorrect answer: 8",
    ],
)
def test_what_is_around_a_question_is_left_out(completion: str):
    assert parse_rewrite(completion.format(QUESTION_ALONE), "few_shot") == QUESTION_ALONE


@pytest.mark.parametrize(
    "header", ["FINAL QUESTION\uff1a", "FINAL QUESTION (reviewed): ", "[FINAL QUESTION]\n", "<b>FINAL QUESTION:</b> ", "### 5. FINAL QUESTION\n\n> "]
)  # fmt: skip
def test_the_last_header_in_any_markup_is_found(header: str):
    completion = f"STEP 1: none\n{header}{QUESTION_ALONE}\n\nVERIFICATION: 5 + 3 = 8."
    assert parse_rewrite(completion, "sections") == QUESTION_ALONE


@pytest.mark.parametrize(
    "question",
    [
        'Is it "A" or "B"?', '"A" or "B"?', "What is **x**? Find **y**", "What is 3*4?", "1. Tom has 3.\n2. Ann has 4.\nHow many?",
        "Is a<b and b>c?", "The shop closes.\nNote: it opens at 5. When?",
    ],
)  # fmt: skip
def test_marks_inside_a_question_stay(question: str):
    assert parse_rewrite(question, "few_shot") == question
