import json
import os
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest

from scalequest.errors import UserError
from scalequest.io import write_json
from scalequest.models import folder as folders
from scalequest.models.folder import (
    LOCK_FILE,
    TEMPLATE_FILE,
    _folder_of_links,
    check_folder,
    copy_file,
    files_sha256,
    folder_sha256,
    link_model,
    local_path,
    model_files,
    remote_code,
)
from stages import fetch_model
from stages.fetch_model import fetch_path

COMMIT = "0" * 40


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


# ------------------------------------------------------------------------------------------------------------- attacks


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """What ``save_pretrained`` writes, in small, beside a private file."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "private").write_text("SECRET")
    return folder


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


def test_a_local_model_without_a_pin_is_refused(model: Path):
    with pytest.raises(UserError, match="is not pinned, so a changed file would go unnoticed"):
        check_folder("judge", model, "")
