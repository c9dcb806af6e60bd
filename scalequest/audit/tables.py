"""The data of a lock, wherever the bytes are: DVC's cache by hash, else the working folder. Parquet is queried in place."""

import configparser
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import md5
from pathlib import Path
from typing import Any

from scalequest.audit.lock import Artifact, Lock, Stage
from scalequest.audit.repository import Repository, Revision
from scalequest.errors import UserError
from scalequest.io import file_hash

# For DuckDB; with what Python, Arrow and the C allocator take besides, the process stays under 2 GiB.
MEMORY_LIMIT = "1GB"


@dataclass(frozen=True)
class Kind:
    """A kind of record: the stages that write it and the option of their command that says where."""

    stage: str
    option: str = "out"
    other_stage: str = ""


# Every table of the pipeline, in its order, under the name that answers use.
KINDS = {
    "seeds": Kind("seeds"),
    "benchmarks": Kind("benchmarks"),
    "qpo_questions": Kind("qpo_questions"),
    "preferences": Kind("preferences"),
    "questions": Kind("generate", other_stage="own_questions"),
    "screened": Kind("screen"),
    "judged": Kind("judge"),
    "attempts": Kind("difficulty_labels"),
    "difficulty": Kind("difficulty"),
    "ledger": Kind("filter", "ledger"),
    "passed": Kind("filter"),
    "filtered": Kind("filter", other_stage="own_filtered"),  # what respond reads, see Tables.outputs
    "responses": Kind("respond"),
    "rewards": Kind("reward"),
    "instruct": Kind("reward_select"),
    "samples": Kind("evaluate", "samples", other_stage="evaluate_student"),
}


def hash_file(path: Path) -> str:
    """md5 of a file's bytes, as DVC names it."""
    return file_hash(path, "md5")


def pull_command(root: Path, revision: Revision, paths: Sequence[str]) -> str:
    """What brings the data of ``paths`` at a revision into the cache of the repository in ``root``."""
    # Of the workspace alone it is known which remote there is, and no named one holds models (`make record`).
    tables = revision.commit is None and all(path.startswith("data/") for path in paths)
    pull = " ".join([plain_pull(root) if tables else "dvc pull", *paths])
    if revision.commit is None:
        return pull
    if revision.experiment:
        return f"dvc exp apply {revision.name} && {pull}"
    return f"git checkout {revision.name} && {pull}"


def plain_pull(root: Path) -> str:
    """`dvc pull`, with the remote's name where the configuration has one remote and no default: without it DVC refuses."""
    remotes, default = [], False
    for parser, _ in configurations(root):
        remotes += [section.split('"')[1] for section in parser.sections() if section.strip("'").startswith('remote "')]
        default = default or parser.has_option("core", "remote")
    names = list(dict.fromkeys(remotes))
    return f"dvc pull -r {names[0]}" if len(names) == 1 and not default else "dvc pull"


class Store:
    """Finds the bytes behind a hash.

    Attributes:
        cache: the folder of DVC's cache that holds objects by md5.
    """

    def __init__(self, repository: Repository) -> None:
        self.repository = repository
        self.cache = cache_folder(repository.root) / "files" / "md5"
        self._hashes: dict[tuple[int, int], str] = {}

    def object(self, value: str) -> Path:
        """Where the cache keeps the object of that hash, whether it is there or not."""
        return self.cache / value[:2] / value[2:]

    def listing(self, artifact: Artifact) -> dict[str, str] | None:
        """Files of a folder (relative to it) and their hashes, from the cache; None where it does not have the list."""
        path = self.object(artifact.md5)
        if not path.is_file():
            return None
        try:
            listed = {entry["relpath"]: entry["md5"] for entry in json.loads(path.read_bytes())}
            # They become paths below a folder of ours: a list may come from another's remote.
            if any(not name or name.startswith("/") or ".." in name.split("/") for name in listed):
                raise ValueError(artifact.path)
            return listed
        except (ValueError, KeyError, TypeError, AttributeError):
            raise UserError(f"{path}: no list of a folder's files ({artifact.path}); the cache is damaged, see: scalequest verify hashes") from None  # fmt: skip

    def files(self, artifact: Artifact, revision: Revision) -> dict[str, Path]:
        """Readable files of an artifact by their path relative to it ('' for a file).

        Raises:
            UserError: some of its bytes are neither in the cache nor, unchanged, in the workspace; names the `dvc pull`.
        """
        listing = self.listing(artifact) if artifact.is_folder else {"": artifact.md5}
        if listing is None:
            found = self._workspace_folder(artifact)
        else:
            found = {name: self._file(artifact.path, name, value) for name, value in listing.items()}
        if found is None or None in found.values():
            raise self.absent([artifact], revision)
        return {name: path for name, path in found.items() if path}

    def absent(self, artifacts: Sequence[Artifact], revision: Revision) -> UserError:
        """The error that names what is not here, and the one command that brings all of it."""
        listed = ", ".join(f"{a.path} ({a.md5[:10]})" for a in artifacts)
        return UserError(
            f"not in DVC's cache ({self.cache}): {listed} of {revision}. Run "
            f"`{pull_command(self.repository.root, revision, [a.path for a in artifacts])}`, or `dvc repro` if no remote has it"
        )

    def has(self, artifact: Artifact, revision: Revision) -> bool:
        """Whether all of its bytes can be read here."""
        try:
            self.files(artifact, revision)
        except UserError:
            return False
        return True

    def _file(self, folder: str, name: str, value: str) -> Path | None:
        if (cached := self.object(value)).is_file():
            return cached
        path = self.repository.root / folder / name if name else self.repository.root / folder
        return path if path.is_file() and self.hash(path) == value else None

    def _workspace_folder(self, artifact: Artifact) -> dict[str, Path | None] | None:
        """A folder in the workspace, if it is the one of that hash: the cache may lack what a clone copied by hand."""
        from scalequest.audit.chain import folder_hash

        base = self.repository.root / artifact.path
        paths = {path.relative_to(base).as_posix(): path for path in base.rglob("*") if path.is_file()}
        same = paths and folder_hash({name: self.hash(path) for name, path in paths.items()}) == artifact.md5
        return dict(paths) if same else None

    def hash(self, path: Path) -> str:
        """md5 of a file; each inode is read once, because cache and workspace are mostly hard links of one another."""
        status = path.stat()
        key = (status.st_dev, status.st_ino)
        if key not in self._hashes:
            self._hashes[key] = hash_file(path)
        return self._hashes[key]


def cache_folder(root: Path) -> Path:
    """DVC's cache of this repository: ``cache.dir`` of its configuration, else ``.dvc/cache``."""
    found = root / ".dvc" / "cache"
    for parser, file in configurations(root):
        if folder := parser.get("cache", "dir", fallback=None):
            found = file.parent / Path(folder).expanduser()  # relative to the configuration, as DVC reads it
    return found


def configurations(root: Path) -> Iterator[tuple[configparser.RawConfigParser, Path]]:
    """DVC's configuration files of this user and repository, a later one over an earlier."""
    home = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    for file in (home / "dvc" / "config", root / ".dvc" / "config", root / ".dvc" / "config.local"):
        parser = configparser.RawConfigParser(strict=False)
        parser.read(file)
        yield parser, file


class Tables:
    """The tables of one lock, for DuckDB."""

    def __init__(self, lock: Lock, store: Store) -> None:
        self.lock, self.store = lock, store

    def outputs(self, kind: str) -> list[tuple[Stage, Artifact]]:
        """The outputs that hold a kind of record, in the pipeline's order; several where each generator has its own.

        The questions that `respond` reads are one table: the filters', or that of a file of own questions. A run without rewards
        has no table of them, whatever an earlier run has left.
        """
        if KINDS[kind].stage in self.lock.unused:
            return []
        wanted = KINDS[kind]
        stages = [stage for stage in self.lock.stages.values() if stage.base in (wanted.stage, wanted.other_stage)]
        named = [(stage, stage.out(stage.option(wanted.option) or "")) for stage in stages]
        found = [(stage, out) for stage, out in named if out]
        if kind == "filtered":
            respond = next((stage for stage in self.lock.stages.values() if stage.base == "respond"), None)
            read = respond.option("questions") if respond else None
            found = [(stage, out) for stage, out in found if (out.path == read if read else stage.base == wanted.stage)]
        return found

    def paths(self, kind: str, stage: str | None = None) -> list[str]:
        """Files of a kind of record, of all stages that write it or of one.

        Raises:
            UserError: no such stage has run, or the bytes are not here.
        """
        outputs = [(s, out) for s, out in self.outputs(kind) if stage in (None, s.name)]
        if not outputs:
            raise UserError(
                f"{kind}: dvc.lock of {self.lock.revision} has no finished stage {stage or KINDS[kind].stage} that writes them; "
                f"run: dvc repro {stage or KINDS[kind].stage}"
            )
        found: list[str] = []
        for _, out in outputs:
            files = self.store.files(out, self.lock.revision)
            found += [str(files[name]) for name in sorted(files)]
        return found

    def require(self, *kinds: str) -> None:
        """See that all tables of these kinds that the lock has can be read.

        Raises:
            UserError: some cannot; all of them are named with one command.
        """
        outputs = [out for kind in kinds for _, out in self.outputs(kind)]
        if missing := [out for out in outputs if not self.store.has(out, self.lock.revision)]:
            raise self.store.absent(missing, self.lock.revision)

    @cached_property
    def connection(self) -> Any:
        """DuckDB in memory, with a limit; what does not fit goes to a temporary folder and not into memory."""
        import duckdb

        # A folder of this user alone, which goes with this object: a name that can be guessed may be another user's link.
        self._spill = tempfile.TemporaryDirectory(prefix="scalequest-audit-")
        connection = duckdb.connect(config={"memory_limit": MEMORY_LIMIT, "temp_directory": self._spill.name})
        connection.execute("SET preserve_insertion_order=false")
        connection.execute("SET enable_progress_bar=false")
        return connection

    def source(self, kind: str, stage: str | None = None) -> str:
        """SQL for a table: its files, read in place. Objects of the cache have no suffix; JSON lines have none needed."""
        reader = "read_json_auto" if kind == "benchmarks" else "read_parquet"
        files = ", ".join("'" + path.replace("'", "''") + "'" for path in self.paths(kind, stage))
        options = ", format='newline_delimited', columns={id: 'VARCHAR', question: 'VARCHAR', answer: 'VARCHAR'}"
        return f"{reader}([{files}]{options if kind == 'benchmarks' else ''})"

    def query(self, sql: str, *parameters: Any) -> list[dict[str, Any]]:
        """Rows of a query as dictionaries.

        Raises:
            UserError: a file is damaged, or was written with other columns.
        """
        import duckdb

        try:
            cursor = self.connection.execute(sql, parameters)
            names = [column[0] for column in cursor.description]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
        except duckdb.Error as error:
            raise self._unreadable(error) from None

    def stream(self, sql: str, rows: int) -> Any:
        """Rows of a query as Arrow batches of at most this many rows, one after another, in the order of the query.

        Raises:
            UserError: a file is damaged, or was written with other columns.
        """
        import duckdb

        try:
            return self.connection.sql(sql).to_arrow_reader(rows)
        except duckdb.Error as error:
            raise self._unreadable(error) from None

    def _unreadable(self, error: Exception) -> UserError:
        return UserError(
            f"a table of {self.lock.revision} cannot be read: {str(error).splitlines()[0]}; if its bytes are damaged, `scalequest "
            "verify hashes` names it, else it was written by other code: ask at the revision that wrote it (--rev)"
        )

    def value(self, sql: str, *parameters: Any) -> Any:
        """The one value of a query."""
        return next(iter(self.query(sql, *parameters)[0].values()))

    def count(self, artifact: Artifact) -> int | None:
        """Rows of a Parquet output, from the files' footers; None where it is no Parquet, or not here."""
        if not self.store.has(artifact, self.lock.revision):
            return None
        files = self.store.files(artifact, self.lock.revision)
        names = [str(path) for path in files.values()]
        parquet = artifact.path.endswith(".parquet") or (names and all(name.endswith(".parquet") for name in files))
        if not parquet:
            return None
        listed = ", ".join("'" + name.replace("'", "''") + "'" for name in names)
        return int(self.value(f"SELECT sum(num_rows) FROM parquet_file_metadata([{listed}])"))


def read_metrics(repository: Repository, revision: Revision, artifact: Artifact) -> dict[str, Any] | None:
    """A metrics file of a revision, if its bytes are those that the lock names. Git keeps these, DVC's cache does not."""
    content = repository.read(revision, artifact.path)
    if content is None or md5(content).hexdigest() != artifact.md5:
        return None
    data = json.loads(content)
    return data if isinstance(data, dict) else None
