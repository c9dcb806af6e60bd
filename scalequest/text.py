"""What makes two texts the same question: one normalisation, and the key built on it."""

import re
import unicodedata

# Characters of other kinds than Cf that print nothing (Unicode's Default_Ignorable_Code_Point, and the Braille blank).
_INVISIBLE = "\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0\ufe00-\ufe0f\U000e0000-\U000e0fff"
_MINUS = "\u2010-\u2015\u2212\u02d7\u2043\ufe58\ufe63\uff0d"
_FOLDED = (
    (re.compile(f"[{_MINUS}]"), "-"),
    (re.compile("[\u2044\u2215]"), "/"),
    # Before NFKC, which makes a space and an accent of some, and two primes of the double prime.
    (re.compile("[\u2018\u2019\u201a\u201b\u2032\u2035\u2039\u203a\u00b4`\u02b9\u02bc]"), "'"),
    (re.compile("[\u201c\u201d\u201e\u201f\u2033\u2036\u00ab\u00bb]"), '"'),
)
_HIDDEN = re.compile(f"[{_INVISIBLE}]")
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1b\x7f]")
# After a word `!` is punctuation; after a digit, a bracket or a variable it is a factorial.
_FACTORIAL = re.compile(r"(?:\d|[\])}$]|(?<![^\W\d_])[^\W\d_]) ?!+$")


def _raised(text: str) -> str:
    """Superscripts, subscripts and fractions spelled out: NFKC alone makes 52 of 5² and 31/2 of 3½."""
    parts: list[str] = []
    before = ""
    for character in text:
        kind = unicodedata.decomposition(character).partition(" ")[0]
        mark = {"<super>": "^", "<sub>": "_"}.get(kind, "")
        if mark:
            parts.append((mark if kind != before else "") + unicodedata.normalize("NFKC", character))
        elif kind == "<fraction>":
            gap = " " if parts and parts[-1][-1:].isdigit() else ""
            parts.append(gap + unicodedata.normalize("NFKC", character))
        else:
            parts.append(character)
        before = kind
    return "".join(parts)


def plain(text: str, hidden: str = "") -> str:
    """``text`` in one spelling: NFKC, minus signs and quotation marks folded, ``hidden`` for each invisible character."""
    if text.isascii():
        return _CONTROL.sub(hidden, text).replace("`", "'")
    seen = "".join(
        c if c.isspace() else hidden if unicodedata.category(c) in ("Cf", "Cc") else c
        for c in _HIDDEN.sub(hidden, text)
    )
    # Twice: NFKC makes a fraction slash of ½ and a minus of the raised minus, and composes letters and their accents.
    for _ in range(2):
        for pattern, replacement in _FOLDED:
            seen = pattern.sub(replacement, seen)
        seen = unicodedata.normalize("NFKC", _raised(seen))
    return _FOLDED[1][0].sub("/", seen)


def spellings(text: str) -> list[str]:
    """``plain`` of a text, and a second one if it holds invisible characters: these may hide a space as well as break a word."""
    first, second = plain(text), plain(text, hidden=" ")
    return [first] if first == second else [first, second]


def question_key(question: str) -> str:
    """What makes two questions exact duplicates: letters, digits and signs; case, spaces and final punctuation aside.

    A space between two digits stays (1 2 is not 12), and so does a final ``!`` that is a factorial (5! is not 5).
    """
    key = re.sub(r"\s+", " ", plain(question)).casefold().strip()
    while key and key[-1] in ".?:!" and not _FACTORIAL.search(key):
        key = key[:-1].rstrip()
    return re.sub(r"(?<!\d) | (?!\d)", "", key)


def words(text: str) -> list[str]:
    """Lower-case runs of letters and digits, in one spelling."""
    return re.findall(r"\w+", plain(text).casefold())
