import os

# Two test processes share two cores (`make test`): an engine or trainer in each that took both would spend its time waiting.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# As in a stage (scalequest.runtime.threads), and before anything imports torch.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "3000")

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from scalequest.models.chat import ChatFormat
from scalequest.params import Params, load_all
from tests.audit.pipeline import Pipeline
from tests.fakes import LAPTOP, chatml_tokenizer, deepseek_tokenizer
from tests.scripted import Endpoint


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first: else one of two processes would run a whole pipeline while the other has nothing left."""
    items.sort(key=lambda item: not item.path.name.startswith("test_dag"))


@pytest.fixture(autouse=True)
def _outside_dvc(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test takes the surroundings of a real run for its own."""
    for name in ("DVC_STAGE", "DVC_ROOT", "DVC_EXP_NAME", "SCALEQUEST_PARAMS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def laptop() -> Params:
    """The laptop profile: real, complete parameters to change from."""
    return load_all(LAPTOP)


@pytest.fixture
def chatml() -> ChatFormat:
    return ChatFormat.of(chatml_tokenizer())


@pytest.fixture
def deepseek() -> ChatFormat:
    return ChatFormat.of(deepseek_tokenizer())


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    """An endpoint on this machine that answers from a script."""
    server = Endpoint()
    yield server
    server.server.shutdown()
    server.server.server_close()


@pytest.fixture(scope="session")
def finished_pipeline(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    made = Pipeline(tmp_path_factory.mktemp("pipeline") / "repository")
    made.lock()
    made.commit()
    return made


@pytest.fixture
def pipeline(finished_pipeline: Pipeline, tmp_path: Path) -> Pipeline:
    """A finished, committed run, to be changed at will."""
    return Pipeline(Path(shutil.copytree(finished_pipeline.root, tmp_path / "repository", symlinks=True)))


@pytest.fixture(scope="session")
def new_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow store without runs. To make one takes seconds, to copy this one nothing."""
    import mlflow

    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    mlflow.MlflowClient(f"sqlite:///{path}").search_experiments()
    return path
