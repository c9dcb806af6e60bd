"""Stages side by side: order, GPUs, failure, Ctrl-C, and a real small DVC pipeline."""

import json
import os
import signal
import subprocess
import sys
import time
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

from scalequest.errors import UserError
from scalequest.io import only_holder
from scalequest.params import STAGES_PER_GPU, Params, read_yaml
from scalequest.run import parallel
from scalequest.run.estimate import SEEDS
from scalequest.run.parallel import PLACES, Gpus, Runner
from scalequest.run.pipeline import (
    START_S,
    UNKNOWN_CPU_S,
    UNKNOWN_GPU_S,
    Node,
    expected_seconds,
    longest_way,
    outdated,
    read_pipeline,
    with_inputs,
    without_endpoints,
)
from scalequest.run.profile import load_profile
from scalequest.runtime import facts
from scalequest.sampling.vllm import hardware_settings
from tests.fakes import LAPTOP, changed, pinned_file

ROOT = Path(__file__).parents[2]

# Writes down when it ran and on what. "bad" fails at once; Two that the variable PAIR names wait for each other.
STAGE = """
import json, os, sys, time
from pathlib import Path
name, begin = sys.argv[1], time.monotonic()
if name == "bad":
    sys.exit(1)
Path(name + ".started").touch()
pair = os.environ.get("PAIR", "").split()
if name in pair:
    while not all(Path(other + ".started").exists() for other in pair):
        assert time.monotonic() - begin < 60, "the other one was not started"
        time.sleep(0.01)
time.sleep(0.3)
with open("ran.jsonl", "a") as file:
    file.write(json.dumps([name, os.environ.get("CUDA_VISIBLE_DEVICES"), begin, time.monotonic()]) + "\\n")
print("said by", name)
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
    pipeline: dict[str, Node], gpus: list[str], jobs: int = 2, way: dict[str, float] | None = None, share: bool = False,
    keep_going: bool = False,
) -> Runner:  # fmt: skip
    way = way or longest_way(pipeline, dict.fromkeys(pipeline, 1.0))
    return Runner(pipeline, way, gpus, jobs, share, command=(sys.executable, "stage.py"), keep_going=keep_going)


def ran(folder: Path) -> dict[str, tuple[str | None, float, float]]:
    return {name: (gpu, begin, end) for name, gpu, begin, end in map(json.loads, (folder / "ran.jsonl").open())}


def test_stages_wait_for_their_inputs_and_share_no_gpu(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PAIR", "a b")
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
    assert "said by a" in parallel.log_tail("a")


@pytest.mark.parametrize("pair", ["a b", "a c"], ids=["two_trainings", "training_and_engine"])
def test_trainings_share_a_gpu_where_asked_for_and_engines_never(
    folder: Path, monkeypatch: pytest.MonkeyPatch, pair: str
):
    monkeypatch.setenv("PAIR", pair)
    pipeline = nodes(("a", "", "training"), ("b", "", "training"), ("c", "", "engine"), ("d", "", "engine"))
    assert runner(pipeline, ["0"], share=True).run() == []
    done = ran(folder)
    assert done["c"][2] <= done["d"][1] or done["d"][2] <= done["c"][1]


def test_the_longest_way_goes_first(folder: Path):
    pipeline = nodes(("short", "", "engine"), ("long", "", "engine"), ("after", "long", "engine"))
    way = longest_way(pipeline, {"short": 2.0, "long": 1.0, "after": 5.0})
    assert way == {"short": 2.0, "long": 6.0, "after": 5.0}
    assert runner(pipeline, ["0"], way=way).run() == []
    assert sorted(ran(folder), key=lambda name: ran(folder)[name][1]) == ["long", "after", "short"]


def test_after_a_failure_what_runs_ends_and_nothing_starts(folder: Path):
    (folder / "stage.py").write_text(STAGE.replace("sleep(0.3)", "sleep(1.5)"))
    pipeline = nodes(("bad", "", "engine"), ("beside", "", None), ("later", "bad", "engine"), ("other", "beside", None))
    assert runner(pipeline, ["0"], jobs=1).run() == ["bad"]
    assert set(ran(folder)) == {"beside"}


def test_what_needs_nothing_of_a_failed_stage_goes_on_where_asked_for(folder: Path):
    pipeline = nodes(
        ("bad", "", "engine"),
        ("beside", "", "engine"),
        ("later", "bad", "engine"),
        ("other", "beside", None),
        ("end", "later other", None),
    )
    way = longest_way(pipeline, {"bad": 9.0} | dict.fromkeys(["beside", "later", "other", "end"], 1.0))
    assert runner(pipeline, ["0"], way=way, keep_going=True).run() == ["bad"]
    assert set(ran(folder)) == {"beside", "other"}


# What DVC is to a stage: a leader that heeds no Ctrl-C, ends with its command, and must not be killed itself.
LEADER = """
import signal, subprocess, sys
from pathlib import Path
signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.signal(signal.SIGTERM, lambda *_: Path(sys.argv[1] + ".killed").touch())
code = subprocess.call([sys.executable, "slow.py", sys.argv[1]])
Path(sys.argv[1] + ".ended").write_text(str(code))
"""
# A stage that takes a second over its end, as one that finishes a file does.
SLOW = """
import signal, sys, time
from pathlib import Path
def end(*_):
    time.sleep(1)
    Path(sys.argv[1] + ".saved").touch()
    sys.exit(143)
signal.signal(signal.SIGTERM, end)
Path(sys.argv[1] + ".pid").write_text(str(__import__("os").getpid()))
time.sleep(60)
"""


@pytest.mark.parametrize(("share", "places"), [(True, "3"), (False, None)])
def test_stages_that_share_a_gpu_are_given_a_part_of_its_memory(
    folder: Path, monkeypatch: pytest.MonkeyPatch, share: bool, places: str | None
):
    monkeypatch.delenv(STAGES_PER_GPU, raising=False)
    pipeline = nodes(("a", "", "engine"), ("b", "", "training"))
    made = runner(pipeline, ["0"], share=share)
    assert made._environment(("0",)).get(STAGES_PER_GPU) == places
    assert STAGES_PER_GPU not in made._environment(())


def test_engines_that_share_a_gpu_split_its_memory(laptop: Params, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda: (9, 0))
    runtime = laptop.runtime.model_copy(update={"gpu_memory_utilization": 0.9})
    alone = hardware_settings(laptop.engine, runtime)["gpu_memory_utilization"]
    monkeypatch.setenv(STAGES_PER_GPU, str(PLACES))
    parts = [hardware_settings(laptop.engine, runtime)["gpu_memory_utilization"] for _ in range(PLACES)]
    assert alone == 0.9
    assert sum(parts) == pytest.approx(alone), "all places together take what one alone may"
    assert runtime.gpu_part == pytest.approx(1 / 3)


TWO = """
import sys
from scalequest.run.parallel import Runner
from scalequest.run.pipeline import Node
Runner({n: Node(n, frozenset(), "engine") for n in "ab"}, dict(a=1, b=1), ["0", "1"], 1, command=(sys.executable, "leader.py")).run()
"""


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda s: s.name)
def test_a_stopped_runner_leaves_no_stage_behind(folder: Path, sent: signal.Signals):
    (folder / "leader.py").write_text(LEADER)
    (folder / "slow.py").write_text(SLOW)
    process = subprocess.Popen(
        [sys.executable, "-c", TWO], cwd=folder, start_new_session=True, env=os.environ | {"PYTHONPATH": str(ROOT)},
        # What a shell starts in the background ignores Ctrl-C, and so do its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    )  # fmt: skip
    pids = [folder / "a.pid", folder / "b.pid"]
    wait_for(*pids)
    process.send_signal(sent)
    assert process.wait(timeout=60) == 128 + sent
    for name, pid in zip("ab", pids, strict=True):
        assert not Path("/proc", pid.read_text()).exists()
        assert (folder / f"{name}.saved").exists()
        assert (folder / f"{name}.ended").read_text() == "143"
        assert not (folder / f"{name}.killed").exists()


# The same, but its own output fails: nobody reads it any more when it is stopped, or a log cannot be opened.
@pytest.mark.parametrize("fails", ["reader_gone", "log"])
def test_a_runner_whose_output_fails_leaves_no_stage_behind(folder: Path, fails: str):
    (folder / "leader.py").write_text(LEADER)
    (folder / "slow.py").write_text(SLOW)
    pids = {name: folder / f"{name}.pid" for name in "ab"}
    if fails == "log":
        parallel.log_file("b").mkdir(parents=True)
        del pids["b"]
    process = subprocess.Popen(
        [sys.executable, "-c", TWO], cwd=folder, start_new_session=True, env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    assert process.stdout
    if fails == "reader_gone":
        wait_for(*pids.values())
        process.stdout.close()
        process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == (1 if fails == "log" else 128 + signal.SIGTERM)
    for name, pid in pids.items():
        # Without the log of b, a is stopped at once: perhaps before it noted its number.
        assert not (pid.exists() and Path("/proc", pid.read_text()).exists())
        assert (folder / f"{name}.ended").exists()


def wait_for(*files: Path) -> None:
    """Wait until these files have text."""
    deadline = time.monotonic() + 60
    while not all(file.exists() and file.read_text() for file in files):
        assert time.monotonic() < deadline
        time.sleep(0.05)


# A DVC that is killed, and leaves its stage; and a stage that fails if that one still runs.
KILLED = """
import os, subprocess, sys
from pathlib import Path
import psutil
pid = Path("a.pid")
if sys.argv[1] == "a":
    pid.write_text(str(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]).pid))
    os.kill(os.getpid(), 9)
left = int(pid.read_text())
sys.exit(psutil.pid_exists(left) and psutil.Process(left).status() != psutil.STATUS_ZOMBIE)
"""


def test_a_gpu_is_free_only_when_nothing_of_a_killed_stage_is_left(folder: Path):
    (folder / "stage.py").write_text(KILLED)
    pipeline = nodes(("a", "", "engine"), ("b", "", "engine"))
    assert runner(pipeline, ["0"], way={"a": 2.0, "b": 1.0}, keep_going=True).run() == ["a"]


def test_dvc_below_the_leader_is_not_stopped_either(folder: Path):
    """A cell's DVC is started by a process that cleans up after it."""
    (folder / "leader.py").write_text("import subprocess, sys; subprocess.call([sys.executable, 'dvc', sys.argv[1]])")
    (folder / "dvc").write_text(LEADER)
    (folder / "slow.py").write_text(SLOW)
    process = subprocess.Popen(
        [sys.executable, "-c", TWO], cwd=folder, start_new_session=True, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    wait_for(folder / "a.pid", folder / "b.pid")
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 128 + signal.SIGTERM
    for name in "ab":
        assert (folder / f"{name}.ended").read_text() == "143"
        assert not (folder / f"{name}.killed").exists()


def test_a_second_run_in_one_repository_is_refused(own: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(own)
    monkeypatch.setattr(parallel, "gpu_names", lambda _: ["0"])
    with (
        only_holder(parallel.LOGS / parallel.LOCK, ""),
        pytest.raises(
            UserError, match=rf"already, as process {os.getpid()}\. Expected one at a time.*kill {os.getpid()}"
        ),
    ):
        parallel.run(Namespace(stages=[], gpus=1, jobs=1, share=False, keep_going=False))


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository's pipeline with the laptop's parameters, whatever profile params.yaml holds at the moment."""
    folder = tmp_path_factory.mktemp("own")
    (folder / ".dvc").mkdir()
    (folder / ".dvc" / "config").write_text("[core]\n    no_scm = True\n")
    (folder / "dvc.yaml").write_text((ROOT / "dvc.yaml").read_text())
    (folder / "params.yaml").write_text(LAPTOP.read_text())
    return folder


def test_the_repositorys_own_pipeline(own: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(own)
    pipeline = read_pipeline()
    work: dict[str | None, set[str]] = {}
    for name, node in pipeline.items():
        work.setdefault(node.work, set()).add(name.split("@")[0])
    assert work["training"] == {"solver", "qft", "qpo", "difficulty_model", "reward_model", "instruct_tune"}
    assert work["engine"] == {
        "qpo_questions", "preferences", "generate", "judge", "difficulty_labels", "difficulty", "respond", "reward", "evaluate",
        "evaluate_student", "preference_check",
    }  # fmt: skip


def test_a_stage_whose_model_is_behind_an_endpoint_takes_no_gpu(
    own: Path, laptop: Params, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(own)
    pipeline = read_pipeline()
    remote = laptop.models | {"judge": "api:https://host/v1#m", "solver": "api:https://host/v1#m"}
    without = without_endpoints(pipeline, laptop.model_copy(update={"models": remote}))
    assert {name for name in pipeline if pipeline[name].work and not without[name].work} == {
        "judge", "preference_check@solvability", "respond", "difficulty_labels", "evaluate@solver"
    }  # fmt: skip


def test_the_estimate_reaches_the_stages(own: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(own)
    pipeline = read_pipeline()
    params = load_profile("gpu-135m", ROOT)
    seconds = expected_seconds(pipeline, params)
    unknown = {name.split("@")[0] for name, s in seconds.items() if s == START_S + UNKNOWN_GPU_S}
    assert unknown == {"evaluate", "evaluate_student"}
    way = longest_way(pipeline, seconds)
    assert way["qft@sums"] > way["solver"] > way["evaluate@base"], "the questions are the long way"
    params.models["student"] = "path:/models/of-no-size"
    assert set(expected_seconds(pipeline, params).values()) == {
        START_S + UNKNOWN_GPU_S, UNKNOWN_CPU_S
    }  # fmt: skip


def test_a_run_without_generators_has_a_long_way(laptop: Params):
    """`mix: []` with a user's questions: no stage of a generator, and an estimate for all others."""
    names = ("own_questions@book", "screen", "judge", "difficulty", "respond", "reward")
    pipeline = {
        name: Node(name, frozenset(names[:at][-1:]), "engine" if at > 1 else None) for at, name in enumerate(names)
    }
    book = {"book": pinned_file(Path("book.jsonl"), n=100_000)}
    own = laptop.own.model_copy(update={"questions": book})
    one = {"book": 1.0}, {"book": 0.0}
    params = changed(laptop, filter=dict(zip(("shares", "drop_easiest_frac"), one, strict=True)))
    params = params.model_copy(update={"mix": [], "own": own})
    seconds = expected_seconds(pipeline, params)
    assert seconds["judge"] > START_S + UNKNOWN_GPU_S, "100,000 questions are judged"
    assert longest_way(pipeline, seconds)["own_questions@book"] == pytest.approx(sum(seconds.values()))

    def with_rows(n: int | None) -> dict[str, float]:
        questions = {"book": pinned_file(Path("gone.jsonl"), n=n)}
        return expected_seconds(
            pipeline, params.model_copy(update={"own": own.model_copy(update={"questions": questions})})
        )

    assert with_rows(None) == with_rows(SEEDS), "a number that is not known here costs no other estimate"
    assert with_rows(None)["judge"] != START_S + UNKNOWN_GPU_S


def test_a_target_brings_what_it_needs_and_nothing_else():
    pipeline = nodes(
        ("seeds", "", None),
        ("qft@a", "seeds", None),
        ("qft@b", "seeds", None),
        ("mixed", "qft@a", None),
        ("end", "mixed", None),
    )
    assert set(with_inputs(pipeline, [])) == set(pipeline)
    assert set(with_inputs(pipeline, ["mixed"])) == {"seeds", "qft@a", "mixed"}
    assert set(with_inputs(pipeline, ["qft"])) == {"seeds", "qft@a", "qft@b"}
    with pytest.raises(UserError, match=r"stage judge: not in dvc.yaml. Expected one of end, mixed"):
        with_inputs(pipeline, ["judge"])


def test_ray_is_refused_beside_other_stages(laptop: Params):
    parallel.check_engine(laptop.runtime)
    with pytest.raises(UserError, match=r"runtime.engine ray with runtime.workers 2: .*Expected `engine: local`"):
        parallel.check_engine(laptop.runtime.model_copy(update={"engine": "ray", "workers": 2}))


def test_a_stage_takes_the_gpus_that_its_parameters_name(laptop: Params, own: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(own)
    pipeline = read_pipeline()

    def takes(stage: str, **runtime: Any) -> tuple[int, int]:
        found = parallel.gpus_of(pipeline[stage], laptop.runtime.model_copy(update=runtime))
        return found.least, found.most

    several = {"workers": 8, "tensor_parallel": {"judge": 4, "solver": 2}}
    assert takes("respond") == (1, 1)
    assert takes("respond", workers=8) == (1, 8)
    assert takes("generate@sums", workers=8) == (1, 8)
    assert takes("respond", **several) == (2, 16)
    assert takes("judge", **several) == (4, 32)
    assert takes("evaluate@base", **several) == (1, 1), "lm-eval has one engine"
    assert takes("qft@sums", **several) == takes("instruct_tune@student", **several) == (1, 1)
    two = str(ROOT / "profiles" / "accelerate" / "two-processes.yaml")
    assert takes("qft@sums", accelerate=two) == (2, 2)
    split = {"tensor_parallel": {"reward": 4, "difficulty": 8}}
    assert takes("reward_model", **split) == (4, 4), (
        "it scores as well, with the reward model as it was fetched or trained"
    )
    assert takes("reward_model", **split, accelerate=two) == (4, 4)
    assert takes("reward_model", accelerate=two) == (2, 2)
    assert takes("difficulty_model", **split) == (1, 1), "it trains alone"
    with pytest.raises(UserError, match=r"--gpus 1: too few for judge \(4\)\. Expected as many"):
        parallel.check_gpus({"judge": Gpus(4, 32), "reward": Gpus(1, 8)}, 1)


@pytest.mark.parametrize(
    ("ready", "takes", "running", "expected"),
    [
        ("a", {"a": (1, 8)}, {}, {"a": "0123"}),
        ("a", {"a": (1, 2)}, {}, {"a": "01"}),
        ("a b", {"a": (1, 8), "b": (1, 8)}, {}, {"a": "02", "b": "13"}),  # in turn
        ("a b", {"a": (1, 8)}, {}, {"a": "023", "b": "1"}),  # b needs one
        ("a b", {"a": (2, 8), "b": (1, 1)}, {"x": "3"}, {"a": "01", "b": "2"}),
        ("a b", {"a": (2, 2), "b": (1, 1)}, {"x": "0", "y": "1", "z": "2"}, {"b": "3"}),  # a waits for two
        ("a", {"a": (2, 8)}, {"x": "3"}, {"a": "01"}),  # an engine on two GPUs does not fit into one
        ("a", {}, {"x": "0123"}, {}),
    ],
)
def test_idle_gpus_go_to_stages_that_can_use_them(
    ready: str, takes: dict[str, tuple[int, int]], running: dict[str, str], expected: dict[str, str]
):
    pipeline = nodes(*((name, "", "engine") for name in "abxyz"))
    made = Runner(pipeline, {}, ["0", "1", "2", "3"], 1, takes={name: Gpus(*few) for name, few in takes.items()})
    made._running = {name: parallel.Running(None, tuple(gpus), 0.0) for name, gpus in running.items()}  # type: ignore[arg-type]
    plan = made._plan([pipeline[name] for name in ready.split()])
    assert {name: "".join(gpus) for name, gpus in plan.items()} == expected


def test_a_stage_is_started_on_all_its_gpus(folder: Path):
    pipeline = nodes(("a", "", "engine"), ("b", "a", "engine"))
    made = Runner(
        pipeline, {"a": 1, "b": 1}, ["4", "7"], 1, command=(sys.executable, "stage.py"), takes={"b": Gpus(1, 8)}
    )
    assert made.run() == []
    assert {name: gpu for name, (gpu, _, _) in ran(folder).items()} == {"a": "4", "b": "4,7"}


def test_more_gpus_than_there_are(monkeypatch: pytest.MonkeyPatch):
    import torch

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(UserError, match=r"--gpus 3: torch finds 2 GPUs here. Expected 1 to 2"):
        parallel.gpu_names(3)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    assert parallel.gpu_names(2) == ["4", "7"]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(UserError, match="`dvc repro`"):
        parallel.gpu_names(1)


def test_what_is_up_to_date_is_not_started(
    own: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    given: list[set[str]] = []

    class Recorder:
        def __init__(self, pipeline: dict[str, Node], *_: object, keep_going: bool, **__: object) -> None:
            given.append(set(pipeline))
            self.keep_going = keep_going

        def run(self) -> list[str]:
            return ["filter"] if self.keep_going else []

    monkeypatch.chdir(own)
    monkeypatch.setattr(parallel, "gpu_names", lambda _: ["0"])
    monkeypatch.setattr(parallel, "outdated", lambda wanted: {"filter": wanted["filter"]})
    monkeypatch.setattr(parallel, "Runner", Recorder)
    assert parallel.run(Namespace(stages=["filter"], gpus=1, jobs=1, share=False, keep_going=False)) == 0
    assert given == [{"filter"}]
    out = capsys.readouterr().out
    assert "18 of 19 stages are up to date" in out
    monkeypatch.setattr(parallel, "log_tail", lambda _: "its last line")
    with pytest.raises(
        UserError, match=r"filter failed; stages that depend on them were not started.*\n--- filter\nits last"
    ):
        parallel.run(Namespace(stages=["filter"], gpus=1, jobs=1, share=False, keep_going=True))


def test_a_torch_without_cuda_is_named_where_there_is_a_gpu(monkeypatch: pytest.MonkeyPatch):
    import torch

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(facts, "gpu_kinds", lambda: ["NVIDIA H100"])
    with pytest.raises(UserError, match=r"there is a NVIDIA H100, but torch .* is built without CUDA"):
        parallel.gpu_names(1)


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
def test_dvc_takes_the_result_as_its_own(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")

    def dvc(*words: str) -> str:
        return subprocess.run(["dvc", *words], capture_output=True, text=True, check=True).stdout

    dvc("init", "--no-scm")
    (folder / "dvc.yaml").write_text(DVC_YAML)
    dvc("repro")
    alone = read_yaml(folder / "dvc.lock")
    for name in ("dvc.lock", "n", "two", "three", "all"):
        (folder / name).unlink()
    pipeline = read_pipeline(folder)
    assert {name: set(node.needs) for name, node in pipeline.items()} == {
        "numbers": set(), "twice@two": {"numbers"}, "twice@three": {"numbers"}, "all": {"twice@two", "twice@three"}
    }  # fmt: skip
    failed = Runner(pipeline, longest_way(pipeline, dict.fromkeys(pipeline, 1.0)), [], 2).run()
    assert failed == []
    assert read_yaml(folder / "dvc.lock") == alone
    assert "up to date" in dvc("repro")
    assert outdated(pipeline, folder) == {}
    (folder / "two").unlink()
    assert set(outdated(pipeline, folder)) == {"twice@two", "all"}
    (folder / "dvc.yaml").write_text(DVC_YAML.replace("'12'", "'13'"))
    assert set(outdated(pipeline, folder)) == set(pipeline)
    (folder / "dvc.yaml").write_text("stages: 3")
    with pytest.raises(UserError, match="`dvc status` failed with exit code"):
        outdated(pipeline, folder)
