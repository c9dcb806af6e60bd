"""A training row in print: what is learned is between ⟦ and ⟧.

Each kind of training prints two rows of its trainer's own batch this way, and stops if the trainer would learn something else.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from scalequest.errors import UserError

BOUNDARIES = "cu_seq_lens_q"  # of a pack


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


def check_rows_apart(trainer: Any, rows: Sequence[tuple[Any, int]]) -> None:
    """Run a pack of two rows twice, the first row reversed in one of them: the second row's loss must stay.

    Args:
        trainer: whose model and collator take packs.
        rows: token ids and length of the prompt, of two rows; with fewer there is nothing to keep apart.

    Raises:
        UserError: the loss moved, so the model lets one row see another.
    """
    import torch

    if len(rows) < 2:
        return
    (first, _), (second, prompt) = rows
    losses = []
    for ids in (first, first[::-1]):
        batch = trainer.data_collator([[(ids.copy(), len(ids)), (second, prompt)]])
        inputs = {name: value for name, value in trainer._prepare_inputs(batch).items() if name != "labels"}
        with torch.no_grad(), trainer.compute_loss_context_manager(), trainer.accelerator.autocast():
            losses.append(trainer.model(**inputs, use_cache=False).item())
    if not abs(losses[0] - losses[1]) <= 1e-4 * abs(losses[0]):
        raise UserError(
            f"preflight: other tokens in the first row of a pack move the loss of the second from {losses[0]:g} to "
            f"{losses[1]:g} nats. Expected no change. Set the stage's packing to false."
        )


def unpacked(batch: dict[str, Any]) -> list[list[int]]:
    """Token ids of each row of a pack, as its boundaries have them."""
    ids, places = batch["input_ids"][0].tolist(), batch[BOUNDARIES].tolist()
    return [ids[a:b] for a, b in pairwise(places)][: batch["rows"]]
