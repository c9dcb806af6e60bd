"""What the two kinds of training with a scalar head share: the model, and a look at the trainer's own batch."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from scalequest.errors import UserError
from scalequest.io import rounded
from scalequest.models.folder import local_path
from scalequest.models.weights import load_tokenizer
from scalequest.training.collated import show_mask
from scalequest.training.job import Comparison

log = logging.getLogger("scalequest")


def load_scorer(path: Path, dtype: Any, seed: int) -> Any:
    """The model of a folder with one output; a head that the folder does not have is drawn from ``seed``."""
    from transformers import AutoModelForSequenceClassification, set_seed

    set_seed(seed)
    scorer = AutoModelForSequenceClassification.from_pretrained(
        local_path(path), num_labels=1, dtype=dtype, trust_remote_code=False
    )
    scorer.config.use_cache = False
    scorer.config.pad_token_id = load_tokenizer(path).pad_token_id
    return scorer


def raw_scores(model: Any, rows: Sequence[list[int]]) -> list[float]:
    """Raw scores, one sequence at a time: no padding, so the head is read at the last token."""
    import torch

    with torch.no_grad():
        return [model(input_ids=torch.tensor([ids], device=model.device)).logits[0, 0].item() for ids in rows]


def compare_scores(trained: list[float], saved: list[float]) -> Comparison:
    """Spread of the probes' scores and how far saving moved them.

    Below half of the spread is left where the movement is above half of it: scores then rank what rounding drew.
    """
    if not trained:
        return {}, {}
    mean = sum(trained) / len(trained)
    spread = (sum((score - mean) ** 2 for score in trained) / len(trained)) ** 0.5
    moved = (sum((new - old) ** 2 for new, old in zip(saved, trained, strict=True)) / len(trained)) ** 0.5
    metrics = {"probes": len(trained), "score_deviation": rounded(spread), "moved_by_saving": rounded(moved)}
    return metrics, {"lost_in_saving": moved > spread / 2}


def check_batch(trainer: Any, texts: Sequence[list[int]], labels: Sequence[float]) -> None:
    """Compare the first rows as the collator hands them over with the stage's.

    Args:
        trainer: with its data.
        texts: token ids in the batch's order.
        labels: of the same rows, where there are any.

    Raises:
        UserError: the batch differs, or a text ends in the padding token.
    """
    tokenizer = trainer.processing_class
    rows = [trainer.train_dataset[i] for i in range(min(2, len(trainer.train_dataset)))]
    batch = trainer.data_collator(rows)
    for ids, row, seen in zip(texts, batch["input_ids"].tolist(), batch["attention_mask"].tolist(), strict=False):
        log.info(
            "preflight, the score is read at the end: %s", show_mask(ids, [False] * (len(ids) - 1) + [True], tokenizer)
        )
        if [i for i, m in zip(row, seen, strict=True) if m] != ids:
            raise UserError(
                f"preflight: the trainer would score {tokenizer.decode(row)!r}. Expected {tokenizer.decode(ids)!r}. The "
                "installed TRL differs from the locked one: reinstall from requirements/, then rerun."
            )
    if labels and batch["labels"].tolist() != [np.float32(label).item() for label in labels[: len(rows)]]:
        raise UserError(
            f"preflight: the trainer would learn {batch['labels'].tolist()}. Expected {labels[: len(rows)]}. The installed "
            "transformers differs from the locked one: reinstall from requirements/, then rerun."
        )
    if bad := [ids for ids in texts if ids[-1] == tokenizer.pad_token_id]:
        raise UserError(
            f"preflight: {len(bad)} sequences end in the padding token, where transformers and vLLM read the scalar head at "
            "different places. Expected another last token. Give the tokenizer a padding token of its own."
        )
