"""A model as a folder: a copy, or a pinned view of files in the hub's cache."""

import os
import shutil
from hashlib import sha256
from pathlib import Path
from typing import Any

from scalequest.errors import UserError
from scalequest.io import read_json, write_json

LOCK_FILE = "model.lock.json"
API_FILE = "api.json"
TEMPLATE_FILE = "chat_template.jinja"
WEIGHTS = ("*.safetensors", "pytorch_model*.bin")


def local_path(folder: Path) -> Path:
    """Folder that engine and trainer can load: ``folder`` itself, or the pinned files of the hub's cache.

    A pinned model is checked on every use: each file's size, and its hash where size, time and inode are not those of the
    last check. What is loaded is a folder of links to these files and no others, with the chat template that was chosen.

    Raises:
        UserError: there is no model, the hub's cache no longer holds it, or a file is not what was pinned.
    """
    lock = folder / LOCK_FILE
    if lock.is_file():
        return _pinned_view(folder, read_json(lock))
    if not (folder / "config.json").is_file():
        raise UserError(
            f"{folder}: no model there (no config.json, no {LOCK_FILE}); run the stage that makes it: dvc repro"
        )
    return folder


def remote_code(folder: Path) -> bool:
    """Whether code out of this model's repository may run: only where the lock says that the profile named it."""
    lock = folder / LOCK_FILE
    return lock.is_file() and bool(read_json(lock)["remote_code"])


def _pinned_view(folder: Path, lock: dict[str, Any]) -> Path:
    from huggingface_hub import constants, try_to_load_from_cache

    again = f"fetch it again: dvc repro -f -s fetch_model@{folder.name}"
    cache = Path(constants.HF_HUB_CACHE)
    own = _writable(cache / "scalequest")
    known_file = own / f"checked-{lock['repo'].replace('/', '--')}-{lock['commit']}.json"
    known: dict[str, list[int]] = read_json(known_file) if known_file.is_file() else {}
    links: dict[str, Path] = {}
    before = dict(known)
    for name, pin in lock["files"].items():
        found = try_to_load_from_cache(lock["repo"], name, cache_dir=cache, revision=lock["commit"])
        if not isinstance(found, str):
            raise UserError(
                f"{folder}: {lock['repo']} at {lock['commit']} is pinned but {name} is not in the hub cache {cache}; {again}"
            )
        file = Path(found).resolve()
        stat = file.stat()
        mark = [stat.st_size, stat.st_mtime_ns, stat.st_ino]
        if stat.st_size != pin["size"] or (known.get(name) != mark and file_sha256(file) != pin["sha256"]):
            raise UserError(
                f"{folder}: {file} is not the {name} that was pinned for {lock['repo']} (expected {pin['size']} bytes with "
                f"sha256 {pin['sha256']}, found {stat.st_size} bytes); delete that file, then {again}"
            )
        known[name] = mark
        links[name] = file
    if known != before:
        write_json(known_file, known)
    if (template := folder / TEMPLATE_FILE).is_file():
        links[TEMPLATE_FILE] = own / f"template-{file_sha256(template)[:16]}.jinja"
        if not links[TEMPLATE_FILE].is_file():
            links[TEMPLATE_FILE].parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(template, links[TEMPLATE_FILE])
    return _folder_of_links(own, lock["repo"], links)


def _writable(folder: Path) -> Path:
    """``folder``, or one of this user's own where the hub's cache is shared and may not be written.

    Raises:
        UserError: neither can be written.
    """
    home = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "scalequest"
    for candidate in (folder, home):
        try:
            candidate.mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(candidate, os.W_OK):
            return candidate
    raise UserError(
        f"{folder}: cannot be written, and neither can {home}. Expected a cache folder. Set XDG_CACHE_HOME to one."
    )


def _folder_of_links(base: Path, repo: str, links: dict[str, Path]) -> Path:
    """A folder that holds exactly ``links``, named by them, so that two stages may make it at once."""
    digest = sha256("\n".join(f"{name} {file}" for name, file in sorted(links.items())).encode()).hexdigest()
    view = base / f"{repo.replace('/', '--')}-{digest[:16]}"
    for name, file in links.items():
        link = view / name
        link.parent.mkdir(parents=True, exist_ok=True)
        try:
            link.symlink_to(file)
        except FileExistsError:
            continue
    return view


def file_sha256(file: Path) -> str:
    """SHA-256 of a file, read in blocks."""
    digest = sha256()
    with file.open("rb") as stream:
        while block := stream.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


def folder_sha256(folder: Path) -> str:
    """One hash of a model folder: of the names and hashes of the files directly in it, which are what is copied."""
    files = sorted(file for file in folder.iterdir() if file.is_file())
    return sha256("".join(f"{file_sha256(file)}  {file.name}\n" for file in files).encode()).hexdigest()


def path_source(folder: Path) -> str:
    """The source of a local model in params.yaml, pinned to the bytes that are there now."""
    return f"path:{folder}#sha256={folder_sha256(folder)}"


def check_folder(role: str, folder: Path, pin: str) -> None:
    """Compare a local model folder with the hash that params.yaml pins; an empty ``pin`` is refused with the value to paste.

    Raises:
        UserError: another content, or no pin.
    """
    found = folder_sha256(folder)
    if not pin:
        raise UserError(
            f"models.{role}: {folder} is not pinned, so a changed file would go unnoticed. Expected its hash in the source. "
            f"Write path:{folder}#sha256={found}"
        )
    if found != pin:
        raise UserError(
            f"models.{role}: {folder} has sha256 {found}. Expected {pin}, which params.yaml pins. "
            "Restore the folder, or pin the new hash."
        )


def link_model(source: Path, target: Path) -> None:
    """Make ``target`` the same model as ``source`` without a second copy of its bytes where the disk allows it."""

    def link(a: str, b: str) -> str:
        try:
            Path(b).hardlink_to(a)
        except OSError:
            shutil.copyfile(a, b)
        return b

    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target, copy_function=link)
