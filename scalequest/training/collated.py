"""A training row in print: what is learned is between ⟦ and ⟧.

Each kind of training prints two rows of its trainer's own batch this way, and stops if the trainer would learn something else.
"""

from collections.abc import Sequence
from typing import Any

from scalequest.errors import UserError


def show_mask(ids: Sequence[int], learned: Sequence[bool], tokenizer: Any) -> str:
    """The decoded row with what is learned between ⟦ and ⟧; L ids and L flags."""
    text, open_ = [], False
    start = 0
    for position in range(len(ids) + 1):
        if position == len(ids) or learned[position] != open_:
            text.append(tokenizer.decode(list(ids[start:position])))
            if position < len(ids) or open_:
                text.append("⟧" if open_ else "⟦")
            open_, start = not open_, position
    return "".join(text)


def preflight_error(would: str, expected: str, library: str = "TRL") -> UserError:
    """The refusal of a batch in which the trainer would do something else than the stage meant."""
    return UserError(
        f"preflight: the trainer would {would}. Expected {expected}. The installed {library} differs from the locked "
        "one: reinstall from requirements/, then rerun."
    )
