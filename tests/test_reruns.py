"""An edit reruns the stages that can see it, and what no stage lists does not change in silence."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.reruns import EDITS, applied, listing, seeing
from tests.fakes import ROOT

PINNED = [edit for edit in EDITS if edit.pinned]


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: edit.what)
def test_an_edit_reruns_exactly_the_stages_that_can_see_it(edit) -> None:  # type: ignore[no-untyped-def]
    assert applied(ROOT, edit)  # the text to edit is there
    assert listing(ROOT, edit.file) == seeing(ROOT, edit)


@pytest.mark.slow
@pytest.mark.parametrize("edit", PINNED, ids=lambda edit: edit.what)
def test_an_edit_of_an_exempt_file_fails_its_golden_test(edit, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    for folder in ("scalequest", "tests", "requirements"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("params.yaml", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / edit.file).write_text(applied(ROOT, edit), encoding="utf-8")
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", edit.pinned], cwd=tmp_path,
        capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    assert result.returncode == 1, result.stdout + result.stderr
    assert "this changes the bytes of every output: rerun with `dvc repro -f`" in result.stdout
