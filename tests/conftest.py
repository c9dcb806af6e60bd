import os

# Two test processes share two cores (`make test`): an engine or trainer in each that took both would spend its time waiting.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# As in a stage (scalequest.runtime.threads), and before anything imports torch.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "3000")

import gc
import pickle
import shutil
import sys
import tempfile
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

from scalequest.models.chat import ChatFormat
from scalequest.params import Params, file, load_all
from tests.audit.pipeline import Pipeline
from tests.fakes import LAPTOP, chatml_tokenizer, deepseek_tokenizer
from tests.scripted import Endpoint
from tests.warm import Warm


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first: else one of two processes would run a whole pipeline while the other has nothing left.

    The whole pipelines, then files that start an engine, a trainer or DVC, then the many short ones, which even out the end.
    """
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: (not item.path.name.startswith("test_dag"), item.path not in slow))


_frozen = 0


def pytest_runtest_setup() -> None:
    """Whatever was imported stays: else each collection of garbage, of which a training makes three, takes 0.8 s to look it
    through.
    """
    global _frozen
    if len(sys.modules) > _frozen + 200:
        gc.collect()  # what earlier tests left is no import
        gc.freeze()
        _frozen = len(sys.modules)


def pytest_sessionfinish() -> None:
    """Let Python take all down at its end: some libraries complain of what is left."""
    gc.unfreeze()


@pytest.fixture(autouse=True)
def _outside_dvc(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test takes the surroundings of a real run for its own."""
    for name in ("DVC_STAGE", "DVC_ROOT", "DVC_EXP_NAME", "SCALEQUEST_PARAMS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session", autouse=True)
def _parsed_once() -> Iterator[None]:
    """Parse a parameter file of the same text once: ruamel takes 0.1 s for params.yaml, which some tests read sixty times."""
    parse = file.parse_yaml

    @lru_cache(256)
    def parsed(text: str, path: Path) -> bytes:
        return pickle.dumps(parse(text, path))

    def copied(text: str, path: Path) -> dict[str, Any]:
        found: dict[str, Any] = pickle.loads(parsed(text, path))
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(file, "parse_yaml", copied)
        yield


@pytest.fixture(scope="session")
def warm() -> Iterator[Warm]:
    """A server that forks processes with vLLM and TRL loaded; started when the first one is asked for."""
    with tempfile.TemporaryDirectory() as folder:  # a socket's path has 107 characters at most
        server = Warm(Path(folder))
        yield server
        server.end()


@pytest.fixture(scope="module")
def forked(warm: Warm) -> Iterator[None]:
    """Processes that the code under test starts with ``sys.executable`` are forked from the server."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "executable", f"{warm.path()}/python")
        yield


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the tiny model (tests.tiny), to be read only."""
    from tests.tiny import make_model

    return make_model(tmp_path_factory.mktemp("model"))


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
def pipeline(finished_pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pipeline:
    """A finished, committed run, to be changed at will. Nobody writes its lock, so readers need not wait."""
    monkeypatch.setattr("scalequest.io.QUIET_S", 0.0)
    return Pipeline(Path(shutil.copytree(finished_pipeline.root, tmp_path / "repository", symlinks=True)))


@pytest.fixture(scope="session")
def new_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow store without runs. To make one takes seconds, to copy this one nothing."""
    import mlflow

    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    mlflow.MlflowClient(f"sqlite:///{path}").search_experiments()
    return path
