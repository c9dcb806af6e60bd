"""Who works does not matter: this process, two of them, one Ray actor or two, and one that is
killed in the middle give the same rows.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.warm import SURROUNDINGS, Warm

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow

# Samples 5 shards with a real engine, and notes which process worked on which.
STAGE = """
import os, sys
from pathlib import Path
from scalequest.runtime.stage import StageRun
from scalequest.run.profile import load_profile
from scalequest.records import QUESTION, write_table
from scalequest.sampling.shards import map_shards
model, out, engine, workers = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
params = load_profile()
runtime = params.runtime.model_copy(update={"engine": engine, "workers": workers, "cpu_kv_cache_gib": 1})
settings = params.engine.model_copy(update={"max_num_seqs": 8, "max_model_len": 256})
notes = out.with_suffix(".notes")
def start():
    from scalequest.sampling.engine import Engine
    from scalequest.sampling.questions import question_rows
    llm = Engine(model, settings, runtime)
    complete = llm.complete(params.generate.model_copy(update={"max_tokens": 24}))
    def work(rows, seed, shard):
        with notes.open("a") as file:
            file.write(f"{os.getpid()} {shard}\\n")
        made = question_rows("sums", len(rows), shard, seed, llm.chat.question_prefix, complete)
        return made, sum(row["n_tokens"] for row in made)
    return work
class Run(StageRun):
    journal = type("NoJournal", (), {"shard_path": lambda self, number, rounding: None})()
    name = "generate@sums"
run = Run(params.model_copy(update={"runtime": runtime, "seed": 3}))
table = map_shards(run, range(76), start, QUESTION, 16)
write_table(out, table)
"""


def notes(out: Path) -> list[list[str]]:
    path = out.with_suffix(".notes")
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


def test_one_process_and_ray_actors_and_a_killed_one_give_the_same_bytes(
    model: Path, tmp_path: Path, warm: Warm
) -> None:
    here = tmp_path / "here.parquet"
    made = warm.run("-c", STAGE, str(model), str(here), "local", "1", cwd=ROOT)
    assert made.returncode == 0, made.stderr

    two = tmp_path / "two.parquet"
    command = [sys.executable, "-c", STAGE, str(model), str(two), "ray", "2"]
    process = subprocess.Popen(
        command, cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True, env=os.environ | SURROUNDINGS
    )
    deadline = time.monotonic() + 300
    while not notes(two):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(int(notes(two)[0][0]), signal.SIGKILL)
    _, errors = process.communicate(timeout=400)
    assert process.returncode == 0, errors
    assert two.read_bytes() == here.read_bytes()
    workers = {pid for pid, _ in notes(two)}
    assert len(workers) == 3, "two actors, and the one that took the dead one's place"
    # The dead actor's shard is paid twice if it was still at it, every other one once.
    paid = [int(number) for _, number in notes(two)]
    assert set(paid) == set(range(5))
    assert len(paid) <= 6


def test_an_error_of_ours_crosses_the_cluster(tmp_path: Path) -> None:
    """What an actor refuses is told as if it had been refused here, and is not tried again."""
    code = STAGE.replace(
        "from scalequest.sampling.engine import Engine", "from scalequest.errors import UserError"
    ).replace("llm = Engine(model, settings, runtime)", 'notes.write_text("1 1\\n"); raise UserError("no such model")')
    command = [sys.executable, "-c", code, "none", str(tmp_path / "out"), "ray", "1"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200, check=False)
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1] == "scalequest.errors.UserError: no such model", result.stderr


# Asks the model about the rows that a threshold lets through, as `respond` does, with a store in the folder of its output.
ROWS = """
import sys
from pathlib import Path
from scalequest.records import RESPONSE, write_rows
from scalequest.run.profile import load_profile
from scalequest.runtime.facts import StageFacts
from scalequest.runtime.stage import StageRun
from scalequest.sampling.sample import sample
from stages.respond import response_rows
model, out, engine, workers, threshold = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]), int(sys.argv[5])
params = load_profile()
sampling = params.respond.model_copy(update={"max_tokens": 24, "shard_size": 8, "n_samples": 2})
params = params.model_copy(update={
    "runtime": params.runtime.model_copy(update={"engine": engine, "workers": workers, "cpu_kv_cache_gib": 1}), "respond": sampling,
    "engine": params.engine.model_copy(update={"max_num_seqs": 8, "max_model_len": 256}),
})
rows = [{"id": str(i), "question": f"What is {i} + {i}?"} for i in range(40) if i % 10 >= threshold]
run = StageRun(params, StageFacts("respond", out.parent, {str(model): "m"}, {"threshold": threshold}))
answers = sample(run, model, rows, prompts=lambda row: [row["question"]], sampling=sampling, n_samples=2)
write_rows(out, [r for row, n in zip(rows, answers, strict=True) for r in response_rows(row, n)], RESPONSE)
print(int(run.logged["rows_paid"]))
"""


def ask(warm: Warm, model: Path, out: Path, engine: str, workers: int, threshold: int) -> int:
    """The requests that were paid for."""
    words = ["-c", ROWS, *map(str, (model, out, engine, workers, threshold))]
    if (engine, workers) == ("local", 1):
        result = warm.run(*words, cwd=ROOT)
    else:
        command = [sys.executable, *words]
        result = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False, env=os.environ | SURROUNDINGS
        )
    assert result.returncode == 0, result.stderr
    return int(result.stdout.splitlines()[-1])


def test_rows_of_a_ray_actor_are_those_of_one_process_and_are_found_again(
    model: Path, tmp_path: Path, warm: Warm
) -> None:
    for folder in ("here", "ray"):
        (tmp_path / folder).mkdir()
    here, there = tmp_path / "here" / "all.parquet", tmp_path / "ray" / "all.parquet"
    assert ask(warm, model, here, "local", 1, 0) == 80
    # On Ray the threshold comes down in between: 24 rows first, then the 16 others, in other company than here.
    assert ask(warm, model, there.with_name("some.parquet"), "ray", 1, 4) == 48
    # Those are asked by two processes of this machine: the same store serves both, and the bytes are those of one.
    assert ask(warm, model, there, "local", 2, 0) == 32
    assert there.read_bytes() == here.read_bytes()
    assert ask(warm, model, there.with_name("again.parquet"), "local", 1, 0) == 0
    assert there.with_name("again.parquet").read_bytes() == here.read_bytes()


LISTENS = """
import os, sys
from pathlib import Path
import psutil
import pyarrow as pa
from scalequest.params import Runtime
from scalequest.run.profile import load_profile
from scalequest.runtime.workers import work_on_ray

def start():
    def work(items, seed, number):
        found = set()
        for process in psutil.process_iter():
            try:
                if any(word in " ".join(process.cmdline()) for word in ("gcs_server", "raylet", "ray::", "default_worker")):
                    found |= {c.laddr.ip for c in process.net_connections("tcp") if c.status == "LISTEN"}
            except psutil.Error:  # one that ended since it was listed, or a stranger's
                continue
        folder = os.environ.get("RAY_SESSION_DIR") or __import__("ray")._private.worker._global_node.get_session_dir_path()
        return [{"text": text} for text in (*sorted(found), folder, oct(Path(folder).parent.parent.stat().st_mode & 0o777))], 0
    return work

if __name__ == "__main__":
    runtime = load_profile().runtime.model_copy(update={"engine": "ray", "workers": 1})
    for _, rows, _ in work_on_ray(start, [(0, 1, ["x"])], pa.schema([("text", pa.string())]), runtime, {}):
        print("RESULT", *rows["text"].to_pylist())
"""


def test_a_local_cluster_listens_on_the_loopback_interface_and_its_folder_is_private(tmp_path: Path) -> None:
    (tmp_path / "listens.py").write_text(LISTENS)
    result = subprocess.run([sys.executable, str(tmp_path / "listens.py")], cwd=ROOT, capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": str(ROOT)})  # fmt: skip
    line = next((line for line in result.stdout.splitlines() if line.startswith("RESULT")), "")
    assert line, result.stderr[-3000:]
    *addresses, folder, mode = line.split()[1:]
    assert addresses
    assert {address.removeprefix("::ffff:") for address in addresses} <= {"127.0.0.1", "::1"}
    assert mode == "0o700"
    assert not Path(folder).exists()  # removed with the cluster
