"""What a user does wrong, and what ends a command from outside: one line, the right exit code, and nothing lost."""

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from dvc.exceptions import DvcException

from scalequest import cli
from scalequest.errors import UserError
from tests.fakes import ROOT
from tests.test_cli import call, here

__all__ = ["here"]  # the fixture


@pytest.mark.parametrize("words", [["status"], ["journal", "--clean"], ["preview", "judge"], ["track"]], ids=" ".join)
def test_a_command_that_reads_the_root_folder_says_so_elsewhere(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = call(capsys, *words)
    assert (code, out) == (2, "")
    assert err == (
        "error: params.yaml: no such file. Expected to run in the repository's root folder. Change to it first.\n"
    )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (IsADirectoryError(21, "Is a directory", "docs"), 2, "error: docs: Is a directory. Expected"),
        (
            FileNotFoundError(2, "No such file or directory", "git"),
            2,
            "error: git: no such program here. Expected it on the PATH",
        ),
        (PermissionError(13, "Permission denied", "/x"), 2, "error: /x: Permission denied. Expected"),
        (DvcException("'dvc.lock' validation failed"), 2, "error: DVC: 'dvc.lock' validation failed. Expected"),
        (
            OSError(28, "No space left on device"),
            2,
            "error: an output: No space left on device. Expected a disk that takes it. Make room",
        ),
        (
            OSError(5, "Input/output error", "x.json"),
            2,
            "error: x.json: Input/output error. Expected a disk that takes it",
        ),
        (OSError(30, "Read-only file system"), 2, "error: an output: Read-only file system"),
        (UserError("as it is"), 2, "error: as it is\n"),
        (KeyboardInterrupt(), 130, ""),
    ],
    ids=["a_folder", "no_program", "no_permission", "dvc", "full", "broken", "read_only", "a_users", "ctrl_c"],
)
def test_an_error_from_outside_is_one_line(
    error: BaseException, code: int, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_: Any) -> int:
        raise error

    monkeypatch.setattr(cli, "run", fail)
    found, _, err = call(capsys, "status")
    assert found == code
    assert err.startswith(said)
    assert err.count("\n") == (1 if said else 0)


def test_a_full_disk_behind_the_output_is_one_line() -> None:
    with Path("/dev/full").open("wb") as full:
        words = [sys.executable, "-m", "scalequest.cli", "--version"]
        done = subprocess.run(words, cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert done.stderr.startswith("error: an output: No space left on device. Expected")


def test_a_terminal_without_a_letter_shows_another(monkeypatch: pytest.MonkeyPatch) -> None:
    def say(_: Any) -> int:
        print("25.0 ± 3.1 → done")
        return 0

    shown = io.BytesIO()
    monkeypatch.setattr(cli, "run", say)
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(shown, encoding="latin-1"))
    with pytest.raises(SystemExit) as done:
        cli.main(["cost"])
    assert done.value.code == 0
    assert shown.getvalue().decode("latin-1") == "25.0 ± 3.1 ? done\n"


@pytest.mark.parametrize("error", [ZeroDivisionError("a bug"), OSError("without a file"), ValueError("a bug")])
def test_an_error_of_ours_keeps_its_traceback(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Any) -> int:
        raise error

    monkeypatch.setattr(cli, "run", fail)
    with pytest.raises(type(error), match=str(error)):
        cli.main(["status"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["status", "--watch", "0"], "--watch 0: expected 1 second or more"),
        (["status", "--watch", "inf"], "--watch inf: expected 1 second or more"),
        (["estimate", "--usd-per-hour", "-1"], "--usd-per-hour -1.0: expected a price of 0 or more"),
        (["estimate", "--usd-per-hour", "nan"], "--usd-per-hour nan: expected a price of 0 or more"),
        (["estimate", "--seeds", "0"], "--seeds 0: expected 1 or more"),
        (["experiment", "--plan"], "--plan: of which experiment? Expected its name"),
        (["experiment", "--all"], "--all: of which experiment? Expected its name"),
        (
            ["experiment", "programs", "--all", "--table"],
            "--all: runs all cells, and the other option runs none or one",
        ),
        (
            ["publish", "--public"],
            "--public: nothing is uploaded. Expected it with --dataset ORG/NAME or --model ORG/NAME",
        ),
        (["tune", "models/x", "--seconds", "-1"], "--seconds -1.0: Expected a finite time above 0"),
        (["tune", "models/x", "--seconds", "nan"], "--seconds nan: Expected a finite time above 0"),
        (["report", "reports", "--out", ""], "--out .: a folder. Expected a file to write"),
        (["pin", "./x"], "pin: './x' is no name on the hub. Expected ORG/NAME, or path:./x for a folder"),
        (["pin", "a/b@main", "--revision", "v1"], "pin: a/b@main and --revision v1. Expected one of the two"),
        (["profile", "--force"], "--out and --force need a name"),
        (["profile", "gpu-135m", "--out", "docs"], "--out docs: a folder. Expected a file to write"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_an_option_that_cannot_be_meant_is_named(
    words: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    code, out, err = call(capsys, *words)
    assert (code, out) == (2, "")
    assert said in err


def test_options_of_a_finished_run(here: Any, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = call(capsys, "compare", "HEAD", "HEAD")
    assert (code, err) == (2, "error: compare: HEAD: named 2 times. Expected different runs. Name each once.\n")
    code, out, err = call(capsys, "verify", "--replay", "101%")
    assert (code, out) == (2, ""), "no check runs before"
    assert "--replay 101%: expected a share above 0%" in err


def test_a_kept_runs_folder_stands_for_its_metrics(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    folder = "reports/results/gpu-1.5b"
    words = ["estimate", "--profile", f"{folder}/params.yaml", "--from-run"]
    found = call(capsys, *words, folder)
    assert found[0] == 0
    assert found == call(capsys, *words, f"{folder}/metrics.json")
