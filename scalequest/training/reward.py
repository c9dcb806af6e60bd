"""Bradley-Terry reward model: a scalar head that puts each chosen sequence above its rejected one."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from scalequest.models.weights import load_tokenizer
from scalequest.training.divergence import watched
from scalequest.training.job import Job, arguments, lora
from scalequest.training.scalar_head import ScalarKind, check_batch


@dataclass(frozen=True)
class Reward(ScalarKind):
    """Score the chosen sequence of each ``Pair`` above the rejected one."""

    noun: ClassVar[str] = "preference pairs"

    def trainer(self, job: Job, folder: Path) -> Any:
        """TRL's trainer on token ids."""
        from datasets import Dataset
        from trl import RewardConfig, RewardTrainer

        rows = [{"chosen_ids": p.prompt + p.chosen, "rejected_ids": p.prompt + p.rejected} for p in job.rows]
        trainer = watched(RewardTrainer, job.rows)(
            model=self.load(job.model, job.weights_dtype, job.seed),
            args=RewardConfig(**arguments(job, folder), max_length=None),
            train_dataset=Dataset.from_list(rows),
            processing_class=load_tokenizer(job.model),
            peft_config=lora(job.params, scalar_head=True),
        )
        chosen, rejected = [row["chosen_ids"] for row in rows], [row["rejected_ids"] for row in rows]
        # The collator puts the chosen halves of a batch first.
        check_batch(trainer, chosen[:2] + rejected[:2] + chosen[2:] + rejected[2:], [])
        return trainer
