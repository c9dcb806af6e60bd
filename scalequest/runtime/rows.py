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
from collections.abc import Iterable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from scalequest.errors import UserError
from scalequest.io import open_lock, write_json
from scalequest.records import read_table, write_table

log = logging.getLogger("scalequest")

# The stores of a repository together; above it those that were not used for the longest time are
# removed.
MOST_BYTES = 20 * 10**9
IDENTITY, LOCK = "identity.json", "lock"
KEY = "key"
# Characters of a key at most.
KEY_LENGTH = 32
Keys = NDArray[np.bytes_]
# Files whose rows are in memory at once.
FILES_HELD = 4


def _as_keys(names: Iterable[str]) -> Keys:
    """Keys as an array of N byte strings: a fifth of the memory that they take as Python objects."""
    return np.fromiter(map(_encoded, names), f"S{KEY_LENGTH}")


def _distinct(names: Iterable[str]) -> tuple[Keys, NDArray[np.int64], NDArray[np.int64]]:
    """Sorted keys, where each comes up first, and each name's place among them, as ``np.unique`` gives them.

    It takes 80 bytes per name at its peak, where ``np.unique`` takes 160: each array goes when the next is there.
    """
    keys = _as_keys(names)
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    new = np.ones(len(keys), bool)
    new[1:] = keys[1:] != keys[:-1]
    first = order[new]
    numbers = np.cumsum(new, dtype=np.int64)
    numbers -= 1
    places = np.empty(len(keys), np.int64)
    places[order] = numbers
    del order, numbers
    return keys if new.all() else keys[new], first, places


def _encoded(name: str) -> bytes:
    assert len(name) <= KEY_LENGTH, f"key '{name}' has more than {KEY_LENGTH} characters"
    return name.encode()


class RowStore:
    """Finished rows of one stage and fingerprint by key; without a folder for this process alone.

    In memory are the keys that are asked for and where each one's row is: 56 bytes per row. The
    rows are read when they are asked for, a few files at a time.

    Attributes:
        folder: of the files; None keeps the rows in memory.
        schema: of a row, its ``key`` included.
        keys: of the rows that are asked for, sorted, no two the same; the others stay on disk.
        first: of each of ``keys``, where it is asked for for the first time.
        places: of each row that is asked for, its key's place in ``keys`` (N).
    """

    def __init__(self, folder: Path | None, schema: pa.Schema, wanted: Iterable[str]) -> None:
        self.folder, self.schema = folder, schema
        self.keys, self.first, self.places = _distinct(wanted)
        self._parts: list[Path | pa.Table] = []
        self._part = np.full(len(self.keys), -1, np.int32)
        self._row = np.zeros(len(self.keys), np.int32)
        self._read: dict[int, pa.Table] = {}
        self._held: TextIO | None = None

    @classmethod
    def open(
        cls,
        root: Path | None,
        stage: str,
        identity: dict[str, Any],
        schema: pa.Schema,
        wanted: Iterable[str],
        afresh: bool = False,
    ) -> "RowStore":
        """The store of a stage, and which rows it has.

        Args:
            root: the folder above ``.work``; None keeps nothing on disk.
            stage: DVC's name of the stage.
            identity: what decides a row besides its key.
            schema: of a row; other columns than those of an earlier file make that file unreadable.
            wanted: keys of the N rows that are asked for, in order; some may be the same.
            afresh: remove what is there first (a forced rerun computes again), once no other running stage uses it.
        """
        if root is None:
            return cls(None, schema, wanted)
        base = root / ".work" / "rows"
        text = json.dumps(identity, sort_keys=True, default=str)
        folder = base / stage / sha256(text.encode()).hexdigest()[:16]
        folder.mkdir(parents=True, exist_ok=True)
        store = cls(folder, schema, wanted)
        store._held = open_lock(folder / LOCK)
        if afresh:
            _empty(folder, store._held)
        fcntl.flock(store._held, fcntl.LOCK_SH)  # several experiments may use one store; --clean waits for none
        write_json(folder / IDENTITY, {"stage": stage} | json.loads(text))  # its time is that of the last use
        for path in sorted(folder.glob("rows-*.parquet")):
            try:
                # All columns: a damaged one must be seen now, while its rows can be computed again.
                store._take(path, read_table(path, schema))
            except (UserError, OSError, pa.ArrowException) as error:
                log.warning("%s: unreadable, its rows are computed again (%s)", path, str(error).splitlines()[0])
        make_room(base, MOST_BYTES)
        return store

    def _take(self, part: Path | pa.Table, data: pa.Table) -> None:
        if not len(self.keys):
            return
        names = _as_keys(data[KEY].to_pylist())
        at = np.minimum(np.searchsorted(self.keys, names), len(self.keys) - 1)
        inside = np.flatnonzero(self.keys[at] == names)
        self._part[at[inside]], self._row[at[inside]] = len(self._parts), inside
        self._parts.append(part)

    def add(self, data: pa.Table) -> None:
        """Keep finished rows; they are on disk when this returns."""
        path: Path | None = None
        if self.folder and data.num_rows:
            name = sha256("".join(data[KEY].to_pylist()).encode()).hexdigest()[:16]
            path = self.folder / f"rows-{name}.parquet"
            write_table(path, data)
        self._take(path or data, data)

    @property
    def there(self) -> NDArray[np.bool_]:
        """Whether the row of each of ``keys`` is there."""
        return self._part >= 0

    def rows(self, places: NDArray[np.int64]) -> list[dict[str, Any]]:
        """The rows at N places of ``keys``, without their key, in the order of the places."""
        parts, numbers = self._part[places], self._row[places]
        assert (parts >= 0).all(), "a row is asked for that was not made"
        found: list[dict[str, Any]] = [{}] * len(places)
        for part in np.unique(parts).tolist():
            at = np.flatnonzero(parts == part)
            for place, row in zip(at.tolist(), self._table(part).take(numbers[at]).to_pylist(), strict=True):
                found[place] = row
        return found

    def _table(self, number: int) -> pa.Table:
        """The rows of one file; those of the files that were read last stay in memory."""
        data = self._read.pop(number, None)
        if data is None:
            part = self._parts[number]
            data = (part if isinstance(part, pa.Table) else read_table(part, self.schema)).drop_columns(KEY)
        self._read[number] = data  # last, so the first is the one whose use was longest ago
        if len(self._read) > FILES_HELD:
            del self._read[next(iter(self._read))]
        return data

    def discard_since(self, moment: float) -> None:
        """Remove the files written after ``moment`` (seconds since the epoch).

        Their fingerprint may not be what they were made with, so a later run must not take them.
        """
        for path in self.folder.glob("rows-*.parquet") if self.folder else ():
            if path.stat().st_mtime >= moment:
                path.unlink()


def _empty(folder: Path, lock: TextIO) -> None:
    """Remove the rows of a store; another running stage that uses them is waited for.

    An error instead would be lost: when the stage is started again, it is a resumed one and no longer a forced one.
    """
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        log.warning(
            "%s: in use by another running stage. A forced rerun removes these rows, so it waits until that stage has ended",
            folder,
        )
        fcntl.flock(lock, fcntl.LOCK_EX)
    for path in folder.iterdir():
        if path.name != LOCK:
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
