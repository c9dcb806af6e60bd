"""Tracking: what is told, that nothing is lost, and that a broken store ends no stage."""

import json
import logging
import shutil
from pathlib import Path

import pytest

from scalequest.io import read_json, write_json
from scalequest.params import Params
from scalequest.runtime import tracking
from scalequest.runtime.facts import StageFacts
from scalequest.runtime.stage import StageRun


@pytest.fixture(autouse=True)
def _store_beside(new_store: Path, tmp_path: Path) -> None:
    """A store where the tests of this file expect one."""
    shutil.copyfile(new_store, tmp_path / "mlflow.db")


def told(uri: str, stage: str = "qpo@sums", key: str = "k") -> dict:
    return {
        "uri": uri, "artifacts": "file:///nowhere", "stage": stage, "started_ms": 1000, "ended_ms": 3000,
        "pipeline": {"key": key, "name": "repro", "tags": {"pipeline_run": key, "level": "pipeline"}},
        "tags": {"level": "stage", "pipeline_run": key, "dvc.stage": stage}, "params": {"qpo.beta": "0.1"},
        "metrics": [("last_loss", 0.5, 0), ("loss", 0.7, 1), ("loss", 0.5, 2)], "inputs": {"data/x.parquet": "0" * 32},
    }  # fmt: skip


def test_a_broken_store_warns_and_loses_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_json(tmp_path / "1.json", told("no-such-scheme://x"))
    assert tracking.post_waiting(tmp_path) == 1
    assert (tmp_path / "1.json").exists()
    assert "was not posted and stays" in capsys.readouterr().err


def test_what_waited_is_posted_later_under_one_parent_a_pipeline(tmp_path: Path) -> None:
    import mlflow

    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    for number, (stage, key) in enumerate([("qft@sums", "a"), ("qpo@sums", "a"), ("qpo@sums", "b")]):
        write_json(tmp_path / f"{number}.json", told(uri, stage, key))
    assert tracking.post_waiting(tmp_path) == 0
    assert not list(tmp_path.glob("*.json"))
    client = mlflow.MlflowClient(uri)
    runs = client.search_runs([client.get_experiment_by_name("scalequest").experiment_id])
    parents = {r.data.tags["pipeline_run"]: r.info.run_id for r in runs if r.data.tags["level"] == "pipeline"}
    children = [r for r in runs if r.data.tags["level"] == "stage"]
    assert set(parents) == {"a", "b"}
    assert sorted(r.data.tags["dvc.stage"] for r in children) == ["qft@sums", "qpo@sums", "qpo@sums"]
    for run in children:
        assert run.data.tags["mlflow.parentRunId"] == parents[run.data.tags["pipeline_run"]]
        assert run.data.params == {"qpo.beta": "0.1"}
        assert run.info.status == "FINISHED"
        assert run.info.end_time - run.info.start_time == 2000
        assert [m.value for m in client.get_metric_history(run.info.run_id, "loss")] == [0.7, 0.5]
        assert [d.dataset.digest for d in run.inputs.dataset_inputs] == ["0" * 32]


def test_while_another_process_posts_a_stages_own_ends_and_leaves_it_nothing_unposted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second one ends while the first holds the lock; what it was started for is posted by the first."""
    posted: list[str] = []

    def post(described: dict, _: Path) -> None:
        posted.append(described["stage"])
        if described["stage"] == "first":
            write_json(tmp_path / "2.json", told("", "second"))
            assert tracking.post_waiting(tmp_path, wait=False) == 0
            assert posted == ["first"]

    monkeypatch.setattr(tracking, "post", post)
    write_json(tmp_path / "1.json", told("", "first"))
    assert tracking.post_waiting(tmp_path, wait=False) == 0
    assert posted == ["first", "second"]
    assert not list(tmp_path.glob("*.json"))


def test_a_server_that_does_not_answer_is_asked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.exceptions import MlflowException
    from requests.exceptions import ConnectionError

    asked: list[str] = []

    def post(described: dict, _: Path) -> None:
        asked.append(described["stage"])
        if described["uri"] == "http://away":
            try:
                raise ConnectionError("refused")
            except ConnectionError as error:
                raise MlflowException(f"API request failed with {error}")  # noqa: B904  # as MLflow does

    monkeypatch.setattr(tracking, "post", post)
    for number, uri in enumerate(["http://away", "http://away", "", "http://away"]):
        write_json(tmp_path / f"{number}.json", told(uri, f"s{number}"))
    assert tracking.post_waiting(tmp_path) == 3
    assert asked == ["s0", "s2"]
    assert [path.name for path in sorted(tmp_path.glob("*.json"))] == ["0.json", "1.json", "3.json"]


def test_the_poster_that_a_stage_starts_waits_for_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[list[str]] = []
    monkeypatch.setattr(tracking.subprocess, "Popen", lambda command, **_: started.append(command))
    tracking.start_posting(tmp_path, tmp_path)
    assert started[0][-3:] == ["track", "--no-wait", str(tmp_path)]


def test_a_stage_goes_on_when_it_cannot_even_be_described(
    laptop: Params, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / ".work").write_text("a file where a folder should be")
    run = StageRun(laptop, StageFacts("seeds", tmp_path))
    with caplog.at_level(logging.WARNING, logger="scalequest"):
        tracking.record(run, run.facts, laptop, 0.0)
    assert "the stage's result is not affected" in caplog.text


def test_a_pile_of_unposted_stages_is_told(
    laptop: Params, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "describe", lambda *_: {"stage": "seeds"})
    monkeypatch.setattr(tracking, "start_posting", lambda *_: None)
    folder = tmp_path / ".work" / "tracking"
    run = StageRun(laptop, StageFacts("seeds", tmp_path))
    for _ in range(tracking.STUCK + 1):
        tracking.record(run, run.facts, laptop, 0.0)
    assert "not in MLflow yet" not in caplog.text
    with caplog.at_level(logging.WARNING, logger="scalequest"):
        tracking.record(run, run.facts, laptop, 0.0)
    assert "4 finished stages are not in MLflow yet" in caplog.text
    assert [read_json(path) for path in folder.glob("*.json")] == [{"stage": "seeds"}] * 5


def test_curves_keep_their_steps_and_no_broken_number(
    laptop: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = StageRun(
        laptop,
        StageFacts(
            "qpo@sums",
            tmp_path,
            {"data/p.parquet": "2" * 32, "stages/qpo.py": "3" * 32},
            {"qpo.beta": 0.1},
            written={"models/x": "1" * 32},
        ),
    )
    run.logged = {"last_loss": 0.5}
    run.curves = [{"loss": 0.7, "rewards/margins": 0.1}, {"loss": float("nan"), "rewards/margins": 0.2}]
    data = json.loads(json.dumps(tracking.describe(run, run.facts, laptop, 0.0)))
    names = {(name, value, step) for name, value, step in data["metrics"] if name != "wall_s"}
    assert names == {("last_loss", 0.5, 0), ("loss", 0.7, 1), ("rewards.margins", 0.1, 1), ("rewards.margins", 0.2, 2)}
    assert data["inputs"] == {"data/p.parquet": "2" * 32}
    assert data["params"] == {"qpo.beta": "0.1"}
    assert json.loads(data["tags"]["dvc.outs"]) == {"models/x": "1" * 32}
    assert data["tags"]["audit"] == f"scalequest audit {'1' * 32}"


# ------------------------------------------------------------------------------------- failed runs, moved checkouts


def runs_of(uri: str) -> dict[str, object]:
    """Runs by stage, the parent as ``pipeline``."""
    import mlflow

    client = mlflow.MlflowClient(uri)
    experiment = client.get_experiment_by_name("scalequest")
    assert experiment is not None
    return {r.data.tags.get("dvc.stage", "pipeline"): r for r in client.search_runs([experiment.experiment_id])}


@pytest.mark.parametrize(
    ("statuses", "parent"),
    [
        (["FINISHED", "FAILED", "FINISHED"], "FAILED"),  # the one beside it ended later
        (["FINISHED", "KILLED"], "KILLED"),
        (["KILLED", "FAILED"], "FAILED"),
        (["FINISHED", "FINISHED"], "FINISHED"),
    ],
)
def test_a_failed_stage_makes_its_pipeline_run_failed(tmp_path: Path, statuses: list[str], parent: str) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    for number, status in enumerate(statuses):
        write_json(tmp_path / f"{number}.json", told(uri, f"s{number}") | {"status": status})
    assert tracking.post_waiting(tmp_path) == 0
    runs = runs_of(uri)
    assert [runs[f"s{number}"].info.status for number in range(len(statuses))] == statuses
    assert runs["pipeline"].info.status == parent


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ValueError("bad input"), "FAILED"),
        (SystemExit(143), "KILLED"),
        (KeyboardInterrupt(), "KILLED"),
        (None, "FINISHED"),
    ],
)
def test_how_a_stage_ended_is_handed_over(
    laptop: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException | None, status: str
) -> None:
    monkeypatch.setattr(tracking, "start_posting", lambda *_: None)
    folder = tmp_path / ".work" / "tracking"

    def work() -> None:
        with tracking.tracked(StageRun(laptop, StageFacts("seeds", tmp_path)), laptop, 0.0):
            assert len(list((folder / "running").glob("seeds.*.json"))) == 1
            if error:
                raise error

    if error:
        with pytest.raises(type(error)):
            work()
    else:
        work()
    (path,) = folder.glob("*.json")
    found = read_json(path)
    assert found["status"] == status
    assert found["tags"].get("failure") == (f"{type(error).__name__}: {error}" if error else None)
    assert not list((folder / "running").iterdir())


def test_a_stage_that_was_killed_without_a_word_is_failed_and_one_that_runs_is_left_alone(
    laptop: Params, tmp_path: Path
) -> None:
    import subprocess
    import sys

    running = tmp_path / ".work" / "tracking" / "running"
    ended = subprocess.Popen([sys.executable, "-c", "pass"])
    ended.wait()
    for name, pid in (("dead", ended.pid), ("alive", None)):
        run = StageRun(laptop, StageFacts(name, tmp_path))
        tracking._mark_running(running / f"{name}.1.json", run, laptop, 0.0)
        if pid:
            write_json(running / f"{name}.1.json", read_json(running / f"{name}.1.json") | {"pid": pid})
    assert tracking.post_waiting(tmp_path / ".work" / "tracking") == 0
    runs = runs_of(tracking.beside(tmp_path))
    assert set(runs) == {"pipeline", "dead"}
    assert (runs["dead"].info.status, runs["pipeline"].info.status) == ("FAILED", "FAILED")
    assert "killed, or out of memory" in runs["dead"].data.tags["failure"]
    assert [path.name for path in running.iterdir()] == ["alive.1.json"]


def test_a_moved_checkout_posts_to_the_store_beside_it(
    laptop: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "start_posting", lambda *_: None)
    old, new = tmp_path / "old", tmp_path / "new"
    with tracking.tracked(StageRun(laptop, StageFacts("seeds", old)), laptop, 0.0):
        pass
    old.rename(new)
    shutil.move(tmp_path / "mlflow.db", new)
    assert tracking.post_waiting(new / ".work" / "tracking") == 0
    assert not old.exists()
    assert set(runs_of(f"sqlite:///{new / 'mlflow.db'}")) == {"pipeline", "seeds"}


# ------------------------------------------------------------------------------------------- lineage, locked store


@pytest.fixture(scope="module")
def store(new_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow store of a training and of the evaluation of its model, whose post was interrupted and repeated."""
    folder = tmp_path_factory.mktemp("lineage") / ".work" / "tracking"
    shutil.copyfile(new_store, folder.parents[1] / "mlflow.db")
    trained = told("", "instruct_tune@student") | {
        "models_read": {"models/base/student": "2" * 32 + ".dir"},
        "models_made": {"models/student": "1" * 32 + ".dir"},
        "metrics": [("train_loss", 0.5, 0)],
    }
    scored = told("", "evaluate_student@student") | {
        "models_read": {"models/student": "1" * 32 + ".dir"},
        "inputs": {"data/benchmarks": "3" * 32 + ".dir"},
        "metrics": [("sums.flexible", 0.25, 0)],
    }
    failed = told("", "qft@sums", "b") | {"status": "FAILED", "models_made": {"models/qft/sums": "4" * 32 + ".dir"}}
    for number, described in enumerate((trained, trained, scored, failed)):
        # Twice the same record: as after a process that ended between its requests.
        write_json(folder / f"{max(1, number)}.json", described)
        assert tracking.post_waiting(folder) == 0
    return folder.parents[1]


def test_data_model_and_scores_are_one_graph(store: Path) -> None:
    import mlflow

    client = mlflow.MlflowClient(tracking.beside(store))
    runs = runs_of(tracking.beside(store))
    experiment = client.get_experiment_by_name("scalequest").experiment_id
    runs = {name: client.get_run(run.info.run_id) for name, run in runs.items()}  # a search leaves out the models
    [model] = client.search_logged_models([experiment])  # once, although it was posted twice; none of the failed stage
    assert (model.name, model.tags["dvc.md5"]) == ("models-student", "1" * 32 + ".dir")
    assert str(model.status) == "READY"
    trained, scored = runs["instruct_tune@student"], runs["evaluate_student@student"]
    assert model.source_run_id == trained.info.run_id
    assert [one.model_id for one in trained.outputs.model_outputs] == [model.model_id]
    assert [one.model_id for one in scored.inputs.model_inputs] == [model.model_id]
    assert [one.dataset.digest for one in scored.inputs.dataset_inputs] == ["3" * 32 + ".dir"]
    # The model's own page has the loss of its training and its scores.
    assert {one.key: one.value for one in client.get_logged_model(model.model_id).metrics} == {
        "train_loss": 0.5, "sums.flexible": 0.25,
    }  # fmt: skip


def test_a_failed_stage_is_a_failed_run_with_its_data_and_without_a_model(store: Path) -> None:
    failed = runs_of(tracking.beside(store))["qft@sums"]
    assert failed.info.status == "FAILED"
    assert [one.dataset.digest for one in failed.inputs.dataset_inputs] == ["0" * 32]
    assert not (failed.outputs and failed.outputs.model_outputs)


def test_a_locked_database_loses_no_run_and_the_next_post_has_it(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import sqlite3

    folder = store / ".work" / "tracking"
    write_json(folder / "9.json", told(f"{tracking.beside(store)}?timeout=0.1", "judge", "c"))
    with sqlite3.connect(store / "mlflow.db") as other:
        other.execute("BEGIN EXCLUSIVE")
        assert tracking.post_waiting(folder) == 1
        other.rollback()
    assert "9.json was not posted and stays" in capsys.readouterr().err
    assert tracking.post_waiting(folder) == 0
    assert runs_of(tracking.beside(store))["judge"].info.status == "FINISHED"


def test_a_store_without_logged_models_has_the_run_all_the_same(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow
    from mlflow.exceptions import MlflowException

    def old_server(*_: object, **__: object) -> None:
        raise MlflowException("ENDPOINT_NOT_FOUND")

    monkeypatch.setattr(mlflow.MlflowClient, "search_logged_models", old_server)
    folder = store / ".work" / "tracking"
    write_json(folder / "10.json", told("", "qpo@sums", "d") | {"models_made": {"models/qpo/sums": "5" * 32 + ".dir"}})
    assert tracking.post_waiting(folder) == 0
    assert runs_of(tracking.beside(store))["qpo@sums"].info.status == "FINISHED"


def test_what_a_stage_read_and_made_is_handed_over_with_its_hashes(laptop: Params, tmp_path: Path) -> None:
    deps = {"data/p.parquet": "2" * 32, "models/base/student": "3" * 32 + ".dir", "stages/qft.py": "4" * 32}
    facts = StageFacts("qft@sums", tmp_path, deps, written={"models/qft/sums": "1" * 32 + ".dir", "reports/m.json": "5" * 32})  # fmt: skip
    found = tracking.describe(StageRun(laptop, facts), facts, laptop, 0.0)
    assert found["inputs"] == {"data/p.parquet": "2" * 32}
    assert found["models_read"] == {"models/base/student": "3" * 32 + ".dir"}
    assert found["models_made"] == {"models/qft/sums": "1" * 32 + ".dir"}


class Process:
    """A process above a stage, as psutil shows it."""

    def __init__(self, pid: int, *command: str) -> None:
        self.pid, self._command = pid, command

    def cmdline(self) -> list[str]:
        return list(self._command)

    def create_time(self) -> float:
        return 1000.0 + self.pid


DVC = Process(7, "/e/bin/python", "/e/bin/dvc", "repro")


@pytest.mark.parametrize(
    ("parents", "same_as"),
    [
        pytest.param([DVC, Process(1, "bash")], [DVC], id="dvc"),
        pytest.param(
            [Process(8, "python", "/e/bin/dvc", "repro", "-s", "judge"), Process(3, "python", "/e/bin/scalequest", "parallel", "--gpus", "2")],
            [Process(9, "python", "/e/bin/dvc", "repro", "-s", "qft"), Process(3, "python", "-m", "scalequest.cli", "parallel")],
            id="stages_of_a_parallel_run",
        ),
    ],
)  # fmt: skip
def test_the_stages_of_one_run_have_one_parent(
    parents: list[Process], same_as: list[Process], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import psutil

    def key(above: list[Process]) -> str:
        monkeypatch.setattr(psutil.Process, "parents", lambda _: above)
        return tracking.pipeline_run(StageFacts("judge", tmp_path))[0]

    assert key(parents) == key(same_as)
    assert key(parents) != key([Process(99, "python", "/e/bin/dvc", "repro")])
    assert key([Process(1, "bash")]).startswith("by-hand")
