import pytest

from scalequest.answers.notation import clean


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ("$ 5 $", "5"),
        ("\\(5\\)", "5"),
        ("\u22125", "-5"),
        ("\uff15", "5"),
        ("5\u200b", "5"),
        ("5\u00b2", "5^{2}"),
        ("x\u2081", "x_{1}"),
        ("1\u00bd", "1 1/2"),
        ("3 \\times 4", "3*4"),
        ("3 \u00d7 4", "3*4"),
        ("12 \\div 4", "12/4"),
        ("\\dfrac12", "\\frac{1}{2}"),
        ("\\frac{\\frac12}3", "\\frac{\\frac{1}{2}}{3}"),
        ("\\sqrt2", "\\sqrt{2}"),
        ("sqrt(2)", "\\sqrt{2}"),
        ("pi/4", "\\pi/4"),
        ("1\\,000", "1000"),
        ("1{,}000", "1000"),
        ("1,\\!000", "1000"),
        ("1 000 000", "1000000"),
        ("10,00", "10,00"),
        ("(1,234)", "(1,234)"),
        ("1 1/2", "1 1/2"),
        ("10 \\%", "10%"),
        ("10 percent", "10%"),
        ("\\$5", "5 dollar"),
        ("18 dollars", "18 dollars"),
        ("90^\\circ", "90 degree"),
        ("5\\text{ m}", "5 meter"),
        ("\\left(1, 2\\right)", "(1,2)"),
        ("\\text{no answer}", "no answer"),
        ("1-1/\\mathrm{e}", "1-1/e"),
        ("\\begin{pmatrix} 1 \\\\ 2 \\end{pmatrix}", "\\begin{pmatrix} 1\\\\2 \\end{pmatrix}"),
        ("5.", "5"),
        ("", ""),
    ],
)
def test_different_spellings_of_the_same_signs_are_one_notation(answer: str, text: str):
    assert clean(answer) == text


@pytest.mark.parametrize("answer", ["1 1/2", "x^2+1", "\\frac{1}{2}", "(1,2)", "18 dollars", "1 000"])
def test_the_notation_is_its_own(answer: str):
    assert clean(clean(answer)) == clean(answer)
