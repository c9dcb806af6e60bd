r"""Whether two answers in one notation are the same: by their parts, what their equations say, their numbers and words.

Formulas are left to ``symbolic``, which is a function of two texts. The choices are in ``compare``'s docstring.
"""

import re
from collections.abc import Callable, Sequence
from fractions import Fraction

from scalequest.answers.exact import exact_value, is_terminating
from scalequest.answers.notation import clean
from scalequest.answers.units import SCALES, range_as_interval, same_time_of_day, units_agree, without_unit
from scalequest.problems.numerals import cardinal

# Whether two formulas are one, by sympy.
Symbolic = Callable[[str, str], bool]

# A decimal stands for what it is rounded from. The same number as in symbolic, which loads sympy.
_TOLERANCE = Fraction(1, 1_000_000)
_MIXED = re.compile(r"([-+]?)(\d+)(?: (\d+)/(\d+)| ?\\frac\s*\{(\d+)\}\s*\{(\d+)\})")
_DATE = re.compile(r"(\d{4})([-/.])(\d{1,2})\2(\d{1,2})|(\d{1,2})([-/.])(\d{1,2})\6(\d{4}|\d{2})")
_IN_BASE = re.compile(r"(\d+)_\{?(\d+)\}?")
_SCALE = re.compile(r"(?<=\d) ?(hundred|thousand|million|billion|trillion)s?\b")
_MATRIX = re.compile(r"\\begin\{([pbB]?matrix|array)\}(?:\{[clr|]*\})?\s*(.*?)\s*\\end\{\1\}")
_AND = re.compile(r",? (?:and|or) |,(?:and|or) ")
_RELATION = re.compile(r"[<>]|\\(?:le|ge|ne|in|approx|equiv|subset|cup|cap)(?![A-Za-z])")


_LETTERS = re.compile(r"[A-Za-z][A-Za-z' .-]*")
_SUBSCRIPT = r"(?:_\{[^{}]*\}|_\w)?"
_NAME = re.compile(
    rf"(?:m ?)?(?:\\(?:angle|triangle|overline|overrightarrow|vec|hat|bar|mathbf)\s*\{{?\s*[A-Za-z]+\s*\}}?"
    rf"|\\(?!pi(?![A-Za-z])|frac|sqrt|binom|sin|cos|tan|log|ln)[A-Za-z]+ ?|[A-Z]+|[A-Za-z]|[A-Za-z]{{3,}}(?: [A-Za-z]+)*)"
    rf"{_SUBSCRIPT}'*"
)
_FUNCTION = re.compile(rf"((?:\\[A-Za-z]+ ?|[A-Za-z]){_SUBSCRIPT}(?:\^\{{?-1\}}?)?'*)\(([^()=]*)\)")


def equal(first: str, second: str, symbolic: Symbolic) -> bool:
    """Whether two answers are the same, by the choices in ``compare``; ``symbolic`` decides about formulas."""
    ranges = [range_as_interval(first), range_as_interval(second)]
    if all(ranges) and not all(found and not found[1] for found in ranges):
        units = [without_unit(f"1 {found[1]}", "")[1] for found in ranges if found]
        if not units_agree(*units):
            return False
    first, second = (found[0] if found else text for found, text in zip(ranges, (first, second), strict=True))
    return _equal(clean(first), clean(second), symbolic)


# --------------------------------------------------------------------------------------------------------------- structure


def _equal(first: str, second: str, symbolic: Symbolic) -> bool:
    first, second = _without_brackets(first), _without_brackets(second)
    if first == second:
        return bool(first)
    if not first or not second:
        return False
    if _DATE.fullmatch(first) or _DATE.fullmatch(second):
        return _numbers_of_a_date(first) == _numbers_of_a_date(second)
    if (same := same_time_of_day(first, second)) is not None:
        return same
    one, other = _matrix(first), _matrix(second)
    if one or other:
        return one is not None and other is not None and _all_equal(one, other, symbolic)
    (first_kind, first_parts), (second_kind, second_parts) = _parts(first), _parts(second)
    if first_kind or second_kind or len(first_parts) > 1 or len(second_parts) > 1:
        return _equal_lists(first_kind, first_parts, second_kind, second_parts, symbolic, (first, second))
    if ":" in first or ":" in second:
        return _all_equal(first.split(":"), second.split(":"), symbolic)
    if "=" in first or "=" in second:
        return _equal_equations(first, second, symbolic)
    return _equal_values(first, second, symbolic)


def _all_equal(first: Sequence[str], second: Sequence[str], symbolic: Symbolic) -> bool:
    return len(first) == len(second) and all(_equal(a, b, symbolic) for a, b in zip(first, second, strict=True))


def _equal_lists(
    first_kind: str, first: list[str], second_kind: str, second: list[str], symbolic: Symbolic, texts: tuple[str, str]
) -> bool:
    """By parts: in order for tuples, intervals and vectors, else each part with an equal of its own."""
    relations = [bool(_RELATION.search(text)) for text in texts]
    if any(relations) and (first_kind in _INTERVALS or second_kind in _INTERVALS):  # 1 < x < 3 and (1, 3)
        return symbolic(*texts)
    ordered = {first_kind, second_kind} - {""}
    if len(ordered) > 1 or (ordered & {"[]", "[)", "(]"} and first_kind != second_kind):
        return False
    if ordered and ordered != {"{}"}:
        return _all_equal(first, second, symbolic)
    if ordered == {"{}"}:  # a set: how often something is named does not matter
        return all(any(_equal(a, b, symbolic) for b in second) for a in first) and all(
            any(_equal(a, b, symbolic) for a in first) for b in second
        )
    if len(first) != len(second):
        return False
    rest = list(second)
    for part in first:
        found = next((k for k, candidate in enumerate(rest) if _equal(part, candidate, symbolic)), None)
        if found is None:
            return False
        del rest[found]
    return True


_INTERVALS = {"()", "[]", "[)", "(]"}
_OPENING = {"(": "(", "[": "[", "{": "{", "\\{": "\\{", "\\langle": "<"}
_CLOSING = {")": ")", "]": "]", "}": "}", "\\}": "\\}", "\\rangle": ">"}
_BRACKET = re.compile(r"\\langle(?![A-Za-z])|\\rangle(?![A-Za-z])|\\[{}]|[()\[\]{},;]")


def _marks(text: str) -> list[tuple[str, int, int, int]]:
    """Brackets, commas and semicolons with where they begin, where they end and how deep they are."""
    depth, found = 0, []
    for mark in _BRACKET.finditer(text):
        sign = mark.group()
        if sign in _CLOSING:
            depth -= 1
        found.append((sign, mark.start(), mark.end(), depth))
        if sign in _OPENING:
            depth += 1
    return found


def _bracketed(text: str) -> tuple[str, str] | None:
    """Kind and content of a text that one pair of brackets encloses: ``[1,2)`` is ``("[)", "1,2")``."""
    marks = _marks(text)
    if len(marks) < 2 or marks[0][1] != 0 or marks[-1][2] != len(text):
        return None
    (opening, _, start, _), (closing, end, _, _) = marks[0], marks[-1]
    if opening not in _OPENING or closing not in _CLOSING or any(d == 0 for *_, d in marks[1:-1]) or marks[-1][3] != 0:
        return None
    kind = {"\\{": "{", "\\langle": "(", "{": ""}.get(opening, opening)
    kind += {"\\}": "}", "\\rangle": ")", "}": ""}.get(closing, closing)
    return (kind, text[start:end].strip()) if kind in {"", "()", "[]", "[)", "(]", "{}"} else None


def _without_brackets(text: str) -> str:
    """A text without brackets around the whole of it that mean nothing: ``(A)`` is A, ``(1, 2)`` stays."""
    while (found := _bracketed(text)) and found[0] in ("", "()") and len(_split(found[1])) == 1:
        text = found[1]
    return text


def _split(text: str) -> list[str]:
    """The parts between commas and semicolons outside of brackets."""
    parts, start = [], 0
    for sign, begin, end, depth in _marks(text):
        if sign in ",;" and depth == 0:
            parts.append(text[start:begin].strip())
            start = end
    return [*parts, text[start:].strip()]


def _parts(text: str) -> tuple[str, list[str]]:
    """Kind of bracket and parts: ``("()", ["1", "2"])``; one part without brackets for what is no list."""
    if _is_words(text) and "," not in text:
        return "", [text]
    found = _bracketed(text)
    kind, content = found if found else ("", text)
    separated = _AND.sub(",", content)
    parts = _split(separated if not any(map(_is_words, _split(separated))) else content)
    if kind and len(parts) == 1 and kind not in ("{}",):
        return "", [text]  # brackets within a formula: (x+1)
    return kind, [form for part in parts for form in _both_signs(part)]


def _both_signs(text: str) -> list[str]:
    r"""``3 \pm 1`` is two numbers."""
    if len(re.findall(r"\\(?:pm|mp)(?![A-Za-z])", text)) != 1:
        return [text]
    head, _, tail = re.sub(r"\\mp(?![A-Za-z])", r"\\pm", text).partition("\\pm")
    return [f"{head}{sign}{tail.strip()}".removeprefix("+").replace("=+", "=") for sign in "+-"]


def _matrix(text: str) -> list[str] | None:
    """The rows of a matrix as tuples of cells; None for what is no matrix."""
    found = _MATRIX.fullmatch(text)
    if not found:
        return None
    rows = [row.strip() for row in found.group(2).split("\\\\")]
    return ["(" + ",".join(row.split("&")) + ",0)" for row in rows if row]


def _numbers_of_a_date(text: str) -> list[int] | None:
    found = _DATE.fullmatch(text)
    return [int(n) for n in re.findall(r"\d+", text)] + [len(found.group(1) or "")] if found else None


# --------------------------------------------------------------------------------------------------------------- equations


def _sides(text: str) -> list[str]:
    return [side.strip() for side in text.split("=")]


def _named(text: str) -> tuple[str, str] | None:
    """Name and value of an equation that names a value: ``x = 5``; None for any other."""
    sides = _sides(text)
    if len(sides) < 2 or not all(sides) or _RELATION.search(text.replace("\\approx", "")):
        return None
    for name, value in ((sides[0], sides[-1]), (sides[-1], sides[0])):
        if _NAME.fullmatch(name):
            return name, value
        if function := _FUNCTION.fullmatch(name):
            variables = _variables(function.group(2))
            if not variables or variables & _variables(value):
                return name, value
    return None


def _variables(text: str) -> set[str]:
    """The single small letters in a text."""
    return set(re.findall(r"(?<![\\A-Za-z])[a-z](?![A-Za-z])", text))


def _equal_equations(first: str, second: str, symbolic: Symbolic) -> bool:
    one, other = _named(first), _named(second)
    if "=" in first and "=" in second:
        if one and other and one[0] == other[0]:
            return _equal(one[1], other[1], symbolic)
        first_values, second_values = ([_value(side) for side in _sides(text)] for text in (first, second))
        if None not in first_values or None not in second_values:  # no variable in one of them: both sides count
            return first_values == second_values
        return symbolic(first, second)
    equation, value, named = (first, second, one) if "=" in first else (second, first, other)
    if named:
        return _equal(named[1], value, symbolic)
    if all(_value(side) is not None for side in _sides(equation)):
        return _equal(_sides(equation)[-1], value, symbolic)
    return False


# ------------------------------------------------------------------------------------------------------- numbers and words


def _equal_values(first: str, second: str, symbolic: Symbolic) -> bool:
    first, second = cardinal(first) or first, cardinal(second) or second
    if _is_words(first) and _is_words(second):
        return _spelling(first) == _spelling(second)
    (one, first_unit), (other, second_unit) = without_unit(first, second), without_unit(second, first)
    if not units_agree(first_unit, second_unit):
        return False
    one, other = one.removeprefix("\\approx").strip(), other.removeprefix("\\approx").strip()
    if _IN_BASE.fullmatch(one) or _IN_BASE.fullmatch(other):
        return _equal_in_bases(one, other)
    percents = one.endswith("%"), other.endswith("%")
    if (percents[0] and second_unit) or (percents[1] and first_unit):
        return False
    if percents[0] != percents[1]:
        if _equal_numbers(one.rstrip("%"), other.rstrip("%"), symbolic):
            return True
        one, other = (f"({t[:-1]})/100" if p else t for t, p in zip((one, other), percents, strict=True))
    elif percents[0]:
        one, other = one[:-1], other[:-1]
    return _equal_numbers(one, other, symbolic)


def _equal_numbers(first: str, second: str, symbolic: Symbolic) -> bool:
    if first == second:
        return True
    one, other = _value(first), _value(second)
    if one is not None and other is not None:
        return one == other or _rounds(first, one, other) or _rounds(second, other, one)
    if any(_is_words(text) and len(_spelling(text)) > 3 for text in (first, second)):
        return False  # a word is no formula
    return symbolic(_without_mixed(first), _without_mixed(second))


def _rounds(text: str, decimal: Fraction, value: Fraction) -> bool:
    """Whether a text is a decimal that stands for a value without a finite decimal expansion."""
    if "." not in text or "\\overline" in text or is_terminating(value):
        return False
    return abs(decimal - value) <= _TOLERANCE * abs(value)


def _value(text: str) -> Fraction | None:
    """Exact value of a number, mixed ones and words such as ``million`` included; None for anything else."""
    text = _SCALE.sub(lambda m: f"*10^{SCALES[m.group(1)]}", text)
    return exact_value(_without_mixed(text))


def _without_mixed(text: str) -> str:
    """Mixed numbers as sums: ``1 1/2`` is (1+1/2)."""
    if not (found := _MIXED.fullmatch(text)):
        return text
    sign, whole, *parts = found.groups()
    numerator, denominator = [p for p in parts if p]
    return f"{sign}({whole}+{numerator}/{denominator})"


def _equal_in_bases(first: str, second: str) -> bool:
    one, other = _IN_BASE.fullmatch(first), _IN_BASE.fullmatch(second)
    if one and other:
        return one.groups() == other.groups()
    return (one.group(1) if one else first) == (other.group(1) if other else second)


def _is_words(text: str) -> bool:
    """Whether a text is letters alone, more than one of them side by side."""
    return bool(_LETTERS.fullmatch(text)) and any(len(word) > 1 for word in re.findall(r"[A-Za-z]+", text))


def _spelling(words: str) -> str:
    return re.sub(r"[^a-z]", "", words.casefold())
