r"""One notation for answers: Unicode, LaTeX and plain spellings of the same signs become the same text.

``−5`` is ``-5``, ``\dfrac12`` is ``\frac{1}{2}``, ``1\,000`` is ``1000``, ``3 \times 4`` is ``3*4``. The meaning of an answer is not
looked at here; ``compare`` does that.
"""

import re
import unicodedata

_SIGNS = {
    **dict.fromkeys("\u2212\u2010\u2011\u2012\u2013\u207b\ufe63\uff0d", "-"),  # minus, hyphens, en dash
    **dict.fromkeys("\u00d7\u2217\u22c5\u00b7\u2219", " \\times "),
    **dict.fromkeys("\u00f7\u2215\u2044", "/"),
    "\u2236": ":", "\u221e": "\\infty ", "\u03c0": "\\pi ", "\u03b8": "\\theta ", "\u221a": "\\sqrt ", "\u00b0": "^\\circ ",
    "\u2264": "\\le ", "\u2265": "\\ge ", "\u2260": "\\ne ", "\u222a": "\\cup ", "\u2229": "\\cap ", "\u2208": "\\in ",
    "\u00b1": "\\pm ", "\u2205": "\\emptyset ", "\u211d": "\\mathbb{R}", "\u2032": "'", "\u2019": "'",
}  # fmt: skip
_SIGN = re.compile("|".join(map(re.escape, _SIGNS)))
_SUPERSCRIPTS = str.maketrans(
    "\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079\u207a\u207b\u207f", "0123456789+-n"
)
_SUPERSCRIPT = re.compile("[\u2070\u00b9\u00b2\u00b3\u2074-\u2079\u207a\u207b\u207f]+")
_SUBSCRIPTS = str.maketrans("\u2080\u2081\u2082\u2083\u2084\u2085\u2086\u2087\u2088\u2089", "0123456789")
_SUBSCRIPT = re.compile("[\u2080-\u2089]+")

_BLANK_COMMAND = re.compile(
    r"\\(?:[,;:> ~]|(?:quad|qquad|thinspace|enspace|space|displaystyle|textstyle|limits)(?![A-Za-z]))|~"
)
_SIZE = re.compile(r"\\(?:left|right)\s*\.|\\(?:left|right|[bB]igg?[lrm]?)(?![A-Za-z])")
_WORDING = re.compile(
    r"\\(?:text(?:bf|it|rm|sf|tt|normal)?|mathrm|mathbf|mathit|mathsf|mbox|hbox|operatorname\*?)\s*\{([^{}]*)\}"
)
# One letter in \text{} after a number is a unit, as in 5\text{ m}; anywhere else it is a name.
_LETTER_UNIT = re.compile(
    r"(?<=[\d})])\s*\\(?:text(?:rm)?|mathrm|mbox)\s*\{\s*([mgLlshNJWKCF])\s*\}|(?<=\d)\s*\^\{?\s*\\circ\s*\}?\s*([CF])\b"
)
_UNITS_OF_A_LETTER = {
    "m": "meter", "g": "gram", "L": "liter", "l": "liter", "s": "second", "h": "hour", "N": "newton", "J": "joule",
    "W": "watt", "K": "kelvin", "C": "celsius", "F": "fahrenheit",
}  # fmt: skip
_COMMANDS = (
    (re.compile(r"\\[dtc]frac(?![A-Za-z])"), r"\\frac"),
    (re.compile(r"\\[dt]binom(?![A-Za-z])"), r"\\binom"),
    (re.compile(r"\\leq(?:slant)?(?![A-Za-z])|<="), r"\\le "),
    (re.compile(r"\\geq(?:slant)?(?![A-Za-z])|>="), r"\\ge "),
    (re.compile(r"\\(?:neq)(?![A-Za-z])|!="), r"\\ne "),
    (re.compile(r"\\(?:varnothing)(?![A-Za-z])"), r"\\emptyset "),
    (re.compile(r"\\(?:cdot|times|ast)(?![A-Za-z])\s*"), "*"),
    (re.compile(r"\*\*"), "^"),
    (re.compile(r"\\div(?![A-Za-z])\s*"), "/"),
    (re.compile(r"\\lvert|\\rvert|\\vert(?![A-Za-z])"), "|"),
    (re.compile(r"\\imath(?![A-Za-z])"), "i"),
    (re.compile(r"\\(?:lbrace)(?![A-Za-z])"), r"\\{"),
    (re.compile(r"\\(?:rbrace)(?![A-Za-z])"), r"\\}"),
    (re.compile(r"\s*(?:\^\s*\{\s*\\circ\s*\}|\^\s*\\circ(?![A-Za-z])|\\degrees?(?![A-Za-z]))\s*"), " degree "),
    (re.compile(r"\\%"), "%"),
    (re.compile(r"\s*\b(?:percent|per cent)\b"), "%"),
    (re.compile(r"\\#"), "#"),
    (re.compile(r"\\&"), "&"),
    # Functions without their backslash. A name such as `pin` is none.
    (re.compile(r"(?<![\\A-Za-z])sqrt\s*\(([^()]*)\)"), r"\\sqrt{\1}"),
    (re.compile(r"(?<![\\A-Za-z])(sqrt|pi|ln|log|sin|cos|tan|cot|sec|csc|arcsin|arccos|arctan)(?![A-Za-z])"), r"\\\1 "),
)
# \frac12, \frac\pi4, \frac{1}2 and \sqrt2: an argument is one sign or one command.
_ONE = r"\s*([A-Za-z0-9]|\\[A-Za-z]+(?![A-Za-z{]))"
_BRACED = r"(\{(?:[^{}]|\{(?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*\})*\})"
_FIRST_ARGUMENT = re.compile(r"\\(frac|binom)(?![A-Za-z])" + _ONE)
_SECOND_ARGUMENT = re.compile(r"\\(frac|binom)\s*" + _BRACED + _ONE)
_ROOT = re.compile(r"\\sqrt\s*([A-Za-z0-9]|\\[A-Za-z]+(?![A-Za-z{]))")
_THOUSANDS = re.compile(r"(?<![\w.,])(\d{1,3})((?:,\d{3})+|(?: \d{3})+)(?![\d]|,\d)")
_BRACED_COMMA = re.compile(r"(\d)\s*\{,\s*\}\s*(?=\d{3}(?!\d))")
_COMMA_THIN = re.compile(r"(?<=\d),\s*(?:\\[!,;:]\s*)+(?=\d{3}(?!\d))")
_ROW = "\x00"
_BRACKETS = re.compile(r"[()\[\]]|\\[{}]")


def clean(answer: str) -> str:
    """An answer in the one notation: signs, commands and blanks alike, no dollars around, no blank that means nothing.

    Blanks between two digits or letters stay: ``1 1/2`` is not ``11/2``. A comma between groups of three digits goes, outside of
    brackets, where it separates.
    """
    text = _from_unicode(answer)
    text = text.replace("\\\\", _ROW)  # the end of a matrix row, so that its second backslash starts no command
    text = _BRACED_COMMA.sub(r"\1", _COMMA_THIN.sub("", text))
    text = _BLANK_COMMAND.sub(" ", text.replace("\\!", "").replace("\\\n", " "))
    text = re.sub(r"\\hspace\*?\{[^{}]*\}", " ", text)
    text = _SIZE.sub("", text)
    text = _LETTER_UNIT.sub(lambda m: f" {_UNITS_OF_A_LETTER[m.group(1) or m.group(2)]} ", text)
    text = _without_wording(text)
    text = _without_dollars(text)
    for pattern, replacement in _COMMANDS:
        text = pattern.sub(replacement, text)
    text = _FIRST_ARGUMENT.sub(r"\\\1{\2}", text)
    for _ in range(4):  # a fraction in a fraction
        text = _SECOND_ARGUMENT.sub(r"\\\1\2{\3}", text)
    text = re.sub(r"_([A-Za-z0-9])", r"_{\1}", text)  # or the 2 of \log_2 8 stands beside the 8
    text = _ROOT.sub(r"\\sqrt{\1}", text)
    text = re.sub(r"\s+", " ", text).strip()
    if not _BRACKETS.search(text):
        text = _THOUSANDS.sub(lambda m: m.group(1) + re.sub("[, ]", "", m.group(2)), text)
    else:
        text = re.sub(
            r"(?<![\w.,])(\d{1,3})((?: \d{3})+)(?!\d)", lambda m: m.group(1) + m.group(2).replace(" ", ""), text
        )
    text = re.sub(r"(?<![A-Za-z0-9.}%]) | (?![A-Za-z0-9.\\{(])", "", text)
    text = re.sub(r"(?<=[(\[{,;=*/^+<>|-]) ", "", text)
    while text.endswith((".", ",", ";", ":")) and not text.endswith("\\,"):
        text = text[:-1].rstrip()
    return text.removeprefix("=").replace(_ROW, "\\\\").strip()


def _from_unicode(text: str) -> str:
    """Plain signs for Unicode's: minus signs, powers, fractions, full-width digits; invisible signs go."""
    text = "".join(c for c in text if unicodedata.category(c) != "Cf")
    text = _SUPERSCRIPT.sub(lambda m: "^{" + m.group().translate(_SUPERSCRIPTS) + "}", text)
    text = _SUBSCRIPT.sub(lambda m: "_{" + m.group().translate(_SUBSCRIPTS) + "}", text)
    # A fraction sign after a digit makes a mixed number: 1\u00bd is 1 1/2.
    text = "".join(" " + c if unicodedata.decomposition(c).startswith("<fraction>") else c for c in text)
    return _SIGN.sub(
        lambda m: _SIGNS[m.group()], unicodedata.normalize("NFKC", _SIGN.sub(lambda m: _SIGNS[m.group()], text))
    )


def _without_wording(text: str) -> str:
    r"""``\text{even}`` is ``even``; one letter keeps to what it stands beside, words get blanks."""
    for _ in range(3):
        replaced = _WORDING.sub(lambda m: m.group(1) if len(m.group(1)) == 1 else f" {m.group(1)} ", text)
        if replaced == text:
            return text
        text = replaced
    return text


def _without_dollars(text: str) -> str:
    """Math signs go; a dollar sign that is money becomes the unit ``dollar``."""
    text = re.sub(r"\\[()\[\]]|\$\$", " ", text)
    money = bool(re.search(r"\\\$\s*-?[\d.]|-\s*\\\$", text))
    bare = text.replace("\\$", "")
    if bare.count("$") == 1 and re.search(r"\$\s*-?[\d.]", bare):
        money = True
    text = bare.replace("$", " ")
    return f"{text.rstrip('. ')} dollar" if money and not re.search(r"\bdollars?\b|\bUSD\b", text) else text
