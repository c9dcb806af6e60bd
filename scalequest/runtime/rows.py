"""The row store: finished rows of a stage, found again by what decides them.

It is in ``.work/rows/STAGE/FINGERPRINT``. The fingerprint covers what decides a row's bytes except
the row itself: model, sampling code, settings, packages and machine. A row has a key, the hash of
what it is made from. Unlike the journal the store outlives its stage: after a changed threshold,
the rows that stay are taken from it and only the new ones are computed.

Each finished shard is one Parquet file, written under a temporary name and renamed, so a kill at
any second leaves whole files. A file that cannot be read is ignored with a warning; its rows are
computed again.

    scalequest journal           # list it, with its size
    scalequest journal --clean   # remove it
"""

import fcntl
import json
import logging
import shutil
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, TextIO

import pyarrow as pa

from scalequest.errors import UserError
from scalequest.io import open_lock, write_json
from scalequest.records import read_table, write_table

log = logging.getLogger("scalequest")

# The stores of a repository together; above it those that were not used for the longest time are
# removed.
MOST_BYTES = 20 * 10**9
IDENTITY, LOCK = "identity.json", "lock"
KEY = "key"


@dataclass
class RowStore:
    """Finished rows of one stage and fingerprint by key; without a folder for this process alone.

    Attributes:
        schema: of a row, its ``key`` included.
        wanted: keys of the rows that are asked for; the others stay on disk.
        rows: key to the row's other columns.
    """

    folder: Path | None
    schema: pa.Schema
    wanted: Collection[str]
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    _held: TextIO | None = None

    @classmethod
    def open(
        cls,
        root: Path | None,
        stage: str,
        identity: dict[str, Any],
        schema: pa.Schema,
        wanted: Collection[str],
        afresh: bool = False,
    ) -> "RowStore":
        """The store of a stage, read.

        Args:
            root: the folder above ``.work``; None keeps nothing on disk.
            stage: DVC's name of the stage.
            identity: what decides a row besides its key.
            schema: of a row; other columns than those of an earlier file make that file unreadable.
            wanted: keys of the rows that are asked for.
            afresh: remove what is there first (a forced rerun computes again).
        """
        if root is None:
            return cls(None, schema, wanted)
        base = root / ".work" / "rows"
        text = json.dumps(identity, sort_keys=True, default=str)
        folder = base / stage / sha256(text.encode()).hexdigest()[:16]
        if afresh and folder.exists():
            shutil.rmtree(folder)
        folder.mkdir(parents=True, exist_ok=True)
        store = cls(folder, schema, wanted)
        store._held = open_lock(folder / LOCK)
        fcntl.flock(store._held, fcntl.LOCK_SH)  # several experiments may use one store; --clean waits for none
        write_json(folder / IDENTITY, {"stage": stage} | json.loads(text))  # its time is that of the last use
        for path in sorted(folder.glob("rows-*.parquet")):
            store._read(path)
        make_room(base, MOST_BYTES)
        return store

    def _read(self, path: Path) -> None:
        try:
            self._take(read_table(path, self.schema))
        except (UserError, OSError, pa.ArrowException) as error:
            log.warning("%s: unreadable, its rows are computed again (%s)", path, str(error).splitlines()[0])

    def _take(self, data: pa.Table) -> None:
        inside = pa.array([key in self.wanted for key in data[KEY].to_pylist()], pa.bool_())
        for row in data.filter(inside).to_pylist():
            self.rows[row.pop(KEY)] = row

    def add(self, data: pa.Table) -> None:
        """Keep finished rows; they are on disk when this returns."""
        self._take(data)
        if self.folder and data.num_rows:
            name = sha256("".join(data[KEY].to_pylist()).encode()).hexdigest()[:16]
            write_table(self.folder / f"rows-{name}.parquet", data)

    def discard_since(self, moment: float) -> None:
        """Remove the files written after ``moment`` (seconds since the epoch).

        Their fingerprint may not be what they were made with, so a later run must not take them.
        """
        for path in self.folder.glob("rows-*.parquet") if self.folder else ():
            if path.stat().st_mtime >= moment:
                path.unlink()


def stores(base: Path) -> Iterator[tuple[Path, int, int]]:
    """Each store below ``base`` (``.work/rows``), the least recently used first: folder, files, bytes."""
    found = list(base.glob(f"*/*/{IDENTITY}"))
    for path in sorted(found, key=lambda path: (path.stat().st_mtime, path)):
        files = list(path.parent.glob("rows-*.parquet"))
        yield path.parent, len(files), sum(file.stat().st_size for file in files)


def remove(folder: Path) -> bool:
    """Remove a store that no running stage uses and that this user may remove; whether it is gone."""
    try:
        with open_lock(folder / LOCK) as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder)
    except (OSError, UserError):
        return False
    return True


def make_room(base: Path, most_bytes: int) -> None:
    """Remove the least recently used stores until the rest take at most ``most_bytes``; those in use stay."""
    found = list(stores(base))
    total = sum(size for _, _, size in found)
    for folder, _, size in found:
        if total <= most_bytes:
            return
        if size and remove(folder):
            log.info(
                "%s: removed, %.1f MB; the row stores are larger than %.0f GB", folder, size / 1e6, most_bytes / 1e9
            )
            total -= size
