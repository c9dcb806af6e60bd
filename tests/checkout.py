"""A copy of the repository with a Git history of its own, in which commands are run as a user types them."""

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tests.fakes import ROOT


@dataclass
class Checkout:
    """A copy of the repository with a Git history of its own."""

    path: Path
    python: str = ""  # folder of the `python` that DVC finds (tests.warm); else this environment's

    def environment(self) -> dict[str, str]:
        first = [*filter(None, [self.python]), str(Path(sys.executable).parent)]
        return os.environ | {"PATH": ":".join([*first, os.environ["PATH"]]), "PYTHONPATH": ""}

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        result = subprocess.run(
            command, cwd=self.path, capture_output=True, text=True, env=self.environment(), check=False
        )
        if check and result.returncode:
            pytest.fail(f"{command} ended with {result.returncode}\n{result.stdout[-3000:]}\n{result.stderr[-5000:]}")
        return result

    def start(self, *command: str) -> subprocess.Popen[str]:
        """The same in a process group of its own, to be stopped."""
        return subprocess.Popen(
            command, cwd=self.path, env=self.environment(), text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            start_new_session=True,
            # A shell's background job ignores Ctrl-C, and its children inherit that: these must not.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip

    def restore(self) -> None:
        """Undo an experiment, as docs/getting-started.md says it.

        The file gets another time first. DVC writes Git's index and then the parameter: within one second and with a
        value of the same length (qpo, sft) Git, which compares sizes and seconds, takes the changed file for the old one.
        """
        (self.path / "params.yaml").touch()
        self.run("git", "checkout", "-q", "--", ".")
        self.run("dvc", "checkout")

    def ran(self, output: str) -> list[str]:
        """Names of the stages that DVC ran, in order."""
        return [line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage")]

    def metrics(self, name: str) -> dict:
        return json.loads((self.path / "reports" / "metrics" / f"{name}.json").read_text())


def write_params(checkout: Path, params: dict) -> None:
    with (checkout / "params.yaml").open("w") as file:
        YAML().dump(params, file)


def copy_repository(path: Path, params: dict, python: str = "") -> Checkout:
    """Copy what Git would, without the results of a run, and commit it with these parameters."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split("\n")  # fmt: skip
    for name in filter(None, listed):
        if name == "dvc.lock" or name.startswith(("reports/", "eval/scores/")) or not (ROOT / name).is_file():
            continue
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, path / name)
    write_params(path, params)
    checkout = Checkout(path, python)
    checkout.run("git", "init", "-q", "-b", "main")
    checkout.run("git", "config", "user.email", "test@example.com")
    checkout.run("git", "config", "user.name", "test")
    checkout.run("git", "add", "-A")
    checkout.run("git", "commit", "-qm", "tiny")
    return checkout
