import pytest

from scalequest.signs import plain, plain_latex, spoken_signs, without_wording


@pytest.mark.parametrize(
    ("text", "signs"),
    [
        ("\u22125", "-5"),
        ("\u207b5", "-5"),
        ("It is \u207b5", "It is -5"),
        ("x\u207b", "x^{-}"),
        ("1\u00bd", "1 1/2"),
        ("\u00bd\u00bc", "1/2 1/4"),
        ("x\u00b2", "x^{2}"),
        ("x\u00b2y", "x^{2}y"),
        ("10\u207b\u00b2", "10^{-2}"),
        ("x\u2081\u2082", "x_{12}"),
        ("\uff15\uff0b\uff13", "5+3"),
        ("3\u2044 4", "3/ 4"),
        ("5\u200b0", "50"),
        ("", ""),
    ],
)
def test_unicode_signs_become_plain_ones(text: str, signs: str):
    assert plain(text) == signs
    assert plain(plain(text)) == signs


@pytest.mark.parametrize(
    ("text", "signs"),
    [
        ("minus 5", "-5"),
        ("It is minus 5.", "It is -5."),
        ("from minus 3 to minus 1", "from -3 to -1"),
        ("negative 5", "-5"),
        ("x = minus $5", "x = -$5"),
        ("10 minus 5", "10 minus 5"),
        ("the price minus 5", "the price minus 5"),
        ("x minus 5", "x minus 5"),
        ("a negative number", "a negative number"),
        ("terminus 5", "terminus 5"),
    ],
)
def test_a_minus_in_words_is_a_sign_where_it_does_not_subtract(text: str, signs: str):
    assert spoken_signs(text) == signs


@pytest.mark.parametrize(
    ("text", "signs"),
    [
        ("1\\,000", "1000"),
        ("1{,}000{,}000", "1000000"),
        ("1,\\!000", "1000"),
        ("3 \\cdot 4 \\times 5", "3 *4 *5"),
        ("12 \\div 4", "12 /4"),
        ("\\dfrac12", "\\frac{1}{2}"),
        ("\\frac{\\tfrac12}3", "\\frac{\\frac{1}{2}}{3}"),
        ("\\left( x \\right)", "( x )"),
        ("10\\%", "10%"),
        ("a \\quad b~c", "a   b c"),
        ("\\timeslot", "\\timeslot"),
        ("plain", "plain"),
    ],
)
def test_latex_has_one_command_for_each_sign(text: str, signs: str):
    assert plain_latex(text) == signs


def test_words_in_formulas_get_blanks_and_letters_do_not():
    assert without_wording("5\\text{ apples}") == "5  apples "
    assert without_wording("1-1/\\mathrm{e}") == "1-1/e"
    assert without_wording("\\text{\\textbf{even}}") == "  even  "


def test_digits_of_other_scripts_are_digits():
    assert plain("\u0664\u0662 \u096b \uff11") == "42 5 1"
    assert plain("x\u00b2 \u216b") == "x^{2} XII"
