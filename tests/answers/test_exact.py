import time
from fractions import Fraction

import pytest

from scalequest.answers.exact import exact_value, is_terminating

VALUES = [
    ("3/4", Fraction(3, 4)),
    ("-2^2", Fraction(-4)),
    ("2^{-1}", Fraction(1, 2)),
    ("\\frac{1}{2^{3}}", Fraction(1, 8)),
    ("2(3+4)", Fraction(14)),
    ("12!/10!", Fraction(132)),
    ("\\binom{5}{2}", Fraction(10)),
    ("\\sqrt{16}", Fraction(4)),
    ("\\sqrt{2}", None),
    ("10%", Fraction(1, 10)),
    ("1.25e2", Fraction(125)),
    ("0.\\overline{3}", Fraction(1, 3)),
    ("1.2\\overline{34}", Fraction(1222, 990)),  # (1234 - 12) / 990
    ("8-2-3", Fraction(3)),
    ("8/2/2", Fraction(2)),
    ("1 2", None),
    ("x", None),
    ("", None),
    ("2+", None),
    ("(2", None),
    ("1/0", None),
    ("9^{9^{9}}", None),
    ("6000!", None),
    ("(" * 200 + "1" + ")" * 200, None),
]


@pytest.mark.parametrize(("text", "value"), VALUES)
def test_the_exact_value_of_plain_arithmetic(text: str, value: Fraction | None):
    assert exact_value(text) == value


def test_large_numbers_stay_apart():
    assert exact_value("1/2004!") != exact_value("1/2006!")
    assert exact_value("10^{-99}") != exact_value("10^{-98}")


def test_no_expression_takes_long():
    started = time.monotonic()
    for text in ("2^9999*" * 30 + "1", "5000!" + "*5000!" * 50, "+".join(["1/3^999"] * 50), "-" * 390 + "1"):
        exact_value(text)
    assert time.monotonic() - started < 2


def test_a_terminating_number_has_no_prime_factor_but_two_and_five_below():
    assert is_terminating(Fraction(3, 40))
    assert not is_terminating(Fraction(1, 3))
