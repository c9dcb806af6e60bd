"""A model in MLflow's registry leads back to the audit."""

import json
import os
import shutil
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from scalequest.audit.tables import Store
from scalequest.errors import UserError
from scalequest.publish import register
from tests.audit.pipeline import Pipeline


@pytest.fixture(autouse=True)
def _store_beside(new_store: Path, tmp_path: Path) -> None:
    """A store where the tests of this file expect one."""
    shutil.copyfile(new_store, tmp_path / "mlflow.db")


def test_a_version_carries_the_hashes_of_its_data_and_its_run(pipeline: Pipeline, tmp_path: Path) -> None:
    import mlflow

    chain, store, uri = pipeline.chain(), Store(pipeline.repository), f"sqlite:///{tmp_path / 'mlflow.db'}"
    client = mlflow.MlflowClient(uri)
    experiment = client.create_experiment("scalequest", artifact_location=(tmp_path / "artifacts").as_uri())
    client.create_run(experiment, tags={"dvc.outs": json.dumps({"models/student": "another"})})
    run = client.create_run(experiment, tags={"dvc.outs": json.dumps({"models/student": chain.target.md5})})
    model = client.create_logged_model(experiment, "models-student", run.info.run_id)
    client.log_outputs(run.info.run_id, [mlflow.entities.LoggedModelOutput(model.model_id, step=0)])
    assert register.register(chain, store, uri, "student") == "1"
    assert register.register(chain, store, uri, "student") == "2"
    version = client.get_model_version("student", "2")
    assert version.run_id == run.info.run_id
    # The model in MLflow's lineage view names both versions.
    assert json.loads(client.get_logged_model(model.model_id).tags["mlflow.modelVersions"]) == [
        {"name": "student", "version": "1"}, {"name": "student", "version": "2"},
    ]  # fmt: skip
    assert version.tags["dvc.md5"] == chain.target.md5
    assert json.loads(version.tags["dvc.inputs"]) == {path: pipeline.md5(path) for path in ("data/instruct.parquet", "models/base/student")}  # fmt: skip
    assert version.tags["git.commit"] == pipeline.git("rev-parse", "HEAD")
    assert version.tags["audit"] == f"scalequest audit {chain.target.md5}"


def test_what_is_no_model_is_refused(pipeline: Pipeline) -> None:
    with pytest.raises(UserError, match=r"data/benchmarks holds no config.json, so it is no model"):
        register.register(pipeline.chain("data/benchmarks"), Store(pipeline.repository), "sqlite:///x.db", "x")


def test_a_version_stays_what_it_is_when_the_folder_is_written_anew(pipeline: Pipeline, tmp_path: Path) -> None:
    import mlflow

    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    register.register(pipeline.chain(), Store(pipeline.repository), uri, "student")
    source = mlflow.MlflowClient(uri).get_model_version("student", "1").source
    copy = Path(urlsplit(source).path)
    assert copy.is_relative_to(pipeline.root / "mlartifacts")
    pipeline.write("models/student/model.safetensors", "of the next run")
    assert (copy / "model.safetensors").read_text() == "student"
    assert not os.access(copy / "model.safetensors", os.W_OK) or os.geteuid() == 0
    assert (copy / "model.safetensors").stat().st_mode & 0o222 == 0


def test_an_uncommitted_workspace_is_not_registered(pipeline: Pipeline, tmp_path: Path) -> None:
    pipeline.write("models/student/model.safetensors", "of the next run")
    pipeline.lock("instruct_tune")
    with pytest.raises(UserError, match=r"register: (.|\n)*not committed: dvc.lock(.|\n)*git add -u && git commit"):
        register.register(
            pipeline.chain(), Store(pipeline.repository), f"sqlite:///{tmp_path / 'mlflow.db'}", "student"
        )


def test_damaged_bytes_are_not_registered(pipeline: Pipeline, tmp_path: Path) -> None:
    chain = pipeline.chain()
    listing = Store(pipeline.repository).listing(chain.target)
    assert listing
    pipeline.object(listing["model.safetensors"]).write_text("bit rot")
    with pytest.raises(UserError, match=r"its bytes are not those of .* scalequest verify hashes"):
        register.register(chain, Store(pipeline.repository), f"sqlite:///{tmp_path / 'mlflow.db'}", "student")
    assert not [path for path in (pipeline.root / register.COPIES).iterdir() if not path.name.startswith(".")]


@pytest.mark.slow
def test_a_registered_model_loads(model: Path, tmp_path: Path) -> None:
    import mlflow

    files = {path.name: path for path in model.iterdir()}
    copy = register.frozen_copy(tmp_path / "copies", "a.dir", files, {})
    pipe = mlflow.transformers.load_model(str(copy))
    assert pipe.model.config.model_type == "llama"
    assert register.frozen_copy(tmp_path / "copies", "a.dir", {}, {}) == copy  # registered twice, kept once
