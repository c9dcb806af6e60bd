"""The job files for Slurm, run with fake Slurm commands: what they start, and what becomes of a signal."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.fakes import ROOT

FOLDER = ROOT / "profiles" / "slurm"


def fake(folder: Path, name: str, script: str) -> None:
    """A command that writes its words into ``calls``, then does what the script says."""
    (folder / name).write_text(f'#!/bin/bash\necho "{name} $*" >> "{folder}/calls"\n{script}\n')
    (folder / name).chmod(0o755)


@pytest.fixture
def job(tmp_path: Path) -> Path:
    """A folder to submit from."""
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "activate").write_text("")
    fake(tmp_path, "sleep", f"while [ $(grep -c 'ray start' {tmp_path}/calls) -lt $(grep -c ^sleep {tmp_path}/calls) ]; do /bin/sleep 0.05; done")  # fmt: skip
    fake(tmp_path, "srun", 'case "$*" in *ip-address) echo 10.0.0.1;; esac')
    fake(tmp_path, "scontrol", "printf 'one\\ntwo\\n'")
    fake(tmp_path, "dvc", "")
    fake(tmp_path, "ray", "")
    return tmp_path


def start(job: Path, name: str, *words: str) -> subprocess.Popen[bytes]:
    environment = {"PATH": f"{job}:{os.environ['PATH']}", "SLURM_SUBMIT_DIR": str(job), "SLURM_GPUS_ON_NODE": "4",
                   "SLURM_JOB_NODELIST": "one,two", "SLURM_JOB_NUM_NODES": "2", "SLURM_JOB_ID": "7"}  # fmt: skip
    return subprocess.Popen(["bash", str(FOLDER / name), *words], env=environment)


def calls(job: Path) -> list[str]:
    return (job / "calls").read_text().splitlines() if (job / "calls").exists() else []


def test_one_node_runs_on_its_gpus_and_passes_the_exit_code_on(job: Path):
    fake(job, "scalequest", "exit 5")
    assert start(job, "one-node.sbatch", "respond").wait(20) == 5
    assert calls(job) == ["scalequest parallel --gpus 4 respond"]


def test_slurms_warning_reaches_the_run_and_the_job_waits_for_its_end(job: Path):
    ending = f"trap 'echo ended >> {job}/calls; exit 3' TERM"
    waiting = f"/bin/sleep 0.5; echo ready >> {job}/calls; for _ in {{1..100}}; do /bin/sleep 0.1; done"
    fake(job, "scalequest", f"{ending}\n{waiting}")
    run = start(job, "one-node.sbatch")
    until = time.monotonic() + 20
    while len(calls(job)) < 2 and time.monotonic() < until:  # both traps are set by then
        time.sleep(0.02)
    run.send_signal(signal.SIGTERM)
    assert run.wait(20) == 3
    assert calls(job) == ["scalequest parallel --gpus 4", "ready", "ended"]


def test_several_nodes_start_ray_once_on_each_and_then_the_pipeline(job: Path):
    fake(job, "scalequest", "")
    assert start(job, "several-nodes.sbatch", "respond").wait(20) == 0
    ray = [call for call in calls(job) if "ray start" in call]
    assert len(ray) == 2
    assert "--nodelist=one" in ray[0]
    assert "--head" in ray[0]
    assert "--exclude=one" in ray[1]
    assert "--address=10.0.0.1:20007" in ray[1]
    assert any(call.startswith("dvc repro") and call.endswith("respond") for call in calls(job)), calls(job)
