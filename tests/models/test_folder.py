import os
from hashlib import sha256
from pathlib import Path

import pytest

from scalequest.errors import UserError
from scalequest.io import write_json
from scalequest.models import folder as folders
from scalequest.models.folder import LOCK_FILE, TEMPLATE_FILE, link_model, local_path, remote_code


def test_a_folder_with_a_configuration_is_a_model(tmp_path: Path):
    (tmp_path / "config.json").write_text("{}")
    assert local_path(tmp_path) == tmp_path


def test_a_folder_without_a_model_is_named(tmp_path: Path):
    with pytest.raises(UserError, match=r"judge: no model there \(no config\.json, no model\.lock\.json\)"):
        local_path(tmp_path / "judge")


@pytest.fixture
def pinned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A lock, and a hub cache that holds what it names and one file more."""
    cache = tmp_path / "hub"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    commit = "0" * 40
    snapshot = cache / "models--org--m" / "snapshots" / commit
    snapshot.mkdir(parents=True)
    contents = {"config.json": b"{}", "model.safetensors": b"weights"}
    for name, data in contents.items():
        (snapshot / name).write_bytes(data)
    (snapshot / "modeling_m.py").write_text("code that nobody asked for")
    pins = {name: {"size": len(data), "sha256": sha256(data).hexdigest()} for name, data in contents.items()}
    folder = tmp_path / "judge"
    write_json(folder / LOCK_FILE, {"repo": "org/m", "commit": commit, "remote_code": False, "files": pins})
    return folder, snapshot


def test_a_pinned_model_is_the_files_of_its_lock_and_no_others(pinned):
    folder, _ = pinned
    path = local_path(folder)
    assert sorted(p.name for p in path.iterdir()) == ["config.json", "model.safetensors"]
    assert (path / "model.safetensors").read_bytes() == b"weights"
    assert local_path(folder) == path  # the second use finds the same folder
    assert not remote_code(folder)


def test_a_pinned_model_that_the_hubs_cache_lost_names_file_and_command(pinned):
    folder, snapshot = pinned
    (snapshot / "model.safetensors").unlink()
    with pytest.raises(UserError) as caught:
        local_path(folder)
    assert f"org/m at {'0' * 40} is pinned but model.safetensors is not in the hub cache" in str(caught.value)
    assert "dvc repro -f -s fetch_model@judge" in str(caught.value)


@pytest.mark.parametrize("damage", [b"weight", b"WEIGHTS"], ids=["cut", "changed"])
def test_a_file_that_is_not_what_was_pinned_is_refused_also_after_a_good_use(pinned, damage: bytes):
    folder, snapshot = pinned
    local_path(folder)
    (snapshot / "model.safetensors").write_bytes(damage)
    with pytest.raises(UserError, match=r"is not the model\.safetensors that was pinned for org/m \(expected 7 bytes"):
        local_path(folder)


def test_a_hash_is_read_once_and_then_only_when_the_file_was_touched(pinned, monkeypatch: pytest.MonkeyPatch):
    folder, snapshot = pinned
    read = []
    real = folders.file_sha256
    monkeypatch.setattr(folders, "file_sha256", lambda file: read.append(file.name) or real(file))
    local_path(folder)
    assert sorted(read) == ["config.json", "model.safetensors"]
    read.clear()
    local_path(folder)
    assert read == []
    (snapshot / "config.json").write_bytes(b"{}")
    os.utime(snapshot / "config.json", ns=(1, 1))
    local_path(folder)
    assert read == ["config.json"]


def test_a_chosen_template_takes_the_place_of_the_models_own(pinned):
    folder, _ = pinned
    (folder / TEMPLATE_FILE).write_text("{{ ours }}")
    path = local_path(folder)
    assert (path / TEMPLATE_FILE).read_text() == "{{ ours }}"
    # Another role that pins the same model without a template gets a folder of its own.
    (folder / TEMPLATE_FILE).unlink()
    assert not (local_path(folder) / TEMPLATE_FILE).exists()


def test_a_files_hash_is_read_in_blocks(tmp_path: Path):
    data = bytes(range(256)) * 20_000  # 5 MB: more than one block of 4 MiB
    (tmp_path / "weights").write_bytes(data)
    assert folders.file_sha256(tmp_path / "weights") == sha256(data).hexdigest()


def test_a_linked_model_takes_no_second_copy_and_replaces_what_was_there(tmp_path: Path):
    source, target = tmp_path / "a", tmp_path / "b"
    (source / "sub").mkdir(parents=True)
    (source / "config.json").write_text("{}")
    (source / "sub" / "weights").write_bytes(b"1")
    target.mkdir()
    (target / "old").write_text("old")
    link_model(source, target)
    assert sorted(str(p.relative_to(target)) for p in target.rglob("*") if p.is_file()) == [
        "config.json",
        "sub/weights",
    ]
    assert (target / "sub" / "weights").samefile(source / "sub" / "weights")


def test_where_the_disk_cannot_link_the_model_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def no_link(self: Path, target: str) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(Path, "hardlink_to", no_link)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "config.json").write_text("{}")
    link_model(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b" / "config.json").read_text() == "{}"
    assert not (tmp_path / "b" / "config.json").samefile(tmp_path / "a" / "config.json")


def test_a_hub_cache_that_may_not_be_written_is_no_obstacle(pinned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder, snapshot = pinned
    # A file in the folder's place: what root, too, cannot write into.
    (snapshot.parents[2] / "scalequest").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "own"))
    assert (local_path(folder) / "model.safetensors").read_bytes() == b"weights"
    assert local_path(folder).is_relative_to(tmp_path / "own")
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(UserError, match="Set XDG_CACHE_HOME"):
        local_path(folder)
