import json
import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
from dvc.lock import LockBase
from dvc.repo import Repo

from scalequest import io
from scalequest.audit.lock import read_lock
from scalequest.audit.repository import Repository, Revision
from scalequest.errors import UserError
from scalequest.run.pipeline import read_pipeline
from scalequest.run.status import finished_stages
from scalequest.runtime import facts as facts_module
from scalequest.runtime.facts import (
    GitError,
    StageFacts,
    current_stage,
    differences,
    environment,
    git,
    git_facts,
    hardware,
    locked,
    package_versions,
    unlocked,
    visible_gpus,
)
from tests.fakes import ROOT

BASE = StageFacts(
    "judge",
    Path(),
    {"data/screened": "a.dir", "stages/judge.py": "b"},
    {"seed": 17, "judge.top_p": 1.0},
    ("data/judged",),
)


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(StageFacts("respond", BASE.root, BASE.deps, BASE.params), id="stage"),
        pytest.param(StageFacts("judge", BASE.root, BASE.deps | {"data/screened": "c.dir"}, BASE.params), id="input"),
        pytest.param(StageFacts("judge", BASE.root, BASE.deps | {"stages/judge.py": "c"}, BASE.params), id="code"),
        pytest.param(StageFacts("judge", BASE.root, {"data/screened": "a.dir"}, BASE.params), id="one_input_less"),
        pytest.param(StageFacts("judge", BASE.root, BASE.deps, BASE.params | {"seed": 18}), id="parameter"),
    ],
)
def test_the_fingerprint_changes_with_what_makes_the_result(other: StageFacts):
    assert other.fingerprint != BASE.fingerprint


def test_the_fingerprint_changes_with_a_package(monkeypatch: pytest.MonkeyPatch):
    before = BASE.fingerprint
    monkeypatch.setattr(facts_module, "package_versions", lambda: {"torch": "0.0.1"})
    assert BASE.fingerprint != before


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(StageFacts("judge", Path("elsewhere"), BASE.deps, BASE.params, BASE.outs), id="folder"),
        pytest.param(StageFacts("judge", BASE.root, dict(reversed(BASE.deps.items())), dict(reversed(BASE.params.items()))), id="order"),
    ],
)  # fmt: skip
def test_the_fingerprint_ignores_what_does_not(other: StageFacts):
    assert other.fingerprint == BASE.fingerprint
    assert len(BASE.fingerprint) == 16


def test_outside_dvc_there_is_no_stage():
    assert current_stage() is None


def test_a_stage_knows_the_dependencies_and_parameters_that_dvc_yaml_lists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "in.txt").write_text("hello")
    (tmp_path / "code.py").write_text("pass")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a.txt").write_text("a")
    (tmp_path / "params.yaml").write_text("seed: 17\nother: 1\njudge: {top_p: 3e-05, style: off}\nqpo: {beta: 0.1}\n")
    (tmp_path / "dvc.yaml").write_text(
        "stages:\n  judge:\n    matrix:\n      g: [sums]\n    cmd: echo\n    deps: [in.txt, folder, code.py]\n"
        "    params: [seed, judge]\n    outs: ['${item.g}.txt']\n"
    )
    Repo.init(str(tmp_path), no_scm=True).close()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_STAGE", "judge@sums")
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    facts = current_stage()
    assert facts is not None
    assert facts.name == "judge@sums"
    assert facts.root == tmp_path.resolve()
    assert facts.outs == ("sums.txt",)
    # Exactly what is listed; numbers and strings as YAML 1.2 has them.
    assert facts.params == {"seed": 17, "judge": {"top_p": 3e-05, "style": "off"}}
    assert set(facts.deps) == {"in.txt", "folder", "code.py"}
    assert facts.deps["in.txt"] == "5d41402abc4b2a76b9719d911017c592"  # md5 of "hello"
    assert facts.deps["folder"].endswith(".dir")


@pytest.fixture
def ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository whose two stages ran; ``judge`` is the one that runs again now, and the last of dvc.lock."""
    monkeypatch.chdir(tmp_path)
    Path("in.txt").write_text("hello")
    Path("params.yaml").write_text("seed: 17\n")
    stage = "  {0}:\n    cmd: cp in.txt {0}.txt\n    deps: [in.txt]\n    params: [seed]\n    outs: [{0}.txt]\n"
    Path("dvc.yaml").write_text("stages:\n" + stage.format("first") + stage.format("judge"))
    with Repo.init(no_scm=True) as repo:
        repo.reproduce("first")
        repo.reproduce("judge")
    os.utime("dvc.lock", (0, 0))
    monkeypatch.setattr(io, "QUIET_S", 1.0)
    monkeypatch.setenv("DVC_STAGE", "judge")
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    return tmp_path


def test_one_entry_of_the_lock_is_what_dvc_reads_in_the_whole(monkeypatch: pytest.MonkeyPatch):
    from dvc.dvcfile import LOCK_FILE, Lockfile

    monkeypatch.chdir(ROOT)
    with Repo(".") as repo:
        whole = Lockfile(repo, LOCK_FILE).load()["stages"]
        found = {name: locked(name, repo)["stages"] for name in list(whole)[:-1]}
        assert found == {name: {name: entry} for name, entry in list(whole.items())[:-1]}
        # Nothing follows the last one, so it may be cut; and of a stage that never ran there is no entry.
        assert locked(list(whole)[-1], repo)["stages"] == whole
        assert locked("new", repo)["stages"] == whole


def test_an_entry_that_another_one_follows_is_not_waited_for(ran: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DVC_STAGE", "first")
    before = current_stage()
    writer = rewritten(ran / "dvc.lock", lambda text: text.index("  judge:") + 3, 0.9)
    now = current_stage()
    assert writer.is_alive()
    writer.join()
    assert now == before
    assert now is not None
    assert now.recorded


# The bytes of dvc.lock up to here are there while the rest is not: nothing, half an entry, or all but the stage's own.
CUTS = [
    pytest.param(lambda text: 0, id="nothing"),
    pytest.param(lambda text: text.index("    - path: in.txt") + 10, id="half_an_entry"),
    pytest.param(lambda text: text.index("  judge:"), id="without_the_stage"),
    pytest.param(lambda text: text.index("    params:", text.index("  judge:")), id="without_its_parameters"),
]


def rewritten(lock: Path, cut: Callable[[str], int], pause_s: float) -> threading.Thread:
    """Rewrite the lock in two halves, as DVC does for another stage; the first is there on return."""
    text, halfway = lock.read_text(), threading.Event()

    def write() -> None:
        with repository_lock(lock.parent), lock.open("w") as file:
            file.write(text[: cut(text)])
            file.flush()
            halfway.set()
            time.sleep(pause_s)
            file.write(text[cut(text) :])

    writer = threading.Thread(target=write)
    writer.start()
    halfway.wait()
    return writer


def repository_lock(root: Path) -> LockBase:
    """What a DVC process holds while it writes ``dvc.lock``, and not while a stage runs that it started."""
    with Repo(root) as repo:
        return repo.lock


def test_a_stage_does_not_wait_after_the_dvc_that_started_it(ran: Path, monkeypatch: pytest.MonkeyPatch):
    sleeps: list[float] = []
    monkeypatch.setattr(io, "time", SimpleNamespace(sleep=sleeps.append, time=time.time, monotonic=time.monotonic))
    monkeypatch.setattr(io, "SETTLED_S", 0.0)
    before = current_stage()
    os.utime("dvc.lock")
    now = current_stage()
    assert now == before
    assert not sleeps


@pytest.mark.parametrize("hardlink", [False, True], ids=["held", "of_another_kind"])
def test_a_stage_waits_where_a_dvc_may_be_writing(ran: Path, hardlink: bool, monkeypatch: pytest.MonkeyPatch):
    sleeps: list[float] = []

    def sleep(seconds: float) -> None:
        sleeps.append(seconds)
        time.sleep(seconds)

    monkeypatch.setattr(io, "time", SimpleNamespace(sleep=sleep, time=time.time, monotonic=time.monotonic))
    if hardlink:  # the file of the first kind is there, and nobody holds it
        Path(".dvc/config").write_text("[core]\n    no_scm = true\n    hardlink_lock = true\n")
    with nullcontext() if hardlink else repository_lock(ran):
        os.utime("dvc.lock")
        now = current_stage()
    assert now is not None
    assert now.recorded
    assert sum(sleeps) > 0.5


def test_to_ask_whether_dvc_writes_does_not_keep_it_from_writing(ran: Path):
    with Repo(ran) as repo:
        assert unlocked(repo)
        with repository_lock(ran):
            assert not unlocked(repo)
        assert unlocked(repo)


@pytest.mark.parametrize("cut", CUTS)
def test_a_stage_that_starts_while_dvc_writes_its_lock_reads_the_whole(ran: Path, cut: Callable[[str], int]):
    before = current_stage()
    assert before is not None
    assert before.recorded
    writer = rewritten(ran / "dvc.lock", cut, 0.4)
    now = current_stage()
    writer.join()
    assert now == before


@pytest.mark.parametrize(
    "read",
    [
        pytest.param(lambda root: finished_stages(root)[1], id="status"),
        pytest.param(lambda root: set(read_pipeline(root)), id="parallel"),
        pytest.param(lambda root: set(read_lock(Repository(root), Revision("workspace", None)).stages), id="audit"),
    ],
)
def test_who_looks_at_a_run_while_dvc_writes_its_lock_sees_the_whole(ran: Path, read: Callable[[Path], set[str]]):
    writer = rewritten(ran / "dvc.lock", lambda text: text.index("    - path: in.txt") + 10, 0.4)
    found = read(ran)
    writer.join()
    assert found == {"first", "judge"}


def test_a_lock_that_stays_half_is_an_error(ran: Path):
    text = Path("dvc.lock").read_text()
    Path("dvc.lock").write_text(text[: text.index("    - path: in.txt") + 10])
    with pytest.raises(UserError) as error:
        current_stage()
    assert str(error.value) == (
        "stage judge: DVC cannot read its dvc.yaml, params.yaml or inputs: './dvc.lock' validation failed. Expected files "
        "that stay readable while the stage runs. Fix them, then run again"
    )


def test_git_outside_a_repository_is_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    with pytest.raises(GitError, match="not a git repository"):
        git("rev-parse", "HEAD")
    facts = git_facts()
    assert (facts["commit"], facts["dirty"]) == ("unknown", "unknown")
    assert "not a git repository" in facts["reason"]


def test_a_git_repository_of_another_owner_is_unknown_with_gits_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    import subprocess

    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    facts = git_facts()
    assert (facts["commit"], facts["dirty"]) == ("unknown", "unknown")
    assert "dubious ownership" in facts["reason"]
    assert "safe.directory" in facts["reason"]
    assert "the commit of this run is unknown: fatal: detected dubious ownership" in caplog.text


def test_a_repository_without_a_commit_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import subprocess

    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    monkeypatch.chdir(tmp_path)
    assert git_facts()["commit"] == "unknown"


@pytest.mark.parametrize(
    ("deps", "params", "expected"),
    [
        pytest.param({"a.py": "1", "b": "2"}, {"seed": 1, "qpo": {"beta": 0.1, "x": {"y": 1}}}, [], id="nothing"),
        pytest.param({"a.py": "9", "b": "2"}, {"seed": 1, "qpo": {"beta": 0.1, "x": {"y": 1}}}, [("a.py", "code", "1", "9")], id="code"),
        pytest.param({"a.py": "1", "b": "missing"}, {"seed": 1, "qpo": {"beta": 0.1, "x": {"y": 1}}}, [("b", "input", "2", "missing")], id="input_removed"),
        pytest.param({"a.py": "1", "b": "2"}, {"seed": 1, "qpo": {"beta": 0.2, "x": {"y": 2}}}, [("qpo.beta", "params.yaml", 0.1, 0.2), ("qpo.x.y", "params.yaml", 1, 2)], id="two_leaves"),
        pytest.param({"a.py": "1", "b": "2"}, {"seed": 1, "qpo": {"beta": 0.1, "x": {"y": 1}, "new": 3}}, [("qpo.new", "params.yaml", "missing", 3)], id="key_added"),
        pytest.param({"a.py": "1", "b": "2"}, {"qpo": {"beta": 0.1, "x": {"y": 1}}}, [("seed", "params.yaml", 1, "missing")], id="key_removed"),
        pytest.param({"a.py": "1", "b": "2", "c": "3"}, {"seed": 1, "qpo": {"beta": 0.1, "x": {"y": 1}}, "other": 5}, [], id="listed_only_now"),
        pytest.param({"a.py": "1"}, {"seed": 1, "qpo": {"beta": 0.1, "x": {"y": 1}}}, [], id="listed_no_more"),
    ],
)  # fmt: skip
def test_differences_are_what_dvc_would_record_wrongly(deps: dict, params: dict, expected: list):
    before = StageFacts("judge", Path(), {"a.py": "1", "b": "2"}, {"seed": 1, "qpo": {"beta": 0.1, "x": {"y": 1}}})
    found = differences(before, StageFacts("judge", Path(), deps, params))
    assert [(d.name, d.kind, d.before, d.now) for d in found] == expected


def test_the_lock_and_the_stage_name_a_run_alike():
    from scalequest.audit.lock import parse_lock

    facts = StageFacts(
        "judge",
        Path(),
        {"data/x": "a.dir", "stages/judge.py": "b"},
        {"seed": 17, "judge": {"top_p": 1.0, "p": 3e-05, "style": "off", "none": None}},
    )
    lock = b"""schema: '2.0'
stages:
  judge:
    cmd: python -m stages.judge
    deps:
    - path: data/x
      hash: md5
      md5: a.dir
      size: 1
      nfiles: 1
    - path: stages/judge.py
      hash: md5
      md5: b
    params:
      params.yaml:
        judge:
          none:
          p: 3e-05
          style: off
          top_p: 1.0
        seed: 17
    outs: []
"""
    stage = parse_lock(lock, "dvc.lock")["judge"]
    assert stage.given == facts.given
    assert stage.given != StageFacts("judge", Path(), facts.deps, facts.params | {"seed": 18}).given


def test_versions_are_of_installed_packages_only():
    versions = package_versions()
    assert "reasoning-gym" in versions
    assert set(versions) <= set(facts_module.PACKAGES)


def test_hardware_can_be_written_as_json_also_without_torch(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "torch", None)  # importing it raises ImportError
    facts = hardware()
    assert json.loads(json.dumps(facts)) == facts
    assert facts["cpu"]


def test_the_gpu_is_known_before_torch_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    tool = tmp_path / "nvidia-smi"
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    tool.write_text("#!/bin/sh\necho NVIDIA H100 80GB HBM3\necho NVIDIA H100 80GB HBM3\n")
    tool.chmod(0o755)
    assert hardware.__wrapped__()["gpu"] == "NVIDIA H100 80GB HBM3"
    for visible, n in (("0,1", 2), ("1", 1), ("", 0), ("0,1,2,3", 2)):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        assert visible_gpus() == n
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert visible_gpus() == 2
    tool.write_text("#!/bin/sh\necho no driver\nexit 9\n")
    assert "gpu" not in hardware.__wrapped__()
    assert visible_gpus() == 0


def test_the_environment_is_lines_that_name_packages_and_machine(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(facts_module, "package_versions", lambda: {"torch": "2.0+cpu"})
    monkeypatch.setattr(facts_module, "hardware", lambda: {"cpu": "x", "cores": "2"})
    assert environment() == ["torch==2.0+cpu", "cpu: x", "cores: 2"]
