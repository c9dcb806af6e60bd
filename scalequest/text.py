"""What makes two texts the same question: the key built on their plain signs."""

import re

from scalequest.signs import plain

__all__ = ["plain", "question_key", "spellings", "words"]

# After a word `!` is punctuation; after a digit, a bracket or a variable it is a factorial.
_FACTORIAL = re.compile(r"(?:\d|[\])}$]|(?<![^\W\d_])[^\W\d_]) ?!+$")
# The braces of x^{2}, which x^2 does without. Before a digit they stay: x^{2}3 is not x^23.
_POWER = re.compile(r"([\^_])\{([^{}]*)\}(?!\d)")

# Two signs of one operation.
_OPERATORS = str.maketrans(dict.fromkeys("\u00d7\u22c5\u00b7\u2217\u2219", "*") | {"\u00f7": "/"})


def spellings(text: str) -> list[str]:
    """``plain`` of a text, and a second one if it holds invisible characters: these may hide a space as well as break a word."""
    first, second = plain(text), plain(text, hidden=" ")
    return [first] if first == second else [first, second]


def question_key(question: str) -> str:
    """What makes two questions exact duplicates: letters, digits and signs; case, spaces and final punctuation aside.

    A space between two digits stays (1 2 is not 12), and so does a final ``!`` that is a factorial (5! is not 5).
    """
    key = re.sub(r"\s+", " ", _POWER.sub(r"\1\2", plain(question).translate(_OPERATORS))).casefold().strip()
    while key and key[-1] in ".?:!" and not _FACTORIAL.search(key):
        key = key[:-1].rstrip()
    return re.sub(r"(?<!\d) | (?!\d)", "", key)


def words(text: str) -> list[str]:
    """Lower-case runs of letters and digits, in one spelling."""
    return re.findall(r"\w+", plain(text).casefold())
