"""Supervised fine-tuning: loss on each example's target tokens only."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from scalequest.io import rounded
from scalequest.training.causal import CausalKind, log_probability
from scalequest.training.collated import preflight_error, show_mask
from scalequest.training.examples import IGNORED, Example
from scalequest.training.job import Comparison, Job, Measured, arguments

log = logging.getLogger("scalequest")


@dataclass(frozen=True)
class SFT(CausalKind):
    """Fine-tune a causal model on the targets of ``Example`` rows."""

    noun: ClassVar[str] = "examples"
    most_tests: ClassVar[int] = 32

    def trainer(self, job: Job, folder: Path) -> Any:
        """TRL's trainer, which is given labels and so masks nothing by itself."""
        from datasets import Dataset
        from trl import SFTConfig, SFTTrainer

        rows = [{"input_ids": e.prompt + e.target, "labels": [IGNORED] * len(e.prompt) + e.target} for e in job.rows]
        trainer = self.start(
            SFTTrainer,
            job,
            args=SFTConfig(**arguments(job, folder), max_length=None, packing=False),
            train_dataset=Dataset.from_list(rows),
        )
        check_batch(trainer, job.rows)
        return trainer

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
        metrics = {
            "rows": len(job.tests),
            "rows_from": job.tests_from,
            **{name: rounded(mean) for name, mean in means.items()},
        }
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
            raise preflight_error(f"learn {tokenizer.decode(learned)!r}", repr(tokenizer.decode(example.target)))
