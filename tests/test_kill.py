"""Kill -9 at any moment: the rerun's bytes are those of an undisturbed run, and at most the shard in flight is paid twice."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]
SHARDS, KILLS = 12, 24

# A stage that works as generate does, its engine replaced by a clock: each shard takes 40 ms and is noted when it is paid.
STAGE = """
import random, sys, time
from pathlib import Path
from scalequest.lineage import StageFacts
from scalequest.records import SCORE, write_parts
from scalequest.journal import Journal
from scalequest.params import load_all
from scalequest.shards import map_shards
root, out, paid = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])
def work(items, seed, shard):
    with paid.open("a") as file:
        file.write(f"{shard}\\n")
    time.sleep(0.04)
    draw = random.Random(seed)
    return [{"id": str(item), "score": draw.random()} for item in items], len(items)
facts = StageFacts("generate", root, {"models/x": "0" * 32}, {"generate.top_p": 0.9})
table = map_shards(range(SHARDS * 5), lambda: work, schema=SCORE, shard_size=5, run_seed=17, stage="generate",
                   journal=Journal.of(facts), runtime=load_all(Path("profiles/laptop.yaml")).runtime)
write_parts(out, table)
""".replace("SHARDS", str(SHARDS))


def start(folder: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", STAGE, str(folder / "root"), str(folder / "out.parquet"), str(folder / "paid")]
    return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL, start_new_session=True)


def test_killed_at_random_moments_it_ends_with_the_same_bytes(tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    whole.mkdir()
    began = time.monotonic()
    assert start(whole).wait(timeout=120) == 0
    length = time.monotonic() - began
    expected = (whole / "out.parquet").read_bytes()

    draw = random.Random(20)
    kills, run = 0, 0
    while kills < KILLS:
        # A new run whenever the last one got to its end, so that early and late moments are both hit.
        folder = tmp_path / f"killed{run}"
        folder.mkdir(exist_ok=True)
        process = start(folder)
        time.sleep(draw.uniform(0.1, 1.0) * length)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            kills += 1
        process.wait()
        if (folder / "out.parquet").exists():
            run += 1
    for folder in sorted(tmp_path.glob("killed*")):
        assert start(folder).wait(timeout=120) == 0
        assert (folder / "out.parquet").read_bytes() == expected
    paid = [line for file in tmp_path.glob("killed*/paid") for line in file.read_text().split()]
    runs = len(list(tmp_path.glob("killed*")))
    # Each finished run pays each shard once; each kill at most the one in flight once more.
    assert runs * SHARDS <= len(paid) <= runs * SHARDS + kills
