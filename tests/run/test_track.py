"""`scalequest track` posts what waits, and says by its exit code if something stays."""

from pathlib import Path

import pytest

from scalequest.cli import main
from scalequest.run import track


@pytest.mark.parametrize(("kept", "code"), [(0, 0), (3, 1)])
def test_the_exit_code_says_whether_something_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: int, code: int
):
    seen: list[Path] = []
    monkeypatch.setattr(track, "post_waiting", lambda folder: seen.append(folder) or kept)
    with pytest.raises(SystemExit) as caught:
        main(["track", str(tmp_path)])
    assert (caught.value.code, seen) == (code, [tmp_path])


def test_an_empty_folder_is_fine(tmp_path: Path):
    with pytest.raises(SystemExit) as caught:
        main(["track", str(tmp_path / "tracking")])
    assert caught.value.code == 0
