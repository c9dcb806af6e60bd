"""Scalar head trained with mean squared error on each text's label (paper: the difficulty scorer)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from scalequest.models.weights import load_tokenizer
from scalequest.training.divergence import watched
from scalequest.training.job import Job, arguments, lora
from scalequest.training.scalar_head import ScalarKind, check_batch


@dataclass(frozen=True)
class Regression(ScalarKind):
    """Give each ``ScoredText`` its label."""

    noun: ClassVar[str] = "labelled questions"

    def trainer(self, job: Job, folder: Path) -> Any:
        """The trainer of transformers itself; TRL has none for this."""
        from datasets import Dataset
        from peft import get_peft_model
        from transformers import DataCollatorWithPadding, Trainer, TrainingArguments

        tokenizer = load_tokenizer(job.model)
        scorer = self.load(job.model, job.weights_dtype, job.seed)
        scorer.config.problem_type = "regression"
        adapters = lora(job.params, scalar_head=True)
        trainer = watched(Trainer, job.rows)(
            model=get_peft_model(scorer, adapters) if adapters else scorer,
            args=TrainingArguments(**arguments(job, folder)),
            train_dataset=Dataset.from_list([{"input_ids": text.ids, "labels": text.label} for text in job.rows]),
            data_collator=DataCollatorWithPadding(tokenizer),
            processing_class=tokenizer,
        )
        check_batch(trainer, [text.ids for text in job.rows], [text.label for text in job.rows])
        return trainer
