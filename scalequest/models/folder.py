"""A model as a folder: a copy, or a pinned view of files in the hub's cache.

A folder's content decides nothing: which code may run and whom to ask over the network are in params.yaml alone.
"""

import os
import re
import shutil
import stat
from fnmatch import fnmatch
from hashlib import sha256
from pathlib import Path
from typing import Any

from scalequest.errors import UserError
from scalequest.io import file_hash, read_json, write_json

LOCK_FILE = "model.lock.json"
API_FILE = "api.json"
TEMPLATE_FILE = "chat_template.jinja"
# Configuration, tokenizer and chat template. Weights come on top; code only from the hub, with consent.
PATTERNS = ("*.json", "*.jinja", "*.model", "*.txt")
# The first that a repository has is taken.
WEIGHTS = ("*.safetensors", "pytorch_model*.bin")
# What a local folder may hold beside: `publish` reads the licence there.
ABOUT = ("README.md", "LICENSE*", "LICENCE*")
COMMIT = re.compile(r"[0-9a-f]{40}")
SHA256 = re.compile(r"[0-9a-f]{64}")
PACKAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9._-]+)?")
# A file name without a folder, a parent or a control character.
FILE_NAME = re.compile(r"(?!\.{1,2}$)[^/\\\x00-\x1f]{1,255}")


def local_path(folder: Path) -> Path:
    """Folder that engine and trainer can load: ``folder`` itself, or the pinned files of the hub's cache.

    A pinned model is checked on every use: each file's size, and its hash where size, time and inode are not those of the
    last check. What is loaded is a folder of links to these files and no others, with the chat template that was chosen.

    Raises:
        UserError: there is no model, the hub's cache no longer holds it, or a file is not what was pinned.
    """
    lock = folder / LOCK_FILE
    if lock.is_file():
        return _pinned_view(folder, checked_lock(folder, read_json(lock)))
    if not (folder / "config.json").is_file():
        raise UserError(
            f"{folder}: no model there (no config.json, no {LOCK_FILE}); run the stage that makes it: dvc repro"
        )
    return folder


def remote_code(folder: Path) -> bool:
    """Whether code out of this model's repository may run: only where ``trust_remote_code`` of params.yaml names it now.

    Raises:
        UserError: the model was fetched with its code, and params.yaml does not name it.
    """
    file = folder / LOCK_FILE
    if not file.is_file():
        return False
    lock = checked_lock(folder, read_json(file))
    if not lock["remote_code"]:
        return False
    source = f"{lock['repo']}@{lock['commit']}"
    if source not in consents():
        raise UserError(
            f"{folder}: it was fetched with the code of {source}. Expected {source} under trust_remote_code in params.yaml. "
            "Read that code and add it, or fetch the model again without: dvc repro fetch_model"
        )
    return True


def consents() -> list[str]:
    """The entries of ``trust_remote_code``, read from the parameter file of this run and from nowhere else."""
    from scalequest.params import PARAMS_FILE, load_all

    # As in `run_stage`: under DVC only the file that DVC records is read.
    return load_all(Path(PARAMS_FILE) if os.environ.get("DVC_STAGE") else None).trust_remote_code


def checked_lock(folder: Path, lock: Any) -> dict[str, Any]:
    """The lock of a hub model, if everything in it is of the form that ``fetch`` writes: names become paths.

    Raises:
        UserError: a repository, commit, file name, size or hash of another form.
    """
    wrong = _wrong_part(lock)
    if wrong:
        raise UserError(
            f"{folder / LOCK_FILE}: {wrong}. Expected what `fetch_model` writes. Fetch the model again: "
            f"dvc repro -f -s fetch_model@{folder.name}"
        )
    return dict(lock)


def _wrong_part(lock: Any) -> str:
    """What is wrong with a lock; empty where it is right."""
    if not isinstance(lock, dict) or set(lock) != {"repo", "commit", "remote_code", "files"}:
        return "it does not hold repo, commit, remote_code and files"
    for key, form in (("repo", PACKAGE), ("commit", COMMIT)):
        if not isinstance(lock[key], str) or not form.fullmatch(lock[key]):
            return f"{key} {lock[key]!r}"
    if not isinstance(lock["remote_code"], bool):
        return f"remote_code {lock['remote_code']!r}"
    if not isinstance(lock["files"], dict):
        return "files is no mapping"
    for name, pin in lock["files"].items():
        if not FILE_NAME.fullmatch(name):
            return f"file name {name!r}"
        if not isinstance(pin, dict) or type(pin.get("size")) is not int or not SHA256.fullmatch(str(pin.get("sha256"))):
            return f"size and sha256 of {name!r}"
    return ""


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
        found_stat = file.stat()
        mark = [found_stat.st_size, found_stat.st_mtime_ns, found_stat.st_ino]
        if found_stat.st_size != pin["size"] or (known.get(name) != mark and file_sha256(file) != pin["sha256"]):
            raise UserError(
                f"{folder}: {file} is not the {name} that was pinned for {lock['repo']} (expected {pin['size']} bytes with "
                f"sha256 {pin['sha256']}, found {found_stat.st_size} bytes); delete that file, then {again}"
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
    """A folder that holds exactly ``links``, named by them, so that two stages may make it at once.

    Raises:
        UserError: a name leaves the folder, or the folder holds something else, which another user of the cache put there.
    """
    digest = sha256("\n".join(f"{name} {file}" for name, file in sorted(links.items())).encode()).hexdigest()
    view = base / f"{repo.replace('/', '--')}-{digest[:16]}"
    for name, file in links.items():
        if not FILE_NAME.fullmatch(name):
            raise UserError(f"{repo}: file name {name!r}. Expected a name without a folder. Fetch the model again.")
        link = view / name
        link.parent.mkdir(parents=True, exist_ok=True)
        try:
            link.symlink_to(file)
        except FileExistsError:
            continue
    for entry in view.iterdir():
        if entry.name not in links or not entry.is_symlink() or entry.readlink() != links[entry.name]:
            raise UserError(f"{entry}: not put there by this project. Expected links to the pinned files only. Delete {view}.")
    return view


def file_sha256(file: Path) -> str:
    """SHA-256 of a file, read in blocks."""
    return file_hash(file)


def model_files(folder: Path) -> list[Path]:
    """The files of a local model folder that make the model, sorted by name; others and folders are left out.

    A link is followed only where a hub cache has one: from ``snapshots/COMMIT`` to the ``blobs`` beside it.

    Raises:
        UserError: one of them is a link to elsewhere or no regular file, or the folder brings a file that would decide where
            questions go or which code runs.
    """
    for name in (LOCK_FILE, API_FILE):
        if os.path.lexists(folder / name):
            raise UserError(
                f"{folder}: it holds {name}, which only `fetch_model` writes: it says whom to ask or which code may run. "
                "Expected a folder as `save_pretrained` writes it. Remove that file if you do not need it."
            )
    names = sorted(p.name for p in folder.iterdir() if any(fnmatch(p.name, each) for each in (*PATTERNS, *WEIGHTS, *ABOUT)))
    return [_regular(folder / name) for name in names]


def _regular(file: Path) -> Path:
    if not FILE_NAME.fullmatch(file.name):
        raise UserError(f"{file.parent}: file name {file.name!r}. Expected one without control characters. Rename it.")
    if file.is_symlink():
        target = Path(os.path.realpath(file))  # which a link to itself does not stop
        if file.parent.parent.name != "snapshots" or target.parent != Path(os.path.realpath(file.parent.parent.parent / "blobs")):
            raise UserError(f"{file}: a link to {target}. Expected a file in the folder itself. Put a copy of it there.")
    if not file.is_file():
        raise UserError(f"{file}: neither a regular file nor a link to one. Expected a file. Remove it.")
    return file


def copy_file(source: Path, target: Path) -> None:
    """Copy a regular file; a link or a device that has taken its place since it was checked is not followed.

    Raises:
        UserError: it is no regular file.
    """
    place = source.resolve() if source.is_symlink() else source
    try:
        number = os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise UserError(f"{source}: cannot be read ({error.strerror}). Expected a regular file. Look at it.") from None
    with os.fdopen(number, "rb") as stream, target.open("xb") as copy:
        if not stat.S_ISREG(os.fstat(number).st_mode):
            raise UserError(f"{source}: not a regular file. Expected one. Remove it.")
        shutil.copyfileobj(stream, copy, 1 << 22)


def folder_sha256(folder: Path) -> str:
    """One hash of a local model folder: of the names and hashes of the files that are copied.

    Raises:
        UserError: the folder holds what is never copied under such a name (``model_files``).
    """
    return files_sha256(model_files(folder))


def files_sha256(files: list[Path]) -> str:
    """One hash of files that are directly in one folder: of their names and hashes, sorted by name."""
    return sha256("".join(f"{file_sha256(file)}  {file.name}\n" for file in sorted(files)).encode()).hexdigest()


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
