r"""Exact values of plain arithmetic: ``3/4``, ``\frac{1}{2^{99}}``, ``1.2*10^3``, ``12!/10!``, ``10%``.

A recursive descent over the grammar below, in fractions. Nothing is rounded, so two values are equal or they are not. What holds
a variable, a root that is not whole, or a number of more than ``MAX_BITS`` bits has no exact value here.

    sum     = product (("+" | "-") product)*
    product = power (("*" | "/" | nothing before a bracket or a command) power)*
    power   = ("+" | "-") power | item ["^" power]
    item    = (number | "(" sum ")" | "\frac" item item | "\binom" item item | "\sqrt" item) ("!" | "%")*
"""

import math
import re
from fractions import Fraction
from functools import lru_cache

# No number in MATH, OlympiadBench or College Math comes near; 5,000! has 54,000 bits.
MAX_BITS = 200_000
MAX_FACTORIAL = 5_000
# Longer or deeper texts than a person would write.
_MAX_CHARACTERS, _MAX_DEPTH = 400, 30

_TOKEN = re.compile(
    r"\s*(?:(?P<repeating>\d*\.\d*\\overline\{\d+\})"
    r"|(?P<number>(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d{1,4}(?![\d.]))?)"
    r"|(?P<command>\\(?:frac|binom|sqrt)(?![A-Za-z]))"
    r"|(?P<sign>[-+*/^!%(){}\[\]]))"
)
_CLOSING = {"(": ")", "{": "}", "[": "]"}


# Texts whose value is kept: those of some thousand answers, which are compared with each other.
REMEMBERED = 1 << 14


class _NotPlainError(ValueError):
    """The text is no plain arithmetic, or its value is too large."""


@lru_cache(REMEMBERED)
def exact_value(text: str) -> Fraction | None:
    r"""The value of an arithmetic expression; None if it is none.

    Args:
        text: numbers, brackets, ``+ - * / ^ ! %`` and the commands ``\frac``, ``\binom``, ``\sqrt``. Other spellings of the
            operators are replaced first (``notation.clean``). Blanks only separate: ``1 2`` is no number.
    """
    if len(text) > _MAX_CHARACTERS:
        return None
    try:
        tokens = _tokens(text)
        value, rest = _sum(tokens, 0, 0)
    except (_NotPlainError, ZeroDivisionError, IndexError):
        return None
    return value if rest == len(tokens) - 1 else None


def is_terminating(value: Fraction) -> bool:
    """Whether a number has a finite decimal expansion: its denominator has no prime factor but 2 and 5."""
    denominator = value.denominator
    for factor in (2, 5):
        while denominator % factor == 0:
            denominator //= factor
    return denominator == 1


def _tokens(text: str) -> list[str]:
    tokens, position, text = [], 0, text.rstrip()
    while position < len(text):
        match = _TOKEN.match(text, position)
        if not match:
            raise _NotPlainError
        tokens.append(match.group().strip())
        position = match.end()
    return [*tokens, ""]  # the empty token ends every rule


def _sum(tokens: list[str], at: int, depth: int) -> tuple[Fraction, int]:
    value, at = _product(tokens, at, depth)
    while tokens[at] in ("+", "-"):
        sign = tokens[at]
        other, at = _product(tokens, at + 1, depth)
        value = _small(value + other if sign == "+" else value - other)
    return value, at


def _product(tokens: list[str], at: int, depth: int) -> tuple[Fraction, int]:
    value, at = _power(tokens, at, depth)
    while True:
        token = tokens[at]
        if token in ("*", "/"):
            other, at = _power(tokens, at + 1, depth)
            value = _small(value * other if token == "*" else value / other)
        elif token in ("(", "{") or token.startswith("\\"):
            other, at = _power(tokens, at, depth)
            value = _small(value * other)
        else:
            return value, at


def _power(tokens: list[str], at: int, depth: int) -> tuple[Fraction, int]:
    if depth > _MAX_DEPTH:
        raise _NotPlainError
    if tokens[at] in ("+", "-"):
        value, after = _power(tokens, at + 1, depth + 1)
        return (value if tokens[at] == "+" else -value), after
    base, at = _item(tokens, at, depth)
    if tokens[at] != "^":
        return base, at
    exponent, at = _power(tokens, at + 1, depth + 1)
    return _raised(base, exponent), at


def _item(tokens: list[str], at: int, depth: int) -> tuple[Fraction, int]:
    token = tokens[at]
    if depth > _MAX_DEPTH:
        raise _NotPlainError
    if token in _CLOSING and token != "[":
        value, at = _sum(tokens, at + 1, depth + 1)
        if tokens[at] != _CLOSING[token]:
            raise _NotPlainError
        at += 1
    elif token == "\\sqrt":
        if tokens[at + 1] == "[":
            raise _NotPlainError
        radicand, at = _item(tokens, at + 1, depth + 1)
        value = _root(radicand)
    elif token in ("\\frac", "\\binom"):
        first, at = _item(tokens, at + 1, depth + 1)
        second, at = _item(tokens, at, depth + 1)
        value = first / second if token == "\\frac" else _binomial(first, second)
    elif token[:1].isdigit() or token[:1] == ".":
        value, at = _number(token), at + 1
    else:
        raise _NotPlainError
    while tokens[at] in ("!", "%"):
        value = _factorial(value) if tokens[at] == "!" else value / 100
        at += 1
    return value, at


def _number(token: str) -> Fraction:
    if token.isascii() and token.isdigit():
        return Fraction(int(token))
    if "\\" not in token:
        return Fraction(token.rstrip(".") if token[-1] == "." else token)
    plain, period = token[:-1].split("\\overline{")
    digits = plain.partition(".")[2]
    start = Fraction(plain + "0" if plain.endswith(".") else plain) if plain != "." else Fraction(0)
    return start + Fraction(int(period), (10 ** len(period) - 1) * 10 ** len(digits))


def _raised(base: Fraction, exponent: Fraction) -> Fraction:
    if exponent.denominator != 1:
        raise _NotPlainError
    bits = max(base.numerator.bit_length(), base.denominator.bit_length())
    if bits * abs(exponent.numerator) > MAX_BITS:
        raise _NotPlainError
    return base**exponent.numerator


def _root(value: Fraction) -> Fraction:
    if value < 0:
        raise _NotPlainError
    root = Fraction(math.isqrt(value.numerator), math.isqrt(value.denominator))
    if root * root != value:
        raise _NotPlainError
    return root


def _factorial(value: Fraction) -> Fraction:
    if value.denominator != 1 or not 0 <= value.numerator <= MAX_FACTORIAL:
        raise _NotPlainError
    return Fraction(math.factorial(value.numerator))


def _binomial(first: Fraction, second: Fraction) -> Fraction:
    if first.denominator != 1 or second.denominator != 1 or not 0 <= second <= first <= MAX_FACTORIAL:
        raise _NotPlainError
    return Fraction(math.comb(first.numerator, second.numerator))


def _small(value: Fraction) -> Fraction:
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > MAX_BITS:
        raise _NotPlainError
    return value
