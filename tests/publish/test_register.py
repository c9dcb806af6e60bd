"""A model in MLflow's registry leads back to the audit."""

import json
from pathlib import Path

import pytest

from scalequest.audit.tables import Store
from scalequest.errors import UserError
from scalequest.publish import register as registry
from tests.audit.pipeline import Pipeline


def test_a_version_carries_the_hashes_of_its_data_and_its_run(pipeline: Pipeline, tmp_path: Path) -> None:
    import mlflow

    chain, store, uri = pipeline.chain(), Store(pipeline.repository), f"sqlite:///{tmp_path / 'mlflow.db'}"
    client = mlflow.MlflowClient(uri)
    experiment = client.create_experiment("scalequest", artifact_location=(tmp_path / "artifacts").as_uri())
    client.create_run(experiment, tags={"dvc.outs": json.dumps({"models/student": "another"})})
    run = client.create_run(experiment, tags={"dvc.outs": json.dumps({"models/student": chain.target.md5})})
    assert registry.register(chain, store, uri, "student") == "1"
    assert registry.register(chain, store, uri, "student") == "2"
    version = client.get_model_version("student", "2")
    assert version.run_id == run.info.run_id
    assert version.tags["dvc.md5"] == chain.target.md5
    assert json.loads(version.tags["dvc.inputs"]) == {path: pipeline.md5(path) for path in ("data/instruct.parquet", "models/base/student")}  # fmt: skip
    assert version.tags["git.commit"] == pipeline.git("rev-parse", "HEAD")
    assert version.tags["audit"] == f"scalequest audit {chain.target.md5}"


def test_what_is_no_model_is_refused(pipeline: Pipeline) -> None:
    with pytest.raises(UserError, match=r"data/benchmarks holds no config.json, so it is no model"):
        registry.register(pipeline.chain("data/benchmarks"), Store(pipeline.repository), "sqlite:///x.db", "x")
