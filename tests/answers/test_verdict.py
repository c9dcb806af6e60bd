"""Which words of a judge's answer are a verdict."""

import time

import pytest

from scalequest.answers.verdict import both_words, parse_verdict, unreasoned


@pytest.mark.parametrize(
    ("completion", "verdict"),
    [
        pytest.param("Yes", True, id="yes"),
        pytest.param("No", False, id="no"),
        pytest.param("yes.", True, id="full_stop"),
        pytest.param(" NO!", False, id="shouted"),
        pytest.param("**Yes**", True, id="bold"),
        pytest.param("`No`", False, id="code"),
        pytest.param('"Yes"', True, id="quoted"),
        pytest.param("_Yes_", True, id="italic"),
        pytest.param("\\boxed{No}", False, id="boxed"),
        pytest.param("\\text{Yes}", True, id="latex_text"),
        pytest.param("Verdict:Yes", True, id="after_a_colon"),
        pytest.param("Yes, it can be solved.\nNo", False, id="last_one_wins_no"),
        pytest.param("No condition is missing, and there is no contradiction.\n\nYes", True, id="last_one_wins_yes"),
        pytest.param("Yes or No? I say: Yes", True, id="repeats_the_asking"),
        pytest.param("Yes.\nYes.\nNo.\n\n\n", False, id="blank_lines_at_the_end"),
        # "No" as a determiner is no verdict.
        pytest.param("Yes, there is no missing condition.", True, id="no_inside_a_sentence"),
        pytest.param("Yes. All conditions are given and there is no contradiction.", True, id="no_contradiction"),
        pytest.param("The problem has no real solutions, so I keep", None, id="no_real_solutions"),
        pytest.param("No solution exists.", None, id="a_sentence_that_begins_with_the_determiner"),
        pytest.param("We conclude: no such number exists.", None, id="determiner_after_a_colon"),
        pytest.param("No, because a number is missing.", False, id="no_and_its_reason"),
        pytest.param("No it cannot be solved", False, id="no_without_a_comma"),
        pytest.param("Answer: No (missing data)", False, id="reason_in_brackets"),
        pytest.param("So the answer is no, since the price is missing.", False, id="answer_is_no_since"),
        pytest.param("Thus, yes, the problem is solvable.", True, id="thus_yes"),
        pytest.param("It can be solved, so yes.", True, id="at_the_end_of_a_sentence"),
        pytest.param("I must answer yes or no.", None, id="repeats_the_choice_alone"),
        # A line that is nothing but the verdict wins over a later note, and the last such line over an earlier one.
        pytest.param("Yes\n\nNote: no further data are needed.", True, id="note_after_the_verdict"),
        pytest.param("Yes\nNote: no, one could also guess.", True, id="note_with_a_verdict_of_its_own"),
        pytest.param(
            "No\nOn reflection it is solvable.\nThe answer is yes.", True, id="labelled_line_is_a_verdict_line"
        ),
        pytest.param("1. Yes, it is.\n2. No contradiction.\n\n\\boxed{\\text{Yes}}", True, id="numbered_points"),
        pytest.param("<think>No, it lacks a price. Yes?</think>\nYes", True, id="thinking_does_not_count"),
        # A line below a numbered point answers the point.
        pytest.param(
            "1. Is it a maths question?\nYes\n2. Are the conditions given?\nNo, the price is missing.\n\nSo it cannot be solved.",
            None,
            id="a_point_is_answered_and_no_verdict_given",
        ),
        pytest.param(
            "1. Is a condition missing?\nNo\n2. Do they contradict?\nNo\nTherefore, it can be solved. The answer is yes, it can.",
            True,
            id="points_are_answered_and_the_verdict_is_in_words",
        ),
        pytest.param("- Is a number missing?\n- No\nIt is fine.\nYes", True, id="points_without_numbers"),
        pytest.param("1. It has all numbers.\n2. Can it be solved?\nYes", True, id="the_last_point_is_the_verdict"),
        pytest.param("Can it be solved?\nYes\nNote: 3 pens are left.", True, id="a_question_that_is_no_point"),
        pytest.param("Therefore the answer is not yes.", None, id="denied"),
        pytest.param("1. ok\n2. ok\n\nYes\n\nLet me know if you want more.", True, id="points_a_verdict_and_a_remark"),
        pytest.param("4. Conclusion:\nNo\nBecause the price is missing.", False, id="a_point_that_asks_nothing"),
        pytest.param("4. Can it be solved?\nYes\nBecause all is given.", True, id="the_last_question_and_its_reason"),
        pytest.param("12:30 PM is when he leaves.\nNo\nIt lacks a price.", False, id="a_time_is_no_point"),
        pytest.param("3.5 dollars remain.\nNo\nThe price is missing.", False, id="a_number_is_no_point"),
        pytest.param("a.m. or p.m. is not given.\nNo\nSo it cannot be solved", False, id="letters_are_no_point"),
        pytest.param("<think>Yes", None, id="unfinished_thinking"),
        pytest.param("yesterday", None, id="yesterday_is_no_yes"),
        pytest.param("Tom bought them yesterday. Nothing is known, not even now.", None, id="no_inside_words"),
        pytest.param("Noon. Nobody knows. Eyes.", None, id="only_inside_words"),
        pytest.param("nº 5", None, id="number_sign_is_no_no"),
        pytest.param("", None, id="empty"),
        pytest.param("42", None, id="number"),
        pytest.param("It can be solved.", None, id="sentence_without_a_verdict"),
        pytest.param("Yesno", None, id="run_together"),
        pytest.param("Sí", None, id="other_language"),
    ],
)
def test_the_verdict_is_that_of_the_last_line_that_gives_one(completion: str, verdict: bool | None):
    assert parse_verdict(completion, "reasoned") is verdict


@pytest.mark.parametrize(
    ("completion", "verdict"),
    [
        ("Yes", True),
        (" no", False),
        ("**Yes**", True),
        ("Yes, 3 + 4 is 7. No", True),
        ("No\nYes", False),
        ("Answer: Yes", True),
        ("No problem here", None),
        ("The story begins. Yes", None),
        ("Is a number missing? No. Then", None),
        ("", None),
    ],
)
def test_the_first_word_is_the_verdict_where_one_word_was_asked_for(completion: str, verdict: bool | None):
    assert parse_verdict(completion, "few_shot") is verdict


@pytest.mark.parametrize(
    "text",
    ["\n" * 4_000 + "- " * 1_000, "so " * 3_000, "the answer " * 2_000, "no " * 4_000, "<think>" * 2_000, "(" * 5_000],
)
@pytest.mark.parametrize("style", ["few_shot", "reasoned"])
def test_a_runaway_is_read_at_once(text: str, style: str):
    # A model that repeats one token until max_tokens is common; a pattern that backtracks over it takes minutes per shard.
    started = time.perf_counter()
    parse_verdict(text, style)
    # Linear reading takes under 1 ms; quadratic backtracking took 0.4 to 1.1 s.
    assert time.perf_counter() - started < 0.2


@pytest.mark.parametrize(
    ("completion", "both"),
    [("Yes", False), ("Yes. There is no gap.", True), ("no No", False), ("nobody says yes", False)],
)
def test_answers_with_both_words_are_counted(completion: str, both: bool):
    assert both_words(completion) is both


@pytest.mark.parametrize(
    ("completion", "alone"),
    [
        pytest.param("Yes.", True, id="a_word"),
        pytest.param(" **Verdict: No**\n", True, id="with_its_label"),
        pytest.param("<think>\n\n</think>\n\nYes.", True, id="after_an_empty_thought"),
        pytest.param("<answer>Yes</answer>", True, id="in_a_tag"),
        pytest.param("No, a number is missing.", False, id="with_a_reason"),
        pytest.param("1. It is.\n2. They are.\nYes", False, id="after_points"),
        pytest.param("<think>12 pens, so 24.</think>\nYes", False, id="after_thoughts"),
        pytest.param("Perhaps.", False, id="no_verdict"),
    ],
)
def test_a_verdict_without_a_reason_is_seen(completion: str, alone: bool):
    assert unreasoned(completion) is alone


@pytest.mark.parametrize(
    ("completion", "verdict"),
    [
        ("Yes \u2014 all conditions agree; no number is missing.", True),
        ("No \u2013 a number is missing.", False),
        ("\uff39\uff25\uff33", True),
        ("<answer>No</answer>", False),
        ("<verdict>\nYes\n</verdict>", True),
        ("Can it be solved? Yes/No", None),
        ("Say no / yes", None),
        ("\u25c1think\u25b7No\u25c1/think\u25b7Yes", True),
    ],
)
def test_a_verdict_in_wide_letters_tags_or_before_a_dash(completion: str, verdict: bool | None):
    assert parse_verdict(completion) is verdict
