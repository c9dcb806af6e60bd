"""Finding the final answer in a response."""

import re

# Where an answer is announced without a box. The paper's rule: "boxed", "he answer is" or "final answer is" must occur.
_ANNOUNCED = re.compile(r"(?:answer\s+is\b|answer:|####)[\s:]*", re.IGNORECASE)
_NUMBER = re.compile(r"-?\d+(?:,\d{3})*(?:\.\d+)?(?:/\d+)?|-?\.\d+")
_BRACE = re.compile(r"\\boxed\{|[{}]")
# An announced formula or tuple, taken whole: of "$\frac{3}{4}$" the first number would be 3.
_FORMULA = re.compile(r"\$([^$\n]+)\$|\\\((.+?)\\\)|(\([^()\n]*,[^()\n]*\))")


def boxed(text: str) -> str | None:
    r"""Content of the last complete ``\boxed{...}``, braces balanced; None without one. One pass, however long the text."""
    opened: list[tuple[int, bool]] = []  # where each open brace's content starts, and whether it is a box
    start, end = -1, -1
    for brace in _BRACE.finditer(text):
        if brace.group() != "}":
            opened.append((brace.end(), brace.group() != "{"))
        elif opened:
            content, is_box = opened.pop()
            if is_box and content > start:
                start, end = content, brace.start()
    return text[start:end].strip() if start >= 0 else None


def strict_answer(text: str) -> str | None:
    """The answer as it was asked for: in a box, not empty."""
    return boxed(text) or None


def announced_answer(text: str) -> str | None:
    """The paper's presence rule: a box, or a phrase that announces the answer; None without either or with nothing in it."""
    if found := strict_answer(text):
        return found
    announcements = list(_ANNOUNCED.finditer(text))
    if not announcements:
        return None
    # What the last announcement is followed by, up to the line's end. A box there is an empty or a broken one.
    phrase, *_ = text[announcements[-1].end() :].split("\n", 1)
    if "\\boxed" in phrase:
        return None
    if phrase.startswith(("\\", "-\\", "[", "(")) and not _FORMULA.match(phrase):
        return re.split(r"\.(?:\s|$)", phrase)[0].strip() or None  # LaTeX without its dollars, an interval
    if formula := _FORMULA.match(phrase):
        return next(filter(None, formula.groups())).strip() or None
    # "The answer is 12 dollars.": the first number, else the words up to the sentence's end.
    number = _NUMBER.search(phrase)
    return (number.group() if number else phrase.split(". ")[0].strip().rstrip(".")) or None


def flexible_answer(text: str) -> str | None:
    """The announced answer, else the last number in the text; None if there is no number either."""
    if found := announced_answer(text):
        return found
    numbers = _NUMBER.findall(text)
    return numbers[-1] if numbers else None
