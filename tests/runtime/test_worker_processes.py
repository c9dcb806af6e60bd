"""Several processes share a stage's shards: the rows are those of one, and a killed one's shard is done again."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pyarrow as pa
import pytest

from scalequest.errors import UserError
from scalequest.params import load_all
from scalequest.runtime import facts, worker_processes
from scalequest.runtime.stage import StageRun
from scalequest.runtime.worker_processes import places, work_in_processes
from scalequest.runtime.workers import work_here
from tests.fakes import LAPTOP, changed

ROOT = Path(__file__).parents[2]
SCHEMA = pa.schema([("value", pa.int64()), ("threads", pa.string()), ("gpus", pa.string())])
SHARDS = [(number, 10 * number, range(3)) for number in range(6)]
BAD = 4


class Engine:
    """Leaves a note per shard and process, and has the named trouble in shard BAD."""

    def __init__(self, notes: Path, trouble: str) -> None:
        self.notes, self.trouble = notes, trouble
        tried = notes.with_name("tried")
        if trouble == "no_memory" and list(notes.glob(f"{BAD}-*")) and not tried.exists():
            tried.touch()
            raise ValueError("too little memory is free")

    def __call__(self, items: Any, seed: int, shard: int) -> tuple[list[dict[str, Any]], int]:
        first = not list(self.notes.glob(f"{BAD}-*"))
        (self.notes / f"{shard}-{os.getpid()}").touch()
        if shard == BAD and first and self.trouble == "no_memory":
            # The engine that cannot start has to be the one in the dead one's place, not the other one, starting late.
            deadline = time.monotonic() + 60
            while len({path.name.split("-")[1] for path in self.notes.iterdir()}) < 2 and time.monotonic() < deadline:
                time.sleep(0.05)
        if shard == BAD and (self.trouble == "always" or (first and self.trouble in ("once", "no_memory"))):
            os.kill(os.getpid(), signal.SIGKILL)
        if shard == BAD and self.trouble == "refuse":
            raise UserError("no such model")
        if shard == BAD and self.trouble == "bug":
            raise ZeroDivisionError("a bug")
        if self.trouble == "slow":
            time.sleep(60)
        time.sleep(0.05)
        environment = {"threads": os.environ.get("OMP_NUM_THREADS"), "gpus": os.environ.get("CUDA_VISIBLE_DEVICES")}
        return [{"value": seed + item} | environment for item in items], len(items)


def values(made: Any) -> dict[int, tuple[list[int], int]]:
    return {number: (rows["value"].to_pylist(), tokens) for number, rows, tokens in made}


def run(notes: Path, trouble: str, devices: Any = ((), ())) -> dict[int, tuple[list[int], int]]:
    return values(work_in_processes(partial(Engine, notes, trouble), SHARDS, SCHEMA, {}, devices))


def paid(notes: Path) -> list[int]:
    return sorted(int(path.name.split("-")[0]) for path in notes.iterdir())


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    (tmp_path / "notes").mkdir()
    return tmp_path / "notes"


ALONE = {number: ([10 * number, 10 * number + 1, 10 * number + 2], 3) for number in range(6)}


@pytest.mark.slow
def test_each_process_has_gpus_of_its_own_and_each_shard_is_paid_once(notes: Path):
    tables = list(
        work_in_processes(partial(Engine, notes, ""), SHARDS, SCHEMA, {"OMP_NUM_THREADS": "7"}, [["4", "5"], ["6"]])
    )
    assert values(tables) == ALONE
    assert values(work_here(partial(Engine, notes, ""), SHARDS, SCHEMA)) == ALONE
    assert paid(notes) == sorted([*range(6), *range(6)])  # once there, once here
    assert {name for _, rows, _ in tables for name in rows["gpus"].to_pylist()} == {"4,5", "6"}
    assert {name for _, rows, _ in tables for name in rows["threads"].to_pylist()} == {"7"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("trouble", "devices", "waits"),
    [("once", [["0"], ["1"]], 1), ("no_memory", [[], []], 0)],
    ids=["gpus", "no_memory"],
)
def test_the_shard_of_a_killed_process_is_done_again(
    notes: Path,
    trouble: str,
    devices: Any,
    waits: int,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
):
    """Also if the process in its place cannot start at first, because the dead one's memory is not free yet."""
    slept: list[float] = []
    monkeypatch.setattr(worker_processes, "time", SimpleNamespace(sleep=slept.append))
    assert run(notes, trouble, devices) == ALONE
    assert paid(notes) == [0, 1, 2, 3, 4, 4, 5]
    assert "died (exit code -9); its shard 4 is given out again" in caplog.text
    assert notes.with_name("tried").exists() == (trouble == "no_memory")
    assert slept == [worker_processes.AFTER_DEATH_S] * waits


@pytest.mark.slow
@pytest.mark.parametrize(
    ("trouble", "message"),
    [
        ("refuse", "^no such model$"),
        ("bug", r"(?s)^shard 4: working process \d failed; finished shards are kept.*ZeroDivisionError: a bug"),
        ("always", "shard 4: its working process died 2 times, the last time with exit code -9"),
    ],
)
def test_what_cannot_succeed_ends_all_processes(
    notes: Path, trouble: str, message: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(worker_processes, "RESTARTS", 1)
    with pytest.raises(UserError, match=message):
        run(notes, trouble)
    assert not [child for child in psutil.Process().children() if "spawn_main" in " ".join(child.cmdline())]


SLOW = """
import sys
from pathlib import Path
from tests.runtime.test_worker_processes import run
if __name__ == "__main__":
    run(Path(sys.argv[1]), "slow")
"""


@pytest.mark.slow
def test_processes_end_with_a_killed_stage(notes: Path):
    stage = subprocess.Popen([sys.executable, "-c", SLOW, str(notes)], cwd=ROOT)
    deadline = time.monotonic() + 60
    while len(paid(notes)) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    children = [psutil.Process(int(path.name.split("-")[1])) for path in notes.iterdir()]
    stage.kill()
    stage.wait()
    _, alive = psutil.wait_procs(children, timeout=20)
    assert alive == []


@pytest.mark.parametrize(
    ("workers", "n_shards", "gpus", "gpus_per_engine", "expected"),
    [
        (8, 100, ["0", "1", "2"], 1, [["0"], ["1"], ["2"]]),  # no more processes than GPUs
        (2, 100, ["0", "1", "2"], 1, [["0"], ["1"]]),
        (8, 2, ["4", "7", "9"], 1, [["4"], ["7"]]),
        (8, 100, ["0", "1", "2", "3", "4"], 2, [["0", "1"], ["2", "3"]]),
        (8, 100, ["0"], 2, []),
        (2, 100, [], 1, [[], []]),
        (2, 1, [], 4, [[]]),
        (2, 0, ["0"], 1, []),
    ],
)
def test_places(workers: int, n_shards: int, gpus: list[str], gpus_per_engine: int, expected: list[list[str]]):
    assert places(workers, n_shards, gpus, gpus_per_engine) == expected


@pytest.mark.parametrize(("workers", "visible", "processes"), [(1, None, 0), (8, None, 4), (8, "2,3", 2), (8, "1", 0)])
def test_a_stage_starts_as_many_processes_as_it_has_workers_and_gpus(
    workers: int, visible: str | None, processes: int, monkeypatch: pytest.MonkeyPatch, notes: Path
):
    given: list[Any] = []
    monkeypatch.setattr(facts, "_gpu_names", lambda: ("NVIDIA H100",) * 4)
    monkeypatch.setattr("scalequest.runtime.stage.work_in_processes", lambda *args: given.extend(args[-1]) or iter(()))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    made = StageRun(changed(load_all(LAPTOP), runtime={"workers": workers}))
    rows = list(made.work(partial(Engine, notes, ""), SHARDS, SCHEMA, {}))
    assert len(given) == processes
    assert [gpu for [gpu] in given] == (["0", "1", "2", "3"] if visible is None else visible.split(","))[:processes]
    assert len(rows) == (0 if processes else 6)  # else this process works
