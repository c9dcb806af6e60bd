"""Stop a training at its first loss or gradient norm that is not a finite number.

transformers replaces a NaN loss in its log by the mean of the losses before it (``logging_nan_inf_filter``), clipping then
spreads one NaN gradient to every weight, and the run ends with an unsuspicious loss. Here each
micro-batch's own loss is read, and each step's gradient norm, before anything is filtered or saved:
the loss of padded rows at once, that of a pack when its step is logged.
"""

import math
from collections.abc import Sequence
from typing import Any

from scalequest.errors import UserError
from scalequest.training.collated import BOUNDARIES, unpacked

SEEN = ("input_ids", "attention_mask", BOUNDARIES, "rows")  # of a batch, to find its rows


class DivergenceError(UserError):
    """A loss or gradient norm is not a finite number; one of several processes may be the only one that sees it."""


class StopsAtNonFinite:
    """What ``watched`` puts before a trainer's class; the two methods are those that trainers are meant to override."""

    # Set by watched(): the rows as the model sees them, and a name for each.
    sequences: Sequence[Sequence[list[int]]]
    names: Sequence[str]
    _batches: list[tuple[dict[str, Any], Any]]  # the micro-batches since the last step, and the losses of packs

    def training_step(self: Any, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Run one micro-batch forward and backward.

        The loss of a pack is read when the step is logged: to read it here, a GPU would have to wait for each pass.

        Raises:
            DivergenceError: its loss is not finite; the rows of this micro-batch are named.
        """
        batch = {name: inputs[name] for name in SEEN if name in inputs}
        loss = super().training_step(model, inputs, *args, **kwargs)  # type: ignore[misc]
        packed = BOUNDARIES in inputs
        self._batches.append((batch, loss if packed else None))
        if not packed and not math.isfinite(value := loss.mean().item()):
            rate = self.optimizer.param_groups[0]["lr"]
            raise self._diverged(self.state.global_step + 1, value, None, rate, self._rows([batch]))
        return loss

    def log(self: Any, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Log one step.

        Raises:
            DivergenceError: the step's loss or gradient norm is not finite; the rows of all its
            micro-batches and processes are named.
        """
        if "loss" in logs:
            # DeepSpeed alone may know no gradient norm at a step.
            norm = logs.get("grad_norm", 0.0 if self.is_deepspeed_enabled else math.nan)
            if not (math.isfinite(logs["loss"]) and math.isfinite(norm)):
                from accelerate.utils import gather_object

                broken = [batch for batch, loss in self._batches if loss is not None and not math.isfinite(loss.item())]
                # Of one process alone, perhaps; where no loss says which rows, all of the step are named.
                rows = gather_object(self._rows(broken)) or gather_object(self._rows([b for b, _ in self._batches]))
                raise self._diverged(self.state.global_step, logs["loss"], norm, logs["learning_rate"], rows)
            self._batches.clear()
        super().log(logs, *args, **kwargs)  # type: ignore[misc]

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
            "finite numbers; no model was written. Look at these rows. If they are sound, lower the stage's learning_rate "
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
    known = {"sequences": [row.sequences() for row in rows], "names": names, "_batches": []}
    return type(trainer.__name__, (StopsAtNonFinite, trainer), known)
