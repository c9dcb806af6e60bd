"""Direct preference optimization (Rafailov et al. 2023), the starting model as reference (paper 2.3)."""

import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from scalequest.io import rounded
from scalequest.statistics import proportion_above_chance
from scalequest.training.causal import CausalKind, log_probability
from scalequest.training.collated import preflight_error, show_mask
from scalequest.training.examples import Pair
from scalequest.training.job import HELD_OUT, Comparison, Job, arguments
from scalequest.training.measured import Measured

log = logging.getLogger("scalequest")

# Fewer held-out pairs cannot show a preference: 8 of 8 are 2.8 standard errors above one half, 6 of 8 are 1.4.
FEWEST_HELD_OUT = 8


@dataclass(frozen=True)
class DPO(CausalKind):
    """Prefer the chosen target of each ``Pair`` to the rejected one.

    Attributes:
        beta: weight of the distance from the reference; the implicit reward is beta * log(policy / reference).
    """

    noun: ClassVar[str] = "preference pairs"
    most_tests: ClassVar[int] = 256
    # Of pairs that were learned a preference shows nothing, only that saving kept it.
    most_learned: ClassVar[int] = 16

    beta: float

    def trainer(self, job: Job, folder: Path) -> Any:
        """TRL's trainer on token ids, policy and reference in one precision."""
        from trl import DPOConfig, DPOTrainer

        class TokenDPOTrainer(DPOTrainer):
            """Takes token ids: TRL would tokenize text again, and add a BOS that the template already holds."""

            def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
                return dataset

        rows = [{"prompt_ids": p.prompt, "chosen_ids": p.chosen, "rejected_ids": p.rejected} for p in job.rows]
        args = DPOConfig(
            **arguments(job, folder),
            beta=self.beta,
            loss_type=["sigmoid"],
            max_length=None,
            # The reference's log-probabilities, once, from the same weights in the same precision.
            precompute_ref_log_probs=job.params.method == "full",
        )
        trainer = self.start(
            TokenDPOTrainer, job, args=args, train_dataset=_shared_dataset(rows, args, folder / "pairs")
        )
        check_batch(trainer, job.rows)
        return trainer

    def facts(self, rows: Sequence[Pair]) -> dict[str, int]:
        """Nothing besides what every kind reports."""
        return {}

    def measure(self, model: Any, tests: Sequence[Pair]) -> list[float]:
        """Log-probability of each chosen target less that of the rejected one, in nats."""
        return [
            log_probability(model, pair.prompt, pair.chosen) - log_probability(model, pair.prompt, pair.rejected)
            for pair in tests
        ]

    def compare(self, job: Job, base: Measured, trained: list[float], saved: list[float]) -> Comparison:
        """Margin and accuracy of the implicit reward, of the trained weights and of the saved model.

        Margin: mean of beta * (log-ratio to the reference of chosen less rejected), in nats. Accuracy: share of pairs above 0.
        The reference is the starting model in the same precision. A preference on training pairs shows nothing: without
        FEWEST_HELD_OUT held-out pairs ``few_held_out`` is up and ``no_preference`` is left out, as nobody knows.
        """
        n = len(job.tests)
        trained_margins = [self.beta * (new - old) for new, old in zip(trained, base.float32, strict=True)]
        margins = [self.beta * (new - old) for new, old in zip(saved, base.engine, strict=True)]
        margin_trained, margin = sum(trained_margins) / n, sum(margins) / n
        n_right = sum(value > 0 for value in margins)
        metrics = {
            "pairs": n,
            "pairs_from": job.tests_from,
            "margin_trained": rounded(margin_trained),
            "margin": rounded(margin),
            "accuracy_trained": rounded(sum(value > 0 for value in trained_margins) / n),
            "accuracy": rounded(n_right / n),
        }
        few = job.tests_from != HELD_OUT or n < FEWEST_HELD_OUT
        flags = {"lost_in_saving": margin_trained > 0 and margin < margin_trained / 2, "few_held_out": few}
        return metrics, flags if few else flags | {"no_preference": not proportion_above_chance(n_right, n, 0.5)}


def _shared_dataset(rows: list[dict[str, Any]], args: Any, path: Path) -> Any:
    """The rows, in a file where several processes train.

    TRL's first process writes its reference's log-probabilities beside that file, and the others read them there.
    """
    from datasets import Dataset, load_from_disk

    if args.world_size == 1:
        return Dataset.from_list(rows)
    with args.main_process_first():
        if args.process_index == 0:
            shutil.rmtree(path, ignore_errors=True)
            Dataset.from_list(rows).save_to_disk(path)
    return load_from_disk(path)


def check_batch(trainer: Any, kept: Sequence[Pair]) -> None:
    """Compare two pairs of the trainer's own batch with the stage's: targets alone count, all tokens are visible.

    Raises:
        UserError: the batch differs.
    """
    tokenizer = trainer.processing_class
    pairs = kept[:2]
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(len(pairs))])
    # The collator puts the chosen halves first, then the rejected ones.
    targets = [p.chosen for p in pairs] + [p.rejected for p in pairs]
    prompts = [p.prompt for p in pairs] * 2
    for row, (prompt, target) in enumerate(zip(prompts, targets, strict=True)):
        ids, mask = batch["input_ids"][row].tolist(), batch["completion_mask"][row].tolist()
        n_seen = sum(batch["attention_mask"][row].tolist())
        n = len(prompt) + len(target)
        side = "chosen" if row < len(pairs) else "rejected"
        log.info("preflight %s: %s", side, show_mask(ids[:n], [bool(m) for m in mask[:n]], tokenizer))
        compared = [i for i, m in zip(ids, mask, strict=True) if m]
        if compared != target or n_seen != n:
            raise preflight_error(
                f"compare {tokenizer.decode(compared)!r} with {n_seen} tokens visible",
                f"{tokenizer.decode(target)!r} with {n}",
            )
