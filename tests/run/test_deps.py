"""`scalequest deps`: what it writes. tests/test_dag_code.py compares the repository's own dvc.yaml with the imports."""

import os
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

from scalequest.run import deps


def test_a_full_disk_leaves_the_pipeline_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(deps, "rewritten", lambda *_: "new\n")
    (tmp_path / "dvc.yaml").write_text("old\n")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            deps.run(Namespace(write=True, check=False))
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old\n"]
    assert deps.run(Namespace(write=True, check=False)) == 0
    assert (tmp_path / "dvc.yaml").read_text() == "new\n"
