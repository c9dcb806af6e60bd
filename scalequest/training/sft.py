"""Supervised fine-tuning: loss on each example's target tokens only."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from scalequest.errors import UserError
from scalequest.io import rounded
from scalequest.models.weights import load_tokenizer
from scalequest.training.collated import show_mask
from scalequest.training.divergence import watched
from scalequest.training.examples import IGNORED, Example
from scalequest.training.job import (
    Comparison,
    Job,
    Measured,
    arguments,
    load_causal,
    log_probability,
    lora,
    weights_dtype,
)

log = logging.getLogger("scalequest")


@dataclass(frozen=True)
class SFT:
    """Fine-tune a causal model on the targets of ``Example`` rows."""

    noun: ClassVar[str] = "examples"
    scalar_head: ClassVar[bool] = False
    most_tests: ClassVar[int] = 32

    def trainer(self, job: Job, folder: Path) -> Any:
        """TRL's trainer, which is given labels and so masks nothing by itself."""
        from datasets import Dataset
        from trl import SFTConfig, SFTTrainer

        rows = [{"input_ids": e.prompt + e.target, "labels": [IGNORED] * len(e.prompt) + e.target} for e in job.rows]
        trainer = watched(SFTTrainer, job.rows, self.sequences)(
            model=self.load(job.model, weights_dtype(job), job.seed),
            args=SFTConfig(**arguments(job, folder), max_length=None, packing=False),
            train_dataset=Dataset.from_list(rows),
            processing_class=load_tokenizer(job.model),
            peft_config=lora(job.params),
        )
        check_batch(trainer, job.rows)
        return trainer

    def sequences(self, row: Example) -> list[list[int]]:
        """The one sequence of an example."""
        return [row.prompt + row.target]

    def load(self, path: Path, dtype: Any, seed: int) -> Any:
        """The causal model of a folder."""
        return load_causal(path, dtype, seed)

    def facts(self, rows: Sequence[Example]) -> dict[str, int]:
        """How many tokens are learned."""
        return {"learned_tokens": sum(len(example.target) for example in rows)}

    def measure(self, model: Any, tests: Sequence[Example]) -> list[float]:
        """Negative log-probability of each target, in nats."""
        return [-log_probability(model, example.prompt, example.target) for example in tests]

    def compare(self, job: Job, base: Measured, trained: list[float], saved: list[float]) -> Comparison:
        """Loss per learned token before the training, after it, and of the saved model."""
        n = sum(len(example.target) for example in job.tests)
        losses = {"loss_base": base.engine, "loss_trained": trained, "loss": saved}
        means = {name: sum(values) / n for name, values in losses.items()}
        gained = means["loss_base"] - means["loss_trained"]
        kept = means["loss_base"] - means["loss"]
        metrics = {"rows": len(job.tests), **{name: rounded(mean) for name, mean in means.items()}}
        return metrics, {"lost_in_saving": gained > 0 and kept < gained / 2}


def check_batch(trainer: Any, kept: Sequence[Example]) -> None:
    """Compare two rows of the trainer's own batch with the stage's: the whole row is visible, the target is learned.

    Raises:
        UserError: the batch differs.
    """
    tokenizer = trainer.processing_class
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(min(2, len(kept)))])
    for row, example in enumerate(kept[:2]):
        ids, labels = batch["input_ids"][row].tolist(), batch["labels"][row].tolist()
        n = len(example)
        log.info("preflight: %s", show_mask(ids[:n], [label != IGNORED for label in labels[:n]], tokenizer))
        learned = [label for label in labels if label != IGNORED]
        if learned != example.target or ids[:n] != example.prompt + example.target:
            raise UserError(
                f"preflight: the trainer would learn {tokenizer.decode(learned)!r}. Expected {tokenizer.decode(example.target)!r}. "
                "The installed TRL masks or truncates differently from the locked one: reinstall from requirements/, then rerun."
            )
