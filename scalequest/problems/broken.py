"""Breaking sound problems mechanically, so that a judge of questions can be measured.

A seed has a known answer, so it can be solved. With its question gone, with the conditions of another problem, or without a number
that its solution needs, it cannot. Nobody has to label anything.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence

from scalequest.problems.draw import hash_place

# What was done to a problem, in the order in which problems take turns.
NO_QUESTION, FOREIGN, NO_NUMBER, TORSO = "no_question", "foreign_conditions", "no_number", "torso"

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|(?<=[.!?][\"')\]])\s+")
_NUMBER = re.compile(r"\d+(?:,\d{3})+(?:\.\d+)?|\d*\.\d+|\d+")
_WORD = re.compile(r"[^\W\d_]{3,}")
MIN_WORDS = 4
# Conditions of a problem of the same template, with other numbers, would leave it solvable.
MOST_OVERLAP = 0.3
# Other problems that are tried as a source of conditions.
TRIES = 50


def sentences(text: str) -> list[str]:
    """Sentences of a text, in order; ends of lines count as spaces."""
    return [part for part in _SENTENCE_END.split(" ".join(text.split())) if part]


def _parts(question: str, asks: Callable[[str], bool]) -> tuple[str, str]:
    """Conditions and question of a problem: the sentences that ask for nothing, and the others."""
    found = sentences(question)
    return " ".join(s for s in found if not asks(s)), " ".join(s for s in found if asks(s))


def without_question(question: str, asks: Callable[[str], bool]) -> str | None:
    """The conditions alone; None where there is nothing to remove or too little left."""
    conditions, asked = _parts(question, asks)
    return conditions if asked and len(conditions.split()) >= MIN_WORDS else None


def with_foreign_conditions(question: str, others: Sequence[str], asks: Callable[[str], bool]) -> str | None:
    """The question after the conditions of the first of ``others`` that is about something else; None if none fits.

    A question with numbers of its own ("If each costs 2, how much ...") may be solved by them, and is not taken.
    """
    conditions, asked = _parts(question, asks)
    if not asked or _NUMBER.search(asked) or len(conditions.split()) < MIN_WORDS:
        return None
    own = {word.lower() for word in _WORD.findall(question)}
    for other in others:
        foreign, _ = _parts(other, asks)
        words = {word.lower() for word in _WORD.findall(foreign)}
        if len(foreign.split()) >= MIN_WORDS and words and len(words & own) <= MOST_OVERLAP * len(words):
            return f"{foreign} {asked}"
    return None


def without_number(question: str, solution: str) -> str | None:
    """The question without the last number that its solution uses, wherever it occurs; None where there is none."""
    used = set(_NUMBER.findall(solution))
    needed = [number for number in _NUMBER.findall(question) if number in used]
    if not needed:
        return None
    return re.sub(r"[ \t]{2,}", " ", _NUMBER.sub(lambda found: "" if found[0] == needed[-1] else found[0], question))


def torso(question: str) -> str:
    """The first half of a text's words."""
    words = question.split()
    return " ".join(words[: max(1, len(words) // 2)]).rstrip(".?!:;,")


def broken(problems: Sequence[Mapping[str, str]], asks: Callable[[str], bool], seed: int) -> Iterator[tuple[str, str]]:
    """Break each of N problems in one way that it allows; which one is decided by a hash of seed and id.

    Args:
        problems: rows with ``id``, ``question`` and ``solution``. They lend each other their conditions.
        asks: whether a text asks for something (``Wording.asks``).
        seed: the run's.

    Yields:
        For each problem the way it was broken and the broken text. ``torso`` is for those that allow nothing else.
    """
    for at, row in enumerate(problems):
        question = row["question"]
        others = [problems[(at + step) % len(problems)]["question"] for step in range(1, min(len(problems), TRIES))]
        tried = {
            NO_QUESTION: without_question(question, asks),
            FOREIGN: with_foreign_conditions(question, others, asks),
            NO_NUMBER: without_number(question, row["solution"]),
        }
        ways = [(way, text) for way, text in tried.items() if text] or [(TORSO, torso(question))]
        yield ways[int(hash_place(seed, row["id"], "broken") * len(ways))]
