"""What the two kinds of training with a scalar head share: the model, its scores, and a look at the trainer's own batch."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from scalequest.errors import UserError
from scalequest.io import rounded
from scalequest.models.folder import local_path
from scalequest.models.weights import load_tokenizer
from scalequest.training.collated import preflight_error, show_mask
from scalequest.training.job import Comparison, Job
from scalequest.training.measured import Measured

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


class ScalarKind:
    """A kind of training whose model ends in one number; ``Reward`` and ``Regression`` add trainer and rows."""

    scalar_head: ClassVar[bool] = True
    most_tests: ClassVar[int] = 64
    most_learned: ClassVar[int] = 64

    def load(self, path: Path, dtype: Any, seed: int) -> Any:
        """The scorer of a folder."""
        return load_scorer(path, dtype, seed)

    def facts(self, rows: Sequence[Any]) -> dict[str, int]:
        """Nothing besides what every kind reports."""
        return {}

    def measure(self, model: Any, tests: Sequence[list[int]]) -> list[float]:
        """Raw score of each probe."""
        return raw_scores(model, tests)

    def compare(self, job: Job, base: Measured, trained: list[float], saved: list[float]) -> Comparison:
        """How far training and saving moved the scores; the stage compares them with its labels."""
        return compare_scores(base.float32, trained, saved)


def compare_scores(base: Sequence[float], trained: Sequence[float], saved: Sequence[float]) -> Comparison:
    """How far training moved the scores of N probes apart from one another, and how far saving moved them again.

    All three are standard deviations, in logits: a constant that is added to every score ranks nothing. ``lost_in_saving``
    is up where saving moved the scores by more than half of what training did, because little of the training is left
    then, or by more than half of the trained scores' own spread, because they rank what rounding drew then.

    Args:
        base: N scores of the model that training started from, its head included.
        trained: N scores of the trained weights.
        saved: N scores of the saved model.
    """
    if not trained:
        return {}, {}
    spread = float(np.std(trained))
    learned = float(np.std(np.subtract(trained, base)))
    moved = float(np.std(np.subtract(saved, trained)))
    metrics = {
        "probes": len(trained),
        "score_deviation": rounded(spread),
        "moved_by_training": rounded(learned),
        "moved_by_saving": rounded(moved),
    }
    return metrics, {"lost_in_saving": moved > min(learned, spread) / 2}


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
            raise preflight_error(f"score {tokenizer.decode(row)!r}", repr(tokenizer.decode(ids)))
    if labels and batch["labels"].tolist() != [np.float32(label).item() for label in labels[: len(rows)]]:
        raise preflight_error(f"learn {batch['labels'].tolist()}", str(labels[: len(rows)]), "transformers")
    if bad := [ids for ids in texts if ids[-1] == tokenizer.pad_token_id]:
        raise UserError(
            f"preflight: {len(bad)} sequences end in the padding token, where transformers and vLLM read the scalar head at "
            "different places. Expected another last token. Give the tokenizer a padding token of its own."
        )
