"""What the command `scalequest verify` prints; tests/test_cli.py has its exit codes."""

import pytest

from scalequest.cli import main
from tests.audit.pipeline import Pipeline


def test_verify_prints_the_environment_once(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(pipeline.root)
    with pytest.raises(SystemExit, match="0"):
        main(["verify"])
    assert capsys.readouterr().out.count("made with torch==1.0, cpu: test") == 1
