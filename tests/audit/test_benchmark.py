"""benchmarks/audit.py: its made-up run is one that the audit can read."""

from pathlib import Path

import pytest

from benchmarks.audit import MIX, git, make_repository
from scalequest.cli import run


def test_the_made_up_run_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every table in it is the output of a stage of this repository's lock, whatever the stages are called today."""
    counts = make_repository(tmp_path, kept=80, experiments=2)
    assert (counts["generated"], counts["kept"]) == (100, 80)  # a fifth is rejected
    assert sum(counts[name] for name in MIX) == 100
    assert len(git(tmp_path, "for-each-ref", "refs/exps").splitlines()) == 2
    monkeypatch.chdir(tmp_path)
    assert run(["verify", "counts", "rows"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("all hold") == 2
