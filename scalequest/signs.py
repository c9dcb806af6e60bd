r"""One spelling for the signs of mathematics. Every reader of questions, answers and solutions begins here.

``plain`` replaces Unicode's signs: ``−5`` and ``⁻5`` are ``-5``, ``3½`` is ``3 1/2``, ``x²`` is
``x^{2}``. ``plain_latex`` replaces what LaTeX has several commands for: ``1\,000`` is ``1000``, ``3
\cdot 4`` is ``3*4``, ``\dfrac12`` is ``\frac{1}{2}``. Neither looks at what a text means.
"""

import re
import unicodedata
from itertools import groupby

# ------------------------------------------------------------------------------------------------------------- Unicode

# Characters of other kinds than Cf that print nothing (Unicode's Default_Ignorable_Code_Point, and the Braille blank).
_INVISIBLE = "\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0\ufe00-\ufe0f\U000e0000-\U000e0fff"
_MINUS = "\u2010-\u2015\u2212\u02d7\u2043\ufe58\ufe63\uff0d"
_SLASH = re.compile("[\u2044\u2215]")
_FOLDED = (
    (re.compile(f"[{_MINUS}]"), "-"),
    (_SLASH, "/"),
    # Before NFKC, which makes a space and an accent of some, and two primes of the double prime.
    (re.compile("[\u2018\u2019\u201a\u201b\u2032\u2035\u2039\u203a\u00b4`\u02b9\u02bc]"), "'"),
    (re.compile("[\u201c\u201d\u201e\u201f\u2033\u2036\u00ab\u00bb]"), '"'),
)
# Of other scripts, such as Arabic; NFKC folds the wide ones alone.
_OTHER_DIGIT = re.compile(r"[^\W0-9a-zA-Z_](?<=\d)")
_HIDDEN = re.compile(f"[{_INVISIBLE}]")
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1b\x7f]")


def plain(text: str, hidden: str = "") -> str:
    """``text`` in one spelling: NFKC, minus signs, powers and quotation marks folded.

    Args:
        text: any text.
        hidden: what replaces each invisible character.
    """
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
    return _OTHER_DIGIT.sub(lambda m: str(unicodedata.decimal(m.group())), _SLASH.sub("/", seen))


def _raised(text: str) -> str:
    """Superscripts, subscripts and fractions spelled out: NFKC alone makes 52 of 5² and 31/2 of 3½."""
    if unicodedata.is_normalized("NFKC", text):
        return text  # it has none of them
    written = ""
    for kind, characters in groupby(text, _kind):
        run = "".join(characters)
        folded = unicodedata.normalize("NFKC", run)
        before = written[-1:]
        if kind == "<fraction>":
            written += "".join((" " if f"{written}{done}"[-1:].isdigit() else "") + c for done, c in _one_by_one(run))
        elif kind == "<super>" and folded in ("\u2212", "-", "+") and not re.match(r"[\w)\]}]", before):
            written += folded  # a sign, not a power: ⁻5
        elif kind in ("<super>", "<sub>"):
            written += f"{'^' if kind == '<super>' else '_'}{{{folded}}}"
        else:
            written += run
    return written


def _kind(character: str) -> str:
    kind = unicodedata.decomposition(character).partition(" ")[0]
    return kind if kind in ("<super>", "<sub>", "<fraction>") else ""


def _one_by_one(run: str) -> list[tuple[str, str]]:
    """Each fraction sign of a run as plain digits, with those before it."""
    folded = [unicodedata.normalize("NFKC", c) for c in run]
    return [("".join(folded[:k]), c) for k, c in enumerate(folded)]


# --------------------------------------------------------------------------------------------------------- words for signs

_SPOKEN_MINUS = re.compile(
    # Elsewhere "minus" subtracts: "10 minus 5", "the price minus 5".
    r"\bnegative\s+(?=[\d.$\\]|\(?\d)"
    r"|(?:^|(?<=[=:(\[,;$\n#])|(?<=\bis)|(?<=\bare)|(?<=\bwas)|(?<=\bbe)|(?<=\bequals)|(?<=\bget)|(?<=\bgets)|(?<=\bgives)|(?<=\bmakes)"
    r"|(?<=\bleaves)|(?<=\bfrom)|(?<=\bto)|(?<=\bof)|(?<=\bby)|(?<=\bthan)|(?<=\bor)|(?<=\band))(?P<blank>\s*)\bminus\s+(?=[\d.$\\])",
    re.IGNORECASE,
)


def spoken_signs(text: str) -> str:
    """``minus 5`` and ``negative 5`` as ``-5``, where the word is a sign and does not subtract."""
    lower = text.lower()
    if "minus" not in lower and "negative" not in lower:  # as a rule; the pattern takes a hundred times as long
        return text
    return _SPOKEN_MINUS.sub(lambda m: f"{m['blank'] or ''}-", text)


# --------------------------------------------------------------------------------------------------------------- LaTeX

# A comma in braces, or thin blanks with or without a comma, between groups of three digits.
_GROUPS = re.compile(r"(?<![\d.,])\d{1,3}(?:(?:\{\s*,\s*\}\s*|,?\s*(?:\\[!,;:]\s*)+)\d{3})+(?!\d)")
_ONE = r"\s*([A-Za-z0-9]|\\[A-Za-z]+(?![A-Za-z{]))"
_BRACED = r"(\{(?:[^{}]|\{(?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*\})*\})"
_WORDING = re.compile(
    r"\\(?:text(?:bf|it|rm|sf|tt|normal)?|mathrm|mathbf|mathit|mathsf|mbox|hbox|operatorname\*?)\s*\{([^{}]*)\}"
)
_LAYOUT = (
    (re.compile(r"\\hspace\*?\{[^{}]*\}"), " "),
    (re.compile(r"(?<!\\)\\!"), ""),
    (
        re.compile(
            r"(?<!\\)\\(?:[,;:> ~\n]|(?:quad|qquad|thinspace|enspace|space|displaystyle|textstyle|limits)(?![A-Za-z]))|~"
        ),
        " ",
    ),
    (re.compile(r"\\(?:left|right)\s*\.|\\(?:left|right|[bB]igg?[lrm]?)(?![A-Za-z])"), ""),
    (re.compile(r"\\[dtc]frac(?![A-Za-z])"), r"\\frac"),
    (re.compile(r"\\[dt]binom(?![A-Za-z])"), r"\\binom"),
    (re.compile(r"\\(?:cdot|times|ast)(?![A-Za-z])\s*"), "*"),
    (re.compile(r"\\div(?![A-Za-z])\s*"), "/"),
    (re.compile(r"\\%"), "%"),
    # \frac12, \frac\pi4 and \frac{1}2: an argument is one sign or one command.
    (re.compile(r"\\(frac|binom)(?![A-Za-z])" + _ONE), r"\\\1{\2}"),
    *((re.compile(r"\\(frac|binom)\s*" + _BRACED + _ONE), r"\\\1\2{\3}"),) * 4,  # a fraction in a fraction
)


# What Unicode has a sign for and LaTeX a command.
_COMMANDS = {
    **dict.fromkeys("\u00d7\u2217\u22c5\u00b7\u2219", " \\times "),
    "\u00f7": "/", "\u2236": ":", "\u221e": "\\infty ", "\u03c0": "\\pi ", "\u03b8": "\\theta ", "\u221a": "\\sqrt ", "\u00b0": "^\\circ ",
    "\u2264": "\\le ", "\u2265": "\\ge ", "\u2260": "\\ne ", "\u222a": "\\cup ", "\u2229": "\\cap ", "\u2208": "\\in ",
    "\u00b1": "\\pm ", "\u2205": "\\emptyset ", "\u211d": "\\mathbb{R}",
}  # fmt: skip
_COMMAND = re.compile("|".join(map(re.escape, _COMMANDS)))


def with_commands(text: str) -> str:
    r"""LaTeX's commands for Unicode's mathematical signs: ``\pi`` for π, ``\times`` for ×."""
    return text if text.isascii() else _COMMAND.sub(lambda m: _COMMANDS[m.group()], text)


def plain_latex(text: str) -> str:
    r"""LaTeX with one command for each sign: blanks, sizes, fractions, products, ``\%`` and digits in groups alike."""
    if "\\" not in text and "~" not in text and "{" not in text:
        return text
    text = _GROUPS.sub(lambda m: re.sub(r"\D", "", m.group()), text)
    for pattern, replacement in _LAYOUT:
        text = pattern.sub(replacement, text)
    return text


def without_wording(text: str) -> str:
    r"""``\text{even}`` as ``even``: one letter keeps to its neighbor, words get blanks."""
    for _ in range(3):
        replaced = _WORDING.sub(lambda m: m.group(1) if len(m.group(1)) == 1 else f" {m.group(1)} ", text)
        if replaced == text:
            return text
        text = replaced
    return text
