"""Preflight: two rows as the trainer's own collator hands them to the model, shown and compared with what the stage meant.

What is learned is printed between ⟦ and ⟧, and a trainer that would learn something else is stopped before the first step.
"""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np

from scalequest.errors import UserError
from scalequest.training.examples import IGNORED, Example, Pair

log = logging.getLogger("scalequest")


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


def check_causal(trainer: Any, kept: Sequence[Example]) -> None:
    """Two rows of supervised fine-tuning: visible is the whole row, learned is the target."""
    tokenizer = trainer.processing_class
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(min(2, len(kept)))])
    for row, example in enumerate(kept[:2]):
        ids, labels = batch["input_ids"][row].tolist(), batch["labels"][row].tolist()
        n = len(example)
        log.info("preflight: %s", show_mask(ids[:n], [label != IGNORED for label in labels[:n]], tokenizer))
        learned = [label for label in labels if label != IGNORED]
        if learned != example.target or ids[:n] != example.prompt + example.target:
            raise UserError(
                f"preflight: the trainer would learn {tokenizer.decode(learned)!r}, the stage meant "
                f"{tokenizer.decode(example.target)!r}: the installed TRL masks or truncates otherwise than the lock's; "
                "reinstall from requirements/, then rerun"
            )


def check_pairs(trainer: Any, kept: Sequence[Pair]) -> None:
    """Two preference pairs: compared are the targets alone, nothing is hidden from attention."""
    tokenizer = trainer.processing_class
    pairs = kept[:2]
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(len(pairs))])
    # The collator puts the chosen halves first, then the rejected ones.
    targets = [p.chosen for p in pairs] + [p.rejected for p in pairs]
    prompts = [p.prompt for p in pairs] * 2
    for row, (prompt, target) in enumerate(zip(prompts, targets, strict=True)):
        ids, mask = batch["input_ids"][row].tolist(), batch["completion_mask"][row].tolist()
        seen = batch["attention_mask"][row].tolist()
        n = len(prompt) + len(target)
        log.info("preflight %s: %s", "chosen" if row < len(pairs) else "rejected", show_mask(ids[:n], [bool(m) for m in mask[:n]], tokenizer))  # fmt: skip
        if [i for i, m in zip(ids, mask, strict=True) if m] != target or sum(seen) != n:
            raise UserError(
                f"preflight: DPO would compare {tokenizer.decode([i for i, m in zip(ids, mask, strict=True) if m])!r} with "
                f"{sum(seen)} tokens visible, the stage meant {tokenizer.decode(target)!r} with {n}: the installed TRL "
                "differs from the lock's; reinstall from requirements/, then rerun"
            )


def check_scored(trainer: Any, texts: Sequence[list[int]], labels: Sequence[float]) -> None:
    """Check the first rows as the collator hands them over: ``texts`` in the batch's order, ``labels`` where there are any."""
    tokenizer = trainer.processing_class
    rows = [trainer.train_dataset[i] for i in range(min(2, len(trainer.train_dataset)))]
    batch = trainer.data_collator(rows)
    for ids, row, seen in zip(texts, batch["input_ids"].tolist(), batch["attention_mask"].tolist(), strict=False):
        log.info(
            "preflight, the score is read at the end: %s", show_mask(ids, [False] * (len(ids) - 1) + [True], tokenizer)
        )
        if [i for i, m in zip(row, seen, strict=True) if m] != ids:
            raise UserError(
                f"preflight: the trainer would score {tokenizer.decode(row)!r}, the stage meant {tokenizer.decode(ids)!r}: the "
                "installed TRL differs from the lock's; reinstall from requirements/, then rerun"
            )
    if labels and batch["labels"].tolist() != [np.float32(label).item() for label in labels[: len(rows)]]:
        raise UserError(
            f"preflight: the trainer would learn {batch['labels'].tolist()}, the stage meant {labels[: len(rows)]}"
        )
    if bad := [ids for ids in texts if ids[-1] == tokenizer.pad_token_id]:
        raise UserError(
            f"preflight: {len(bad)} sequences end in the padding token, where transformers and vLLM read the scalar head at "
            "different places; give the tokenizer a padding token of its own"
        )
