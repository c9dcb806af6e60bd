"""The judge's yes or no: which words of its answer are a verdict."""

import re
import unicodedata

from scalequest.answers.thoughts import without_thoughts
from scalequest.outcomes import NO_VERDICT, SOLVABLE, UNSOLVABLE
from scalequest.sampling.completion import Completion

# A word of its own; "_Yes_" is one, too, though \b takes the underscore for a letter.
_WORD = r"(?<![^\W_])(yes|no)(?![^\W_])"
_EITHER = re.compile(_WORD, re.IGNORECASE)
# Decoration around a word: markdown, quotes, brackets, a LaTeX box or text.
_OPEN = r"(?:\\(?:boxed|text|textbf|mathrm)\s*\{|[\W_])*+"  # possessive: nothing to gain by giving signs back
_LABEL = (
    r"(?:(?:so|thus|therefore|hence|then|and|the|my|a|final|last|overall|short)\W+)*+"
    r"(?:answer|verdict|conclusion|judge?ment|decision|result|response)\b(?:\W+(?:is|would be|must be))?"
)
_LEAD = r"(?:(?:so|thus|therefore|hence|well|ok|okay|overall|finally|in conclusion|in short|in summary)\W+)++"
# A line that is nothing but a verdict, or a labelled one: "Yes", "**No.**", "Verdict: Yes", "The final answer is no."
_VERDICT_LINE = re.compile(rf"{_OPEN}(?:{_LABEL}{_OPEN})?{_WORD}[\W_]*", re.IGNORECASE)
# Elsewhere "no" is mostly a determiner: "there is no contradiction". A verdict opens a sentence and is set off by a sign, or
# by a word that starts the reason; or it closes a sentence that does not repeat the choice ("say yes or no").
_OPENING = re.compile(
    rf"{_OPEN}(?:{_LEAD}{_OPEN})?(?:{_LABEL}{_OPEN})?{_WORD}"
    r"(?=[\W_]*$|[*_\"'`)\]}]*[.,;:!–—]|\s+(?:[-–—]+\s|\()|\s+(?:because|since|as|it|this|that|the)\b)",
    re.IGNORECASE,
)
_CLOSING = re.compile(rf"(?<![^\W_]or[ ])(?<!or [\"'*])(?<!\bnot )(?<!\bnot [\"'*]){_WORD}[\W_]*$", re.IGNORECASE)
_CHOICE = re.compile(r"\b(?:yes(?:\W+(?:or|and)\W+|\s?/\s?)no|no(?:\W+(?:or|and)\W+|\s?/\s?)yes)\b", re.IGNORECASE)
# One of the points that the judge goes through, and one that asks: the line directly below is its answer.
_POINT = re.compile(r"[\W_]*\d{1,2}[.):]\s")
_ASKING_POINT = re.compile(r"[\W_]*\d{1,2}[.):]\s.*\?\W*$")
# <answer>No</answer>
_TAG = re.compile(r"</?[a-z]\w*>", re.IGNORECASE)
_SENTENCES = re.compile(r"(?<=[.!?;:])[*_\"'`)\]}]*\s+")


def _said(word: str) -> bool:
    return word.lower() == "yes"


def _verdict_in(line: str) -> bool | None:
    """The last verdict of a line, sentence by sentence; None if it gives none."""
    verdict = None
    for sentence in _SENTENCES.split(_CHOICE.sub(" ", line)):
        if found := _OPENING.match(sentence):
            verdict = _said(found[1])
        if found := _CLOSING.search(sentence):
            verdict = _said(found[1])
    return verdict


def parse_verdict(completion: str, style: str = "reasoned") -> bool | None:
    """The judge's yes or no; None where it gives none.

    A yes or no inside a sentence is no verdict: "Yes. All conditions are given and there is no contradiction." says yes.

    Args:
        completion: the judge's whole answer. What it thinks aloud (``<think>``) does not count.
        style: ``few_shot`` asks for one word, and the first word counts. ``reasoned`` asks for a last line that is only the
            verdict: the last such line counts, whatever follows; without one, a verdict in words in the last line. The
            prompt's points are answered above it: "Is a number missing? No." is such an answer. So is a line directly below
            a numbered question, if another point or a verdict in words follows.
    """
    text = _TAG.sub(" ", unicodedata.normalize("NFKC", without_thoughts(completion))).strip()
    if style == "few_shot":
        found = _OPENING.match(text.split("\n", 1)[0])
        return _said(found[1]) if found else None
    lines = [line.strip() for line in text.splitlines()]
    in_words = next((_verdict_in(line) for line in reversed(lines) if line), None)
    for k in reversed(range(len(lines))):
        if not (found := _VERDICT_LINE.fullmatch(lines[k])):
            continue
        after = lines[k + 1 :]
        answers_a_point = k > 0 and any(after) and _ASKING_POINT.match(lines[k - 1])
        if answers_a_point and any(map(_POINT.match, after)):
            continue
        return in_words if answers_a_point and in_words is not None else _said(found[1])
    return in_words


def both_words(completion: str) -> bool:
    """Whether an answer holds a yes and a no, so that a rule has to choose."""
    return len({word.lower() for word in _EITHER.findall(completion)}) == 2


def unreasoned(completion: str) -> bool:
    """Whether an answer is a verdict and nothing else: no reason, and no thought before it. Tags count as nothing."""
    return _VERDICT_LINE.fullmatch(_TAG.sub(" ", unicodedata.normalize("NFKC", completion)).strip()) is not None


OUTCOME = {True: SOLVABLE, False: UNSOLVABLE, None: NO_VERDICT}


def verdict_of(answer: Completion, style: str) -> str:
    """``solvable``, ``unsolvable`` or ``no_verdict``; an answer that was cut is no verdict."""
    return OUTCOME[parse_verdict(answer.text, style) if answer.finish_reason == "stop" else None]
