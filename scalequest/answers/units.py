r"""What stands around a number in an answer: units, currencies, percent, times of day, ranges.

Nothing is converted: ``5 cm`` is not ``50 mm``. What is a choice is in docs/evaluation.md, "Comparing mathematics".
"""

import re

# ------------------------------------------------------------------------------------------------------------------ units

LETTER_UNITS = {
    "m": "meter", "g": "gram", "L": "liter", "l": "liter", "s": "second", "h": "hour", "N": "newton", "J": "joule",
    "W": "watt", "K": "kelvin", "C": "celsius", "F": "fahrenheit", "V": "volt", "A": "ampere",
}  # fmt: skip
# Letters that are units where a fraction of units shows that no variable is meant: m/s, km/h.
_LETTERS_OF_A_QUOTIENT = set("mgLlshNJWKVA")
# Short units that could be a product of variables.
_SHORT_UNITS = {
    "mm": "millimeter", "cm": "centimeter", "dm": "decimeter", "km": "kilometer", "kg": "kilogram", "mg": "milligram",
    "ml": "milliliter", "ft": "foot", "in": "inch", "yd": "yard", "mi": "mile", "lb": "pound", "oz": "ounce", "hr": "hour",
    "min": "minute", "sec": "second", "usd": "dollar", "deg": "degree", "hz": "hertz", "kw": "kilowatt",
    "mph": "mile/hour", "kmh": "kilometer/hour", "kph": "kilometer/hour",
}  # fmt: skip
_SPELLINGS = {
    "feet": "foot", "inches": "inch", "metre": "meter", "litre": "liter", "centimetre": "centimeter", "kilometre": "kilometer",
    "people": "person", "children": "child", "men": "man", "women": "woman", "euros": "euro", "pennie": "penny",
}  # fmt: skip
_CURRENCIES = {
    "\u20ac": "euro", "\u00a3": "pound", "\u00a5": "yen", "\u20b9": "rupee", "\\pounds": "pound", "\\euro": "euro",
}  # fmt: skip
_SIGNS = _CURRENCIES | {"\\Omega": "ohm", "\u03a9": "ohm"}
_MONEY = {*_CURRENCIES.values(), "dollar", "cent", "penny"}
# What is measured, and not counted: "5 m" is not "5 m/s", and "5 apples" may be "5 apples per box".
_MEASURES = {
    *LETTER_UNITS.values(), *"/".join(_SHORT_UNITS.values()).split("/"), "ohm", "day", "week", "month", "year", "ton", "gallon",
    "quart", "pint", "cup",
}  # fmt: skip
_NO_UNITS = {
    *("and", "or", "to", "by", "if", "is", "not", "mod", "base", "times", "plus", "minus", "where", "for", "when", "over"),
}  # fmt: skip
SCALES = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}

_WORD = re.compile(r"(?<![\\A-Za-z_{])[A-Za-z]{2,}")
_UNIT = re.compile(r"(?:[A-Za-z][A-Za-z']*(?:\^(?:\d|\{-?\d\}))?|[-*/. ,])+")
_PART = re.compile(r"/|([A-Za-z][A-Za-z']*)(?:\^\{?(-?\d)\}?)?")
_FRACTION_OF_UNITS = re.compile(r"\s*\\frac\{((?:[A-Za-z]+)(?:\^\{?\d\}?)?)\}\{((?:[A-Za-z]+)(?:\^\{?\d\}?)?)\}$")
_QUOTIENT = re.compile(r"(.*[\d)}])( ?)([A-Za-z]+(?:\^\{?\d\}?)?/[A-Za-z]+(?:\^\{?-?\d\}?)?)")
# One letter behind a blank is a unit where the other answer has no letters: "5 m" and 5. Otherwise it is a variable.
_LETTER = re.compile(r"(.*[\d)}]) ([mgLshNJWKV](?:\^\{?\d\}?)?)")

Unit = frozenset[str]


def without_unit(text: str, other: str) -> tuple[str, Unit]:
    r"""A number's text without its unit, and the parts of the unit; ``/second`` is a part below the fraction bar.

    Args:
        text: an answer in ``notation.clean``'s notation.
        other: the answer that it is compared with. A letter beside a number is a variable if there are letters in both.
    """
    text = _FRACTION_OF_UNITS.sub(r" \1/\2", text) if _units_of_a_quotient(_FRACTION_OF_UNITS.search(text)) else text
    letters_in_both = bool(re.search(r"[A-Za-z]", other))
    quotient = _QUOTIENT.fullmatch(text)
    if (
        quotient
        and (quotient[2] or not letters_in_both)
        and all(map(_is_measure, re.findall("[A-Za-z]+", quotient[3])))
    ):
        return quotient[1], _parts(quotient[3])
    letter = _LETTER.fullmatch(text)
    if letter and (not letters_in_both or _parts(letter[2]) <= _parts(re.sub(r"^[^A-Za-z]*", "", other))):
        return letter[1], _parts(letter[2])
    for sign, name in _SIGNS.items():
        if text.startswith(sign):
            return text.removeprefix(sign).strip(), frozenset({name})
        if text.endswith(sign):
            return text.removesuffix(sign).strip(), frozenset({name})
    for word in _WORD.finditer(text):
        if word.group() in SCALES or (
            len(word.group()) == 2
            and word.group() not in _SHORT_UNITS
            and word.group() not in ("of", "sq", "cu", "kW", "Hz")
        ):
            continue
        core, unit = text[: word.start()].strip(), text[word.start() :]
        number = re.search(rf"[\d}})!%]$|\\pi$|\d ?(?:{'|'.join(SCALES)})$", core)
        if not number or not _UNIT.fullmatch(unit) or word.group().lower() in _NO_UNITS:
            return text, frozenset()
        return core, _parts(unit)
    return text, frozenset()


def units_agree(first: Unit, second: Unit) -> bool:
    """Whether two units can belong to one answer: one is left out, they are equal, or one says more of what is counted."""
    few, many = sorted((first, second), key=len)
    if not few <= many:
        return False
    return not few or few <= _MONEY or not any(part.strip("/0123456789^") in _MEASURES for part in many - few)


def _units_of_a_quotient(found: "re.Match[str] | None") -> bool:
    return found is not None and all(_is_measure(part.partition("^")[0]) for part in found.groups())


def _is_measure(name: str) -> bool:
    return name in _LETTERS_OF_A_QUOTIENT or name.lower() in _SHORT_UNITS


def _parts(unit: str) -> Unit:
    unit = re.sub(r"\b(?:square|sq\.?) ?([A-Za-z]+)", r"\1^2", unit, flags=re.I)
    unit = re.sub(r"\b(?:cubic|cu\.?) ?([A-Za-z]+)", r"\1^3", unit, flags=re.I)
    unit = re.sub(r"\bper\b", "/", unit, flags=re.I)
    parts, below = set(), ""
    for found in _PART.finditer(unit):
        if found.group() == "/":
            below = "/"
            continue
        name = LETTER_UNITS.get(found[1]) or _one_spelling(found[1].lower())
        power = found[2] or ""
        if power.startswith("-"):
            below, power = "/", power[1:].replace("1", "") if power == "-1" else power[1:]
        for k, part in enumerate(name.split("/")):
            parts.add(("/" if k else below) + part + power)
        below = ""
    words = {"a", "an", "the", "of", "unit", "unit2", "unit3"}
    return frozenset(part for part in parts if part.strip("/") not in words)


def _one_spelling(name: str) -> str:
    name = _SPELLINGS.get(name, name)
    if name.endswith(("ches", "shes", "xes", "sses")):
        name = name[:-2]
    elif name.removesuffix("s") in _SHORT_UNITS:
        name = name.removesuffix("s")
    elif len(name) > 3 and name.endswith("s") and not name.endswith("ss"):
        name = name[:-1]
    return _SHORT_UNITS.get(name, _SPELLINGS.get(name, name))


# ---------------------------------------------------------------------------------------------------------- times of day

_TIME = re.compile(r"(\d{1,2})(?::([0-5]\d))?(?::([0-5]\d))?(?: ?([AaPp])\.? ?[Mm]\.?| ?(o'clock))?")


def same_time_of_day(first: str, second: str) -> bool | None:
    """Whether two times are one, a half of the day that one leaves out ignored; None where neither says am, pm or o'clock."""
    one, other = _TIME.fullmatch(first), _TIME.fullmatch(second)
    if not any(time and (time[4] or time[5]) for time in (one, other)):
        return None
    if not one or not other:
        return False
    left_out = not (one[4] and other[4])
    return _seconds(one) == _seconds(other) or (left_out and _face(one) == _face(other))


def _face(time: "re.Match[str]") -> tuple[int, int, int]:
    return int(time[1]), int(time[2] or 0), int(time[3] or 0)


def _seconds(time: "re.Match[str]") -> int:
    """Seconds since midnight: 12:30 am is 0:30."""
    hours, minutes, seconds = _face(time)
    if time[4]:
        hours = hours % 12 + (12 if time[4] in "Pp" else 0)
    return (hours * 60 + minutes) * 60 + seconds


# ---------------------------------------------------------------------------------------------------------------- ranges

_END = r"(?:\\?\$|[\u20ac\u00a3])?(\d+(?:\.\d+)?(?:\\?%)?)"
_RANGE = re.compile(
    rf"(?:from\s+)?{_END}(?:\s+[a-z]+)?(?:--?|\s*[\u2013\u2014]\s*|\s+(?:to|through)\s+){_END}((?:\s+[a-z]+)*)\.?"
    rf"|between\s+{_END}(?:\s+[a-z]+)?\s+and\s+{_END}((?:\s+[a-z]+)*)\.?",
    re.IGNORECASE,
)


def range_as_interval(answer: str) -> tuple[str, str] | None:
    """``3-5 days`` as ``[3,5]`` and its unit; None for what is no range.

    A range has its smaller end first and no blanks around a plain hyphen: ``3 - 5`` and ``10-5`` are differences, and so is
    everything between dollar signs.
    """
    found = _RANGE.fullmatch(answer.strip())
    if not found:
        return None
    low, high, unit = found.groups()[:3] if found[1] else found.groups()[3:]
    if set(unit.lower().split()) & set(SCALES):
        return None
    if float(low.rstrip("\\%")) >= float(high.rstrip("\\%")):
        return None
    if high.endswith("%") and not low.endswith("%"):
        low += "%"
    return f"[{low},{high}]", unit.strip()
