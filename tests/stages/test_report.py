from pathlib import Path

import pytest

from scalequest.errors import UserError
from scalequest.params import Params
from tests.report.finished import (
    Folder,
)


@pytest.fixture
def folder(tmp_path: Path, laptop: Params) -> Folder:
    return Folder(tmp_path, laptop)


def test_a_secret_in_the_data_stops_the_report(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "So it is")
    with pytest.raises(UserError, match=r"report\.md: holds the value of HF_TOKEN"):
        folder.run()
    assert not folder.args.markdown.exists()
    assert not folder.args.page.exists()


def test_a_second_run_writes_the_same_bytes_and_nothing_else(folder: Folder) -> None:
    before = {path for path in folder.root.rglob("*") if path.is_file()}
    first = folder.run()
    assert folder.run() == first
    assert str(folder.root) not in "".join(first)
    made = {path for path in folder.root.rglob("*") if path.is_file()} - before
    plots = {folder.args.distributions / f"{name}.csv" for name in ("difficulty", "words", "reward", "agreement")}
    args = folder.args
    assert made == {args.markdown, args.page, args.scores_plot, args.funnel_plot, args.summary} | plots


def test_nothing_in_the_markdown_is_about_this_machine(folder: Folder) -> None:
    import platform

    text = folder.run()[0]
    assert platform.python_version() not in text
    assert "scalequest audit" in text
