r"""Whether two final answers are the same mathematics. One home for the answer filter, the labels and the scores.

An answer is brought into one notation (``notation.clean``), then taken apart until its parts are numbers, words or formulas:

1. lists, tuples, sets and matrices by their parts;
2. equations by what they say (below);
3. numbers by their exact value (``exact.exact_value``), words by their spelling;
4. what is left by sympy, in processes with limits (``symbolic.same_expression``).

Choices, where two answers may or may not be called the same:

- **Decimals.** Numbers are compared exactly. A decimal also equals what it rounds, if that has no finite decimal expansion: 0.333333
  is 1/3, 3.141593 is pi, 0.333 is neither. The tolerance is relative, 1e-6.
- **Mixed numbers.** ``1 1/2`` and ``1\frac{1}{2}`` are 3/2.
- **Percent.** ``10%`` is 0.1, and it is 10 where the other answer has no percent sign.
- **Units.** A unit, currency or degree sign that one answer leaves out is ignored. Two different ones make the answers different;
  nothing is converted: ``5 cm`` is not ``50 mm``.
- **Thousands.** Commas or blanks between groups of exactly three digits: ``1,000`` is 1000, ``10,00`` is a list. Within brackets a
  comma separates: ``(1,234)`` is a pair.
- **Order.** Sets and lists without brackets have no order; tuples, intervals and vectors have one. ``1, 2`` is also the pair (1, 2).
  ``(1,2)`` is not ``[1,2]``, and ``\{1,2\}`` is neither. ``3 \pm 1`` is the list 4, 2.
- **Equations.** ``x = 5`` is also 5: a name on one side stands for the other side. ``f(x) = x + 1`` is also x + 1, but ``f(x) = 0``
  and ``x^2 = 0`` are equations and no number. Without a variable both sides count: ``12*5 = 60`` is not ``12*6 = 72``, but it is 60.
- **Letters.** A sequence of letters is a word, whatever their case: AB is not BA, ``no`` is not ``on``. Only within a formula
  small letters are a product.
- **Dates, times, ratios** are compared part by part: ``2024-05-12`` is no difference, and ``1:2`` is not ``2:4``.
- **Bases.** A base that one answer leaves out is ignored: ``101_2`` is also 101.
"""

import atexit
import re
from collections.abc import Callable, Sequence
from concurrent.futures import TimeoutError as FutureTimeoutError
from decimal import Decimal, InvalidOperation, localcontext
from fractions import Fraction
from typing import Any

from scalequest.answers.exact import exact_value, is_terminating
from scalequest.answers.notation import clean
from scalequest.outcomes import MISSING, RIGHT, TIMEOUT, WRONG

# Hard limit of one comparison, in seconds. A limit by signal would do nothing in a thread or in C code that hangs.
TIMEOUT_S = 5.0
# Memory of one comparing process, code included; what needs more is wrong.
MEMORY_BYTES = 2 << 30
# An answer beyond these is wrong without a comparison, unless it is spelled as the gold answer is: it would cost the limits above
# to find out. Of all answers in MATH's 12,200 problems the longest has 159 characters and the deepest is 3 brackets deep.
LONGEST, DEEPEST = 1_000, 20
# Numbers of more than some ten thousand digits: 2^{10000}, a tower of three powers, 10000!
_IMMENSE = re.compile(r"\^\s*\{?\s*\d{5,}|\d\s*\^\s*\{?\s*\d+\s*\^\s*\{?\s*\d+\s*\^|\d{5,}\s*!|\d{3,}\s*!\s*!")
# A decimal stands for what it is rounded from. The same number as in symbolic, which loads sympy.
_TOLERANCE = Fraction(1, 1_000_000)

# Whether two formulas are one, by sympy.
Symbolic = Callable[[str, str], bool]

_PLAIN_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
_MIXED = re.compile(r"([-+]?)(\d+)(?: (\d+)/(\d+)| ?\\frac\s*\{(\d+)\}\s*\{(\d+)\})")
_DATE = re.compile(r"(\d{4})([-/.])(\d{1,2})\2(\d{1,2})|(\d{1,2})([-/.])(\d{1,2})\6(\d{4}|\d{2})")
_IN_BASE = re.compile(r"(\d+)_\{?(\d+)\}?")
_SCALES = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_SCALE = re.compile(r"(?<=\d) ?(hundred|thousand|million|billion|trillion)s?\b")
_MATRIX = re.compile(r"\\begin\{([pbB]?matrix|array)\}(?:\{[clr|]*\})?\s*(.*?)\s*\\end\{\1\}")
_AND = re.compile(r",? (?:and|or) |,(?:and|or) ")
_RELATION = re.compile(r"[<>]|\\(?:le|ge|ne|in|approx|equiv|subset|cup|cap)(?![A-Za-z])")

_WORD = re.compile(r"(?<![\\A-Za-z_{])[A-Za-z]{2,}")
_LETTERS = re.compile(r"[A-Za-z][A-Za-z' .-]*")
_UNIT = re.compile(r"(?:[A-Za-z][A-Za-z']*(?:\^\{?-?\d\}?)?|[-*/. ,])+")
# Short units that could be a product of variables.
_SHORT_UNITS = {
    "mm": "millimeter", "cm": "centimeter", "dm": "decimeter", "km": "kilometer", "kg": "kilogram", "mg": "milligram",
    "ml": "milliliter", "ft": "foot", "in": "inch", "yd": "yard", "mi": "mile", "lb": "pound", "oz": "ounce", "hr": "hour",
    "min": "minute", "sec": "second", "mph": "mile/hour", "kmh": "kilometer/hour", "usd": "dollar", "deg": "degree",
}  # fmt: skip
_UNIT_SPELLINGS = {
    "feet": "foot", "inches": "inch", "metre": "meter", "litre": "liter", "centimetre": "centimeter", "kilometre": "kilometer",
    "people": "person", "children": "child", "men": "man", "women": "woman", "euros": "euro", "pennie": "penny",
}  # fmt: skip
_NO_UNITS = {
    "and",
    "or",
    "to",
    "by",
    "if",
    "is",
    "not",
    "mod",
    "base",
    "times",
    "plus",
    "minus",
    "where",
    "for",
    "when",
    "over",
}
_CURRENCIES = {
    "\u20ac": "euro",
    "\u00a3": "pound",
    "\u00a5": "yen",
    "\u20b9": "rupee",
    "\\pounds": "pound",
    "\\euro": "euro",
}

_SUBSCRIPT = r"(?:_\{[^{}]*\}|_\w)?"
_NAME = re.compile(
    rf"(?:m ?)?(?:\\(?:angle|triangle|overline|overrightarrow|vec|hat|bar|mathbf)\s*\{{?\s*[A-Za-z]+\s*\}}?"
    rf"|\\(?!pi(?![A-Za-z])|frac|sqrt|binom|sin|cos|tan|log|ln)[A-Za-z]+ ?|[A-Z]+|[A-Za-z]|[A-Za-z]{{3,}}(?: [A-Za-z]+)*)"
    rf"{_SUBSCRIPT}'*"
)
_FUNCTION = re.compile(rf"((?:\\[A-Za-z]+ ?|[A-Za-z]){_SUBSCRIPT}(?:\^\{{?-1\}}?)?'*)\(([^()=]*)\)")


def normalise(answer: str) -> str:
    """A spelling that makes the common trivial differences equal: ``$ 1,000.0 $`` and ``1000``."""
    text = clean(answer) if len(answer) <= LONGEST else answer.strip()
    if _PLAIN_NUMBER.fullmatch(text.removesuffix(" dollar")):  # $5 is spelled as a number
        text = text.removesuffix(" dollar")
    if not _PLAIN_NUMBER.fullmatch(text):
        return text
    try:
        number = Decimal(text)
    except InvalidOperation:
        return text
    if not -40 < number.adjusted() < 40:
        return text
    with localcontext(prec=len(text) + 1):  # by default 28 digits: longer numbers would be rounded to equality
        number = number.normalize()
    return format(number if number != 0 else Decimal(0), "f")


def compare(gold: Sequence[str], answers: Sequence[str | None], workers: int = 2) -> list[str]:
    """Compare N extracted answers with N gold answers, in order.

    What needs no sympy is decided here. The rest goes to processes; a comparison that takes longer than 5 s is killed with its
    process. The processes stay for the next call.

    Returns:
        For each pair ``right``, ``wrong``, ``no_answer`` (nothing was extracted) or ``timeout``.
    """
    pairs = list(zip(gold, answers, strict=True))
    decided = {pair: _without_sympy(*pair) for pair in dict.fromkeys(pairs)}
    asked = sorted((g, a) for (g, a), outcome in decided.items() if outcome is None and a is not None)
    settled = _verify(asked, workers) if asked else {}
    return [decided[g, a] or settled[g, a or ""] for g, a in pairs]


def equal(first: str, second: str, symbolic: Symbolic) -> bool:
    """Whether two answers are the same, by the choices above; ``symbolic`` decides about formulas."""
    return _equal(clean(first), clean(second), symbolic)


# ----------------------------------------------------------------------------------------------------------- decided here


class _UndecidedError(Exception):
    """The answers differ in a formula."""


def _undecided(first: str, second: str) -> bool:
    raise _UndecidedError


def _without_sympy(gold: str, answer: str | None) -> str | None:
    """The outcome where no formula has to be compared, else None."""
    if answer is None:
        return MISSING
    if gold == answer:
        return RIGHT
    if any(len(text) > LONGEST or _depth(text) > DEEPEST or _IMMENSE.search(text) for text in (gold, answer)):
        return WRONG
    if normalise(gold) == normalise(answer):
        return RIGHT
    try:
        return RIGHT if equal(gold, answer, _undecided) else WRONG
    except _UndecidedError:
        return None


def _depth(text: str) -> int:
    """How deep brackets of any kind are nested; those that are never closed count."""
    depth = deepest = 0
    for character in text:
        if character in "({[":
            depth += 1
            deepest = max(deepest, depth)
        elif character in ")}]":
            depth = max(0, depth - 1)
    return deepest


# --------------------------------------------------------------------------------------------------------------- structure


def _equal(first: str, second: str, symbolic: Symbolic) -> bool:
    first, second = _without_brackets(first), _without_brackets(second)
    if first == second:
        return bool(first)
    if not first or not second:
        return False
    if _DATE.fullmatch(first) or _DATE.fullmatch(second):
        return _numbers_of_a_date(first) == _numbers_of_a_date(second)
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
    if _is_words(first) and _is_words(second):
        return _spelling(first) == _spelling(second)
    (one, first_unit), (other, second_unit) = _unit(first, second), _unit(second, first)
    if not _units_agree(first_unit, second_unit):
        return False
    one, other = one.removeprefix("\\approx").strip(), other.removeprefix("\\approx").strip()
    if _IN_BASE.fullmatch(one) or _IN_BASE.fullmatch(other):
        return _equal_in_bases(one, other)
    percents = one.endswith("%"), other.endswith("%")
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
    text = _SCALE.sub(lambda m: f"*10^{_SCALES[m.group(1)]}", text)
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


# One letter behind a blank is a unit where the other answer has no letters: "5 m" and 5. Otherwise it is a variable.
_LETTER_UNIT = re.compile(r"(.*[\d)}]) ([mgLsh](?:\^\{?\d\}?)?)")


def _unit(text: str, other: str) -> tuple[str, frozenset[str]]:
    """A number's text without its unit, and the words of the unit."""
    if (letter := _LETTER_UNIT.fullmatch(text)) and not re.search("[A-Za-z]", other):
        return letter.group(1), frozenset({letter.group(2)})
    for sign, name in _CURRENCIES.items():
        if text.startswith(sign):
            return text.removeprefix(sign).strip(), frozenset({name})
        if text.endswith(sign):
            return text.removesuffix(sign).strip(), frozenset({name})
    for word in _WORD.finditer(text):
        if word.group() in _SCALES or (
            len(word.group()) == 2 and word.group() not in _SHORT_UNITS and word.group() not in ("of", "am", "pm")
        ):
            continue
        core, unit = text[: word.start()].strip(), text[word.start() :]
        number = re.search(r"[\d})!%]$|\\pi$", core)
        if not number or not _UNIT.fullmatch(unit) or word.group().lower() in _NO_UNITS:
            return text, frozenset()
        return core, _words_of_a_unit(unit)
    return text, frozenset()


def _words_of_a_unit(unit: str) -> frozenset[str]:
    unit = re.sub(r"\b(?:square|sq\.?) ?([A-Za-z]+)", r"\1^2", unit.lower())
    unit = re.sub(r"\b(?:cubic|cu\.?) ?([A-Za-z]+)", r"\1^3", unit)
    words = set()
    for word in re.findall(r"[a-z']+(?:\^\{?-?\d\}?)?", unit):
        name, _, power = word.partition("^")
        name = _UNIT_SPELLINGS.get(name, name)
        if name.endswith(("ches", "shes", "xes", "sses")):
            name = name[:-2]
        elif len(name) > 3 and name.endswith("s") and not name.endswith("ss"):
            name = name[:-1]
        name = _SHORT_UNITS.get(name, _UNIT_SPELLINGS.get(name, name))
        words.add(name + power.strip("{}"))
    return frozenset(words - {"a", "an", "the", "of", "per", "unit", "unit^2", "unit^3"})


def _units_agree(first: frozenset[str], second: frozenset[str]) -> bool:
    return first <= second or second <= first


# ------------------------------------------------------------------------------------------------- processes for formulas


def _equivalent(gold: str, answer: str) -> bool:
    """The comparison with sympy, in a worker process."""
    from scalequest.answers.symbolic import same_expression

    return equal(gold, answer, same_expression)


def _warm_up() -> None:
    """Limit a new worker's memory (``9^{9^{9}}`` would take the machine's) and load sympy.

    Loading takes seconds on a busy machine, which must not count as comparing.
    """
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    _equivalent("\\sqrt{2}", "\\sqrt{3}")


_pools: dict[int, Any] = {}


def _pool(workers: int) -> Any:
    """The running pool of that many processes; started once, because that takes seconds."""
    if workers not in _pools:
        from multiprocessing import get_context

        from pebble import ProcessPool

        # forkserver: a fork of a process that runs torch's threads may hang.
        context = get_context("forkserver")
        pool = ProcessPool(max_workers=workers, max_tasks=500, initializer=_warm_up, context=context)
        # A pool that cannot start would fail every comparison: ask it what must hold, and raise its failure.
        assert pool.schedule(_equivalent, args=("2\\sqrt{3}", "\\sqrt{12}")).result(), (
            "the comparing process does not know that the root of 12 is twice the root of 3"
        )
        _pools[workers] = pool
    return _pools[workers]


@atexit.register
def close_pools() -> None:
    """End the processes that compare; the next comparison starts new ones."""
    while _pools:
        _, pool = _pools.popitem()
        pool.stop()
        pool.join()


def _verify(pairs: Sequence[tuple[str, str]], workers: int) -> dict[tuple[str, str], str]:
    from pebble import ProcessExpired

    pool = _pool(workers)
    futures = [pool.schedule(_equivalent, args=pair, timeout=TIMEOUT_S) for pair in pairs]
    verdicts = {}
    for pair, future in zip(pairs, futures, strict=True):
        try:
            verdicts[pair] = RIGHT if future.result() else WRONG
        except (FutureTimeoutError, ProcessExpired, MemoryError, RecursionError):
            verdicts[pair] = TIMEOUT
    return verdicts
