"""Secrets planted wherever a run meets them are in no file, log or MLflow record afterwards.

The cards have a test of their own: tests/publish/test_command.py::test_a_password_in_the_remote_is_in_no_file.
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from scalequest.io import write_json
from scalequest.params import read_yaml
from scalequest.records import PREFERENCE, QUESTION, read_rows, write_rows
from tests.fakes import LAPTOP, ROOT
from tests.scripted import Endpoint, Reply, completion, error

pytestmark = pytest.mark.slow

# No one's. Joined here, so that no scanner takes this file for a leak.
KEY = "sk-" + "SECRETKEY-1234567890/+x"
PLANTED = {
    "key": KEY,
    "another_key": "correct-horse-battery",
    "hub": "hf_" + "PlantedToken" * 3,
    "cloud": "wJalrXUtnFEMI/K7MDENG",
    "git": "ghp_" + "PlantedGitToken123456",
    "mlflow": "tracking-pa55word",
    "params": "glpat-" + "PlantedInParams123",
    "query": "planted-query-secret",
    "user": "planted-user-pa55",
    "bearer": "0123456789abcdefPLANTED",
}
STAGE = """
import os
from pathlib import Path
from scalequest.runtime import stage
from scalequest.runtime.facts import StageFacts
from stages import preferences

# What DVC would say of this stage, were it running one.
stage.current_stage = lambda outputs=False: StageFacts(
    "preferences@sums", Path.cwd(), {"data/x": "abc"}, {"preferences": {}, "models": {}, "seed": 17, "domain": "maths", "own": {}})

def main(args, run):
    preferences.main(args, run)
    if crash := os.environ.get("CRASH"):
        raise RuntimeError(f"request headers: {{'Authorization': 'Bearer {crash}'}}")

stage.run_stage(main, "x", paths=("optimizer", "questions", "out", "metrics"), names=("generator",))
"""
HARDER = "Tom has 7 apples and buys 12 more in each of 3 shops. How many apples has he now?"


class Checkout:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "run.py").write_text(STAGE)
        for command in ("init -q", f"remote add origin https://ci:{PLANTED['git']}@git.example.org/o/r.git"):
            subprocess.run(["git", *command.split()], cwd=folder, check=True)
        rows = [
            {"id": f"sums/0/{i}", "generator": "sums", "question": f"What is {i} + 4?", "completion": "", "finish_reason": "stop",
             "n_tokens": 5, "seed": 1} for i in range(8)
        ]  # fmt: skip
        write_rows(folder / "questions", rows, QUESTION)
        write_json(folder / "optimizer" / "api.json", {"url": "https://elsewhere.example", "model": "m"})
        self.runs = 0

    def run(self, url: str, changes: dict[str, Any] | None = None, **environment: str) -> tuple[int, str]:
        """Run the stage; its exit code, and what it printed, which is kept as a file, too."""
        params = read_yaml(LAPTOP)
        params["models"]["optimizer"] = f"api:{url}#m"
        params["preferences"] |= {"style": "few_shot", "temperature": 0.0, "max_growth": 50.0, "min_numbers": 0.0}
        params["runtime"]["mlflow"] = True
        params["runtime"]["api"] |= {"key_variable": "TEST_KEY", "retries": 1, "concurrency": 1, "timeout_s": 5.0}
        for key, value in (changes or {}).items():
            params["runtime"][key] = value
        write_json(self.folder / "params.yaml", params)
        secret = {
            "TEST_KEY": KEY, "HF_TOKEN": PLANTED["hub"], "AWS_SECRET_ACCESS_KEY": PLANTED["cloud"], "OPENAI_API_KEY": PLANTED["another_key"],
            "MLFLOW_TRACKING_PASSWORD": PLANTED["mlflow"],
        }  # fmt: skip
        self.runs += 1
        output = self.folder / f"output-{self.runs}.txt"
        with output.open("w") as file:
            code = subprocess.run(
                [sys.executable, "run.py", "--generator", "sums", "--optimizer", "optimizer", "--questions", "questions",
                 "--out", f"out-{self.runs}.parquet", "--metrics", f"metrics-{self.runs}.json"],
                cwd=self.folder, check=False, stdout=file, stderr=file, env=os.environ | {"PYTHONPATH": str(ROOT)} | secret | environment,
            ).returncode  # fmt: skip
        (self.folder / "params.yaml").unlink()  # secrets were planted in it
        return code, output.read_text()

    def leaks(self) -> list[str]:
        """Each file below the checkout that holds a planted secret, Git's own configuration aside."""
        forms = {name: {s.encode() for s in (secret, quote(secret, safe=""))} for name, secret in PLANTED.items()}
        return [
            f"{path.relative_to(self.folder)}: {name}"
            for path in sorted(self.folder.rglob("*"))
            if path.is_file() and path != self.folder / ".git" / "config"
            for name, texts in forms.items()
            if any(text in path.read_bytes() for text in texts)
        ]


def echoing(body: dict[str, Any], failed: set[str]) -> Reply | None:
    """A server that shows the key wherever it can, by the number in the question.

    Args:
        body: the request.
        failed: numbers that failed once, which is enough.
    """
    header = f"Authorization: Bearer {KEY}"
    number = body["messages"][-1]["content"].split(" + ")[0].split()[-1]
    text, headers, reply = completion(HARDER)[2], {"X_Echo": KEY, "Set_Cookie": f"key={KEY}"}, None
    if number == "1":  # in the answer, its model and its end
        text["choices"][0] |= {"message": {"content": f"{HARDER} ({header})"}}
        text |= {"model": f"m-{KEY}", "system_fingerprint": KEY}
    elif number == "2":  # in the error of one row
        reply = error(400, f"invalid request; headers: {header}", code=f"bad_{KEY}")
    elif number == "3":  # as an address holds it, beside another one's credential
        reply = error(422, f"see https://me:{PLANTED['user']}@proxy.example/?key={quote(KEY, safe='')}")
    elif number in failed:
        pass
    elif number == "4":  # in a page that is no completion
        reply = (200, headers, f"<html>{header} x-api-key: {PLANTED['bearer']}</html>".encode())
    elif number == "5":  # in an error status
        reply = error(503, f"upstream: {PLANTED['hub']} {header}")
    if number in ("4", "5"):
        failed.add(number)
    return reply or (200, headers, text)


def test_secrets_planted_in_ten_places_are_in_no_file(tmp_path: Path, endpoint: Endpoint) -> None:
    checkout = Checkout(tmp_path)
    failed: set[str] = set()
    endpoint.answer = lambda body: echoing(body, failed)
    code, text = checkout.run(endpoint.url)
    assert code == 0, text
    made = {row["id"]: row for row in read_rows(tmp_path / "out-1.parquet", PREFERENCE)}
    assert [row["verdict"] for row in made.values()].count("kept") == 6, "the answers themselves stay"
    assert "Bearer ***" in made["sums/0/1"]["completion"], "the key was there, and was taken out"
    assert endpoint.keys[0] == f"Bearer {KEY}"
    assert f"the value of TEST_KEY is sent to {endpoint.url.split('/')[2]}" in text

    # A run that fails by a UserError, and one that fails by a bug: both reasons go to MLflow.
    endpoint.answer = lambda _: error(401, f"no such user: Bearer {KEY}, {PLANTED['cloud']}")
    code, text = checkout.run(endpoint.url)
    assert (code, "wants a valid key (401: no such user: Bearer ***" in text) == (2, True)
    endpoint.answer = lambda body: echoing(body, failed)
    code, text = checkout.run(endpoint.url, CRASH=KEY)
    assert (code, "RuntimeError: request headers: {'Authorization': 'Bearer ***'}" in text) == (1, True)

    # In parameters: refused by name, not repeated.
    for url, changes in (
        (endpoint.url, {"ray_address": f"ray://{PLANTED['params']}"}),
        (endpoint.url, {"mlflow_uri": f"postgresql://me:{PLANTED['user']}@db/x"}),
        (f"https://host.example/v1?api_key={PLANTED['query']}", {}),
        (f"https://me:{PLANTED['user']}@host.example/v1", {}),
        (f"https://{PLANTED['git']}@host.example/v1", {}),
    ):
        code, text = checkout.run(url, changes)
        assert code == 2, text
        assert "error: params.yaml: " in text

    # Everything that the stages left is posted, and MLflow's store is among the files that are searched.
    posted = subprocess.run(
        [sys.executable, "-m", "scalequest.cli", "track"], cwd=tmp_path, capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert posted.returncode == 0, posted.stderr
    store = (tmp_path / "mlflow.db").read_bytes()
    assert b"RuntimeError: request headers" in store
    assert b"wants a valid key" in store

    assert checkout.leaks() == []
    private = {
        path: oct(path.stat().st_mode & 0o777)
        for path in (tmp_path / ".work", tmp_path / "mlflow.db", tmp_path / ".work" / "api")
    }
    assert list(private.values()) == ["0o700", "0o600", "0o700"]
    assert {oct(path.stat().st_mode & 0o777) for path in (tmp_path / ".work" / "api").iterdir()} == {"0o600"}
