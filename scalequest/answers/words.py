r"""Finding and comparing answers that are words: a name, yes or no, who is a knight, a small grid.

The readings go from strict to lenient as for mathematics: a box (``find.strict_answer``), what is
announced (``stated_answer``), a short last line (``closing_answer``). Two answers are one if they
differ in case, blanks, quotation marks, emphasis, LaTeX around words or a full stop alone.
"""

import re

from scalequest.answers.find import ABOUT_THE_ANSWER, boxed
from scalequest.answers.thoughts import without_thoughts
from scalequest.signs import plain

# Characters of a last line that is taken as the answer. The longest answer of a puzzle has 53 (problems/puzzles.py).
LONGEST_LINE = 80

_EMPHASIS = re.compile(r"\*\*|__|(?<!\w)[*_`](?=\w)|(?<=\w)[*_`](?!\w)|`")
_ANNOUNCED = re.compile(
    r"\banswer\b[ \t]*(?:(?:is|would be|must be|should be)\b(?! not\b)[ \t]*:?|[:=])[ \t]*", re.IGNORECASE
)
_NO_TITLE = r"(?<!\bMr)(?<!\bMrs)(?<!\bMs)(?<!\bDr)(?<!\bSt)(?<!\bProf)"
_SENTENCE_END = re.compile(rf"(?<=[^\W\d_]{{2}}){_NO_TITLE}\.(?:\s|$)|(?<=\d)\.(?:\s+[A-Z]|\s*$)|(?<=[)\"'])\.(?:\s|$)")
# What follows an answer in its sentence: "a knight since Monday" gives no reason. "Yes, no, no" and "Yes (Ann), No (Bob)" are
# answers of several, and the last is no reason for the first.
_REASON = re.compile(
    r"(?<=\S)(?:\s*[,;:]?\s+because\b|\s*[,;:]\s+since\b|(?:(?<=\byes)|(?<=\bno)|(?<=\btrue)|(?<=\bfalse))\s+since\b)",
    re.IGNORECASE,
)
_YES_OR_NO = re.compile(
    r"(yes|no|true|false)\s*(?:[,;:(]|[-\u2013\u2014](?=\s))(?!.*\b(?:yes|no|true|false)\b)", re.IGNORECASE
)
_LATEX_WORDS = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|operatorname)\s*\{([^{}]*)\}")
_LATEX_LAYOUT = re.compile(r"\\[,!:; ]|\\quad\b|\$")
_AROUND = " \t\n\"'.,;:!*_`"


def stated_answer(text: str) -> str | None:
    """What a response states as its answer: the last box, else what follows the last "answer is" or "answer:"; None without."""
    response = without_thoughts(text)
    if found := boxed(response):
        return found
    response = _EMPHASIS.sub("", response)
    for announcement in reversed(list(_ANNOUNCED.finditer(response))):
        if found := _announced_by(response[announcement.end() :]):
            return found
    return None


def closing_answer(text: str) -> str | None:
    """The stated answer, else the last line if it is short; None for a response that ends in a long line, or holds nothing."""
    if found := stated_answer(text):
        return found
    lines = [line.strip() for line in _EMPHASIS.sub("", without_thoughts(text)).splitlines()]
    last = next((line for line in reversed(lines) if line), "")
    return _without_reason(last) if 0 < len(last) <= LONGEST_LINE and tidy(last) else None


def _announced_by(rest: str) -> str | None:
    """The answer at the start of a text: the sentence in its line, or the lines below it up to a blank one."""
    line, _, below = rest.partition("\n")
    if line.strip():
        found = _without_reason(_SENTENCE_END.split(line, maxsplit=1)[0].strip())
        return None if "\\boxed" in found or ABOUT_THE_ANSWER.match(found) else found or None
    found = re.split(r"\n[ \t]*\n", below.lstrip("\n"), maxsplit=1)[0].strip()
    return _without_reason(found) or None


def _without_reason(answer: str) -> str:
    """An answer of one line without the reason that follows it: yes in "yes, because Ann lied" and in "yes, Ann lied"."""
    if "\n" in answer:
        return answer
    answer = _REASON.split(answer, maxsplit=1)[0]
    verdict = _YES_OR_NO.match(answer)
    return verdict[1] if verdict else answer


def tidy(answer: str) -> str:
    r"""An answer in plain signs, without LaTeX and emphasis around it; its lines stay, and ``\\`` is an end of a line."""
    text = answer.replace("\\\\", "\n")
    while (inner := _LATEX_WORDS.sub(r"\1", text)) != text:
        text = inner
    return plain(_EMPHASIS.sub("", _LATEX_LAYOUT.sub(" ", text))).strip(_AROUND)


def spelling(answer: str) -> str:
    """What two answers that are one have in common."""
    return " ".join(tidy(answer).casefold().split())
