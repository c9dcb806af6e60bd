from pathlib import Path

import pytest

from scalequest.errors import UserError
from scalequest.io import write_json
from scalequest.models import LOCK_FILE, link_model, local_path


def test_a_folder_with_a_configuration_is_a_model(tmp_path: Path):
    (tmp_path / "config.json").write_text("{}")
    assert local_path(tmp_path) == tmp_path


def test_a_folder_without_a_model_is_named(tmp_path: Path):
    with pytest.raises(UserError, match=r"judge: no model there \(no config\.json, no model\.lock\.json\)"):
        local_path(tmp_path / "judge")


def test_a_pinned_model_that_the_hubs_cache_lost_names_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    write_json(tmp_path / "judge" / LOCK_FILE, {"repo": "Qwen/Qwen2-Math-7B", "commit": "0" * 40, "sha256": {}})
    with pytest.raises(UserError) as caught:
        local_path(tmp_path / "judge")
    assert f"Qwen/Qwen2-Math-7B at {'0' * 40} is pinned but not in the hub cache" in str(caught.value)
    assert "dvc repro -f fetch_model@judge" in str(caught.value)


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
