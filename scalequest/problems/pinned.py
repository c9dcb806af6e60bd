"""The file of a source, in the version that is pinned: a local one, one of the hub, one of an installed package."""

from pathlib import Path

from scalequest.errors import UserError
from scalequest.io import file_hash
from scalequest.params import FileSource, HubSource, JsonlSource, PackageSource


def pinned_file(name: str, source: FileSource) -> Path:
    """The local file of a source, which is there and holds the bytes that params.yaml pins.

    Args:
        name: the source's key in params.yaml, for messages: ``own.questions.textbook``.
        source: where it is, and its pin.

    Raises:
        UserError: it is not there, or has other bytes.
    """
    path = find_file(name, source)
    if not path.is_file():
        raise UserError(
            f"{name}: {path}: no such file. Expected JSON lines or Parquet, relative to here. Correct the path."
        )
    check_pin(name, source, path)
    return path


def pinned_pairs(data: str, pinned: str | None) -> Path:
    """The file of ``instruct_tune.data``, which is there and has the pinned sha256.

    Raises:
        UserError: it is not there, or has other bytes.
    """
    path = Path(data).expanduser()
    if not path.is_file():
        raise UserError(
            f"instruct_tune.data: {path}: no such file. Expected instruct, seeds, or a .parquet or .jsonl file, relative to here. "
            "Correct the path."
        )
    if (found := file_hash(path)) != pinned:
        raise UserError(
            f"instruct_tune.data_sha256: {path} has {found}, params.yaml pins {pinned}. Restore the file, or pin the new hash."
        )
    return path


def find_file(name: str, source: FileSource) -> Path:
    """The local file of a source; one of the hub is downloaded to its cache.

    Raises:
        UserError: it is not there, or not in the pinned version.
    """
    if isinstance(source, JsonlSource):
        return Path(source.path).expanduser()
    if isinstance(source, PackageSource):
        return _package_file(name, source)
    assert isinstance(source, HubSource)
    return _hub_file(name, source)


def check_inside(name: str, file: str) -> None:
    """Refuse the name of a file that is not inside its package or data set.

    Raises:
        UserError: it is absolute, or goes up.
    """
    if not file or file.startswith(("/", "~")) or "\\" in file or "\0" in file or ".." in file.split("/"):
        raise UserError(
            f"{name}: file {file!r} leaves its package or data set. Expected a path inside it. Correct `file`."
        )


def _hub_file(name: str, source: HubSource) -> Path:
    from huggingface_hub import errors, hf_hub_download

    check_inside(name, source.file)
    what = f"{source.repo}, commit {source.commit}, file {source.file}"
    try:
        return Path(hf_hub_download(source.repo, source.file, repo_type="dataset", revision=source.commit))
    except errors.LocalEntryNotFoundError as error:  # also a kind of EntryNotFoundError, and of no other below
        raise UserError(
            f"{name}: {what} could not be fetched ({error.__cause__ or error}); without a network use kind jsonl and a local file"
        ) from None
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.EntryNotFoundError) as error:
        missing = type(error).__name__.removesuffix("NotFoundError").removeprefix("Remote")
        raise UserError(
            f"{name}: the hub has no such {missing.lower()} that you may read: {what}; check the names; a gated data set needs its "
            "terms accepted and HF_TOKEN set"
        ) from None
    except OSError as error:
        raise UserError(
            f"{name}: {what} could not be fetched ({type(error).__name__}: {error}); run again, or use kind jsonl and a local file"
        ) from None


def _package_file(name: str, source: PackageSource) -> Path:
    import importlib.metadata

    check_inside(name, source.file)
    try:
        installed = importlib.metadata.distribution(source.package)
    except importlib.metadata.PackageNotFoundError:
        raise UserError(
            f"{name}: the package {source.package} is not installed; install {source.package}=={source.version}"
        ) from None
    if installed.version != source.version:
        raise UserError(
            f"{name}: {source.package} is installed in version {installed.version}, params.yaml pins {source.version}; install "
            "that one, or pin the new version"
        )
    return Path(str(installed.locate_file(source.file)))


def check_pin(name: str, source: FileSource, path: Path) -> None:
    """Compare a file with the hash that params.yaml pins, before anything in it is parsed.

    Raises:
        UserError: another content, or a local file without a pin.
    """
    if not path.is_file() or (source.sha256 is None and not isinstance(source, JsonlSource)):
        return  # a file of the hub is pinned by its commit, one of a package by its version
    digest = file_hash(path)
    if source.sha256 is None:
        raise UserError(
            f"{name}: {path} is not pinned, so a changed file would go unnoticed. Expected its hash beside its path. "
            f"Add it to params.yaml: sha256: {digest}"
        )
    if source.sha256 != digest:
        raise UserError(
            f"{name}: {path} has sha256 {digest}, params.yaml pins {source.sha256}; restore the file, or pin the new hash"
        )
