"""A parameter file as YAML, before its sections are checked."""

from pathlib import Path
from typing import Any

from scalequest.errors import UserError

PARAMS_FILE = "params.yaml"


def check_there(path: Path) -> None:
    """Refuse a parameter file that does not exist; without params.yaml this is not the repository's root folder.

    Raises:
        UserError: there is no such file.
    """
    if path.is_file():
        return
    if path.name == PARAMS_FILE:
        raise UserError(f"{path}: no such file. Expected to run in the repository's root folder. Change to it first.")
    raise UserError(
        f"{path}: no such file. Expected a parameter file in YAML. `scalequest profile` lists the profiles."
    )


def read_text(path: Path) -> str:
    """The text of a parameter file.

    Raises:
        UserError: it is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}: not UTF-8 (byte 0x{error.object[error.start]:02x} at position {error.start + 1}). Expected a file in UTF-8. "
            "Convert it, for example: iconv -f WINDOWS-1252 -t UTF-8"
        ) from None


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a parameter file as DVC does (YAML 1.2: ``3e-05`` is a number, ``off`` is a string)."""
    check_there(path)
    return parse_yaml(read_text(path), path)


def parse_yaml(text: str, path: Path) -> dict[str, Any]:
    """Parse the text of a parameter file; ``path`` names it in errors."""
    from ruamel.yaml import YAML, YAMLError

    try:
        data = YAML(typ="safe", pure=True).load(text)
    except YAMLError as error:
        raise UserError(f"{path}: not YAML: {error}") from None
    if not isinstance(data, dict):
        raise UserError(f"{path}: a {type(data).__name__}. Expected sections, as in the repository's params.yaml.")
    return data
