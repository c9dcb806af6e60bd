"""Scalar head trained with mean squared error on each text's label (paper: the difficulty scorer)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from scalequest.models.weights import load_tokenizer
from scalequest.training.divergence import watched
from scalequest.training.examples import ScoredText
from scalequest.training.job import Comparison, Job, Measured, arguments, lora, weights_dtype
from scalequest.training.scalar_head import check_batch, compare_scores, load_scorer, raw_scores


@dataclass(frozen=True)
class Regression:
    """Give each ``ScoredText`` its label."""

    noun: ClassVar[str] = "labelled questions"
    scalar_head: ClassVar[bool] = True
    most_tests: ClassVar[int] = 0  # the stage's probes alone

    def trainer(self, job: Job, folder: Path) -> Any:
        """The trainer of transformers itself; TRL has none for this."""
        from datasets import Dataset
        from peft import get_peft_model
        from transformers import DataCollatorWithPadding, Trainer, TrainingArguments

        tokenizer = load_tokenizer(job.model)
        scorer = self.load(job.model, weights_dtype(job), job.seed)
        scorer.config.problem_type = "regression"
        adapters = lora(job.params, scalar_head=True)
        trainer = watched(Trainer, job.rows, self.sequences)(
            model=get_peft_model(scorer, adapters) if adapters else scorer,
            args=TrainingArguments(**arguments(job, folder)),
            train_dataset=Dataset.from_list([{"input_ids": text.ids, "labels": text.label} for text in job.rows]),
            data_collator=DataCollatorWithPadding(tokenizer),
            processing_class=tokenizer,
        )
        check_batch(trainer, [text.ids for text in job.rows], [text.label for text in job.rows])
        return trainer

    def sequences(self, row: ScoredText) -> list[list[int]]:
        """The one sequence of a text."""
        return [row.ids]

    def load(self, path: Path, dtype: Any, seed: int) -> Any:
        """The scorer of a folder."""
        return load_scorer(path, dtype, seed)

    def facts(self, rows: Sequence[ScoredText]) -> dict[str, int]:
        """Nothing besides what every kind reports."""
        return {}

    def measure(self, model: Any, tests: Sequence[list[int]]) -> list[float]:
        """Raw score of each probe."""
        return raw_scores(model, tests)

    def compare(self, job: Job, base: Measured, trained: list[float], saved: list[float]) -> Comparison:
        """How far saving moved the scores; the stage compares them with its labels."""
        return compare_scores(trained, saved)
