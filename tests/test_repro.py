"""Stages side by side: order, one stage a GPU, failure, Ctrl-C, and a real small DVC pipeline."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from scalequest import repro
from scalequest.errors import UserError
from scalequest.params import load_all
from scalequest.repro import Node, Runner, longest_way

ROOT = Path(__file__).parents[1]

# Writes down when it ran and on what; "bad" fails.
STAGE = """
import json, os, sys, time
begin = time.monotonic()
time.sleep(0.3)
with open("ran.jsonl", "a") as file:
    file.write(json.dumps([sys.argv[1], os.environ.get("CUDA_VISIBLE_DEVICES"), begin, time.monotonic()]) + "\\n")
print("said by", sys.argv[1])
sys.exit(sys.argv[1] == "bad")
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    (tmp_path / "stage.py").write_text(STAGE)
    return tmp_path


def nodes(*rows: tuple[str, str, str | None]) -> dict[str, Node]:
    return {name: Node(name, frozenset(needs.split()), work) for name, needs, work in rows}


def runner(
    pipeline: dict[str, Node], gpus: list[str], jobs: int = 2, way: dict[str, float] | None = None, share: bool = False
) -> Runner:
    way = way or longest_way(pipeline, dict.fromkeys(pipeline, 1.0))
    return Runner(pipeline, way, gpus, jobs, share, command=(sys.executable, "stage.py"))


def ran(folder: Path) -> dict[str, tuple[str | None, float, float]]:
    return {name: (gpu, begin, end) for name, gpu, begin, end in map(json.loads, (folder / "ran.jsonl").open())}


def test_stages_wait_for_their_inputs_and_share_no_gpu(folder: Path):
    pipeline = nodes(
        ("seeds", "", None),
        ("a", "seeds", "engine"),
        ("b", "seeds", "engine"),
        ("c", "seeds", "engine"),
        ("end", "a b c", None),
    )
    assert runner(pipeline, ["0", "1"]).run() == []
    done = ran(folder)
    assert set(done) == set(pipeline)
    for name, node in pipeline.items():
        assert all(done[needed][2] <= done[name][1] for needed in node.needs), name
    assert {name: gpu is not None for name, (gpu, _, _) in done.items()} == {
        n: p.work is not None for n, p in pipeline.items()
    }
    on_gpus = [done[name] for name in "abc"]
    assert {gpu for gpu, _, _ in on_gpus} == {"0", "1"}
    for i, (gpu, begin, end) in enumerate(on_gpus):
        for other, other_begin, other_end in on_gpus[i + 1 :]:
            assert gpu != other or end <= other_begin or other_end <= begin
    first, second = sorted(on_gpus, key=lambda row: row[1])[:2]
    assert second[1] < first[2], "two GPUs, and nothing ran side by side"
    assert "said by a" in repro.log_tail("a")


def test_trainings_share_a_gpu_where_asked_for_and_engines_never(folder: Path):
    pipeline = nodes(("a", "", "training"), ("b", "", "training"), ("c", "", "engine"), ("d", "", "engine"))
    assert runner(pipeline, ["0"], share=True).run() == []
    done = {name: (begin, end) for name, (_, begin, end) in ran(folder).items()}

    def together(one: str, other: str) -> bool:
        return max(done[one][0], done[other][0]) < min(done[one][1], done[other][1])

    assert together("a", "b")
    assert together("a", "c") or together("a", "d")
    assert not together("c", "d")


def test_the_longest_way_goes_first(folder: Path):
    pipeline = nodes(("short", "", "engine"), ("long", "", "engine"), ("after", "long", "engine"))
    way = longest_way(pipeline, {"short": 2.0, "long": 1.0, "after": 5.0})
    assert way == {"short": 2.0, "long": 6.0, "after": 5.0}
    assert runner(pipeline, ["0"], way=way).run() == []
    assert sorted(ran(folder), key=lambda name: ran(folder)[name][1]) == ["long", "after", "short"]


def test_after_a_failure_what_runs_ends_and_nothing_starts(folder: Path):
    pipeline = nodes(("bad", "", "engine"), ("beside", "", None), ("later", "bad", "engine"), ("other", "beside", None))
    assert runner(pipeline, ["0"], jobs=1).run() == ["bad"]
    assert "later" not in ran(folder)
    assert "beside" in ran(folder)


# "sleep 61" and "sleep 62" are the stages.
TWO_SLEEPERS = """
import argparse, sys
from scalequest import repro
repro.load_all = repro.gpu_names = repro.expected_seconds = lambda *_: ["0", "1"]
repro.read_pipeline = lambda: {n: repro.Node(n, frozenset(), "engine") for n in ("61", "62")}
repro.longest_way = lambda pipeline, _: {n: 1.0 for n in pipeline}
repro.Runner.__init__.__defaults__ = (False, ("sleep",))
repro.run(argparse.Namespace(gpus=2, share=False, jobs=1, stages=[]))
"""


@pytest.mark.parametrize("ignored", [False, True], ids=["foreground", "background"])
def test_a_stopped_runner_leaves_no_stage_behind(folder: Path, ignored: bool):
    sent = signal.SIGTERM if ignored else signal.SIGINT
    handler = signal.SIG_IGN if ignored else signal.default_int_handler
    process = subprocess.Popen(
        [sys.executable, "-c", TWO_SLEEPERS], cwd=folder, stdout=subprocess.PIPE, text=True, start_new_session=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)}, preexec_fn=lambda: signal.signal(signal.SIGINT, handler),
    )  # fmt: skip
    assert process.stdout
    assert [process.stdout.readline().split("]")[1].split()[0] for _ in range(2)] == ["started", "started"]
    children = [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
    assert len(children) == 2
    os.killpg(process.pid, sent)
    assert process.wait(timeout=30) != 0
    assert not [pid for pid in children if Path(f"/proc/{pid}").exists()]


def test_the_repositorys_own_pipeline():
    pipeline = repro.read_pipeline(ROOT)
    work: dict[str | None, set[str]] = {}
    for name, node in pipeline.items():
        work.setdefault(node.work, set()).add(name.split("@")[0])
    assert work["training"] == {"solver", "qft", "qpo", "difficulty_model", "reward_model", "instruct_tune"}
    assert work["engine"] == {
        "qpo_questions", "preferences", "generate", "judge", "difficulty_labels", "difficulty", "respond", "reward", "evaluate"
    }  # fmt: skip
    seconds = repro.expected_seconds(pipeline, load_all(ROOT / "profiles" / "gpu-135m.yaml"))
    way = longest_way(pipeline, seconds)
    assert way["report"] == min(way.values())
    assert all(way[needed] > way[name] for name, node in pipeline.items() for needed in node.needs)


def test_a_target_brings_what_it_needs_and_nothing_else():
    pipeline = nodes(
        ("seeds", "", None),
        ("qft@a", "seeds", None),
        ("qft@b", "seeds", None),
        ("mixed", "qft@a", None),
        ("end", "mixed", None),
    )
    assert set(repro.with_inputs(pipeline, [])) == set(pipeline)
    assert set(repro.with_inputs(pipeline, ["mixed"])) == {"seeds", "qft@a", "mixed"}
    assert set(repro.with_inputs(pipeline, ["qft"])) == {"seeds", "qft@a", "qft@b"}
    with pytest.raises(UserError, match=r"no stage judge in dvc.yaml; there are end, mixed"):
        repro.with_inputs(pipeline, ["judge"])


def test_more_gpus_than_there_are(monkeypatch: pytest.MonkeyPatch):
    import torch

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(UserError, match=r"--gpus 3: this machine shows 2 GPUs"):
        repro.gpu_names(3)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    assert repro.gpu_names(2) == ["4", "7"]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(UserError, match="`dvc repro`"):
        repro.gpu_names(1)


DVC_YAML = """
stages:
  numbers:
    cmd: python -c "open('n', 'w').write('12')"
    outs: [n]
  twice:
    matrix: {by: [two, three]}
    cmd: python -c "open('${item.by}', 'w').write(open('n').read() + '${item.by}')"
    deps: [n]
    outs: ["${item.by}"]
  all:
    cmd: cat two three > all
    deps: [two, three]
    outs: [all]
"""


@pytest.mark.slow
def test_dvc_takes_the_result_as_its_own(folder: Path):
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}

    def dvc(*words: str) -> str:
        return subprocess.run(
            ["dvc", *words], env=environment, capture_output=True, text=True, check=True
        ).stdout  # fmt: skip

    dvc("init", "--no-scm")
    (folder / "dvc.yaml").write_text(DVC_YAML)
    dvc("repro")
    alone = (folder / "dvc.lock").read_text()
    for name in ("dvc.lock", "n", "two", "three", "all"):
        (folder / name).unlink()
    pipeline = repro.read_pipeline(folder)
    assert {name: set(node.needs) for name, node in pipeline.items()} == {
        "numbers": set(), "twice@two": {"numbers"}, "twice@three": {"numbers"}, "all": {"twice@two", "twice@three"}
    }  # fmt: skip
    os.environ["PATH"] = environment["PATH"]
    failed = Runner(pipeline, longest_way(pipeline, dict.fromkeys(pipeline, 1.0)), [], 2).run()
    assert failed == []
    assert sorted((folder / "dvc.lock").read_text().splitlines()) == sorted(alone.splitlines())
    assert "up to date" in dvc("repro")
