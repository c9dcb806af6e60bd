"""Bradley-Terry reward model: a scalar head that puts each chosen sequence above its rejected one."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from scalequest.models.weights import load_tokenizer
from scalequest.training.divergence import watched
from scalequest.training.examples import Pair
from scalequest.training.job import Comparison, Job, Measured, arguments, lora, weights_dtype
from scalequest.training.scalar_head import check_batch, compare_scores, load_scorer, raw_scores


@dataclass(frozen=True)
class Reward:
    """Score the chosen sequence of each ``Pair`` above the rejected one."""

    noun: ClassVar[str] = "preference pairs"
    scalar_head: ClassVar[bool] = True
    most_tests: ClassVar[int] = 0  # the stage's probes alone

    def trainer(self, job: Job, folder: Path) -> Any:
        """TRL's trainer on token ids."""
        from datasets import Dataset
        from trl import RewardConfig, RewardTrainer

        rows = [{"chosen_ids": p.prompt + p.chosen, "rejected_ids": p.prompt + p.rejected} for p in job.rows]
        trainer = watched(RewardTrainer, job.rows, self.sequences)(
            model=self.load(job.model, weights_dtype(job), job.seed),
            args=RewardConfig(**arguments(job, folder), max_length=None),
            train_dataset=Dataset.from_list(rows),
            processing_class=load_tokenizer(job.model),
            peft_config=lora(job.params, scalar_head=True),
        )
        chosen, rejected = [row["chosen_ids"] for row in rows], [row["rejected_ids"] for row in rows]
        # The collator puts the chosen halves of a batch first.
        check_batch(trainer, chosen[:2] + rejected[:2] + chosen[2:] + rejected[2:], [])
        return trainer

    def sequences(self, row: Pair) -> list[list[int]]:
        """Both sides of a pair, each after the prompt."""
        return [row.prompt + row.chosen, row.prompt + row.rejected]

    def load(self, path: Path, dtype: Any, seed: int) -> Any:
        """The scorer of a folder."""
        return load_scorer(path, dtype, seed)

    def facts(self, rows: Sequence[Pair]) -> dict[str, int]:
        """Nothing besides what every kind reports."""
        return {}

    def measure(self, model: Any, tests: Sequence[list[int]]) -> list[float]:
        """Raw score of each probe."""
        return raw_scores(model, tests)

    def compare(self, job: Job, base: Measured, trained: list[float], saved: list[float]) -> Comparison:
        """How far saving moved the scores; the stage compares them with its labels."""
        return compare_scores(trained, saved)
