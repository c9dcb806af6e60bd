r"""Finding the final answer in a response.

Three readings, each more lenient than the one before: a box (``strict_answer``), a phrase that announces the answer
(``announced_answer``, the paper's presence rule), the last number in the text (``flexible_answer``). What a model thinks between
``<think>`` and ``</think>`` is not part of its response.
"""

import re

from scalequest.answers.thoughts import without_thoughts

# Where an answer is announced without a box. The paper's rule: "boxed", "he answer is" or "final answer is" must occur. "####" is
# GSM8K's mark; a Markdown heading looks the same, so what follows has to be an answer by itself.
_ANNOUNCED = re.compile(
    r"answers?\s*(?:(?P<phrase>is\b|are\b|equals\b|=)(?!\s+not\b)[\s:=]*|(?P<label>:|\s[-\u2013\u2014](?=\s))[\s:]*|(?P<heading>\n)\s*)|(?<!#)(?P<mark>#{4})(?!#)[ \t]*",
    re.IGNORECASE,
)
_EMPHASIS = re.compile(
    r"\*\*(?!\d)|(?<!\d)\*\*|(?<![\w\\{])__(?=\w)|(?<=\w)__(?!\w)|`|(?<![\w*\\])\*(?=answer|final)|(?<=answer)\*", re.I
)
_MINUS = re.compile("[\u2212\u2010\u2011\ufe63\uff0d]|\u2013(?=[\\d.])")

# A minus between two numbers is an operator: the last number of "10-5" is 5.
_SIGN = r"(?:(?<![\d)}A-Za-z])-\s?)?"
_DIGITS = r"(?:\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)"
_NUMBER_TEXT = rf"{_SIGN}(?:\d+ \d+/\d+|{_DIGITS}(?:/\d+(?:\.\d+)?)?)(?:\s?\\?%|\s+(?:hundred|thousand|million|billion|trillion)\b)?"
_NUMBER = re.compile(_NUMBER_TEXT)
# An announced formula in plain signs, taken whole: 144/2, 10-5, 2024-05-12, 2\u03c0, x\u00b2 + 1, "3, 4 and 5", "x = 1 and y = 2". It ends before
# the first word, and a letter belongs to it only where a sign or a bracket follows.
_OPERATOR = r"\s*(?:[-+*/^\u00d7\u00f7\u00b7:]|\\times|\\cdot|\\div|\u00b1|\\pm)\s*|(?<=%)\s+of\s+(?=[\d$])|(?<=\d)\s*[xX]\s*(?=\d)"
_BRACKETED = r"\((?:[^()\n]|\([^()\n]*\))*\)|\{[^{}\n]*\}|\[[^\[\]\n]*\]|\|[^|\n]*\|"
_COMMAND = r"\\[A-Za-z]+(?:\{(?:[^{}\n]|\{[^{}\n]*\})*\})*"
_LETTER = r"[A-Za-z](?![A-Za-z'])(?=\s*(?:[-+*/^=,)|\d(_\\\u00b2\u00b3]|\.?\s*$))"
_FUNCTION = r"(?:sqrt|pi|ln|log|sin|cos|tan)(?![A-Za-z])"
_ATOM = (
    rf"(?:\\?[$\u20ac\u00a3])?(?:\d{{1,3}}(?:(?: |\\,|\{{,\}})\d{{3}})+(?!\d)|\d+ \d+/\d+|{_DIGITS}(?:e[+-]?\d+)?)"
    rf"(?:\s?\\?%|\s+(?:hundred|thousand|million|billion|trillion)\b)?"
    rf"|{_BRACKETED}|{_COMMAND}|{_FUNCTION}|{_LETTER}|[\u03b1-\u03c9\u221e]|\u221a\s*"
)
_POWER = r"(?:\^\{[^{}\n]*\}|_\{[^{}\n]*\}|_\w|[\u00b2\u00b3\u00b9\u2070-\u207f]+|!)"
_EXPRESSION = rf"[-+]?\s?(?:{_ATOM})(?:{_POWER}|{_ATOM}|(?:{_OPERATOR})[-+]?(?:{_ATOM}))*+"
_STATEMENT = rf"{_EXPRESSION}(?:\s*=\s*{_EXPRESSION})*+"
_MATHEMATICS = re.compile(rf"{_STATEMENT}(?:(?:\s*[,;]\s*(?:and\s+|or\s+)?|\s+(?:and|or)\s+){_STATEMENT})*+")
_SEVERAL = re.compile(r"[,;]\s|\s(?:and|or)\s")
_MONEY = re.compile(r"\\?[$\u20ac\u00a3](?=\s?[\d.])")
# "2 + 3 = 5" and "x = 5" end in the answer; "x + y = 5" is one.
_NAMES_A_VALUE = re.compile(
    r"\s*[A-Za-z](?:_\w+|_\{[^{}]*\})?\s*|(?:\\(?:times|cdot|div|frac)|of\b|(?<=[\d ])[xX](?=[\d ])|[^A-Za-z\\])+"
)
_NAME_AND_EQUALS = re.compile(r"^[A-Za-z](?:_\w+)?\s*=\s*(?=[$\\])")
# An announced formula or tuple, taken whole: of "$\frac{3}{4}$" the first number would be 3.
_FORMULA = re.compile(
    r"\$\$\s*(.+?)\s*\$\$|\\\[\s*(.+?)\s*\\\]|\$(?!\s*[\d.,]+\s+[a-z]{2,})([^$\n]*[^$\s])\$|\\\((.+?)\\\)|(\([^()\n]*,[^()\n]*\))",
    re.DOTALL,
)
# What an answer that stands alone in its line looks like: a number with its unit, a formula, a letter, yes or no.
_ALONE = re.compile(
    rf"(?:[$\u20ac\u00a3]|\\\$)?\s*{_NUMBER_TEXT}(?:\s*[a-z\u00b0\u20ac$][\w\s/^\u00b0.-]*)?|[-+]?\s*[$\\(\[{{].*|[-+\d].*=.*|[A-Za-z]\s*=.*"
    r"|\(?[A-Za-z]\)?|(?:yes|no|true|false|none|even|odd)",
    re.IGNORECASE,
)
_HEADING_NUMBER = re.compile(r"\d+[.)]\s+\S|\d+\s+[A-Z][a-z]")

_BOX = re.compile(r"\\(?:boxed|fbox|framebox)(?:\s*\{|\s+(?=[^\s{])|(?=\d))|[{}]")
# A box without braces: TeX takes one sign; MATH's solutions mean everything up to the dollar sign.
_TO_THE_DOLLAR = re.compile(
    r"((?:[^$\n{}\\A-Za-z]|\\[A-Za-z]+|(?<![A-Za-z\\])[A-Za-z]{1,2}(?![A-Za-z])|\{[^{}$\n]*\}){1,60}+)\$"
)
_ONE_ITEM = re.compile(rf"-?{_DIGITS}(?:/\d+)?|\\frac\s*(?:\{{[^{{}}]*\}}\{{[^{{}}]*\}}|\d\d)|\\[A-Za-z]+|[A-Za-z]")


def boxed(text: str) -> str | None:
    r"""Content of the last complete box: ``\boxed{...}``, ``\fbox{...}`` or ``\boxed 2``; None without one.

    Braces are balanced. One pass, however long the text.
    """
    opened: list[tuple[int, bool]] = []  # where each open brace's content starts, and whether it is a box
    start, end = -1, -1
    for brace in _BOX.finditer(text):
        sign = brace.group()
        if sign == "}":
            if opened:
                content, is_box = opened.pop()
                if is_box and content > start:
                    start, end = content, brace.start()
        elif sign.endswith("{"):
            opened.append((brace.end(), sign != "{"))
        elif item := (_TO_THE_DOLLAR.match(text, brace.end()) or _ONE_ITEM.match(text, brace.end())):
            start, end = item.span(item.re.groups and 1)
    return text[start:end].strip() if start >= 0 else None


def strict_answer(text: str) -> str | None:
    """The answer in the form that the prompt asks for: in a box, not empty."""
    return boxed(without_thoughts(text)) or None


def announced_answer(text: str) -> str | None:
    """The paper's presence rule: a box, or a phrase that announces the answer; None without either or with nothing in it.

    The last box counts, else the last phrase that an answer follows.
    """
    if found := strict_answer(text):
        return found
    plain = _plain(text)
    for announcement in reversed(list(_ANNOUNCED.finditer(plain))):
        if answer := _announced_by(announcement, plain[announcement.end() :]):
            return answer
    return None


def flexible_answer(text: str) -> str | None:
    """The announced answer, else the last number in the text; None if there is no number either."""
    if found := announced_answer(text):
        return found
    numbers = _NUMBER.findall(_plain(text))
    return str(numbers[-1]).strip() if numbers else None


def _plain(text: str) -> str:
    """The response without thoughts and emphasis, its minus signs plain."""
    return _MINUS.sub("-", _EMPHASIS.sub("", without_thoughts(text)))


def _announced_by(announcement: "re.Match[str]", rest: str) -> str | None:
    """The answer that an announcement is followed by, if it is."""
    if (formula := _FORMULA.match(rest)) and "\\boxed" not in formula.group():
        return _formula(formula)
    line = rest.split("\n", 1)[0].strip()
    if not line or "\\boxed" in line:  # a box here is an empty or a broken one
        return None
    alone = _ALONE.fullmatch(line.rstrip(". ")) and not _HEADING_NUMBER.match(line)
    if announcement["mark"]:
        return _answer_in(line) if alone else None
    on_a_new_line = "\n" in announcement.group()
    if alone or (announcement["phrase"] and not on_a_new_line):
        return _answer_in(line)
    if announcement["heading"] or on_a_new_line:
        return None
    # "Answer: Tom has 5 apples left." names one number; of several, none is announced.
    numbers = _NUMBER.findall(line)
    return _answer_in(line) if len(numbers) < 2 or not line[:1].isalpha() else None


def _formula(match: "re.Match[str]") -> str | None:
    return re.sub(r"\s+", " ", next(filter(None, match.groups()))).strip().rstrip(".").strip() or None


def _answer_in(line: str) -> str | None:
    """The answer at the start of a line: behind its equals sign, a formula or a list of them, a number, else words."""
    line = _NAME_AND_EQUALS.sub("", line)
    found = _MATHEMATICS.match(line)
    text = _MONEY.sub("", found.group()).strip() if found else ""
    if _is_mathematics(text) and _SEVERAL.search(text):
        return text
    if "=" in text and (left := text.split("=")[0]) and _NAMES_A_VALUE.fullmatch(left):
        text, line = text.rsplit("=", 1)[1].strip(), line[line.index("=", len(left) - 1) + 1 :].strip()
    elif formula := _FORMULA.match(line):
        return _formula(formula)
    elif line.startswith(("\\", "-\\", "[", "(", "{")) and not _MONEY.match(line):
        return re.split(r"\.(?:\s|$)", line)[0].strip() or None  # LaTeX without its dollars, an interval
    if _is_mathematics(text):
        return text
    # "The answer is about 12 dollars.": the first number, else the words up to the sentence's end.
    number = _NUMBER.search(line)
    return (number.group().strip() if number else line.split(". ")[0].strip().rstrip(".")) or None


def _is_mathematics(text: str) -> bool:
    """Whether a formula is more than a word or a letter."""
    return bool(re.search("[\\d\u03b1-\u03c9\u221e\u221a=]|\\bpi\\b|\\w\\s*[-+*/^]\\s*\\w", text))
