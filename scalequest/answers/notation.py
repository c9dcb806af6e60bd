r"""One notation for answers: Unicode, LaTeX and plain spellings of the same signs become the same text.

``−5`` is ``-5``, ``\dfrac12`` is ``\frac{1}{2}``, ``1\,000`` is ``1000``, ``3 \times 4`` is
``3*4``. The meaning of an answer is not looked at here; ``compare`` does that.
"""

import re
from functools import lru_cache

from scalequest.answers.units import LETTER_UNITS
from scalequest.signs import plain, plain_latex, spoken_signs, with_commands, without_wording

# One letter in \text{} after a number is a unit, as in 5\text{ m}; anywhere else it is a name.
_LETTER_UNIT = re.compile(
    r"(?<=[\d})])\s*\\(?:text(?:rm)?|mathrm|mbox)\s*\{\s*([mgLlshNJWKCF])\s*\}|(?<=\d)\s*\^\{?\s*\\circ\s*\}?\s*([CF])\b"
)
_COMMANDS = (
    (re.compile(r"\\leq(?:slant)?(?![A-Za-z])|<="), r"\\le "),
    (re.compile(r"\\geq(?:slant)?(?![A-Za-z])|>="), r"\\ge "),
    (re.compile(r"\\(?:neq)(?![A-Za-z])|!="), r"\\ne "),
    (re.compile(r"\\(?:varnothing)(?![A-Za-z])"), r"\\emptyset "),
    (re.compile(r"\*\*"), "^"),
    (re.compile(r"\\lvert|\\rvert|\\vert(?![A-Za-z])"), "|"),
    (re.compile(r"\\imath(?![A-Za-z])"), "i"),
    (re.compile(r"\\(?:lbrace)(?![A-Za-z])"), r"\\{"),
    (re.compile(r"\\(?:rbrace)(?![A-Za-z])"), r"\\}"),
    (re.compile(r"\s*(?:\^\s*\{\s*\\circ\s*\}|\^\s*\\circ(?![A-Za-z])|\\degrees?(?![A-Za-z]))\s*"), " degree "),
    (re.compile(r"\s*\b(?:percent|per cent)\b"), "%"),
    (re.compile(r"\\#"), "#"),
    (re.compile(r"\\&"), "&"),
    # Functions without their backslash. A name such as `pin` is none.
    (re.compile(r"(?<![\\A-Za-z])sqrt\s*\(([^()]*)\)"), r"\\sqrt{\1}"),
    (re.compile(r"(?<![\\A-Za-z])(sqrt|pi|ln|log|sin|cos|tan|cot|sec|csc|arcsin|arccos|arctan)(?![A-Za-z])"), r"\\\1 "),
)
_ROOT = re.compile(r"\\sqrt\s*([A-Za-z0-9]|\\[A-Za-z]+(?![A-Za-z{]))")
# Groups of three digits. Within brackets a comma separates.
_GROUPS_BY_BLANKS = re.compile(r"(?<![\w.,])\d{1,3}(?: \d{3})+(?!\d)")
_GROUPS_BY_EITHER = re.compile(r"(?<![\w.,])\d{1,3}(?:(?:,\d{3})+|(?: \d{3})+)(?!\d|,\d)")
# Answers whose notation is kept: each of a question's n is compared with several others.
REMEMBERED = 1 << 14
_ROW = "\x00"
_BRACKETS = re.compile(r"[()\[\]]|\\[{}]")


@lru_cache(REMEMBERED)
def clean(answer: str) -> str:
    """An answer in the one notation: signs, commands and blanks alike, no dollars around, no blank that means nothing.

    Blanks between two digits or letters stay: ``1 1/2`` is not ``11/2``. A comma between groups of three digits goes, outside of
    brackets, where it separates.
    """
    text = with_commands(plain(answer))
    text = text.replace("\\\\", _ROW)  # the end of a matrix row, so that its second backslash starts no command
    text = _LETTER_UNIT.sub(lambda m: f" {LETTER_UNITS[m.group(1) or m.group(2)]} ", text)
    text = _without_dollars(spoken_signs(without_wording(plain_latex(text))))
    for pattern, replacement in _COMMANDS:
        text = pattern.sub(replacement, text)
    text = re.sub(r"_([A-Za-z0-9])", r"_{\1}", text)  # or the 2 of \log_2 8 stands beside the 8
    text = _ROOT.sub(r"\\sqrt{\1}", text)
    text = re.sub(r"\s+", " ", text).strip()
    groups = _GROUPS_BY_BLANKS if _BRACKETS.search(text) else _GROUPS_BY_EITHER
    text = groups.sub(lambda m: re.sub("[, ]", "", m.group()), text)
    text = re.sub(r"(?<![A-Za-z0-9.}%]) | (?![A-Za-z0-9.\\{(])", "", text)
    text = re.sub(r"(?<=[(\[{,;=*/^+<>|-]) ", "", text)
    while text.endswith((".", ",", ";", ":")) and not text.endswith("\\,"):
        text = text[:-1].rstrip()
    return text.removeprefix("=").replace(_ROW, "\\\\").strip()


def _without_dollars(text: str) -> str:
    """Math signs go; a dollar sign that is money becomes the unit ``dollar``."""
    text = re.sub(r"\\[()\[\]]|\$\$", " ", text)
    money = bool(re.search(r"\\\$\s*-?[\d.]|-\s*\\\$", text))
    bare = text.replace("\\$", "")
    if bare.count("$") == 1 and re.search(r"\$\s*-?[\d.]", bare):
        money = True
    text = bare.replace("$", " ")
    return f"{text.rstrip('. ')} dollar" if money and not re.search(r"\bdollars?\b|\bUSD\b", text) else text
