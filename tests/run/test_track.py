"""`scalequest track` posts what waits, and says by its exit code if something stays."""

import os
from argparse import Namespace
from pathlib import Path

import pytest

from scalequest.cli import main
from scalequest.errors import UserError
from scalequest.run import track


def umask() -> int:
    found = os.umask(0)
    os.umask(found)
    return found


@pytest.mark.parametrize(("kept", "code"), [(0, 0), (3, 1)])
def test_the_exit_code_says_whether_something_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: int, code: int
):
    seen: list[Path] = []
    masks: list[int] = []
    waits: list[bool] = []

    def post(folder: Path, wait: bool) -> int:
        seen.append(folder)
        waits.append(wait)
        masks.append(umask())
        return kept

    monkeypatch.setattr(track, "post_waiting", post)
    before = umask()
    with pytest.raises(SystemExit) as caught:
        main(["track", str(tmp_path)])
    assert (caught.value.code, seen) == (code, [tmp_path])
    assert masks == [0o077]  # a new store is this user's alone
    assert umask() == before
    with pytest.raises(SystemExit):
        main(["track", "--no-wait", str(tmp_path)])
    assert waits == [True, False]


def test_a_folder_that_is_in_no_checkout_is_named():
    with pytest.raises(UserError, match=r"^/: in no checkout\. Expected .work/tracking of one"):
        track.run(Namespace(folder=Path("/"), no_wait=False))
    with pytest.raises(UserError, match="/tmp: in no checkout"):
        track.run(Namespace(folder=Path("/tmp"), no_wait=False))


def test_a_folder_that_is_not_there_has_nothing_and_is_not_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as caught:
        main(["track", str(tmp_path / "tracking")])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"{tmp_path / 'tracking'}: nothing is waiting\n"
    assert not (tmp_path / "tracking").exists()
