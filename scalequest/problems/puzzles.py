"""Puzzles of reasoning_gym as plain data: what one needs so that its own verifier can score a response later.

A puzzle's ``answer`` is JSON: the data set, one right answer, and what its verifier reads of the puzzle (the grid, the buttons).
"""

import json
from dataclasses import dataclass
from typing import Any

# The data sets of reasoning_gym 0.1.25 that are kept so, and the metadata that each one's verifier reads. Each repeats its items
# for a seed, asks in text for a short answer, gives its own answers 1.0 and others' less, and evaluates no text as code.
PUZZLES: dict[str, tuple[str, ...]] = {
    "aiw": (),
    "circuit_logic": (),
    "color_cube_rotation": (),
    "course_schedule": (),
    "family_relationships": (),
    "knights_knaves": (),
    "mini_sudoku": ("solution",),
    "quantum_lock": ("buttons", "initial_state", "initial_value", "target_value"),
    "self_reference": (),
    "zebra_puzzles": (),
}


@dataclass(frozen=True)
class Puzzle:
    """What a verifier needs.

    Attributes:
        dataset: a key of PUZZLES.
        answer: one right answer; there may be others.
        metadata: what the verifier reads of the puzzle.
    """

    dataset: str
    answer: str
    metadata: dict[str, Any]


def encoded(dataset: str, item: dict[str, Any]) -> str:
    """A puzzle of PUZZLES in the form of an ``answer``: JSON in one line."""
    metadata = {key: item["metadata"][key] for key in PUZZLES[dataset]}
    return json.dumps({"puzzle": dataset, "answer": item["answer"], "metadata": metadata}, ensure_ascii=False)


def puzzle_of(answer: str) -> Puzzle | None:
    """The puzzle that an ``answer`` holds; None for any other answer."""
    if not answer.startswith("{"):
        return None
    try:
        found = json.loads(answer)
    except (ValueError, RecursionError):
        return None
    match found:
        case {"puzzle": str(dataset), "answer": str(known), "metadata": dict(metadata)} if dataset in PUZZLES:
            return Puzzle(dataset, known, metadata)
    return None


def known_answer(answer: str) -> str:
    """The answer to read, teach or show: of a puzzle the one that is known, without its full stop; else the answer itself."""
    puzzle = puzzle_of(answer)
    return puzzle.answer.strip().removesuffix(".") if puzzle else answer
