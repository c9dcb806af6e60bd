r"""Recompute the arithmetic that a solution writes out: ``3 * 4 = 12``, ``<<48/2=24>>``, ``\frac{1}{2} + \frac{1}{4} = 0.75``.

A *step* is one equals sign with plain numbers on both sides and an operator on at least one: of ``2 + 3 + 4 = 9`` the whole left
side is one value, ``2 + 3 = 5 = 5`` is two signs and one step. What has a variable is left out, and so is what depends on the
meaning of words: sums of different units (``2 hours + 30 minutes``), results in another unit, remainders, ``100 - 20%``,
and the rest of an expression that begins with what is not read (``cost - 5 - 3 = 12``, ``|x| + 3 = 7``).

Rounding: a result with decimals, and any result after an approximate sign, is right if it is off by less than one unit of its
last written digit, so both rounding and cutting pass. A whole number after ``=`` has to be exact.
"""

import re
from dataclasses import dataclass
from fractions import Fraction
from math import factorial

from scalequest.answers.exact import exact_value
from scalequest.answers.notation import clean
from scalequest.signs import plain, plain_latex, spoken_signs, without_wording

# Longer lines are repetitions of a model that has lost its way; their first part says as much.
_MAX_TOKENS = 400
_MAX_SIDE = 60

_NUMBER = r"(?:\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?|\d+\.\d+|\d+|\.\d+)"
# Times, ratios and dates are no numbers to calculate with: "10:00 + 2 hours = 12:00".
_TIME_OR_DATE = r"\d+(?::\d+)+|\d{4}-\d{1,2}-\d{1,2}|\d{1,2}/\d{1,2}/(?:19|20)\d\d|\d{1,2}-\d{1,2}-(?:19|20)\d\d"
# What stands behind a number without a blank, or in capitals, and is no product of variables.
_UNITS = (
    "am|pm|[cdkm]?ms?|[km]?gs?|[cdm]?ls?|ft|in|lbs?|oz|hrs?|mins?|secs?|yds?|mi|mph|km?h|kph|st|nd|rd|th|[kmgt]b|k?wh?|[kmg]?hz|usd|"
    "eur|gbp|cts?|cc|qts?|gal|pcs?|pts?|bce?|ad|ce|bn|mil|deg|rpm|psi|tv|dvd|cd|id|ok|us"
)
_TOKEN = re.compile(
    rf"(?P<time>(?:{_TIME_OR_DATE})(?!\d))"
    rf"|(?P<number>(?:\d+ \d+/\d+(?![\d/])|{_NUMBER})(?:\s?%)?"
    r"|\\frac\{[-\d.]+\}\{[-\d.]+\}|\\sqrt\{\d+\})"
    r"|(?P<variable>\\[A-Za-z]+|[A-Za-z_](?![A-Za-z])|(?:cis|gcd|lcm|max|min|log|ln|sin|cos|tan|exp|sqrt|floor|abs)(?=\s?\())"
    rf"|(?P<product>(?!(?i:{_UNITS})(?![A-Za-z]))(?:(?<=[\d}}])[A-Za-z]{{2,3}}(?![A-Za-z])|[A-Z]{{2}}(?=\s*[-+*/^=)])))"  # 4ac, AB
    rf"|(?P<word>[A-Za-z]+(?:['-][A-Za-z]+)*(?:/[A-Za-z]+)*(?:\^\{{?\d\}}?)?)"
    r"|(?P<operator>[-+*/^])|(?P<bracket>[()])|(?P<equals>=|~)|(?P<other>\S)"
)
_AND_A_FRACTION = re.compile(r"(?<![\d./])(\d+)\s+and\s+(?:an?\s+)?(?=(\d+)/(\d+)(?![\d/]|\s*[*=]))")
_FACTORIAL = re.compile(r"(?<![\d.,])(\d{1,2})!(?=\(|\s*[-+*/^=~)])")
_SCALES = {"dozen": 12, "hundred": 100, "thousand": 1_000, "million": 10**6, "billion": 10**9, "trillion": 10**12}
# Single letters that are words. Any other is a variable.
_WORDS_OF_ONE_LETTER = ("a", "A", "I")
_REMAINDER = ("remainder", "remainders", "r", "R", "mod", "rem")
_CLOCK = {"am", "pm", "o'clock"}
# The largest denominator of a fraction that a text names a share by: "1/4 = 25 students".
_COMMON = 12
# A new expression may follow these signs. After any other the rest of one may follow: "{x}{2} + 3", "\u03b8 + 30".
_PUNCTUATION = frozenset('.,;:!?"')
# Not even a number begins an expression after these: "\\frac{x}{2} 3", "7@4".
_GOES_ON = frozenset("{}\\_'^%]@#")
# Words that a signed number may follow. After any other word a plus or minus calculates with what the word names.
_BEFORE_A_SIGN = {
    "is", "are", "was", "were", "be", "been", "being", "becomes", "equals", "gives", "get", "gets", "got", "make", "makes", "so",
    "then", "thus", "hence", "therefore", "and", "or", "to", "of", "by", "from", "at", "that", "have", "has", "had", "as", "find",
    "compute", "calculate", "evaluate", "simplify", "solve", "write", "where", "yields", "leaves", "plus", "minus", "times",
}  # fmt: skip
# At these words the expression before them ends: "-60 degrees as -60 degrees + 360 degrees".
_END_A_SIDE = {
    "of", "and", "or", "to", "is", "are", "as", "so", "then", "thus", "hence", "therefore", "equals", "gives", "makes", "becomes",
    "gets", "where", "yields",
}  # fmt: skip
_MARK = re.compile(r"<<([^<>]*)>>")

_SPELLINGS = (
    (re.compile("\u00d7|\u22c5|\u00b7|\u2217|\u2219"), "*"),
    (re.compile("\u00f7"), "/"),
    (re.compile(r"\\approx(?![A-Za-z])|[\u2248\u2243\u2245]"), "~"),
    (re.compile("=="), "="),
    (re.compile(r"(?<=[\d)%])\s+(?:equals|is equal to)\s+(?=[-\d($\\])"), " = "),
    (re.compile(r"\*\*(?=\s*\d)"), "^"),
    (re.compile(r"\\[()\[\]]|\*\*|\\\\"), " "),
    (re.compile(r"\^\s*(?:\\circ|\{\s*\\circ\s*\})|\u00b0"), " degrees "),
    (re.compile(r"\\boxed\s*\{([^{}]*)\}"), r" \1 "),
    (re.compile(r"\^\{(-?\d+)\}(?=\d)"), r"^(\1)*"),  # 2^{3}5^{3}
    (re.compile(r"\^\{(-?\d+)\}"), r"^(\1)"),
    (re.compile(r"(?<![\d.}^])(\d+)\s*\\frac\{(\d+)\}\{(\d+)\}"), r"\1 \2/\3"),  # a mixed number
    (
        re.compile(r"\\\$(?=\s*[\d.])|(?<![\d)])\$(?=\s*[\d.])|[\u20ac\u00a3\u00a5\u20b9]"),
        " ",
    ),  # money keeps its number alone
    (re.compile(r"\\?\$"), " "),
    (re.compile(r"(?<=[\d)%}])\s*[xX]\s*(?=[\d(])|(?<=[a-z])\s+[xX]\s+(?=[\d(])"), " * "),
    (re.compile(r"(?<=\d)\s+times\s+(?=\d)|(?<=\d)\s+multiplied\s+by\s+(?=\d)"), " * "),
    (re.compile(r"(?<=\d)\s+plus\s+(?=\d)"), " + "),
    (re.compile(r"(?<=\d)\s+minus\s+(?=\d)"), " - "),
    (re.compile(r"(?<=\d)\s+divided\s+by\s+(?=\d)"), " / "),
    (re.compile(r"(\d\s?%|\d/\d+|\})\s*of\s+(?:the\s+)?(?=[\d(])"), r"\1 * "),
    (re.compile(r"^\s*(?:\*|\(?\d+[.)])\s+(?=\S)"), ""),  # the mark of a list
)
# The mark of a list, or a sign: "- 5 + 3 = 8" and "- 5 + 3 = -2".
_MARK_OR_SIGN = re.compile(r"^\s*-\s+(?=[\d.$(])")


@dataclass(frozen=True)
class Step:
    """One written calculation.

    Attributes:
        text: both sides, in plain notation.
        value: what the left side is.
        claimed: what the right side says.
        right: whether they agree, rounding allowed as above.
    """

    text: str
    value: Fraction
    claimed: Fraction
    right: bool


@dataclass(frozen=True)
class Arithmetic:
    """How many steps of a text were recomputed, and how many of them are wrong."""

    checked: int
    wrong: int


def check_arithmetic(text: str) -> Arithmetic:
    """Recompute every step that a text writes out."""
    found = steps(text)
    return Arithmetic(len(found), _wrong(found))


def steps(text: str) -> list[Step]:
    """The steps of a text in order. One that a line repeats counts once, so a calculator mark and its sentence are one step."""
    found: list[Step] = []
    for line in text.splitlines():
        if not _EQUALS.search(plain(line)):  # most lines state no step
            continue
        marked = [step for mark in _MARK.findall(line) for step in _steps_of(mark)]
        line = _MARK.sub("", line)
        readings = [_MARK_OR_SIGN.sub("", plain(line)), _MARK_OR_SIGN.sub("-", plain(line))]
        found += dict.fromkeys([*marked, *min(map(_steps_of, dict.fromkeys(readings)), key=_wrong)])
    return found


def _wrong(found: list[Step]) -> int:
    return sum(not step.right for step in found)


# What asks for a value, in front of an expression. Possessive, so that no run of blanks is tried twice.
_ASKING = re.compile(
    r"(?:what(?:'s| is| does)|calculate|compute|evaluate|find|simplify|solve|work out|how much is|determine)?+[\s:,]*+"
    r"(?:the (?:value|result|sum|product|difference|quotient|answer) (?:of|to)|the (?:expression|calculation))?+[\s:]*+",
    re.IGNORECASE,
)
_ASKED_END = re.compile(r"(?:\bequal(?: to)?|=)$", re.IGNORECASE)
_EXPRESSION = re.compile(r"(?:[^A-Za-z=?\\]|\\(?:frac|times|cdot|div)(?![A-Za-z])|\\(?![A-Za-z]))+")
_SUM = re.compile(r"(?<=[\d)}%])\s*[-+]")
# The signs of a date or a telephone number calculate nothing.
_DAY, _MONTH = r"(?:0?[1-9]|[12]\d|3[01])", r"(?:0?[1-9]|1[0-2])"
_NO_CALCULATION = re.compile(
    rf"\d+(?::\d+)+|(?:19|20)\d\d-{_MONTH}-{_DAY}|(?:{_MONTH}([-/]){_DAY}|{_DAY}([-/]){_MONTH})[-/](?:19|20)\d\d"
    r"|(?:555|0\d\d)-\d{4}|\d{3}-\d{3}-\d{4}"
)
# Characters; a longer question asks for more than a value.
LONGEST_QUESTION = 200


def asked_value(question: str) -> Fraction | None:
    """The answer to a question of plain arithmetic, such as "What is 12 - 5 + 3?"; None for any other question."""
    text = " ".join(question.split())
    if len(text) > LONGEST_QUESTION:
        return None
    text = " ".join(_prepared(text).split())
    if _MARK_OR_SIGN.match(text):
        return None
    expression = text[_ASKING.match(text).end() :]  # type: ignore[union-attr]
    for _ in range(2):  # "… equal to?", "… = ?"
        expression = _ASKED_END.sub("", expression.rstrip(" ?.!$_"))
    expression = expression.strip()
    percentages = {term.rstrip().endswith("%") for term in _SUM.split(expression)}
    if len(percentages) > 1:  # "100 - 20%" may mean 80
        return None
    if _NO_CALCULATION.fullmatch(expression.partition(" ")[0]):
        return None
    if not _EXPRESSION.fullmatch(expression) or not re.search(r"[\d)}]\s*[-+*/^]\s*[-(\d.\\]", expression):
        return None
    return exact_value(clean(expression))


# ------------------------------------------------------------------------------------------------------------- one line

Token = tuple[str, str]


@dataclass(frozen=True)
class _Side:
    """An arithmetic expression in a line.

    Attributes:
        text: numbers, operators and brackets.
        value: exact.
        units: words behind its numbers.
        mixed: whether its value depends on its words: it adds numbers of different units or a percentage to a number, counts
            in dozens, or a bracket follows a word ("20 because (4 * 5)").
    """

    text: str
    value: Fraction
    units: frozenset[str]
    mixed: bool

    @property
    def calculates(self) -> bool:
        return bool(re.search(r"[\d)}%]\s*[-+*/^(]|\\frac|\\sqrt", self.text))

    @property
    def is_a_share(self) -> bool:
        """Whether it is a percentage or a common fraction below one, which may be said of something: "1/4 = 25 students"."""
        fraction = re.fullmatch(r"[\d.]+%|\d+/(\d+)", self.text)
        return fraction is not None and self.value < 1 and int(fraction[1] or 1) <= _COMMON


def _prepared(line: str) -> str:
    line = without_wording(plain_latex(plain(line)))
    for pattern, replacement in _SPELLINGS:
        line = pattern.sub(replacement, line)
    line = _AND_A_FRACTION.sub(lambda m: f"{m[1]} " if int(m[2]) < int(m[3]) else m.group(), line)
    return spoken_signs(_FACTORIAL.sub(lambda m: str(factorial(int(m[1]))), line))


_EQUALS = re.compile("[=\u2248]|approx|equal")


def _steps_of(line: str) -> list[Step]:
    if not _EQUALS.search(line):
        return []
    found: list[Step] = []
    tokens = [(m.lastgroup or "", m.group()) for m in _TOKEN.finditer(_prepared(line))][:_MAX_TOKENS]
    for segment in _segments(tokens):
        sides, signs = _sides(segment)
        for k, sign in enumerate(signs):
            left, right = _at_the_end(sides[k], after_a_result=k > 0), _at_the_start(sides[k + 1])
            if left and right and (step := _step(left, sign, right)):
                found.append(step)
    return found


def _segments(tokens: list[Token]) -> list[list[Token]]:
    """The tokens between punctuation; a sign that is not read stays where an expression goes on at it."""
    segments: list[list[Token]] = [[]]
    for token in tokens:
        kind, sign = token
        if kind == "other":
            after_a_number = bool(segments[-1]) and segments[-1][-1][0] == "number"
            if sign.isalpha() or sign in "\u00b1\u221a" or (sign == "!" and after_a_number):
                segments[-1].append(token)
            segments.append([] if sign in _PUNCTUATION else [token])
        else:
            segments[-1].append(token)
    return segments


def _sides(segment: list[Token]) -> tuple[list[list[Token]], list[str]]:
    sides: list[list[Token]] = [[]]
    signs = []
    for kind, text in segment:
        if kind == "equals":
            signs.append(text)
            sides.append([])
        else:
            sides[-1].append((kind, text))
    return sides, signs


def _at_the_end(tokens: list[Token], after_a_result: bool) -> _Side | None:
    """The longest expression that a side ends in, behind words, or behind the result of the step before."""
    tokens = tokens[-_MAX_SIDE:]
    for start in range(len(tokens)):
        if start and not _may_begin(tokens[start - 1], tokens[start], after_a_result and start == 1):
            continue
        end, side = _read(tokens, start)
        if side and end == len(tokens):
            return side
    return None


def _may_begin(before: Token, first: Token, after_a_result: bool) -> bool:
    """Whether an expression may begin with a token, behind another one."""
    kind, sign = before
    if first[1] in ("+", "-"):
        return kind == "word" and sign.lower() in _BEFORE_A_SIGN
    if kind == "other":
        return not (sign.isalpha() or sign in _GOES_ON)
    return kind == "word" or (sign in _WORDS_OF_ONE_LETTER and first[1] != "(") or (after_a_result and kind == "number")


def _at_the_start(tokens: list[Token]) -> _Side | None:
    """The expression that a side begins with: "5 apples"; None if it goes on with a variable, or has a remainder."""
    tokens = tokens[:_MAX_SIDE]
    end, side = _read(tokens, 0)
    if not side or end == len(tokens):
        return side
    kind, sign = tokens[end]
    following = tokens[end + 1][0] if end + 1 < len(tokens) else ""
    if sign in _REMAINDER:
        return None
    if kind == "number":  # the next step, or a group of digits: "49 200 - 150", "10 000 kg"
        in_groups = tokens[end - 1][0] == "number" and re.fullmatch(r"\d{3}(?:\.\d+)?", sign)
        return None if in_groups and following != "operator" else side
    if sign == "(" or sign in _WORDS_OF_ONE_LETTER:  # a remark; "5 a day"
        return side if following == "word" else None
    return side if kind == "word" else None


def _is_word(token: Token) -> bool:
    return token[0] == "word" or token[1] in _WORDS_OF_ONE_LETTER


def _read(tokens: list[Token], start: int) -> tuple[int, _Side | None]:
    """Read an expression, words behind its numbers included; where it ends, and what it is."""
    text, depth, at = "", 0, start
    units: list[str] = []  # of all numbers
    terms: list[set[str]] = [set()]  # of the numbers of each term of a sum
    percents: list[bool] = []  # whether each term of a sum is a percentage alone
    good: tuple[int, str] | None = None
    operand = by_its_words = False
    while at < len(tokens):
        kind, sign = tokens[at]
        if kind == "number" and not operand:
            text += _number(sign)
            percents.append(sign.endswith("%"))
            operand = True
        elif kind == "word" and operand:
            if sign in _SCALES:
                text += f"*{_SCALES[sign]}"
                by_its_words |= sign == "dozen"
            elif sign in _REMAINDER or sign.lower() in _END_A_SIDE:
                break
            else:
                units.append(sign.lower().rstrip("s"))
                terms[-1].add(units[-1])
        elif kind == "operator" and (operand or sign in "-+"):
            if operand and sign in "-+" and not depth:
                terms.append(set())
            text += sign
            operand = False
        elif sign == "(" and not (operand and tokens[at + 1 : at + 2] and _is_word(tokens[at + 1])):  # else a remark
            by_its_words |= operand and tokens[at - 1][0] == "word"
            depth += 1
            text += sign
            operand = False
        elif sign == ")" and operand and depth:
            depth -= 1
            text += sign
        else:
            break
        at += 1
        if operand and not depth:
            good = at, text
    if not good or not operand or depth:
        return (good[0], None) if good and operand else (at, None)
    value = exact_value(good[1])
    if value is None:
        return good[0], None
    named = [term for term in terms if term]
    different = len(named) > 1 and any(not (term & named[0]) for term in named)
    discount = len(terms) > 1 and any(percents) and not all(percents)
    return good[0], _Side(good[1], value, frozenset(units), different or discount or by_its_words)


def _number(text: str) -> str:
    if mixed := re.fullmatch(r"(\d+) (\d+/\d+)(\s?%)?", text):
        return f"({mixed[1]}+{mixed[2]}){'%' if mixed[3] else ''}"
    return text.replace(",", "").replace(" ", "")


def _step(left: _Side, sign: str, right: _Side) -> Step | None:
    if not (left.calculates or right.calculates):
        return None
    agrees = _agrees(left, sign, right)
    if not agrees:
        # "2 + 3 = 5 + 1 = 6": the sign stands for "makes", and what it makes is used at once.
        first = re.match(r"-?\d+(?:\.\d+)?(?=[-+*/])", right.text)
        agrees = bool(first) and left.calculates and exact_value(first.group() if first else "") == left.value
    another_unit = bool(left.units and right.units and not left.units & right.units)
    of_a_clock = bool((left.units | right.units) & _CLOCK)  # 10 am + 5 hours = 3 pm
    converts = bool(left.units) and not left.calculates and not right.units  # 3 weeks = 3 * 7 days
    is_said_of = left.is_a_share and (left.text.endswith("%") or (right.value >= 1 and _counts(right)))
    if not agrees and (left.mixed or right.mixed or another_unit or of_a_clock or converts or is_said_of):
        return None
    return Step(f"{left.text} {sign} {right.text}", left.value, right.value, agrees)


def _counts(side: _Side) -> bool:
    """Whether a side is a whole number of something."""
    return bool(side.units) and not side.calculates and side.value.denominator == 1


def _agrees(left: _Side, sign: str, right: _Side) -> bool:
    unit = _unit_of_the_last_digit(left, sign, right)
    readings = {(right.value, unit)}
    if right.text.endswith("%") and not left.text.endswith("%"):
        readings.add((right.value * 100, unit))  # 5/20*100 = 25%
    if "*100%" in left.text and not right.text.endswith("%"):
        readings.add((right.value / 100, unit / 100))  # 5/20*100% = 25
    return any(left.value == reading or abs(left.value - reading) < off for reading, off in readings)


def _unit_of_the_last_digit(left: _Side, sign: str, right: _Side) -> Fraction:
    """How far a rounded side may be off: one unit of its last digit; 0 where both sides are exact."""
    for side in (right, left):
        if number := re.fullmatch(r"-?\d*(?:\.(\d+))?(%?)", side.text):
            digits = len(number[1] or "")
            if digits or (sign == "~" and side is right):
                return Fraction(1, 10**digits) / (100 if number[2] and not left.text.endswith("%") else 1)
    return Fraction(0)
