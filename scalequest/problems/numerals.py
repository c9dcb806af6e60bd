"""The numbers of a text, in digits and in words."""

import re

# fmt: off
_NUMBER_WORDS = {
    "zero": "0", "two": "2", "three": "3", "four": "4", "five": "5", "six": "6", "seven": "7", "eight": "8",
    "nine": "9", "ten": "10", "eleven": "11", "twelve": "12", "thirteen": "13", "fourteen": "14", "fifteen": "15",
    "sixteen": "16", "seventeen": "17", "eighteen": "18", "nineteen": "19", "twenty": "20", "thirty": "30",
    "forty": "40", "fifty": "50", "sixty": "60", "seventy": "70", "eighty": "80", "ninety": "90", "hundred": "100",
    "thousand": "1000", "dozen": "12", "twice": "2", "double": "2", "thrice": "3", "triple": "3",
}
# fmt: on
# "one" is left out: it is mostly no number ("this one").
NUMBER = re.compile(r"\d+(?:[.,]\d+)*|\b(?:" + "|".join(_NUMBER_WORDS) + r")\b")

_LEADING_ZEROS = re.compile(r"^0+(?=\d)")


_COUNTS_NOTHING = {"dozen", "twice", "double", "thrice", "triple"}


def cardinal(words: str) -> str | None:
    """The digits of a number in words, below a hundred: 42 of ``forty-two``; None for any other text."""
    found = re.fullmatch(r"([a-z]+)(?:[- ]([a-z]+))?", words.casefold().strip())  # "-five" is another
    named = [word for word in found.groups() if word] if found else [""]
    values = [{"one": "1"}.get(word) or _NUMBER_WORDS.get(word) for word in named]
    if None in values or set(named) & _COUNTS_NOTHING:
        return None
    tens, *ones = [int(value or 0) for value in values]
    if not ones:
        return str(tens)
    return str(tens + ones[0]) if tens in range(20, 100, 10) and 0 < ones[0] < 10 else None


def number(found: str) -> str:
    """One spelling of a number that NUMBER found: ``1,200.50`` is 1200.5, ``twelve`` is 12."""
    found = _NUMBER_WORDS.get(found, found).replace(",", "")
    if found.count(".") == 1:
        found = found.rstrip("0").rstrip(".")
    return _LEADING_ZEROS.sub("", found)


def numbers(text: str) -> list[str]:
    """The numbers of a text in lower case, in order, each in one spelling."""
    return [number(found) for found in NUMBER.findall(text)]


def is_number(term: str) -> bool:
    """Whether NUMBER matches the whole of a term."""
    return term[0].isdigit() or term in _NUMBER_WORDS
