"""Kill -9 at any moment: the rerun's bytes are those of an undisturbed run, and at most the shard in flight is paid twice.

Every run is forked from a server that has the libraries loaded: imports would take longer than the work, and most kills
would hit them.
"""

import faulthandler
import gc
import multiprocessing
import os
import random
import sys
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from scalequest.params import Params
from scalequest.run.profile import load_profile
from scalequest.runtime.facts import StageFacts

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
SHARDS, KILLS = 12, 16
LOADED = (
    "trl.trainer.sft_trainer", "scalequest.training.job", "scalequest.sampling.rows", "scalequest.sampling.shards", "stages.qft",
)  # fmt: skip


def started(work: Callable[..., None], *given: object) -> BaseProcess:
    """A process that does this work."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(LOADED))
    process = context.Process(target=traced, args=(work, *given))
    process.start()
    return process


def traced(work: Callable[..., None], *given: object) -> None:
    """The work; a crash prints its traceback. One run of some thousand ended with SIGSEGV, and nothing was known of it."""
    faulthandler.enable()
    work(*given)


def run_code(code: str, params: Params, *words: str) -> None:
    """``python -c CODE WORDS`` in the repository, with parameters: each process would take longer to parse the file."""
    gc.freeze()  # what the server imported; to look it through takes longer than the work
    os.chdir(ROOT)
    sys.argv = ["-c", *words]
    exec(code, {"__name__": "__main__", "params": params})


def ended(process: BaseProcess) -> int | None:
    """Its exit code, within two minutes."""
    process.join(120)
    return process.exitcode


def lines(folder: Path) -> list[str]:
    """What runs in a folder have paid for, in order."""
    paid = folder / "paid"
    return paid.read_text().split() if paid.exists() else []


def killed_in(
    tmp_path: Path,
    start: Callable[[Path], BaseProcess],
    length: int,
    pause_s: float,
    kills: int,
    draw: random.Random,
    least_folders: int = 1,
) -> tuple[list[Path], int]:
    """Kill runs at random moments, each going on where the one before it stopped; after one that ends, in a new folder.

    A moment is a number of lines that the run has paid for, and a pause: so every kill hits work, on a machine of any speed.

    Args:
        tmp_path: where the folders are made.
        start: starts a run in a folder.
        length: lines that a folder has at least, once a run has ended in it.
        pause_s: seconds at most between that line and the kill.
        kills: how many runs to kill at least.
        draw: the moments.
        least_folders: in how many folders at least; how many runs end before their kill depends on the machine.

    Returns:
        The folders, and how many runs were killed. In all folders but the last a run has ended.
    """
    folders: list[Path] = []
    hits, fresh = 0, True
    while hits < kills or len(folders) < least_folders:
        if fresh:
            folders.append(tmp_path / f"killed{len(folders)}")
            folders[-1].mkdir()
        before = len(lines(folders[-1]))
        moment = before + draw.randint(1, max(1, length - before))
        process = start(folders[-1])
        while process.is_alive() and len(lines(folders[-1])) < moment:
            time.sleep(0.002)
        process.join(draw.uniform(0.0, pause_s))
        lives = process.is_alive()
        process.kill()
        process.join()
        assert lives or process.exitcode == 0
        hits += lives
        fresh = not lives
    return folders, hits


# A stage that works as generate does, its engine replaced by a clock: each shard takes 40 ms and is noted when it is paid.
STAGE = """
import random, sys, time
from pathlib import Path
from scalequest.runtime.facts import StageFacts
from scalequest.records import SCORE, write_parts
from scalequest.runtime.stage import StageRun
from scalequest.sampling.shards import map_shards
root, out, paid = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])
def work(items, seed, shard):
    with paid.open("a") as file:
        file.write(f"{shard}\\n")
    time.sleep(0.04)
    draw = random.Random(seed)
    return [{"id": str(item), "score": draw.random()} for item in items], len(items)
facts = StageFacts("generate", root, {"models/x": "0" * 32}, {"generate.top_p": 0.9})
run = StageRun(params, facts)
table = map_shards(run, range(SHARDS * 5), lambda: work, SCORE, 5)
write_parts(out, table)
""".replace("SHARDS", str(SHARDS))


def start(folder: Path) -> BaseProcess:
    return started(run_code, STAGE, load_profile(), *(str(folder / name) for name in ("root", "out.parquet", "paid")))


def test_killed_at_random_moments_it_ends_with_the_same_bytes(tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    whole.mkdir()
    assert ended(start(whole)) == 0
    expected = (whole / "out.parquet").read_bytes()

    folders, kills = killed_in(tmp_path, start, SHARDS, 0.06, KILLS, random.Random(20), least_folders=3)
    for folder in folders:
        assert ended(start(folder)) == 0
        assert (folder / "out.parquet").read_bytes() == expected
    paid = sum(len(lines(folder)) for folder in folders)
    # Each finished run pays each shard once; each kill at most the one in flight once more.
    assert len(folders) * SHARDS <= paid <= len(folders) * SHARDS + kills


# ---------------------------------------------------------------------------------------------------------------- rows

# A stage that follows a filter: its rows are those whose number a threshold lets through, each made of itself alone.
ROWS = """
import random, sys, time
from pathlib import Path
from scalequest.runtime.facts import StageFacts
from scalequest.records import SCORED, table, write_parts
from scalequest.runtime.stage import StageRun
from scalequest.sampling.rows import map_rows
root, out, paid, threshold = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])
def work(items, seed, shard):
    with paid.open("a") as file:
        file.write("".join(f"{item}\\n" for item in items))
    time.sleep(0.02)
    return [{"key": str(item), "score": random.Random(item).random()} for item in items], len(items)
numbers = [number for number in range(60) if number % 10 >= threshold]
facts = StageFacts("respond", root, {"models/x": "0" * 32}, {"filter": threshold})
run = StageRun(params, facts)
made = map_rows(run, numbers, str, lambda: work, SCORED, 5, Path("models/x"), {"temperature": 1.0})
write_parts(out, table([{"key": str(n), **row} for n, row in zip(numbers, made, strict=True)], SCORED))
"""
ROW_KILLS = 10


def start_rows(folder: Path, threshold: int) -> BaseProcess:
    files = [str(folder / name) for name in ("root", f"out{threshold}.parquet", "paid")]
    return started(run_code, ROWS, load_profile(), *files, str(threshold))


def test_rows_killed_at_random_moments_and_under_changing_thresholds_are_paid_once(tmp_path: Path) -> None:
    expected = {}
    whole = tmp_path / "whole"
    for threshold in (0, 3, 6):
        (whole / str(threshold)).mkdir(parents=True)
        assert ended(start_rows(whole / str(threshold), threshold)) == 0
        expected[threshold] = (whole / str(threshold) / f"out{threshold}.parquet").read_bytes()

    draw = random.Random(21)
    folders, _ = killed_in(
        tmp_path, lambda folder: start_rows(folder, draw.choice((0, 3, 6))), 60, 0.04, ROW_KILLS, draw
    )
    for folder in folders:
        for threshold in (6, 0, 3):
            assert ended(start_rows(folder, threshold)) == 0
            assert (folder / f"out{threshold}.parquet").read_bytes() == expected[threshold]
        assert len(set(lines(folder))) == 60
    paid = sum(len(lines(folder)) for folder in folders)
    # Each row once, whatever the threshold, and at each kill at most the shard in flight once more.
    assert paid <= 60 * len(folders) + 5 * ROW_KILLS


# ------------------------------------------------------------------------------------------------------------ training

STEPS, BETWEEN_CHECKPOINTS, TRAINING_KILLS = 20, 1, 12


def train_in(folder: Path, model: Path, params: Params) -> None:
    """A training of 20 steps with a checkpoint after each, each step noted when it is paid."""
    import transformers

    from scalequest.models.weights import load_chat
    from scalequest.params import Training
    from scalequest.runtime.stage import StageRun
    from scalequest.training.job import train
    from scalequest.training.sft import SFT
    from stages.qft import question_example
    from tests.fakes import changed

    gc.freeze()  # what the server imported; to look it through takes longer than the training
    os.setpgid(0, 0)
    paid = transformers.Trainer.training_step

    def training_step(self: object, *args: object, **kwargs: object) -> object:
        with (folder / "paid").open("a") as file:
            file.write("step\n")
        return paid(self, *args, **kwargs)

    transformers.Trainer.training_step = training_step
    chat = load_chat(model)
    examples = [question_example(chat, f"What is {i} + {i}?") for i in range(4 * STEPS)]
    settings = Training(
        method="full", epochs=1, learning_rate=1e-3, warmup_frac=0.0, batch_size=4, per_device_batch_size=4, max_length=256,
        weight_decay=0.0, lora_r=4, lora_alpha=8,
    )  # fmt: skip
    run = StageRun(changed(params, runtime={"checkpoint_minutes": 0}), StageFacts("train", folder))
    train(run, SFT(), model, folder / "out", examples, settings)


def test_a_training_killed_at_random_moments_ends_with_the_same_weights(model: Path, tmp_path: Path) -> None:
    def start(folder: Path) -> BaseProcess:
        folder.mkdir(exist_ok=True)
        return started(train_in, folder, model, load_profile())

    def weights(folder: Path) -> bytes:
        return (folder / "out" / "model.safetensors").read_bytes()

    process = start(tmp_path / "whole")
    process.join()
    assert process.exitcode == 0

    folders, _ = killed_in(tmp_path, start, STEPS, 0.3, TRAINING_KILLS, random.Random(20))
    for folder in folders:
        process = start(folder)
        process.join()
        assert process.exitcode == 0
        assert weights(folder) == weights(tmp_path / "whole")
    paid = sum(len(lines(folder)) for folder in folders)
    # A run that had ended pays its last step, which has no checkpoint, once more; that is every folder's but the last. A kill
    # costs at most what lies between two checkpoints.
    least = len(folders) * STEPS + len(folders) - 1
    assert least <= paid <= least + TRAINING_KILLS * BETWEEN_CHECKPOINTS
    print(f"{TRAINING_KILLS} kills, {len(folders)} runs of {STEPS} steps, {paid - least} steps paid twice")
