"""Checkpoints of a training: written by the clock, so that they cost the same small share of a long run and of a short one."""

import json
import logging
import shutil
import time
from pathlib import Path
from typing import Any

log = logging.getLogger("scalequest")

MOMENTS = 2  # of Adam per trained number, in its precision


def last_checkpoint(folder: Path) -> Path | None:
    """Newest complete checkpoint: trainer_state.json is the last file that transformers writes into one."""
    found = sorted(folder.glob("checkpoint-*"), key=lambda p: int(p.name.split("-")[1]), reverse=True)
    for checkpoint in found:
        try:
            json.loads((checkpoint / "trainer_state.json").read_text())
        except (OSError, json.JSONDecodeError):
            shutil.rmtree(checkpoint)
        else:
            return checkpoint
    return None


def checkpoint_bytes(model: Any) -> int:
    """About how much a checkpoint takes: the trained numbers and the optimizer's."""
    return sum(p.numel() * p.element_size() * (1 + MOMENTS) for p in model.parameters() if p.requires_grad)


def make_room(folder: Path, needed: int) -> bool:
    """Whether the disk takes ``needed`` more bytes; earlier checkpoints go first where it is short.

    They are kept where there is room, until the new one is complete: a run that is killed while it writes has one then.
    """
    if shutil.disk_usage(folder).free < needed:
        for old in folder.glob("checkpoint-*"):
            log.info("the disk of %s is short: %s is removed before the next one is written", folder, old.name)
            shutil.rmtree(old, ignore_errors=True)
    if (free := shutil.disk_usage(folder).free) < needed:
        log.warning(
            "no checkpoint: %s has %.1f GB free, one takes %.1f GB. A killed run would start again. Free some space.",
            folder, free / 1e9, needed / 1e9,
        )  # fmt: skip
        return False
    return True


def checkpoints_by_time(folder: Path, minutes: float, every: int = 1) -> Any:
    """A callback of transformers' trainer that saves at the first step after each ``minutes``; 0 = at every step.

    The last step gets none, because the model itself is written next. With several processes the
    first one decides, at each ``every``-th step: to hear from it, the others wait for their GPUs.
    """
    from transformers import TrainerCallback

    class CheckpointsByTime(TrainerCallback):
        written = 0.0

        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.written = time.monotonic()

        def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
            if minutes and args.world_size > 1 and state.global_step % every:
                return
            due = time.monotonic() - self.written >= 60 * minutes and state.global_step < state.max_steps
            if due and state.is_world_process_zero and not make_room(folder, checkpoint_bytes(model)):
                due, self.written = False, time.monotonic()
            control.should_save = _agreed(due, args.world_size)

        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.written = time.monotonic()  # the time that writing took is no training

    return CheckpointsByTime()


def _agreed(due: bool, processes: int) -> bool:
    """What the first process says: saving is a collective operation, and clocks differ."""
    if processes == 1:
        return due
    from accelerate.utils import broadcast_object_list

    return bool(broadcast_object_list([due])[0])
