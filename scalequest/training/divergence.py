"""The loss curve of a training, which stops at its first loss or gradient norm that is not a finite number, or where nothing
is left to learn with.

transformers replaces a NaN loss in its log by the mean of the losses before it (``logging_nan_inf_filter``), clipping then
spreads one NaN gradient to every weight, and the run ends with an unsuspicious loss. Here each
micro-batch's own loss is read, and each step's gradient norm, before anything is logged or saved:
the loss of padded rows at once, that of a pack with its step's. On a GPU several steps of packs are
read together.

A divergence may also stay finite: where activations overflow to infinity, a normalisation that divides by infinity makes zeros of
them on some CPUs. Then all logits are 0, the loss is that of chance, and the gradient is exactly 0 for ever.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from scalequest.errors import UserError
from scalequest.training.collated import BOUNDARIES, unpacked

SEEN = ("input_ids", "attention_mask", BOUNDARIES, "rows")  # of a batch, to find its rows

# Steps of packs whose numbers a GPU keeps and the host reads together. To read a number, the host
# waits for all work that it has launched, and the GPU then waits for the next. Read at each step,
# SmolLM2-135M on an H200 had 42 ms of kernels in a step of 75 ms (13,807 tokens). With ten, nine of
# ten such waits are gone. More would gain little, and report a divergence later.
READ_TOGETHER = 10
# A loss above this has a gradient. Below it, as after a preference is learned by heart, rounding may leave none.
LEARNED = 1e-6


class DivergenceError(UserError):
    """A loss or gradient norm is not a finite number, or there is no gradient; one of several processes may see it alone."""


@dataclass(frozen=True)
class Step:
    """One optimizer step of this process whose numbers are still on the device.

    Attributes:
        number: of the step, from 1 on.
        epoch: after the step.
        rate: learning rate that the step was taken with.
        norm: of the gradient, a scalar tensor; DeepSpeed gives a number or None.
        batches: the step's micro-batches, each with its loss.
    """

    number: int
    epoch: float
    rate: float
    norm: Any
    batches: Sequence[tuple[dict[str, Any], Any]]


class StopsAtNonFinite:
    """What ``watched`` puts before a trainer's class. The trainer itself logs nothing (``logging_strategy`` no).

    Attributes:
        steps_per_reading: how many steps are read together at most. The curve of packs is the same
            for any number; it is 1 for padded rows, of which TRL logs means since its last log. A
            step that a checkpoint or the end of the training follows is always read.
    """

    steps_per_reading: int = 1
    # Set by watched(): the rows as the model sees them, and a name for each.
    sequences: Sequence[Sequence[list[int]]]
    names: Sequence[str]
    _batches: list[tuple[dict[str, Any], Any]]  # the micro-batches since the last step, each with its loss
    _unread: list[Step]

    def training_step(self: Any, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Run one micro-batch forward and backward.

        The loss of a pack is read later: to read it here, a GPU would have to wait for each pass.

        Raises:
            DivergenceError: its loss is not finite; the rows of this micro-batch are named.
        """
        batch = {name: inputs[name] for name in SEEN if name in inputs}
        loss = super().training_step(model, inputs, *args, **kwargs)  # type: ignore[misc]
        self._batches.append((batch, loss))
        if BOUNDARIES not in inputs and not math.isfinite(value := loss.item()):
            rate = self.optimizer.param_groups[0]["lr"]
            raise self._diverged(self.state.global_step + 1, value, None, rate, self._rows([batch]))
        return loss

    def _maybe_log_save_evaluate(
        self: Any, loss: Any, norm: Any, *args: Any, learning_rate: Any, **kwargs: Any
    ) -> None:
        """Keep the numbers of the step that was taken, and read those kept so far where it is time.

        transformers calls this after each step, and again at the end of an epoch. All processes
        decide alike: they count the same steps, and agree on checkpoints. Saving comes after
        reading, so no checkpoint follows a broken step.
        """
        if self._batches:
            self._unread.append(Step(self.state.global_step, self.state.epoch, learning_rate, norm, self._batches))
            self._batches = []
        full = len(self._unread) >= self.steps_per_reading
        if full or self.control.should_save or self.control.should_training_stop:
            self._read()
        super()._maybe_log_save_evaluate(loss, norm, *args, learning_rate=learning_rate, **kwargs)  # type: ignore[misc]

    def _read(self: Any) -> None:
        """Log each step that was kept, under its own number.

        The loss is the mean over the processes. The gradient norm is equal in all of them.

        Raises:
            DivergenceError: the loss or gradient norm of a step is not finite, or the norm is 0 although the
                loss is not. The first such step is reported, with the rows of those micro-batches whose loss broke, in all processes;
                where no loss did, with all rows of the step.
        """
        import torch

        if not (steps := self._unread):
            return
        self._unread = []
        kept = torch.stack([torch.stack(self._numbers(step)) for step in steps])
        found = self.accelerator.gather(kept).view(-1, len(steps), 2)
        losses, norms = found[..., 0].mean(0), found[..., 1].amax(0)  # amax gives NaN if one process has it
        for step, (loss, norm) in zip(steps, torch.stack([losses, norms], dim=1).tolist(), strict=True):
            no_gradient = step.norm is not None and norm == 0 and loss > LEARNED
            if no_gradient or not (math.isfinite(loss) and math.isfinite(norm)):
                from accelerate.utils import gather_object

                # Of one process alone, perhaps.
                broken = [batch for batch, its_loss in step.batches if not math.isfinite(its_loss.item())]
                rows = gather_object(self._rows(broken)) or gather_object(self._rows([b for b, _ in step.batches]))
                raise self._diverged(step.number, loss, norm, step.rate, rows)
            # The last step is the current one, so the trainer's state ends as it was.
            self.state.global_step, self.state.epoch = step.number, step.epoch
            known = {} if step.norm is None else {"grad_norm": norm}
            self.log({"loss": loss, **known, "learning_rate": step.rate})

    def _numbers(self: Any, step: Step) -> list[Any]:
        """Loss and gradient norm of a step in this process, as float32 scalars on the device."""
        import torch

        loss = sum(loss.float() for _, loss in step.batches)  # in order, as transformers adds them
        norm = step.norm
        if norm is None:  # DeepSpeed alone may know none at a step
            norm = 0.0 if self.is_deepspeed_enabled else math.nan
        if hasattr(norm, "full_tensor"):  # FSDP2
            norm = norm.full_tensor()
        return [loss, torch.as_tensor(norm, dtype=torch.float32, device=loss.device)]

    def _rows(self: Any, batches: Sequence[dict[str, Any]]) -> list[str]:
        """Names of the rows in these batches, found by their token ids; rows with equal tokens cannot be distinguished."""
        by_tokens: dict[tuple[int, ...], str] = {}
        for name, found in zip(self.names, self.sequences, strict=True):
            for ids in found:
                by_tokens.setdefault(tuple(ids), name)
        rows = [by_tokens.get(tuple(ids), "unknown") for batch in batches for ids in _token_rows(batch)]
        return list(dict.fromkeys(rows))

    def _diverged(
        self: Any, step: int, loss: float, norm: float | None, rate: float, rows: Sequence[str]
    ) -> DivergenceError:
        return DivergenceError(
            f"training diverged at step {step} of {self.state.max_steps}: loss {loss:g}, gradient norm "
            f"{'not computed' if norm is None else f'{norm:g}'}, learning rate {rate:g}, rows {', '.join(rows)}. Expected "
            f"finite numbers{' and a gradient: what the model answers no longer depends on its weights' if norm == 0 else ''}"
            "; no model was written. Look at these rows. If they are sound, lower the stage's learning_rate "
            "or raise its warmup_frac."
        )


def _token_rows(batch: dict[str, Any]) -> list[list[int]]:
    """Token ids of each row of a padded batch or of a pack; what fills a pack up is left out."""
    if BOUNDARIES in batch:
        return unpacked(batch)
    masked = zip(batch["input_ids"].tolist(), batch["attention_mask"].tolist(), strict=True)
    return [[i for i, m in zip(ids, mask, strict=True) if m] for ids, mask in masked]


def watched(trainer: type, rows: Sequence[Any]) -> type:
    """The trainer class, stopping at the first loss or gradient norm that is not finite.

    Args:
        trainer: transformers' Trainer or a class made of it.
        rows: what is trained on (scalequest.training.examples); an ``id`` may be empty.
    """
    names = [f"{index} ({row.id})" if row.id else str(index) for index, row in enumerate(rows)]
    known = {"sequences": [row.sequences() for row in rows], "names": names, "_batches": [], "_unread": []}
    return type(trainer.__name__, (StopsAtNonFinite, trainer), known)
