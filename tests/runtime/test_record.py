"""A real DVC around a small stage: what dvc.lock and the run cache record is what the stage ran with."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from scalequest.runtime.environment import ENVIRONMENT_FILE, Recorded, local_runs
from tests.fakes import LAPTOP, ROOT

pytestmark = pytest.mark.slow

# Says that it runs, waits until it may go on, and writes what it was given.
STAGE = """
import time
from pathlib import Path
from helper import WORD
from scalequest.runtime.stage import run_stage

def main(args, run):
    Path("started").touch()
    if run.journal.folder:
        print("finished shards:", sorted(p.name for p in run.journal.folder.glob("shard-*")))
        (run.journal.folder / "shard-000000.parquet").touch()
    while not Path("go").exists():
        time.sleep(0.02)
    args.out.write_text(f"{args.in_file.read_text()} {run.params.qpo.beta} {WORD}")

run_stage(main, "A stage of the tests.", paths=("out", "in_file"))
"""
PIPELINE = """
stages:
  first:
    cmd: python stage.py --in-file in.txt --out first.txt
    deps: [in.txt, stage.py, helper.py]
    params: [qpo]
    outs: [first.txt]
  second:
    cmd: python stage.py --in-file first.txt --out second.txt
    deps: [first.txt, stage.py, helper.py]
    params: [qpo.beta]
    outs: [second.txt]
"""


class Checkout:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.environment = os.environ | {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT),
        }  # fmt: skip
        params = LAPTOP.read_text().replace("  mlflow: true", "  mlflow: false")
        assert "beta: 0.1" in params
        for name, text in {
            "params.yaml": params, "dvc.yaml": PIPELINE, "stage.py": STAGE, "helper.py": 'WORD = "word"\n',
            "in.txt": "input", ".gitignore": "/.work/\n__pycache__/\n/started\n/go\n", ENVIRONMENT_FILE: '{"environments": {}, "stages": {}}\n',
        }.items():  # fmt: skip
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_text(text)
        for command in (
            "git init -q -b main", "git config user.email test@example.com", "git config user.name test",
            "dvc init -q", "git add -A", "git commit -qm tiny",
        ):  # fmt: skip
            self.run(*command.split())

    def run(self, *command: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
        done = subprocess.run(command, cwd=self.path, env=self.environment, capture_output=True, text=True, check=False)
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    def edited(self, edit: dict[str, tuple[str, str]], *command: str) -> "subprocess.CompletedProcess[str]":
        """Run a command, and edit files while its stage runs: ``{file: (old, new)}``."""
        (self.path / "go").unlink(missing_ok=True)
        (self.path / "started").unlink(missing_ok=True)
        process = subprocess.Popen(
            command, cwd=self.path, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        try:
            deadline = time.monotonic() + 60
            while not (self.path / "started").exists():
                assert process.poll() is None, process.communicate()
                assert time.monotonic() < deadline
                time.sleep(0.02)
            for name, (old, new) in edit.items():
                self.replace(name, old, new)
            (self.path / "go").touch()
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
        return subprocess.CompletedProcess(command, process.returncode, out, err)

    def replace(self, name: str, old: str, new: str) -> None:
        text = (self.path / name).read_text()
        assert old in text
        (self.path / name).write_text(text.replace(old, new, 1))

    def read(self, name: str) -> str | None:
        return (self.path / name).read_text() if (self.path / name).exists() else None


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


EDITS = {
    "parameter": ("params.yaml", "beta: 0.1", "beta: 0.3", "params.yaml: qpo.beta was 0.1 when the stage started, is 0.3 now"),
    "code": ("helper.py", "word", "verb", "helper.py (code): md5 was"),
    "own_code": ("stage.py", "import time", "import time  # now", "stage.py (code): md5 was"),
    "input": ("in.txt", "input", "other", "in.txt (input): md5 was"),
}  # fmt: skip


@pytest.mark.parametrize(("name", "old", "new", "message"), EDITS.values(), ids=EDITS)
def test_what_is_edited_while_a_stage_runs_is_not_recorded(
    checkout: Checkout, name: str, old: str, new: str, message: str
) -> None:
    failed = checkout.edited({name: (old, new)}, "dvc", "repro", "first")
    assert failed.returncode != 0
    assert message in failed.stderr
    assert "dvc exp run --temp" in failed.stderr
    assert checkout.read("dvc.lock") is None
    assert not list((checkout.path / ".work" / "journal").glob("*/*/DONE"))
    assert local_runs(checkout.path, "first") == []
    # An honest run with the new value runs: nothing in the run cache says that it was done.
    again = checkout.run("dvc", "repro", "first")
    assert "Running stage 'first'" in again.stdout
    assert "cached" not in again.stdout
    expected = {"params.yaml": "input 0.3 word", "helper.py": "input 0.1 verb", "in.txt": "other 0.1 word"}
    assert checkout.read("first.txt") == expected.get(name, "input 0.1 word")
    assert "up to date" in checkout.run("dvc", "repro", "first").stdout


def test_the_old_value_brought_back_takes_up_the_finished_shards(checkout: Checkout) -> None:
    checkout.edited({"params.yaml": ("beta: 0.1", "beta: 0.3")}, "dvc", "repro", "first")
    checkout.replace("params.yaml", "beta: 0.3", "beta: 0.1")
    assert "finished shards: ['shard-000000.parquet']" in checkout.run("dvc", "repro", "first").stdout
    assert checkout.read("first.txt") == "input 0.1 word"


@pytest.mark.parametrize("kind", ["code", "input"])
def test_shards_that_may_come_from_edited_code_or_input_are_not_taken_up(checkout: Checkout, kind: str) -> None:
    name, old, new, _ = EDITS[kind]
    checkout.edited({name: (old, new)}, "dvc", "repro", "first")
    checkout.replace(name, new, old)
    assert "finished shards: []" in checkout.run("dvc", "repro", "first").stdout


def test_a_finished_record_stays_when_a_later_run_is_edited(checkout: Checkout) -> None:
    (checkout.path / "go").touch()
    checkout.run("dvc", "repro")
    before = checkout.read("dvc.lock")
    failed = checkout.edited({"params.yaml": ("beta: 0.1", "beta: 0.3")}, "dvc", "repro", "-f", "-s", "second")
    assert failed.returncode != 0
    assert checkout.read("dvc.lock") == before


def test_what_another_stage_reads_may_be_edited_meanwhile(checkout: Checkout) -> None:
    # `second` lists beta alone; the learning rate is another stage's.
    (checkout.path / "go").touch()
    checkout.run("dvc", "repro", "first")
    text = checkout.read("params.yaml") or ""
    section = "\nqpo:" + text.split("\nqpo:")[1]
    line = next(line for line in section.splitlines() if "learning_rate" in line)
    before = section.split(line)[0]
    done = checkout.edited({"params.yaml": (before + line, before + line.replace("e-", "e-1"))}, "dvc", "repro", "-s", "second")  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_another_parameter_file_cannot_be_slipped_under_a_recorded_run(checkout: Checkout) -> None:
    (checkout.path / "go").touch()
    (checkout.path / "other.yaml").write_text((checkout.read("params.yaml") or "").replace("beta: 0.1", "beta: 0.7"))
    checkout.environment["SCALEQUEST_PARAMS"] = "other.yaml"
    checkout.run("dvc", "repro", "first")
    assert checkout.read("first.txt") == "input 0.1 word"


# ------------------------------------------------------------------------------------------- facts about the machine


def test_an_experiment_in_a_temporary_folder_carries_its_facts(checkout: Checkout) -> None:
    (checkout.path / "go").touch()
    checkout.run("dvc", "repro")
    checkout.run("git", "add", "-A")
    checkout.run("git", "commit", "-qm", "run")
    committed = checkout.read(ENVIRONMENT_FILE)
    checkout.replace(".gitignore", "/go\n", "")  # the temporary folder needs it, too
    checkout.run("git", "add", "-A")
    checkout.run("git", "commit", "-qm", "go")
    checkout.run("dvc", "exp", "run", "--temp", "-n", "warm", "-S", "qpo.beta=0.5")
    assert checkout.read(ENVIRONMENT_FILE) == committed  # the workspace is untouched
    of_experiment = checkout.run("git", "show", f"{commit_of(checkout, 'warm')}:{ENVIRONMENT_FILE}").stdout
    mine, theirs = (Recorded.parse((text or "").encode()) for text in (committed, of_experiment))
    assert set(mine.stages) == set(theirs.stages) == {"first", "second"}
    assert mine.environments == theirs.environments  # one environment, once
    assert mine.stages["second"]["given"] != theirs.stages["second"]["given"]
    runs = {run["given"]: run for run in local_runs(checkout.path, "second")}
    assert set(runs) == {mine.stages["second"]["given"], theirs.stages["second"]["given"]}
    run = runs[theirs.stages["second"]["given"]]
    assert run["params"] == {"qpo.beta": 0.5}
    assert 0 < run["spent"]["wall_s"] < 600
    assert run["environment"] == mine.environments[theirs.stages["second"]["environment"]]


def commit_of(checkout: Checkout, experiment: str) -> str:
    refs = checkout.run("git", "for-each-ref", "--format=%(refname)", "refs/exps").stdout.split()
    return next(ref for ref in refs if ref.endswith(f"/{experiment}"))


def test_a_second_run_on_the_same_machine_changes_no_file_of_git(checkout: Checkout) -> None:
    (checkout.path / "go").touch()
    checkout.run("dvc", "repro")
    checkout.run("git", "add", "-A")
    checkout.run("git", "commit", "-qm", "run")
    checkout.run("dvc", "repro", "-f")
    assert checkout.run("git", "status", "--porcelain").stdout == ""
    assert json.loads(checkout.read(ENVIRONMENT_FILE) or "")["stages"].keys() == {"first", "second"}
