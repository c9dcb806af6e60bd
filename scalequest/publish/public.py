"""What may go to the public: addresses without passwords and local paths, files without tokens, runs that are committed."""

import ipaddress
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from scalequest.audit.links import verify
from scalequest.audit.lock import LOCK, PARAMS, PIPELINE, Lock, read_lock
from scalequest.audit.repository import Repository, Revision
from scalequest.redaction import TOKENS, secret_in

# host:path as SSH takes it; a drive letter is no host.
_SCP = re.compile(r"(?:[^@/\s]+@)?([\w.-]{2,}):(?!//)([^\s]+)")
# A folder of this machine: from its root or a user's home.
_LOCAL = re.compile(r"(?:/|~[\w-]*/|file://)\S*\w$")
WEIGHTS = (".safetensors", ".bin", ".gguf")


def public_address(address: str) -> str:
    """A repository's address as anybody may see it: https, host and path.

    User names, passwords, queries and fragments are dropped. Empty for a folder of this machine, and for a host that is
    none outside: without a dot, or with a private number.
    """
    address = address.strip()
    if "://" in address:
        try:
            parts = urlsplit(address)
            host, path, port = parts.hostname or "", parts.path, parts.port
        except ValueError:
            return ""
        if parts.scheme not in ("http", "https", "ssh", "git", "git+ssh", "ssh+git"):
            return ""
        port = port if parts.scheme in ("http", "https") else None  # SSH's port is not the web's
    elif found := _SCP.fullmatch(address):
        host, path, port = found[1], f"/{found[2].lstrip('/')}", None
    else:
        return ""
    path = path.split(";")[0].split("?")[0].split("#")[0]
    if not _is_public(host) or "@" in path or TOKENS.search(path):
        return ""
    return f"https://{host}{f':{port}' if port else ''}{path.rstrip('/')}"


def _is_public(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_global
    except ValueError:
        return "." in host.strip(".") and not host.endswith((".local", ".lan", ".internal", ".localhost"))


def public_source(source: str) -> str:
    """A model's source without what is this machine's or this user's: ``path:`` and ``gguf:`` by
    their last name, ``api:`` by host and model.
    """
    kind, _, rest = source.partition(":")
    if kind in ("path", "gguf"):
        return f"{kind}:{Path(rest).name}"
    if kind == "api":
        address, _, model = rest.partition("#")
        return f"api:{public_address(address) or 'a private endpoint'}#{model}"
    return source


def public_values(data: Any) -> Any:
    """Nested data of a lock with every model's source as ``public_source``, and folders of this machine by their last name."""
    if isinstance(data, dict):
        return {key: public_values(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [public_values(value) for value in data]
    if isinstance(data, str) and data.startswith(("path:", "api:")):
        return public_source(data)
    if isinstance(data, str) and _LOCAL.match(data):
        return Path(data).name
    return data


def secrets(folder: Path, key_variable: str = "") -> Iterator[str]:
    """Files below ``folder`` that hold a secret (``scalequest.redaction.secret_in``); one line for each. Weights are left out."""
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        if path.suffix == ".parquet":
            found = next(filter(None, (secret_in(text, key_variable) for text in _texts(path))), "")
        elif path.suffix in WEIGHTS:
            continue
        else:
            found = secret_in(path.read_bytes().decode(errors="replace"), key_variable)
        if found:
            yield f"{path}: holds {found}"


def _texts(path: Path) -> Iterator[str]:
    """All text of a table, by batches of rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        columns = [
            field.name
            for field in file.schema_arrow
            if pa.types.is_string(field.type) or pa.types.is_large_string(field.type)
        ]
        for batch in file.iter_batches(columns=columns):
            for column in batch.columns:
                yield "\n".join(text for text in column.to_pylist() if text)


def not_repeatable(repository: Repository, lock: Lock) -> list[str]:
    """Why checking out the revision's commit does not make what its lock names; empty where it does."""
    if lock.revision.commit is None:
        if changed := uncommitted(repository, lock):
            return [f"not committed: {', '.join(changed)}"]
        # Lock and parameters are HEAD's; what is left is whether its code is what ran, whatever the workspace has.
        head = repository.head or ""
        lock = read_lock(repository, Revision(head, head))
    return [str(link) for check in verify(repository, lock, ["stages"]) for link in check.broken]


def uncommitted(repository: Repository, lock: Lock) -> list[str]:
    """Files of the workspace that say what a run was and that HEAD has otherwise: lock, pipeline, parameters, metrics."""
    paths = [LOCK, PIPELINE, PARAMS, *(out.path for _, out in lock.outs() if out.path.endswith(".json"))]
    here = repository.read_all(lock.revision, paths)
    head = repository.head
    there = repository.read_all(Revision(head, head), paths) if head else {}
    return [path for path in paths if here.get(path) != there.get(path)]
