"""What a model is trained on, as token ids: what is learned is decided here and not by a template's mask."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from scalequest.errors import UserError
from scalequest.models.chat import ChatFormat
from scalequest.problems.draw import hash_place

log = logging.getLogger("scalequest")

# The label of a token that is not learned, in torch's and transformers' convention.
IGNORED = -100


@dataclass(frozen=True)
class Example:
    """A sequence of which the end is learned: L prompt tokens that are masked, then the tokens of the target.

    ``id`` names the row that it is made of, here and below, for messages only.
    """

    prompt: list[int]
    target: list[int]
    id: str = field(default="", compare=False)

    def __len__(self) -> int:
        return len(self.prompt) + len(self.target)

    def sequences(self) -> list[list[int]]:
        """The one sequence that the model sees."""
        return [self.prompt + self.target]


@dataclass(frozen=True)
class Pair:
    """A preference pair over one prompt; both targets end with their end token."""

    prompt: list[int]
    chosen: list[int]
    rejected: list[int]
    id: str = field(default="", compare=False)

    def __len__(self) -> int:
        return len(self.prompt) + max(len(self.chosen), len(self.rejected))

    def sequences(self) -> list[list[int]]:
        """Both sides, each after the prompt."""
        return [self.prompt + self.chosen, self.prompt + self.rejected]


@dataclass(frozen=True)
class ScoredText:
    """A sequence and the number that the scalar head should give it."""

    ids: list[int]
    label: float
    id: str = field(default="", compare=False)

    def __len__(self) -> int:
        return len(self.ids)

    def sequences(self) -> list[list[int]]:
        """The one sequence that the model sees."""
        return [self.ids]


def solved_example(chat: ChatFormat, prompt: str, response: str, row_id: str = "") -> Example:
    """Masked: what the solver is asked (the question and how to answer it). Learned: the response and its end."""
    return Example(chat.user_turn(prompt), chat.response(response), row_id)


def hold_out(ids: Sequence[str], frac: float, seed: int, purpose: str = "") -> tuple[list[str], list[str]]:
    """Split ids into those to train on and those held out, by a hash of seed, purpose and id: more data moves no id across."""
    held = [hash_place(seed, row_id, purpose) < frac for row_id in ids]
    return (
        [row_id for row_id, is_held in zip(ids, held, strict=True) if not is_held],
        [row_id for row_id, is_held in zip(ids, held, strict=True) if is_held],
    )


def fitting(examples: Sequence[Any], max_length: int, what: str) -> list[Any]:
    """Examples of at most ``max_length`` tokens; a longer one is dropped, because a cut one would teach not to end.

    Raises:
        UserError: nothing is left.
    """
    kept = [example for example in examples if len(example) <= max_length]
    if len(kept) < len(examples):
        log.info("%d of %d %s are longer than max_length %d tokens and left out", len(examples) - len(kept), len(examples), what, max_length)  # fmt: skip
    if not kept:
        raise UserError(
            f"no {what} to train on: {len(examples)} came in, {len(examples)} are longer than max_length {max_length} "
            f"tokens; raise max_length, or look at the stage before"
            if examples
            else f"no {what} to train on: 0 came in; look at the stage before (dvc metrics show)"
        )
    return kept
