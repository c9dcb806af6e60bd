import pytest

from scalequest.io import read_jsonl
from scalequest.text import plain, question_key, spellings, words
from tests.fakes import real_data


@pytest.mark.parametrize(
    ("first", "second"),
    [
        pytest.param("What is 5!?", "What is 5?", id="factorial"),
        pytest.param("Compute 5!", "Compute 5!!", id="double_factorial"),
        pytest.param("Compute $5!$.", "Compute $5$.", id="factorial_in_a_formula"),
        pytest.param("What is n!?", "What is n?", id="factorial_of_a_variable"),
        pytest.param("What is (2 + 1)!?", "What is (2 + 1)?", id="factorial_of_a_bracket"),
        pytest.param("Add 1 2 and 3.", "Add 12 and 3.", id="space_between_digits"),
        pytest.param("What is 1 1/2 + 2?", "What is 11/2 + 2?", id="mixed_number"),
        pytest.param("Add 1\n2.", "Add 12.", id="line_end_between_digits"),
        pytest.param("Add 1\u00a02.", "Add 12.", id="no_break_space_between_digits"),
        pytest.param("What is 5²?", "What is 52?", id="superscript"),
        pytest.param("What is 3½?", "What is 31/2?", id="vulgar_fraction"),
        pytest.param("What is 2 + 3?", "What is 2 - 3?", id="sign"),
        pytest.param("What is -5 + 3?", "What is 5 + 3?", id="negative"),
        pytest.param("What is 1.5 + 3?", "What is 15 + 3?", id="decimal_point"),
    ],
)
def test_these_are_two_questions(first: str, second: str):
    assert question_key(first) != question_key(second)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        pytest.param("What is 1 + 1?", "what is  1+1", id="case_spaces_and_end"),
        pytest.param("What is 3 + 4 in words?", "What is 3\u200b + 4 in words?", id="zero_width_space"),
        pytest.param("Tom has 3.", "T\u200do\u200cm \ufeffhas\u2060 3.", id="joiners_and_byte_order_mark"),
        pytest.param("Tom has 3.", "To\u00adm has 3\ufe0f.", id="soft_hyphen_and_variation_selector"),
        pytest.param("Tom has 3.", "\u202eTom\u202c has 3.\U000e0041", id="direction_marks_and_tags"),
        pytest.param("Tom has 3.", "Tom\x00 has\x08 3.", id="control_characters"),
        pytest.param("What is 5 - 3?", "What is 5 \u2212 3?", id="minus_sign"),
        pytest.param("What is 5 - 3?", "What is 5 \u2013 3?", id="dash"),
        pytest.param("What is 5 - 3?", "What is ５ － ３？", id="full_width"),
        pytest.param("Tom's", "Tom\u2019s", id="apostrophe"),
        pytest.param('He says "3".', "He says \u201c3\u201d.", id="quotation_marks"),
        pytest.param("café", "cafe\u0301", id="composed_accent"),
        pytest.param("find", "ﬁnd", id="ligature"),
        pytest.param("What is x^2?", "What is x²?", id="superscript"),
        pytest.param("What is 10^-2?", "What is 10⁻²?", id="superscript_minus"),
        pytest.param("What is 3 1/2?", "What is 3½?", id="vulgar_fraction"),
        pytest.param("Tell me now!", "Tell me now.", id="exclamation"),
        pytest.param("How many?!", "How many?", id="both_marks"),
        pytest.param("STRASSE", "straße", id="case_of_more_letters_than_one"),
    ],
)
def test_these_are_one_question(first: str, second: str):
    assert question_key(first) == question_key(second)


def test_an_invisible_character_may_hide_a_space_or_break_a_word():
    assert spellings("a\u200bb") == ["ab", "a b"]
    assert spellings("a b") == ["a b"]


def test_words_are_read_in_one_spelling():
    assert words("Tom’s  \u200bCAFE\u0301: １２") == ["tom", "s", "café", "12"]


def test_a_plain_text_is_its_own_normal_form():
    for text in ("½ − 3² “x” x₁ ﬁ", "10⁻² \u200b", "´a´ ″"):
        assert plain(plain(text)) == plain(text)


@pytest.mark.parametrize("name", ["gsm8k/train.jsonl", "math/train.jsonl"])
def test_real_questions_keep_their_words(name: str):
    for row in read_jsonl(real_data(name)):
        question = row["question"]
        assert question_key(question)
        if question.isascii():
            assert plain(question) == question.replace("`", "'")


def test_two_signs_of_one_operation_are_one_question():
    assert question_key("What is 5 \u00d7 3?") == question_key("What is 5 * 3?") == question_key("What is 5 \u22c5 3?")
    assert question_key("What is 6 \u00f7 3?") == question_key("What is 6 / 3?") != question_key("What is 6 * 3?")
