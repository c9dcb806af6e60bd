import time
from fractions import Fraction

import pytest

from scalequest.answers.arithmetic import Arithmetic, asked_value, check_arithmetic, steps

# text, steps checked, steps wrong
TEXTS = [
    ("sum", "2 + 3 = 5", 1, 0),
    ("wrong_sum", "2 + 3 = 6", 1, 1),
    ("a_chain_is_evaluated_whole", "2 + 3 + 4 = 9", 1, 0),
    ("precedence", "2 + 3 * 4 = 14", 1, 0),
    ("brackets", "(2 + 3) * 4 = 20", 1, 0),
    ("implied_product", "2(3 + 4) = 14", 1, 0),
    ("from_the_left", "10 - 3 - 2 = 5", 1, 0),
    ("two_equals_signs", "2 + 3 = 1 + 4 = 5", 2, 0),
    ("running_equals", "2 + 3 = 5 + 1 = 6", 2, 0),
    ("running_equals_wrong", "2 + 3 = 6 + 1 = 7", 2, 1),
    ("no_operator", "x = 5 and 7 = 7", 0, 0),
    ("calculator_mark", "48/2 = <<48/2=24>>24 clips", 1, 0),
    ("calculator_mark_alone", "He has <<48/2=25>>25 clips", 1, 1),
    ("two_steps_in_a_line", "First 2 + 2 = 4, then 4 * 3 = 13.", 2, 1),
    ("two_lines", "2 + 2 = 4\n4 * 3 = 13", 2, 1),
    ("in_a_sentence", "So there were 1+2=3 people who rode.", 1, 0),
    ("letter_x_as_times", "The juice is 30 x 2 = 60 ml, so 4 x 3=13.", 2, 1),
    ("unit_and_x", "30 ml x 2 = 60 ml", 1, 0),
    ("times_sign", "3 \u00d7 4 = 12", 1, 0),
    ("latex_times", "$3 \\times 4 = 12$ and $3 \\cdot 4 = 13$", 2, 1),
    ("latex_div", "$12 \\div 4 = 3$", 1, 0),
    ("division_sign", "12 \u00f7 4 = 4", 1, 1),
    ("unicode_minus", "12 \u2212 4 = 8", 1, 0),
    ("negative_result", "3 - 8 = -5", 1, 0),
    ("negative_number", "-3 + 8 = 5", 1, 0),
    ("list_mark", "- 3 + 8 = 11", 1, 0),
    ("numbered_line", "1. 3 + 8 = 11", 1, 0),
    ("bracketed_number", "1) 3 + 8 = 11", 1, 0),
    ("fractions", "1/2 + 1/4 = 3/4", 1, 0),
    ("latex_fractions", "$\\frac{1}{2} + \\frac{1}{4} = \\frac{3}{4}$", 1, 0),
    ("mixed_number", "1 1/2 + 1/2 = 2", 1, 0),
    ("fraction_of", "1/2 of 10 = 5", 1, 0),
    ("rounded", "10 / 3 = 3.33", 1, 0),
    ("cut", "2 / 3 = 0.66", 1, 0),
    ("badly_rounded", "10 / 3 = 3.4", 1, 0),  # 0.067 off: less than one unit of the last digit
    ("not_rounded", "10 / 3 = 3.5", 1, 1),
    ("whole_number_is_exact", "10 / 3 = 3", 1, 1),
    ("approximately", "10 / 3 \u2248 3", 1, 0),
    ("latex_approximately", "$200 / 3 \\approx 67$", 1, 0),
    ("approximately_wrong", "10 / 3 \u2248 5", 1, 1),
    ("percent", "20% * 50 = 10", 1, 0),
    ("percent_of", "20% of 50 = 10", 1, 0),
    ("latex_percent", "$20\\% \\times 50 = 11$", 1, 1),
    ("percent_as_result", "5 / 20 = 25%", 1, 0),
    ("times_a_hundred", "5 / 20 * 100 = 25%", 1, 0),
    ("a_discount_is_left_out", "100 - 20% = 80", 0, 0),
    ("money", "$5 + $3 = $8", 1, 0),
    ("money_wrong", "$1.50 * 3 = $4.00", 1, 1),
    ("latex_money", "\\$5 + \\$3 = \\$9", 1, 1),
    ("euros", "\u20ac5 * 2 = \u20ac10", 1, 0),
    ("thousands", "1,000 + 234 = 1,234", 1, 0),
    ("latex_thousands", "$1{,}000 + 1 = 1{,}001$", 1, 0),
    ("units", "5 apples + 3 apples = 8 apples", 1, 0),
    ("units_wrong", "5 apples + 3 apples = 9 apples", 1, 1),
    ("million", "2 million * 3 = 6 million", 1, 0),
    ("different_units_are_left_out", "2 hours + 30 minutes = 150 minutes", 0, 0),
    ("another_unit_is_left_out", "120 minutes / 60 = 2 hours and 3 * 60 minutes = 3 hours", 1, 0),
    ("remainder_is_left_out", "17 / 5 = 3 remainder 2", 0, 0),
    ("variable", "3x + 2 = 8", 0, 0),
    ("variable_before", "x + 5 - 2 = 8", 0, 0),
    ("variable_after", "5 + 3 = 8x", 0, 0),
    ("variable_in_the_result", "5 + 3 = 12 - y", 0, 0),
    ("function", "f(2) = 3", 0, 0),
    ("variable_then_numbers", "x = 10/2 = 5", 1, 0),
    ("latex_variable", "$2\\pi + 3 = 9$", 0, 0),
    ("power", "2^3 = 8 and 2**3 = 9", 2, 1),
    ("root", "$\\sqrt{16} + 1 = 5$", 1, 0),
    ("inequality", "2 + 3 > 4", 0, 0),
    ("words", "5 times 3 = 15", 1, 0),
    ("boxed", "2 + 3 = \\boxed{6}", 1, 1),
    ("list_mark_or_sign", "- 5 + 3 = -2", 1, 0),
    ("list_mark_or_sign_wrong_either_way", "- 5 + 3 = 7", 1, 1),
    ("unicode_sign_and_blank", "\u2212 5 + 3 = \u22122", 1, 0),
    ("sign_and_blank_in_a_sentence", "It is - 5 + 3 = -2", 1, 0),
    ("bullet", "* 5 + 3 = 8", 1, 0),
    ("raised_minus", "\u207b5 + 3 = -2", 1, 0),
    ("minus_in_words", "minus 5 plus 3 = -2", 1, 0),
    ("time", "12:30 = 12 + 0.5", 0, 0),
    ("time_and_hours", "10:00 + 2 hours = 12:00", 0, 0),
    ("time_and_minutes", "9:30 + 45 = 10:15", 0, 0),
    ("times", "11:45 - 9:30 = 2:15", 0, 0),
    ("time_of_half_a_day", "10 am + 5 hours = 3 pm, and 2 + 2 = 5", 1, 1),
    ("step_after_a_time", "At 10:00, 3 + 4 = 8", 1, 1),
    ("ratio", "2:1 + 3 = 5", 0, 0),
    ("date", "2024-05-12 + 1 = 2024-05-13", 0, 0),
    ("superscripts", "3\u00b2 + 4\u00b2 = 25 and 3\u00b2 = 10", 2, 1),
    ("negative_power", "2\u207b\u00b9 = 0.5", 1, 0),
    ("braced_power", "$2^{10} = 1024$", 1, 0),
    ("product_of_powers", "$72 = 2^{3}3^{2}$", 1, 0),
    ("fraction_signs", "1\u00bd + \u00bd = 2", 1, 0),
    ("latex_mixed_number", "$\\frac{7}{2} = 3\\frac{1}{2}$", 1, 0),
    ("thin_blanks", "$1\\,000 + 1 = 1\\,001$", 1, 0),
    ("nothing", "", 0, 0),
    ("no_arithmetic", "I do not know.", 0, 0),
    ("a_sentence_after", "2 + 3 = 5 5 + 4 = 9", 2, 0),
    # The rest of an expression that is not read.
    ("variable_called_a", "$a+2=5+2=7$", 1, 0),
    ("function_called_a", "This implies $a(2)+3=2-5$", 0, 0),
    ("after_a_fraction_of_variables", "$\\frac{x}{2} + 3 + 1 = 7$", 0, 0),
    ("after_a_root_of_a_variable", "$\\sqrt{x}+2 = 3+2$", 0, 0),
    ("after_an_index", "$x_{1} + 2 = 5 + 2 = 7$", 1, 0),
    ("after_a_binomial", "$\\binom{5}{2} + 3 = 10 + 3 = 13$", 1, 0),
    ("after_a_modulus", "$|x| + 3 = 4 + 3 = 7$", 1, 0),
    ("after_a_greek_letter", "\u03b8 + 30 + 60 = 180", 0, 0),
    ("after_a_length", "AB + 6 + 6 = 20", 0, 0),
    ("after_words", "Total cost - 5 - 3 = 12", 0, 0),
    ("after_a_logarithm", "so $\\log_2(4^2) = \\log_2 (2^4) = 4$", 0, 0),
    ("after_an_operator_of_its_own", "$7@4=7\\cdot4-2\\cdot7=14$", 1, 0),
    ("before_two_variables", "$b^2-4ac=64-4ac=0$", 0, 0),
    ("before_a_length", "$\\frac{1}{2}OA=6$ and $6=\\frac{1}{2}(PH)(5)$", 0, 0),
    ("before_a_variable_called_a", "$\\cos 72 = 2 \\cos^2 36 - 1 = 2a^2 - 1$", 0, 0),
    ("units_beside_their_number", "5kg + 3kg = 9kg, 4cm * 2 = 8cm", 2, 1),
    ("a_day", "2 * 3 = 7 a day", 1, 1),
    # Where a side ends.
    ("factorial", "5 * 4 * 3 * 2 * 1 = 5! = 120", 1, 0),
    ("factorial_of_a_side", "6! / 4! = 31", 1, 1),
    ("factorial_and_bracket", "$11!(1 + 12) = 11! \\cdot 13$", 1, 0),
    ("sign_of_surprise", "3 + 4 = 8!", 0, 0),
    ("mixed_number_in_words", "10/3 = 3 and 1/3, and 10/4 = 2 and 1/4", 2, 1),
    ("two_numbers_and_no_mixed_one", "800/300=2 and 20/3", 1, 1),
    ("thousands_with_blanks", "100 boxes x 100 kg/box = 10 000 kg", 0, 0),
    ("remark_in_brackets", "3 * 4 = 13 (apples)", 1, 1),
    ("degrees", "$30^\\circ + 60^{\\circ} = 90^\\circ$ and 30\u00b0 + 60\u00b0 = 91\u00b0", 2, 1),
    ("as", "We can write $-60^\\circ$ as $-60^\\circ + 360^\\circ = 300^\\circ.$", 1, 0),
    ("table_cell", "| 2 + 3 = 6 |", 1, 1),
    # What depends on words.
    ("bracket_after_words", "The area is 20 because (4 * 5) = 20", 0, 0),
    ("product_with_a_counted_bracket", "5 boxes (3 + 1) = 20", 1, 0),
    ("dozens", "5 dozen * $2 = $10 and 2 dozen * 3 = 72", 1, 0),
    ("a_percentage_of_something", "So 1% is equal to $450/90 = $5", 1, 0),
    ("times_a_hundred_percent", "45 / 90 * 100% = 50 and 9/21 * 100% = 42.86", 2, 0),
    ("times_a_hundred_percent_wrong", "45 / 90 * 100% = 60", 1, 1),
    ("a_share_of_something", "1/4 = 25 students", 0, 0),
    ("an_inverted_quotient", "He needs 16/100 = 1.6 packs, 12/18 = 66.67, 12 / 200 = 3 square units", 3, 3),
    ("hours_behind_a_number_of_pages", "3 * 4 = 13 pages in 240 minutes", 1, 1),
    ("a_sentence_after_a_number", "So 3 * 50 = 149 200 - 150 = 50", 2, 1),
    ("units_in_capitals", "16 GB * 2 = 33 GB, 12*1000= 13,000MB, 10kgs + 5kgs = 16kgs, 500 + 352 = 853 BC", 4, 4),
    ("words_in_capitals", "In the US 5 + 3 = 9, 5 TV sets * 3 = 16", 2, 2),
    ("how_often", "4 * 12 times = 49 times", 1, 1),
    ("function_of_degrees", "$cis(99\\cdot45^\\circ)=2^{49}$", 0, 0),
    ("units_of_a_quotient", "150 minutes / 5 minutes/100 meters = 3 times", 0, 0),
    ("a_quotient_is_no_share", "12/3 = 5 apples", 1, 1),
]


@pytest.mark.parametrize(("text", "checked", "wrong"), [pytest.param(*case, id=name) for name, *case in TEXTS])
def test_written_steps_are_recomputed(text: str, checked: int, wrong: int):
    assert check_arithmetic(text) == Arithmetic(checked, wrong), steps(text)


def test_a_step_says_what_it_is():
    (step,) = steps("She pays 2 * 3 = 7 dollars.")
    assert (step.text, step.value, step.claimed, step.right) == ("2*3 = 7", Fraction(6), Fraction(7), False)


@pytest.mark.parametrize(
    ("question", "value"),
    [
        ("What is 12 - 5 + 3?", Fraction(10)),
        ("What is the value of 12 - 5 + 3?", Fraction(10)),
        ("Calculate 3 * 4.", Fraction(12)),
        ("Compute: 1/2 + 1/4", Fraction(3, 4)),
        ("What is $3 \\times 4$?", Fraction(12)),
        ("What is -5 \u2212 3?", Fraction(-8)),
        ("12 + 5 = ?", Fraction(17)),
        ("What is 1,000 + 1?", Fraction(1001)),
        ("What is 4 x 3?", Fraction(12)),
        ("What is 4 plus 3?", Fraction(7)),
        ("What is 3\u00b2 + 1?", Fraction(10)),
        ("- 5 + 3 = ?", None),  # the mark of a list, or a sign
        ("What is 10:30 + 2?", None),
        ("What is 12?", None),
        ("What is 5 - x?", None),
        ("Tom has 12 - 5 apples. How many?", None),
        ("What is 4 + 2, but 2 is 6.", None),
        ("What is 1/0?", None),
        ("What is 100 - 20%?", None),
        ("What is 100 + 10%?", None),
        ("What is 20% - 10%?", None),
        ("What is 2024-05-12?", None),
        ("What is 5/12/2024?", None),
        ("What is 555-1234?", None),
        ("What is 500-250?", Fraction(250)),
        ("What is 500-2500?", Fraction(-2000)),
        ("What is 2*100-1000?", Fraction(-800)),
        ("", None),
    ],
)
def test_questions_of_plain_arithmetic_have_a_known_answer(question: str, value: Fraction | None):
    assert asked_value(question) == value


def test_a_line_without_end_is_read_soon():
    assert check_arithmetic("1 + " * 5_000 + "1 = 5001").checked <= 1
    assert check_arithmetic("2 + 2 = 4 " * 5_000).wrong == 0


@pytest.mark.parametrize("unit", ["$", "*", " ", "= ", "$ ", "( ", "\\", "1 + ", "of the value of "])
def test_no_question_takes_long(unit: str) -> None:
    began = time.monotonic()
    for n in (50, 250, 5000):
        asked_value("What is " + unit * n + "x?")
        asked_value("What is " + unit * n + "?")
    assert time.monotonic() - began < 2


@pytest.mark.parametrize(
    ("text", "checked", "wrong"),
    [
        ("3 + 4 equals 8", 1, 1),
        ("3 + 4 is equal to 7.", 1, 0),
        ("3 + 4 == 8", 1, 1),
        ("3 \u2219 4 = 13", 1, 1),
        ("\u0663 + \u0664 = \u0668", 1, 1),
        ("3 dozen = 3 * 12 = 36", 2, 0),
        ("2 weeks = 2 * 7 = 14 days", 1, 0),
        ("2 weeks = 2 * 7 = 15", 1, 1),
    ],
)
def test_equals_in_words_and_conversions(text: str, checked: int, wrong: int):
    assert check_arithmetic(text) == Arithmetic(checked, wrong)
