"""Supervised fine-tuning: loss on each example's target tokens only, on padded rows or on packs of rows."""

import itertools
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from scalequest.io import rounded
from scalequest.params import SupervisedTraining
from scalequest.training.attention import choose_kernel, use_kernel, use_usual
from scalequest.training.causal import CausalKind, log_probability
from scalequest.training.collated import check_rows_apart, preflight_error, show_mask, unpacked
from scalequest.training.divergence import READ_TOGETHER
from scalequest.training.examples import IGNORED, Example
from scalequest.training.fused import add_packed_loss, check_fused
from scalequest.training.job import Comparison, Job, arguments
from scalequest.training.launch import here
from scalequest.training.measured import Measured
from scalequest.training.optimizer import rounded_optimizer
from scalequest.training.packing import PackCollator, PackedRows, PackedSteps

log = logging.getLogger("scalequest")


@dataclass(frozen=True)
class SFT(CausalKind):
    """Fine-tune a causal model on the targets of ``Example`` rows."""

    noun: ClassVar[str] = "examples"
    most_tests: ClassVar[int] = 32
    # Of rows that were learned a loss shows no more than that it fell, and that saving kept it.
    most_learned: ClassVar[int] = 16

    def trainer(self, job: Job, folder: Path) -> Any:
        """TRL's trainer, which is given labels and so masks nothing by itself."""
        from datasets import Dataset
        from trl import SFTConfig, SFTTrainer

        packed = isinstance(job.params, SupervisedTraining) and job.params.packing
        packs = steps_of_packs(job) if packed else None
        given = job.rows[:1] if packed else job.rows  # packs take their place, but TRL starts with some data set
        rows = [{"input_ids": e.prompt + e.target, "labels": [IGNORED] * len(e.prompt) + e.target} for e in given]
        settings = arguments(job, folder, packs.per_process if packs else None)
        trainer = self.start(
            packed_trainer() if packs else SFTTrainer,
            job,
            args=SFTConfig(**settings, max_length=None, packing=False),
            train_dataset=Dataset.from_list(rows),
        )
        if packs is None:
            check_batch(trainer, job.rows)
        else:
            pack(trainer, job, packs)
        if job.params.steps_are_rounded:
            trainer.optimizer_cls_and_kwargs = rounded_optimizer(job)
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


# --------------------------------------------------------------------------------------------------------------- packing


def packed_trainer() -> type:
    """TRL's trainer with the loss of a pack; see ``scalequest.training.packing`` for what TRL's own packing does."""
    from trl import SFTTrainer

    class PackedSFTTrainer(SFTTrainer):
        def compute_loss(
            self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
        ) -> Any:
            """The pack's part of the mean over the step's learned tokens."""
            wanted = ("input_ids", "position_ids", "cu_seq_lens_q", "max_length_q", "learned", "targets")
            total = model(**{name: inputs[name] for name in wanted}, use_cache=False)
            loss = total / num_items_in_batch.clamp(min=1)
            return loss * self.accelerator.num_processes  # whose gradients are averaged

    return PackedSFTTrainer


def steps_of_packs(job: Job) -> PackedSteps:
    """The order of the job's packs."""
    params = job.params
    budget = params.per_device_batch_size * params.max_length
    lengths = [len(row) for row in job.rows]
    return PackedSteps(lengths, params.batch_size, budget, here(), params.epochs, job.seed)


def pack(trainer: Any, job: Job, packs: PackedSteps) -> None:
    """Let the trainer take packs.

    Raises:
        UserError: the model or this machine cannot, or a pack is not what the stage means.
    """
    import torch

    check_fused(job.runtime.fused_loss)
    model = trainer.model.get_base_model() if hasattr(trainer.model, "get_base_model") else trainer.model
    longest = max(len(row) for row in job.rows)
    kernel = choose_kernel(job.runtime.packed_attention, model, job.dtype, longest)
    use_kernel(model, kernel)
    add_packed_loss(model, job.runtime.fused_loss)
    trainer.packs, trainer.restore = packs, use_usual
    trainer.train_dataset = PackedRows(job.rows)
    multiple = 1
    if torch.cuda.is_available():
        multiple, trainer.steps_per_reading = 64, READ_TOGETHER
    trainer.data_collator = PackCollator(trainer.processing_class.pad_token_id, longest, multiple)
    log.info("%d packs of at most %d tokens per step, attention %s, loss %s",
             packs.per_step, job.params.per_device_batch_size * job.params.max_length, kernel, job.runtime.fused_loss)  # fmt: skip
    check_packs(trainer, job)


def check_packs(trainer: Any, job: Job) -> None:
    """Compare a pack of the first step with the stage's rows, and see that a row's tokens change nothing in its neighbour.

    Raises:
        UserError: a boundary, a position, a target or the attention differs.
    """
    tokenizer = trainer.processing_class
    places = max(itertools.islice(trainer.packs, trainer.packs.per_step), key=len)  # of the first step
    batch = trainer.data_collator([trainer.train_dataset[places]])
    found = unpacked(batch)
    bounds = batch["cu_seq_lens_q"].tolist()
    log.info("preflight: a pack of %d rows, %d tokens, boundaries %s", len(places), bounds[-1], bounds)
    positions = batch["position_ids"][0].tolist()
    learned = dict(zip(batch["learned"].tolist(), batch["targets"].tolist(), strict=True))
    for number, place in enumerate(places):
        example, start = job.rows[place], bounds[number]
        end = start + len(example)
        expected = example.prompt + example.target
        if number >= len(found) or found[number] != expected or positions[start:end] != list(range(len(example))):
            seen = tokenizer.decode(found[number]) if number < len(found) else ""
            raise preflight_error(
                f"see {seen!r} as row {number} of a pack", f"{tokenizer.decode(expected)!r} from place 0 on"
            )
        first = max(len(example.prompt), 1)
        predicted = {at - 1: expected[at - start] for at in range(start + first, end)}
        inside = {at: token for at, token in learned.items() if start <= at < end}
        if number < 2:
            shown = [at - 1 in inside for at in range(start, end)]
            log.info("preflight: %s", show_mask(expected, shown, tokenizer))
        if inside != predicted:
            raise preflight_error(
                f"learn {tokenizer.decode(list(inside.values()))!r}", repr(tokenizer.decode(example.target))
            )
    if any(at >= bounds[len(places)] for at in learned) or batch["max_length_q"] < max(len(row) for row in found):
        raise preflight_error("learn what fills a pack up, or cut its rows", "neither")
    if here() == 1:  # otherwise the weights may be spread over processes
        check_rows_apart(trainer, trainer.train_dataset[places[:2]])
