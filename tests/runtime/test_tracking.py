"""Tracking: what is told, that nothing is lost, and that a broken store ends no stage."""

import json
import logging
from pathlib import Path

import pytest

from scalequest.io import read_json, write_json
from scalequest.params import Params
from scalequest.runtime import tracking
from scalequest.runtime.facts import StageFacts
from scalequest.runtime.stage import StageRun


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
    assert "could not be posted and stays" in capsys.readouterr().err


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


def test_a_stage_goes_on_when_it_cannot_even_be_described(
    laptop: Params, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / ".work").write_text("a file where a folder should be")
    run = StageRun(laptop, StageFacts("seeds", tmp_path))
    with caplog.at_level(logging.WARNING, logger="scalequest"):
        tracking.record(run, laptop, 0.0)
    assert "the stage's result is not affected" in caplog.text


def test_a_pile_of_unposted_stages_is_told(
    laptop: Params, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "describe", lambda *_: {"stage": "seeds"})
    monkeypatch.setattr(tracking.subprocess, "Popen", lambda *_, **__: None)
    folder = tmp_path / ".work" / "tracking"
    run = StageRun(laptop, StageFacts("seeds", tmp_path))
    for _ in range(tracking.STUCK + 1):
        tracking.record(run, laptop, 0.0)
    assert "not in MLflow yet" not in caplog.text
    with caplog.at_level(logging.WARNING, logger="scalequest"):
        tracking.record(run, laptop, 0.0)
    assert "4 finished stages are not in MLflow yet" in caplog.text
    assert [read_json(path) for path in folder.glob("*.json")] == [{"stage": "seeds"}] * 5


def test_curves_keep_their_steps_and_no_broken_number(
    laptop: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "output_hashes", lambda _: {"models/x": "1" * 32})
    run = StageRun(
        laptop,
        StageFacts("qpo@sums", tmp_path, {"data/p.parquet": "2" * 32, "stages/qpo.py": "3" * 32}, {"qpo.beta": 0.1}),
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
