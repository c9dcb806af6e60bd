"""The status of a run from another terminal: against what DVC says, and against what stages leave behind."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from dvc.repo import Repo

from scalequest.errors import UserError
from scalequest.io import read_json
from scalequest.run import status
from scalequest.run.pipeline import outdated, read_pipeline
from scalequest.run.status import finished_stages, in_words, notices, speed
from scalequest.runtime.progress import RUNNING, Progress, clock, noticed

DVC_YAML = """
stages:
  numbers:
    cmd: python write.py n ${n}
    deps: [write.py]
    params: [n]
    outs: [n]
  twice:
    matrix: {by: [two, three]}
    cmd: cp n ${item.by}
    deps: [n]
    outs: ["${item.by}"]
  all:
    cmd: cat two three > all
    deps: [two, three]
    outs: [all]
"""


@pytest.mark.slow
def test_done_is_what_dvc_calls_up_to_date(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")

    def agrees() -> set[str]:
        order, done = finished_stages()
        assert order.index("numbers") < order.index("twice@two") < order.index("all")
        assert set(outdated(read_pipeline())) == set(order) - done
        return done

    Path("dvc.yaml").write_text(DVC_YAML)
    Path("params.yaml").write_text("n: 12\n")
    Path("write.py").write_text("import sys; open(sys.argv[1], 'w').write(sys.argv[2])\n")
    with Repo.init(no_scm=True) as repo:
        repo.reproduce("twice@two")
        assert agrees() == {"numbers", "twice@two"}
        repo.reproduce()
    Path("two").unlink()
    assert agrees() == {"numbers", "twice@three"}
    Path("write.py").write_text("import sys; open(sys.argv[1], 'w').write(sys.argv[2] + '!')\n")
    assert agrees() == set()


REWARDS = """
stages:
  respond: {cmd: echo r > responses, outs: [responses]}
  reward: {cmd: mkdir -p m && echo w | tee rewards > m/reward, deps: [responses], outs: [rewards, m/reward]}
  reward_select:
    cmd: mkdir -p m && echo s | tee instruct > m/select
    deps: [responses, "${reward_select.waits_for}"]
    outs: [instruct, m/select]
  report: {cmd: cat m/select > report, deps: [m], outs: [report]}
"""


@pytest.mark.slow
def test_a_run_without_rewards_waits_for_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    Path("dvc.yaml").write_text(REWARDS)
    Path("params.yaml").write_text("reward_select: {waits_for: responses}\n")
    with Repo.init(no_scm=True) as repo:
        repo.reproduce("reward_select")
        assert not Path("rewards").exists()
        repo.reproduce("report", single_item=True)
    order, done = finished_stages()
    assert set(order) == done == {"respond", "reward_select", "report"}
    Path("params.yaml").write_text("reward_select: {waits_for: rewards}\n")
    order, done = finished_stages()
    assert set(order) - done == {"reward", "reward_select", "report"}


def found(**facts: Any) -> dict[str, Any]:
    return {"stages": 3, "done": ["a"], "running": [], "waiting": [], "ended": [], "gpus": []} | facts


def test_a_running_stage_is_seen_with_its_rows_speed_and_time_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    with noticed(tmp_path, "respond") as notice:
        progress = Progress("respond", 1_000, 200, notice)
        [facts] = notices(tmp_path)
        assert (facts["alive"], facts["pid"], facts["done"], facts["gpus"]) == (True, os.getpid(), 200, "0,1")
        assert speed(facts, time.time()) == {}  # nothing is known before the first shard
        progress.started -= 20
        progress._noticed = -10
        progress.add(100, 5_000)
        [facts] = notices(tmp_path)
        rate = speed(facts, facts["written"] + 10)
        # 100 rows in 20 s are 5 per second. 700 rows are left, which is 140 s, of which 10 have passed.
        assert rate["rows_per_s"] == pytest.approx(5, rel=0.02)
        assert rate["tokens_per_s"] == pytest.approx(250, rel=0.02)
        assert rate["left_s"] == pytest.approx(130, rel=0.03)
        line = in_words(found(running=[facts], waiting=["b"]))
        assert "3 stages: 1 done, 1 running, 1 waiting" in line
        assert "300/1,000 rows (30 %)" in line
        assert "GPU 0,1" in line
    assert list(notices(tmp_path)) == []


def test_a_failure_is_seen_without_secrets_until_the_stage_runs_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secretsecret")
    with pytest.raises(ValueError, match="hf_"), noticed(tmp_path, "judge"):
        raise ValueError("refused: hf_secretsecret\nmore")
    [facts] = notices(tmp_path)
    assert not facts["alive"]
    assert facts["ended"].startswith("refused: ")
    assert "secretsecret" not in facts["ended"]
    assert "judge: refused" in in_words(found(ended=[facts], waiting=["judge"]))
    with noticed(tmp_path, "judge"):
        assert [facts["alive"] for facts in notices(tmp_path)] == [True]
    assert list(notices(tmp_path)) == []


def test_a_killed_stage_is_named_with_its_rows_and_one_of_another_version_is_not(tmp_path: Path):
    code = (
        "import os, sys; from pathlib import Path; from scalequest.runtime.progress import Notice\n"
        "n = Notice(Path(sys.argv[1]), 'reward'); n.write(total=10, done=4); os.kill(os.getpid(), 9)"
    )
    subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], check=False, env=os.environ | {"PYTHONPATH": str(Path.cwd())}
    )
    (tmp_path / RUNNING / "x.1.json").write_text("[1]")
    for key in ("stage", "folder", "pid", "started"):
        whole = {"stage": "x", "folder": str(tmp_path), "pid": os.getpid(), "started": time.time()}
        (tmp_path / RUNNING / f"without-{key}.1.json").write_text(
            json.dumps({k: v for k, v in whole.items() if k != key})
        )
    [facts] = notices(tmp_path)
    assert not facts["alive"]
    assert "reward: killed, 4/10 rows; run again to resume" in in_words(found(ended=[facts]))
    with noticed(tmp_path, "reward"):  # takes the place of the dead one's
        [facts] = notices(tmp_path)
        assert facts["alive"]


def test_a_damaged_lock_is_named(tmp_path: Path):
    """DVC takes it for an empty one, as if nothing had run."""
    with Repo.init(str(tmp_path), no_scm=True):
        pass
    (tmp_path / "dvc.yaml").write_text(DVC_YAML)
    (tmp_path / "params.yaml").write_text("n: 12\n")
    entry = "  numbers:\n    cmd: python write.py n 12\n    outs:\n    - path: n\n      hash: md5\n      md"
    (tmp_path / "dvc.lock").write_text(f"schema: '2.0'\nstages:\n{entry}")
    with pytest.raises(UserError, match=r"dvc.lock: .* If it was cut or damaged, restore it: git checkout dvc.lock"):
        finished_stages(tmp_path)


def test_where_nothing_runs_the_next_step_is_named(monkeypatch: pytest.MonkeyPatch):
    assert "Run: dvc repro" in in_words(found(waiting=[f"s{i}" for i in range(9)]))
    assert "s7 and 1 more" in in_words(found(waiting=[f"s{i}" for i in range(9)]))
    assert in_words(found(done=["a", "b", "c"])).endswith("nothing is running. Everything is up to date.")
    assert [clock(59.4), clock(59.6), clock(61), clock(3_661)] == ["0:00:59", "0:01:00", "0:01:01", "1:01:01"]


def test_gpus_are_those_of_the_drivers_tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho '0, NVIDIA H100, 97, 61234, 81559'\necho '1, NVIDIA H100, 3, 10, 81559'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert "GPU 1  NVIDIA H100  3 %  10 of 81559 MiB" in in_words(found(gpus=status.gpus()))


def test_the_notice_is_readable_json(tmp_path: Path):
    with noticed(tmp_path, "qft@sums"):
        [path] = (tmp_path / RUNNING).iterdir()
        assert path.name == f"qft@sums.{os.getpid()}.json"
        assert read_json(path)["stage"] == "qft@sums"
