"""Model sources as `params.yaml` writes them, parsed."""

import re
from pathlib import Path

from scalequest.errors import UserError
from scalequest.models.folder import COMMIT, FILE_NAME, PACKAGE, SHA256, path_source
from scalequest.redaction import address_problem

ENDPOINT = re.compile(r"(https?://[^\s#]+)#(\S+)")
VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+!_-]*")
FORMS = "pypi:PACKAGE==VERSION, hf:ORG/NAME@COMMIT or path:DIR#sha256=HASH"
ONE_FILE = ". One GGUF file is hf:ORG/NAME@COMMIT#FILE.gguf or gguf:FILE#sha256=HASH"
GGUF = ".gguf"


def parse_source(role: str, source: str) -> tuple[str, str, str]:
    """Split a source into kind, name and version.

    The version of a folder and of a local GGUF file is its hash. That of a wheel leaves its hash
    out (``wheel_pin``), and that of a GGUF file of the hub is the commit (``hub_gguf`` names the
    file).

    Raises:
        UserError: it has none of the forms, or is not pinned.
    """
    kind, _, rest = source.partition(":")
    if kind == "path" and rest:
        folder, mark, pin = rest.partition("#sha256=")
        if not folder or (mark and not SHA256.fullmatch(pin)):
            raise UserError(
                f"models.{role}: '{source}' has no valid hash; expected path:DIR#sha256= and 64 hex digits{_hint(folder)}"
            )
        return kind, folder, pin
    if kind == "gguf" and rest:
        file, mark, pin = rest.partition("#sha256=")
        if not file.lower().endswith(GGUF) or (mark and not SHA256.fullmatch(pin)):
            raise UserError(f"models.{role}: '{source}' is no pinned GGUF file; expected gguf:FILE.gguf#sha256= and 64 hex digits")
        return kind, file, pin
    if kind == "api":
        if not (found := ENDPOINT.fullmatch(rest)):
            raise UserError(
                f"models.{role}: '{source}' has no endpoint and model; expected api:https://HOST/v1#MODEL"
            )
        # Whether plain http may be used is a parameter of its own, and asked before the first request.
        if problem := address_problem(found[1], plain_http=True):
            raise UserError(f"models.{role}: the endpoint's address is not repeated here, {problem}.")
        return kind, found[1].rstrip("/"), found[2]
    separator = {"pypi": "==", "hf": "@"}.get(kind)
    if separator is None or not rest:
        hint = f". Did you mean 'hf:{source}'?" if PACKAGE.fullmatch(source.split("@")[0]) and "/" in source else ""
        raise UserError(f"models.{role}: '{source}' is not a model source; expected {FORMS}{hint}{ONE_FILE}")
    line, mark, pin = rest.partition("#sha256=")
    if kind == "hf":
        line, hash_sign, file = line.partition("#")
        if (hash_sign or mark) and not (file.lower().endswith(GGUF) and FILE_NAME.fullmatch(file)):
            raise UserError(
                f"models.{role}: '{source}' names no GGUF file at the top of the repository; expected hf:ORG/NAME@COMMIT, or with "
                "#FILE.gguf behind it"
            )
    if mark and not SHA256.fullmatch(pin):
        raise UserError(
            f"models.{role}: '{source}' has no valid hash; expected #sha256= and 64 hex digits (`scalequest pin {line}` prints them)"
        )
    name, _, version = line.partition(separator)
    if not name or not version or not PACKAGE.fullmatch(name):
        raise UserError(
            f"models.{role}: '{source}' has no version; pin it as {kind}:{name or 'NAME'}{separator}VERSION"
        )
    if kind == "pypi" and not VERSION.fullmatch(version):
        raise UserError(f"models.{role}: '{version}' is not a version of {name}; expected one, as in pypi:{name}==0.1.2")
    if kind == "hf" and not COMMIT.fullmatch(version):
        raise UserError(
            f"models.{role}: '{version}' is not a commit of {name}; expected 40 hex digits, a branch or tag can move "
            f"(`scalequest pin {name}` prints the commit that main is at)"
        )
    return kind, name, version


def hub_gguf(source: str) -> tuple[str, str]:
    """File name and hash of an ``hf:`` source that names one GGUF file; the hash is empty where it has none, both for others."""
    if not source.startswith("hf:"):
        return "", ""
    line, _, pin = source.partition("#sha256=")
    return line.partition("#")[2], pin


def wheel_pin(source: str) -> str:
    """The hash of the wheel in a ``pypi:`` source; empty where it has none."""
    return source.partition("#sha256=")[2] if source.startswith("pypi:") else ""


def _hint(folder: str) -> str:
    """The source to paste, where there is a model in the folder."""
    there = Path(folder).expanduser()
    if not folder or not (there / "config.json").is_file():
        return ""
    return f". Write {path_source(there)}"


def parse_consent(consent: str) -> tuple[str, str]:
    """Split an entry of ``trust_remote_code`` into repository and commit.

    Raises:
        UserError: it is not ORG/NAME@COMMIT.
    """
    repo, _, commit = consent.partition("@")
    if not PACKAGE.fullmatch(repo) or not COMMIT.fullmatch(commit):
        raise UserError(f"trust_remote_code: '{consent}' has no commit; expected ORG/NAME@ and 40 hex digits")
    return repo, commit
