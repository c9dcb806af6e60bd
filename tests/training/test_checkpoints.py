"""Checkpoints by the clock, and room on the disk for them."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from scalequest.params import Params
from scalequest.runtime.facts import StageFacts
from scalequest.runtime.stage import StageRun
from scalequest.training import checkpoints
from scalequest.training.checkpoints import checkpoints_by_time, make_room
from tests.fakes import changed

pytestmark = pytest.mark.slow

MODEL = SimpleNamespace(
    parameters=lambda: [
        SimpleNamespace(numel=lambda: 100, element_size=lambda: 4, requires_grad=True),
        SimpleNamespace(numel=lambda: 9_999, element_size=lambda: 4, requires_grad=False),  # LoRA's base
    ]
)


class Steps:
    """A training of ``n`` steps by a clock of its own; ``saved`` are the steps that a checkpoint was asked for."""

    def __init__(
        self, folder: Path, minutes: float, monkeypatch: pytest.MonkeyPatch, processes: int = 1, every: int = 1
    ) -> None:
        self.now, self.saved, self.processes = 1000.0, list[int](), processes
        monkeypatch.setattr(checkpoints.time, "monotonic", lambda: self.now)
        self.callback = checkpoints_by_time(folder, minutes, every)

    def run(self, n: int, seconds: float, writing: float = 0.0) -> list[int]:
        args, control = SimpleNamespace(world_size=self.processes), SimpleNamespace(should_save=False)
        self.callback.on_train_begin(args, None, control)
        for number in range(1, n + 1):
            self.now += seconds
            control.should_save = False  # as transformers does where a step begins
            state = SimpleNamespace(global_step=number, max_steps=n, is_world_process_zero=True)
            self.callback.on_step_end(args, state, control, model=MODEL)
            if control.should_save:
                self.saved.append(number)
                self.now += writing
                self.callback.on_save(args, state, control)
        return self.saved


@pytest.mark.parametrize(
    ("minutes", "n", "seconds", "writing", "saved"),
    [
        pytest.param(5, 100, 2.9, 0, [], id="a_training_shorter_than_the_interval_writes_none"),
        pytest.param(5, 10, 100, 0, [3, 6, 9], id="at_the_first_step_after_each_five_minutes"),
        # After 300 s of training each, whatever a checkpoint takes to write.
        pytest.param(5, 10, 100, 250, [3, 6, 9], id="writing_is_no_training"),
        pytest.param(5, 9, 100, 0, [3, 6], id="none_at_the_last_step"),
        pytest.param(0, 4, 1, 0, [1, 2, 3], id="zero_is_every_step"),
    ],
)
def test_checkpoints_are_written_by_time(
    minutes: float, n: int, seconds: float, writing: float, saved: list[int], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):  # fmt: skip
    assert Steps(tmp_path, minutes, monkeypatch).run(n, seconds, writing) == saved


@pytest.mark.parametrize(
    ("processes", "minutes", "saved", "asked"),
    [(1, 5, [3, 6, 9], 10), (2, 5, [4, 8], 2), (2, 0, [1, 2, 3, 4, 5, 6, 7, 8, 9], 10)],
)
def test_several_processes_agree_at_every_fourth_step(
    processes: int, minutes: float, saved: list[int], asked: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Ten steps of 100 s: 300 s have passed at step 4, and again at step 8."""
    agreed, asks = checkpoints._agreed, list[bool]()
    monkeypatch.setattr(checkpoints, "_agreed", lambda due, n: asks.append(due) or agreed(due, n))
    assert Steps(tmp_path, minutes, monkeypatch, processes, every=4).run(10, 100) == saved
    assert len(asks) == asked


def disk(monkeypatch: pytest.MonkeyPatch, folder: Path, free: int, each: int) -> None:
    """A disk with ``free`` bytes beside the checkpoints, of ``each`` bytes."""
    monkeypatch.setattr(
        checkpoints.shutil,
        "disk_usage",
        lambda _: SimpleNamespace(free=free - each * len(list(folder.glob("checkpoint-*")))),
    )


def test_an_old_checkpoint_is_removed_first_only_if_the_disk_is_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "checkpoint-3").mkdir()
    disk(monkeypatch, tmp_path, free=2400, each=1200)
    assert make_room(tmp_path, 1200)
    assert (tmp_path / "checkpoint-3").is_dir()
    disk(monkeypatch, tmp_path, free=2399, each=1200)
    assert make_room(tmp_path, 1200)
    assert not (tmp_path / "checkpoint-3").exists()


def test_a_training_on_a_full_disk_goes_on_without_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    # 100 trained numbers of 4 bytes and two moments of 4 bytes: 1,200 bytes.
    disk(monkeypatch, tmp_path, free=1199, each=0)
    assert Steps(tmp_path, 5, monkeypatch).run(7, 100) == []
    assert [r.getMessage().split(":")[0] for r in caplog.records] == ["no checkpoint"] * 2
    disk(monkeypatch, tmp_path, free=1200, each=0)
    assert Steps(tmp_path, 5, monkeypatch).run(7, 100) == [3, 6]


@pytest.mark.parametrize(("minutes", "left"), [(5, []), (0, ["checkpoint-3"])])
def test_a_real_training_writes_what_the_interval_asks_for(
    minutes: float, left: list[str], model: Path, laptop: Params, tmp_path: Path
):
    from scalequest.models.weights import load_chat
    from scalequest.training.job import train
    from scalequest.training.sft import SFT
    from stages.qft import question_example
    from tests.training.test_job import QUESTIONS, settings

    rows: list[Any] = [question_example(load_chat(model), q) for q in QUESTIONS]
    run = StageRun(changed(laptop, runtime={"checkpoint_minutes": minutes}), StageFacts("qft@sums", tmp_path))
    assert train(run, SFT(), model, tmp_path / "out", rows, settings()).metrics["steps"] == 4
    assert [path.name for path in run.journal.folder.glob("training-1/checkpoint-*")] == left  # type: ignore[union-attr]
