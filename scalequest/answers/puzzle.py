"""Whether an answer solves a puzzle, by the verifier of the puzzle's own data set in reasoning_gym.

A verifier's score is between 0 and 1; some give 0.01 for any text, others a part for a part. Here an answer is right at 1.0 and
wrong below it. It is also right where it is spelled as the known answer (``words.spelling``), because some verifiers compare
characters and would refuse ``yes.`` for ``Yes``.
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from scalequest.answers.compare import LONGEST, compare, decide, limit_memory
from scalequest.answers.words import spelling, tidy
from scalequest.outcomes import MISSING, RIGHT, WRONG
from scalequest.problems.puzzles import Puzzle, puzzle_of

# What must hold in a process that decides: the two orders of one answer, which only the verifier knows to be one.
_KNOWN = (
    '{"puzzle": "knights_knaves", "answer": "Ann is a knight, and Bob is a knave.", "metadata": {}}',
    "Bob is a knave, and Ann is a knight",
)


def check(answers: Sequence[str], found: Sequence[str | None], workers: int = 2) -> list[str]:
    """Outcomes of N final answers against N answers, in order.

    Puzzles are decided by their verifier, in processes with the limits of ``compare``. An answer that is no puzzle, as a file may
    have it, is compared as words, numbers and formulas are (``compare``).

    Returns:
        For each pair ``right``, ``wrong``, ``no_answer`` (nothing was extracted) or ``timeout``.
    """
    pairs = list(zip(answers, found, strict=True))
    puzzles = {answer: puzzle_of(answer) for answer in dict.fromkeys(answers)}
    plain = list(dict.fromkeys(pair for pair in pairs if puzzles[pair[0]] is None))
    settled: dict[tuple[str, str | None], str] = {}
    if plain:
        settled.update(zip(plain, compare([a for a, _ in plain], [f for _, f in plain], workers), strict=True))
    asked: list[tuple[str, str]] = []
    for answer, text in dict.fromkeys(pairs):
        if (puzzle := puzzles[answer]) is None:
            continue
        if text is None:
            settled[answer, text] = MISSING
        elif spelling(text) == spelling(puzzle.answer):
            settled[answer, text] = RIGHT
        elif len(text) > LONGEST:
            settled[answer, text] = WRONG
        else:
            asked.append((answer, text))
    if asked:
        decided = decide(solves, sorted(asked), workers, warm_up, _KNOWN)
        settled.update((pair, decided[pair]) for pair in asked)
    return [settled[pair] for pair in pairs]


def same_words(pairs: Sequence[tuple[str, str]]) -> list[bool]:
    """Whether the two answers of each pair are spelled alike."""
    return [spelling(first) == spelling(second) for first, second in pairs]


def solves(answer: str, text: str) -> bool:
    """Whether the verifier gives a text 1.0, as it is or without what is around it; in the process that calls."""
    puzzle = puzzle_of(answer)
    return puzzle is not None and any(score(puzzle, form) == 1.0 for form in dict.fromkeys((text, tidy(text))))


def score(puzzle: Puzzle, text: str) -> float:
    """What the verifier gives a text, in [0, 1]; 0 for one that it cannot read."""
    entry = {"answer": puzzle.answer, "metadata": puzzle.metadata}
    try:
        return float(_verifier(puzzle.dataset)(text, entry))
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
        return 0.0


@cache
def _verifier(dataset: str) -> Callable[[str, dict[str, Any]], float]:
    from reasoning_gym.factory import get_score_answer_fn

    return get_score_answer_fn(dataset)


def warm_up() -> None:
    """Load reasoning_gym in a new process, which takes a second that must not count as deciding, and limit its memory."""
    solves(*_KNOWN)
    limit_memory()
