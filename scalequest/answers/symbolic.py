r"""Equality of expressions that have no exact rational value, by latex2sympy and sympy: roots,
powers of e, formulas, relations, sets.

Loaded in the comparing processes alone; nothing here is limited in time or memory. A text that does not parse as a whole equals
nothing. (math-verify looks for the largest part that parses, which makes ``1-1/\mathrm{e}`` and ``1+1/\mathrm{e}`` one number,
and compares differences with zero, which makes all small numbers one.)
"""

import re
from fractions import Fraction
from functools import lru_cache
from typing import Any

import sympy
from antlr4 import PredictionMode
from latex2sympy2_extended.latex2sympy2 import ConversionConfig, _Latex2Sympy

# Two constants are one if they agree to so many digits. No two expressions of a contest differ so late.
DIGITS = 150
# A decimal stands for what it is rounded from: 0.333333 for 1/3. Relative, so that small numbers stay apart.
TOLERANCE = Fraction(1, 1_000_000)
# Where formulas are compared: at these values of their variables, taken in turn. Of both signs, none special.
_POINTS = (
    (sympy.Rational(17, 13), sympy.Rational(29, 23), sympy.Rational(41, 37), sympy.Rational(53, 43), sympy.Rational(67, 59)),
    (-sympy.Rational(19, 11), sympy.Rational(31, 17), -sympy.Rational(43, 29), sympy.Rational(61, 47), -sympy.Rational(73, 67)),
    (sympy.Rational(107, 9), -sympy.Rational(97, 8), sympy.Rational(83, 7), -sympy.Rational(79, 6), sympy.Rational(71, 5)),
)  # fmt: skip
_FLIPPED = {"<": ">", ">": "<", "<=": ">=", ">=": "<="}

_LETTERS = re.compile(
    r"\\(?:angle|triangle|overline|overrightarrow|widehat|vec|hat|bar)\s*\{?\s*([A-Za-z]+)\s*\}?|(?<![\\A-Za-z])[A-Za-z]{2,}"
)
# Letters that are read as a product: a^2 + 2abc, xyz, kmn, pqr.
_PRODUCT = re.compile(r"[a-d]+|[u-z]+|[k-n]+|[p-t]+|[a-z]{2}")
# Where two numbers stand side by side the grammar would add them.
_SIDE_BY_SIDE = re.compile(r"\d \d|\d \.\d")
# "1/2 x" is half of x; the grammar would take all that follows for the denominator.
_FACTOR = re.compile(r"(?<![\d.}])(\d+)/(\d+) (?=[A-Za-z\\(])")


def same_expression(first: str, second: str) -> bool:
    """Whether two texts in ``notation.clean``'s notation are the same expression, relation or set."""
    if _SIDE_BY_SIDE.search(first) or _SIDE_BY_SIDE.search(second):
        return False
    first, second = _with_names_as_symbols(first, second)
    first, second = (_FACTOR.sub(r"\\frac{\1}{\2}", text) for text in (first, second))
    try:
        return _same(_parsed(first), _parsed(second))
    except Exception:  # what latex2sympy and sympy cannot digest is equal to nothing, whatever they raise
        return False


def _with_names_as_symbols(*texts: str) -> list[str]:
    """A name of several letters (AB, angle ABC, area) becomes one symbol, the same in all texts; letters of a product stay."""
    numbers: dict[str, int] = {}

    def symbol(match: "re.Match[str]") -> str:
        if match.group(1) is None and _PRODUCT.fullmatch(match.group()):
            return match.group()
        name = re.sub(r"[\s{}]", "", match.group())
        return f"X_{{{9000 + numbers.setdefault(name, len(numbers))}}}"

    return [_LETTERS.sub(symbol, text) for text in texts]


class _Reader(_Latex2Sympy):
    """latex2sympy's reader, which tries ANTLR's fast mode first.

    In it ANTLR reads a text as it does in its full mode, or not at all (``PredictionMode.SLL``). Of
    3,000 formulas that are answers in MATH and other sets, the full mode has to read one in seven.
    """

    def __init__(self) -> None:
        super().__init__(is_real=True, convert_degrees=False, config=ConversionConfig(lowercase_symbols=False))

    def create_parser(self, latex_str: str) -> Any:
        """The parser of a text."""
        parser = super().create_parser(latex_str)
        parser._interp.predictionMode = PredictionMode.SLL
        fast, full = parser.math, super().create_parser

        def math() -> Any:
            try:
                return fast()
            except Exception:  # a syntax error, for the fast mode
                return full(latex_str).math()

        parser.math = math
        return parser


@lru_cache(4_096)  # each of a question's answers is compared with several others, and parsing takes most of the time
def _parsed(text: str) -> Any:
    """The expression of a text. Variables are real, and ``i`` is the imaginary unit."""
    expression = _Reader().parse(text)
    return expression.subs(sympy.Symbol("i", real=True), sympy.I) if "i" in text else expression


def _same(first: Any, second: Any) -> bool:
    if first == second:
        return first not in (sympy.nan, sympy.zoo)
    first, second = _membership_as_set(first), _membership_as_set(second)
    if isinstance(first, sympy.MatrixBase) or isinstance(second, sympy.MatrixBase):
        return first.shape == second.shape and all(_same(a, b) for a, b in zip(first, second, strict=True))
    if isinstance(first, sympy.Set) or isinstance(second, sympy.Set):
        return _same_set(_as_set(first), _as_set(second))
    if isinstance(first, sympy.And) and isinstance(second, sympy.And):
        return _matched(list(first.args), list(second.args))
    if isinstance(first, sympy.core.relational.Relational) or isinstance(second, sympy.core.relational.Relational):
        return _same_relation(first, second)
    return _same_value(first, second)


def _membership_as_set(expression: Any) -> Any:
    r"""latex2sympy reads ``x \in S`` as x = S."""
    if isinstance(expression, sympy.Eq) and isinstance(expression.rhs, sympy.Set):
        return expression.rhs
    return expression


def _as_set(expression: Any) -> Any:
    if isinstance(expression, sympy.Set):
        return expression
    if isinstance(expression, sympy.core.relational.Relational | sympy.And | sympy.Or):
        return expression.as_set()
    return sympy.FiniteSet(expression)


def _same_set(first: Any, second: Any) -> bool:
    if first == second:
        return True
    if isinstance(first, sympy.Interval) and isinstance(second, sympy.Interval):
        ends = (first.left_open, first.right_open) == (second.left_open, second.right_open)
        return ends and _same(first.start, second.start) and _same(first.end, second.end)
    for kind in (sympy.Union, sympy.FiniteSet):
        if isinstance(first, kind) and isinstance(second, kind):
            return _matched(list(first.args), list(second.args))
    return False


def _matched(first: list[Any], second: list[Any]) -> bool:
    """Whether each of one list has its own equal in the other."""
    if len(first) != len(second):
        return False
    for item in first:
        found = next((k for k, other in enumerate(second) if _same(item, other)), None)
        if found is None:
            return False
        second = second[:found] + second[found + 1 :]
    return True


def _same_relation(first: Any, second: Any) -> bool:
    """Whether one relation is the other times a constant: x > 5, 5 < x and 2x > 10 are one."""
    one, other = _exact(first.lhs - first.rhs)[0], _exact(second.lhs - second.rhs)[0]
    quotient = sympy.simplify(one / other)
    if not quotient.is_number or quotient.is_zero or not quotient.is_finite:
        return False
    if first.rel_op in ("==", "!="):
        return bool(first.rel_op == second.rel_op)
    return bool(second.rel_op == (first.rel_op if quotient.is_positive else _FLIPPED[first.rel_op]))


def _exact(expression: Any) -> tuple[Any, bool]:
    """The expression with its decimals as fractions, and whether there were any."""
    decimals = {f: sympy.Rational(str(f)) for f in expression.atoms(sympy.Float)}
    return expression.xreplace(decimals), bool(decimals)


def _same_value(first: Any, second: Any) -> bool:
    (first, first_decimal), (second, second_decimal) = _exact(first), _exact(second)
    rounded = first_decimal != second_decimal
    symbols = sorted(first.free_symbols | second.free_symbols, key=str)
    if len(symbols) > len(_POINTS[0]):
        return bool(sympy.simplify(first - second) == 0)
    told_apart = False
    for values in _POINTS if symbols else _POINTS[:1]:
        point = dict(zip(symbols, values, strict=False))
        outcome = _same_number(first.subs(point), second.subs(point), rounded)
        if outcome is False:
            return False
        told_apart = told_apart or outcome is True
    return told_apart


def _same_number(first: Any, second: Any, rounded: bool) -> bool | None:
    """Whether two constants agree to ``DIGITS`` digits, or to the tolerance of a decimal; None where one has no value."""
    first, second = first.doit(), second.doit()
    if first == second:
        return None if first in (sympy.nan, sympy.zoo) else True
    if any(x.has(sympy.nan, sympy.zoo, sympy.oo) for x in (first, second)):
        return None if first.has(sympy.nan, sympy.zoo) or second.has(sympy.nan, sympy.zoo) else False
    for digits in (30, DIGITS):
        one, other = first.evalf(digits), second.evalf(digits)
        size, difference = max(abs(one), abs(other)), abs(one - other)
        limit = sympy.Rational(TOLERANCE) if rounded else sympy.Rational(1, 10 ** (digits - 10))
        if rounded:  # a hair above, for what evalf rounds
            limit *= 1 + sympy.Rational(1, 10**9)
        if not difference <= limit * size:
            # Next to zero all digits of a difference are noise: sqrt(2)*sqrt(3) - sqrt(6).
            return bool(size < sympy.Rational(1, 10**20) and sympy.simplify(first - second) == 0)
        if rounded:
            return True
    return True
