from pathlib import Path

import pytest

from scalequest.audit.repository import Repository
from tests.fakes import LAPTOP
from tests.run.experiment.made import DVC_YAML, GRID, git, given


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the laptop's parameters and one experiment, `best`."""
    (tmp_path / "experiments").mkdir()
    (tmp_path / "params.yaml").write_text(LAPTOP.read_text())
    (tmp_path / "experiments" / "best.yaml").write_text(GRID)
    return tmp_path


@pytest.fixture
def repository(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    """That folder as a repository with a small pipeline, committed, before any cell ran."""
    (folder / "dvc.yaml").write_text(DVC_YAML)
    (folder / "code.txt").write_text("code")
    (folder / ".gitignore").write_text("/models/\n/up.txt\n/*.parquet\n/ran\n/wait-*\n/.work/\n/cache/\n")
    given(folder / "given")
    git(folder, "init", "-q", "-b", "main")
    git(folder, "config", "user.email", "test@example.com")
    git(folder, "config", "user.name", "test")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "pipeline")
    monkeypatch.chdir(folder)
    return Repository(folder)
