r"""Finding the final answer in a response.

Three readings, each more lenient than the one before: a box (``strict_answer``), a phrase that announces the answer
(``announced_answer``, the paper's presence rule), the last number in the text (``flexible_answer``). What a model thinks between
``<think>`` and ``</think>`` is not part of its response.
"""

import re
from fractions import Fraction

from scalequest.answers.exact import exact_value
from scalequest.answers.thoughts import without_thoughts
from scalequest.signs import plain, plain_latex, spoken_signs

# Where an answer is announced without a box. The paper's rule: "boxed", "he answer is" or "final answer is" must occur. "####" is
# GSM8K's mark; a Markdown heading looks the same, so what follows has to be an answer by itself.
_ANNOUNCED = re.compile(
    r"answers?\s*(?:(?P<phrase>is\b|are\b|equals\b|=)(?!\s+not\b)[\s:=]*|(?P<label>:|\s[-\u2013\u2014](?=\s))[\s:]*|(?P<heading>\n)\s*)|(?<!#)(?P<mark>#{4})(?!#)[ \t]*",
    re.IGNORECASE,
)
# Every form begins with its sign, and what is before it is looked at after it: so a search jumps from sign to sign.
_EMPHASIS = re.compile(
    r"\*\*(?!\d)|\*\*(?<!\d\*\*)|__(?<![\w\\{]__)(?=\w)|__(?<=\w__)(?!\w)|`|\*(?<![\w*\\]\*)(?=answer|final)|\*(?<=answer\*)",
    re.IGNORECASE,
)
# A minus between two numbers is an operator: the last number of "10-5" is 5.
_SIGN = r"(?:(?<![\d)}A-Za-z])-\s?(?:\\?[$\u20ac\u00a3])?)?"
_DIGITS = (
    r"(?:\d{1,3}(?:(?:,\d{3})+|(?: \d{3})+|(?:,?\\[,!:; ]\d{3})+|(?:\{,\}\d{3})+)(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)"
)
_FRACTION = r"\\[dtc]?frac\s*(?:\{-?\d+\}\s*\{\d+\}|\d\d)"
_NUMBER_TEXT = (
    rf"{_SIGN}(?:\d+ \d+/\d+|(?:\d+\s*)?{_FRACTION}|{_DIGITS}(?:/\d+(?:\.\d+)?|\^\{{?-?\d+\}}?|[eE][-+]\d+(?![\w.]*\w))?)"
    r"(?:\s*(?:[\u00d7*xX]|\\times|\\cdot)\s*10\s*\^\s*\{?-?\d+\}?)?(?:\s?\\?%|\s+(?:hundred|thousand|million|billion|trillion)\b)?"
)
_NUMBER = re.compile(rf"(?=[-\d.\\]){_NUMBER_TEXT}")  # only to be quicker: no number begins otherwise
# Before a minus that a blank separates from its number: elsewhere it is a dash, as in "the total - 5 apples".
_BEFORE_A_SIGN = ("", "\n", "=", "(", "[", "{", ",", ":", "<", ">", "$", "*", "/")
# An announced formula in plain signs, taken whole: 144/2, 10-5, 2024-05-12, 2\u03c0, x\u00b2 + 1,
# "3, 4 and 5", "x = 1 and y = 2", "x > 3", "2 \\pi". It ends before the first word, and a letter belongs to it only
# where a sign or a bracket follows.
_OPERATOR = r"\s*(?:\*\*|[-+*/^\u00d7\u00f7\u00b7:\u222a\u2229]|\\(?:times|cdot|div|cup|cap)(?![A-Za-z])|\u00b1|\\pm)\s*|(?<=%)\s+of\s+(?=[\d$])|(?<=\d)\s*[xX]\s*(?=\d)"
_BRACKETED = r"\((?:[^()\n]|\([^()\n]*\))*\)|\{[^{}\n]*\}|\[[^\[\]\n]*\]|\|[^|\n]*\|"
_COMMAND = r"\\[A-Za-z]+(?:\{(?:[^{}\n]|\{[^{}\n]*\})*\})*"
_LETTER = r"[A-Za-z](?![A-Za-z'])(?=\s*(?:[-+*/^=,)|\d(_\\\u00b2\u00b3<>\u2264\u2265\u2260\u2208]|\.?\s*$))"
_FUNCTION = r"(?:sqrt|pi|ln|log|sin|cos|tan)(?![A-Za-z])"
_ATOM = (
    rf"(?:\\?[$\u20ac\u00a3])?(?:\d{{1,3}}(?:(?: |\\[,!:; ]|\{{,\}})\d{{3}})+(?!\d)|\d+ \d+/\d+|{_DIGITS}(?:e[+-]?\d+)?)"
    rf"(?:\s?\\?%|\s+(?:hundred|thousand|million|billion|trillion)\b)?"
    rf"|{_BRACKETED}|{_COMMAND}|{_FUNCTION}|{_LETTER}|[\u03b1-\u03c9\u221e]|\u221a\s*"
)
_POWER = r"(?:\^\{[^{}\n]*\}|_\{[^{}\n]*\}|_\w|[\u00b2\u00b3\u00b9\u2070-\u207f]+|!)"
_FACTOR = r"\s+(?=(?:\\?pi|\\sqrt|sqrt(?=[({\d])|\\[dt]?frac)(?![A-Za-z]))"  # 2 \pi, 137 \frac{1}{2}
_SIGNS = r"(?:[-+\u00b1]|\\pm(?![A-Za-z]))"
_EXPRESSION = rf"{_SIGNS}?\s?(?:{_ATOM})(?:{_POWER}|{_ATOM}|{_FACTOR}(?:{_ATOM})|(?:{_OPERATOR})[-+]?(?:{_ATOM}))*+"
_COMPARES = r"\s*(?:<(?!\||/?[A-Za-z]+>)=?|>=?|[\u2264\u2265\u2260\u2208]|\\(?:leq?|geq?|neq?|lt|gt|in)(?![A-Za-z]))\s*"
_STATEMENT = rf"{_EXPRESSION}(?:(?:{_COMPARES}{_EXPRESSION})++|(?:\s*=\s*{_EXPRESSION})*+)"
_MATHEMATICS = re.compile(rf"{_STATEMENT}(?:(?:\s*[,;]\s*(?:and\s+|or\s+)?|\s+(?:and|or)\s+){_STATEMENT})*+")
_RELATION = re.compile(_COMPARES)
_PARTS = re.compile(r"\s*(?:[,;]|\b(?:and|or)\b)\s*")
_SEVERAL = re.compile(r"[,;]\s|\s(?:and|or)\s")
_MONEY = re.compile(r"\\?[$\u20ac\u00a3](?=\s?[\d.])")
# "2 + 3 = 5" and "x = 5" end in the answer; "x + y = 5" is one.
_NAMES_A_VALUE = re.compile(
    r"\s*[A-Za-z](?:_\w+|_\{[^{}]*\})?\s*|(?:\\(?:times|cdot|div|frac)|of\b|(?<=[\d ])[xX](?=[\d ])|[^A-Za-z\\])+"
)
# A quantity in a unit and a smaller one, and one in cents: 3 hours 20 minutes, 50 cents. Nothing follows in its sentence.
_IN_TWO_UNITS = "|".join(
    rf"(?:{large})\b,?\s+(?:and\s+)?{_DIGITS}\s*(?:{small})\b"
    for large, small in (
        ("years?", "months?|weeks?|days?"),
        ("weeks?", "days?"),
        ("days?", "hours?"),
        ("hours?|hrs?", "minutes?|mins?"),
        ("minutes?|mins?", "seconds?|secs?"),
        ("yards?|feet|foot|ft", "feet|foot|inch(?:es)?|in"),
        ("pounds?|lbs?", "ounces?|oz"),
        ("kilometers?|km", "meters?|m"),
        ("meters?|m", "centimeters?|cm"),
        ("kilograms?|kg", "grams?|g"),
        ("dollars?", "cents?"),
    )
)
_COMPOUND = re.compile(rf"({_DIGITS}\s*(?:{_IN_TWO_UNITS}|cents?\b|\u00a2))\s*(?:[.;!)]|$)", re.IGNORECASE)
_NAME_AND_EQUALS = re.compile(r"^[A-Za-z](?:_\w+)?\s*=\s*(?=[$\\])")
# An announced formula or tuple, taken whole: of "$\frac{3}{4}$" the first number would be 3.
_FORMULA = re.compile(
    r"\$\$\s*(.+?)\s*\$\$|\\\[\s*(.+?)\s*\\\]|\$(?!\s*[\d.,]+\s+[a-z]{2,})((?:\\\$|[^$\n])*(?:\\\$|[^$\s]))\s*\$(?!\d)|\\\((.+?)\\\)|(\([^()\n]*,[^()\n]*\))(?!\s*(?:\\cup|\\cap|[\u222a\u2229]))",
    re.DOTALL,
)
_NEXT_FORMULA = re.compile(r"\s*(?:[,;]\s*(?:and\s+|or\s+)?|(?:and|or)\s+)(?=[$\\(])")
_FORMULA_ENDS = re.compile(r"\s*(?:[.;!?)\n]|,\s|$)")
# What an answer that stands alone in its line looks like: a number with its unit, a formula, a letter, yes or no.
_ALONE = re.compile(
    rf"(?:[$\u20ac\u00a3]|\\\$)?\s*{_NUMBER_TEXT}(?:\s*[a-z\u00b0\u20ac$][\w\s/^\u00b0.-]*)?|[-+\u00b1]?\s*[$\\(\[{{].*|[-+\u00b1\d].*=.*|[A-Za-z]\s*(?:[=<>\u2264\u2265\u2208]|\\(?:in|leq?|geq?|lt|gt)(?![A-Za-z])).*"
    r"|\(?[A-Za-z]\)?|(?:yes|no|true|false|none|even|odd)",
    re.IGNORECASE,
)
_HEADING_NUMBER = re.compile(r"\d+[.)]\s+\S|\d+\s+[A-Z][a-z]")

# "The answer is obvious": it speaks of the answer and gives none.
ABOUT_THE_ANSWER = re.compile(
    r"(?:(?:quite|very|so|also|really|fairly|pretty|now|rather|then|therefore|thus|just|simply|not|too|indeed|as|already)\s+)*+"
    r"(?:(?:obvious|obviously|evident|self-evident|apparent|surprising|interesting|important|ready|clear|clearly|simple|easy|trivial|straightforward|hard|difficult|tricky|complicated|known|unknown|unclear|"
    r"uncertain|correct|incorrect|right|wrong|given|found|shown|obtained|calculated|computed|determined|derived|based|follows|below|above|"
    r"here|there)(?=\s*(?:[.,;:!?]|$)|\s+(?:to|from|by|that|in|as|on|and|because|since|but|for|with|enough|now|here|below|above|at|when|if)\b)"
    r"|(?:this|these)\s*:?$|yet to\b|an? (?:[a-z]+ )?(?:number|integer|fraction|decimal|value|word|formula)$"
    r"|(?:what|that|when|if|because|how|why|where|whatever|going to|up to|left to|in the)\b"
    r"|the (?:same|number|sum|product|difference|quotient|total|value|result|amount|one|following|answer)\b)",
    re.IGNORECASE,
)
_YES_OR_NO = re.compile(r"(yes|no|true|false)\s*[,;:]", re.IGNORECASE)
# A calculation in words; its value comes after "which is", "so" and the like, or not at all.
_WORKED_OUT = re.compile(
    r"\b(?:sum|product|difference|quotient|half|twice|double|adding|subtracting|multiplying|dividing|counting|added|subtracted)\b"
    r"|\d\s+(?:[a-z]+\s+){0,2}(?:(?:more|less|fewer|greater|larger|smaller)\s+than|times|plus|minus|(?:multiplied|divided)\s+by)\s+[$\\]?\d",
    re.IGNORECASE,
)
_CONCLUDES = re.compile(
    r"(?:\b(?:which|that|this|it)(?:['\u2019]s|\s+(?:is|equals|gives|makes|comes\s+to|means|leaves))|\bi\.?\s?e\.?|\b(?:or|so|thus|giving|making|"
    r"namely|equals|yields|is|gives|get|gets|leaving)\b|[:=])[\s,:=]*+(?:(?:it|we|equal|exactly|just|about|simply|is|get|to|the|answer|total)\s+)*+",
    re.IGNORECASE,
)
# After a concluded number: its unit, then the clause ends. "Which is 3 more than 9" concludes nothing.
_CLAUSE_ENDS = re.compile(
    r"(?:\s+(?!(?:more|less|fewer|greater|larger|smaller|times|than|of|plus|minus|and|or|from|to|by)\b)[a-z]+){0,3}+\s*(?:[.!;,)$]|$)",
    re.IGNORECASE,
)
_ABOUT_SO_MUCH = re.compile(
    r"(?:about|approximately|around|roughly|exactly|just|only|nearly|almost|at most|at least)\s", re.IGNORECASE
)
_BETWEEN = re.compile(rf"(?:between\s+{_DIGITS}\s+and|(?:from\s+)?{_DIGITS}\s+to)\s+{_DIGITS}", re.IGNORECASE)

_BOX = re.compile(r"\\(?:boxed|fbox|framebox)(?![A-Za-z])(?:\s*\{|\s*(?=[^\s{]))|[{}]")
# A box without braces: TeX takes one sign; MATH's solutions mean everything up to the dollar sign.
_TO_THE_DOLLAR = re.compile(
    r"((?:[^$\n{}\\A-Za-z]|\\(?:[A-Za-z]+|[{},;:!%])|(?<![A-Za-z\\])[A-Za-z]{1,2}(?![A-Za-z])|\{(?:[^{}$\n]|\{[^{}$\n]*\})*\}){1,60}+)(?:\$|\\[)\]])"
)
_GROUP = r"\{(?:[^{}\n]|\{(?:[^{}\n]|\{[^{}\n]*\})*\})*\}"
_ONE_ITEM = re.compile(
    rf"-?\s*{_DIGITS}(?:/\d+|\s?\\?%)?|-?\s*\\[dtc]?(?:frac|binom)\s*(?:{_GROUP}|\d|\\[A-Za-z]+)\s*(?:{_GROUP}|\d|[A-Za-z]|\\[A-Za-z]+)"
    rf"|\\left\s*(?:[(\[|]|\\\{{)[^$\n]*?\\right\s*(?:[)\]|]|\\\}})|\\\{{[^{{}}\n]*\\\}}|\([^()\n]*\)|\[[^\[\]\n]*\]"
    rf"|-?\s*\\sqrt\s*(?:\[\d+\])?\s*(?:{_GROUP}|\d|[A-Za-z])|-?\s*\\[A-Za-z]+(?:\s*{_GROUP})*|-?[A-Za-z](?![A-Za-z]{{2}})"
)


def boxed(text: str) -> str | None:
    r"""Content of the last complete box: ``\boxed{...}``, ``\fbox{...}`` or ``\boxed 2``; None without one.

    Braces are balanced. A box with nothing in it counts only where there is no other: a text may name the form that it was
    asked for. One pass, however long the text.
    """
    opened: list[tuple[int, bool]] = []  # where each open brace's content starts, and whether it is a box
    start, end = -1, -1
    for brace in _BOX.finditer(text):
        sign = brace.group()
        if sign == "}":
            if opened:
                content, is_box = opened.pop()
                if is_box and content > start and (start < 0 or text[content : brace.start()].strip()):
                    start, end = content, brace.start()
        elif sign.endswith("{"):
            opened.append((brace.end(), sign != "{"))
        elif item := (_TO_THE_DOLLAR.match(text, brace.end()) or _ONE_ITEM.match(text, brace.end())):
            start, end = item.span(1 if item.re is _TO_THE_DOLLAR else 0)
    return text[start:end].strip() if start >= 0 else None


def strict_answer(text: str) -> str | None:
    """The answer in the form that the prompt asks for: in a box, not empty."""
    return boxed(without_thoughts(text)) or None


def announced_answer(text: str) -> str | None:
    """The paper's presence rule: a box, or a phrase that announces the answer; None without either or with nothing in it.

    The last box counts, else the last phrase that an answer follows.
    """
    response = without_thoughts(text)
    return boxed(response) or _last_announced(_plain(response))


def flexible_answer(text: str) -> str | None:
    """The announced answer, else the last number in the text; None if there is no number either."""
    response = without_thoughts(text)
    if found := boxed(response):
        return found
    response = _plain(response)
    return _last_announced(response) or _last_number(response)


def _plain(response: str) -> str:
    """A response without emphasis, in plain signs."""
    return spoken_signs(plain(_EMPHASIS.sub("", response)))


def _last_announced(text: str) -> str | None:
    """What the last phrase of a plain text announces that an answer follows."""
    for announcement in reversed(list(_ANNOUNCED.finditer(text))):
        if answer := _announced_by(announcement, text[announcement.end() :]):
            return answer
    return None


def _last_number(text: str) -> str | None:
    """The last number of a plain text, with the sign that belongs to it."""
    numbers = list(_NUMBER.finditer(text))
    if not numbers:
        return None
    last = numbers[-1]
    number = _MONEY.sub("", last.group()).strip()
    if re.match(r"-\s", number) and text[: last.start()].rstrip(" \t")[-1:] not in _BEFORE_A_SIGN:
        number = number[1:].strip()
    return number


def _announced_by(announcement: "re.Match[str]", rest: str) -> str | None:
    """The answer that an announcement is followed by, if it is."""
    # "-$\frac{1}{2}$": the sign is a part of the formula.
    signed = re.sub(r"^-\s*(\$|\\\()", r"\1-", rest)
    for text in (signed, rest):
        if (formula := _FORMULA.match(text)) and "\\boxed" not in formula.group():
            return _formulas(formula, text)
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


def _formulas(first: "re.Match[str]", text: str) -> str | None:
    """A formula, with those that a list goes on with: ``x=1, x=-4`` of ``$x=1$ and $x=-4$``."""
    found, end = [_formula(first)], first.end()
    while (mark := _NEXT_FORMULA.match(text, end)) and (formula := _FORMULA.match(text, mark.end())):
        if formula[0].startswith("(") and re.search(r"[A-Za-z]{2}", formula[0]):  # a remark: (3 per box, 4 boxes)
            break
        found.append(_formula(formula))
        end = formula.end()
    if len(found) == 1 or not _FORMULA_ENDS.match(text, end):  # "$3$ and $4$ is too large" goes on with a sentence
        return found[0]
    # One value may be given in two forms: "$\frac{1}{2}$, or $0.5$".
    distinct = {_value_of(formula): formula for formula in reversed(found) if formula}
    return ", ".join(reversed(distinct.values())) or None


def _value_of(formula: str) -> Fraction | str:
    """The number that a formula is; itself where it is none."""
    value = exact_value(plain_latex(re.sub(r"^[A-Za-z]\s*=(?!=)", "", formula)))
    return formula if value is None else value


def _formula(match: "re.Match[str]") -> str | None:
    text = re.sub(r"\s+", " ", next(filter(None, match.groups()))).strip().rstrip(".").strip()
    return text.removeprefix("\\$").strip() or None


def _answer_in(line: str) -> str | None:
    """The answer at the start of a line: behind its equals sign, a formula or a list of them, a number, else words."""
    line = _NAME_AND_EQUALS.sub("", line)
    if found := _BETWEEN.match(line):
        return found.group()
    if found := _COMPOUND.match(line):
        return re.sub(r",?\s+(?:and\s+)?", " ", found[1])
    if _WORKED_OUT.search(re.split(r"\.(?:\s|$)|\b(?:since|because|as|for)\b|, which", line)[0]):
        return _concluded(line)
    found = _MATHEMATICS.match(line)
    words_first = line[:1].isalpha() and not (found and _is_mathematics(found.group()))
    if (
        words_first
        and not _ABOUT_SO_MUCH.match(line)
        and len(_NUMBER.findall(line)) > 1
        and (value := _concluded(line))
    ):
        return value
    text = _MONEY.sub("", found.group()).strip() if found else ""
    if (relation := _RELATION.search(text)) and not re.search(r"(?<!\\)\b[A-Za-z]", text):  # "5 > 3, so yes"
        text = text[: relation.start()]
    elif relation and _is_mathematics(text):
        # "x > 3, so the smallest is 4"; "x = 5 and x > 0" says 5 and of what kind it is.
        if concluded := _concluded(line[found.end() :] if found else ""):
            return concluded
        values = [part for part in _PARTS.split(text) if "=" in part and not _RELATION.search(part)]
        if not values:
            return text
        text = ", ".join(values)
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
    if number := _NUMBER.search(line):
        return _MONEY.sub("", number.group()).strip() or None
    words = line.split(". ")[0].strip().rstrip(".")
    if verdict := _YES_OR_NO.match(words):
        return verdict[1]
    return None if ABOUT_THE_ANSWER.match(words) else words or None


def _concluded(line: str) -> str | None:
    """The value that the first sentence of a line comes to: 7 in "the sum of 3 and 4, which is 7"; None without one."""
    value = None
    sentence = re.split(r"\.(?:\s|$)", line)[0]
    for mark in _CONCLUDES.finditer(sentence):
        found = _FORMULA.match(sentence, mark.end()) or _MATHEMATICS.match(sentence, mark.end())
        if found and _CLAUSE_ENDS.match(sentence, found.end()) and (text := _MONEY.sub("", found.group()).strip("$ ")):
            value = text if _is_mathematics(text) else value
    return value


def _is_mathematics(text: str) -> bool:
    """Whether a formula is more than a word or a letter."""
    return bool(re.search("[\\d\u03b1-\u03c9\u221e\u221a=]|\\bpi\\b|\\w\\s*[-+*/^]\\s*\\w", text))
