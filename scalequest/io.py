"""Files that exist are complete: everything is written under a temporary name, flushed to disk, then renamed.

DVC writes ``dvc.lock`` in place; ``read_whole`` waits until it is complete.
"""

import errno
import fcntl
import gzip
import json
import os
import sys
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import file_digest
from pathlib import Path
from typing import Any, TextIO, TypeVar

from scalequest.errors import UserError

# Longest line of a JSONL file, in bytes: a row is a problem and its answers, not a book.
MAX_LINE = 16 << 20
# A compressed file may unpack to this many bytes, or to this many times its size. Text shrinks to a tenth, at most to a fiftieth.
MAX_UNPACKED, MAX_RATIO = 256 << 20, 200
# A file that another program writes in place counts as complete after this many seconds without a write. DVC writes 8 kB of
# dvc.lock at a time. On two cores with six busy processes, 160 kB took 3 s, and the longest pause was 0.7 s.
QUIET_S = 2.0
# The same where it is known that no DVC is writing: enough for an editor or Git, and for the clock of the file system.
SETTLED_S = 0.1
# Seconds to wait for that. DVC writes for a second or two after each stage, so only a writer without end takes this long.
PATIENCE_S = 30.0

T = TypeVar("T")


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary neighbour of ``path``; on success it takes the name ``path``, on failure it is removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def private_folder(path: Path) -> Path:
    """The folder ``path``, made where it is missing, that no other user may enter; another user's stays as it is."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    facts = path.stat()
    if facts.st_uid == os.geteuid() and facts.st_mode & 0o077:
        path.chmod(0o700)
    return path


def open_lock(path: Path) -> TextIO:
    """Open a lock file, made where it is missing; what it holds is not read as an answer to anything but who holds it.

    Raises:
        UserError: it is a link, a folder, or another user's.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        found = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise
        reason = "it is a link" if error.errno == errno.ELOOP else error.strerror
        raise UserError(
            f"{path}: the lock file cannot be opened ({reason}). Expected a file of this user, or none. Remove it, then run again"
        ) from None
    return os.fdopen(found, "a+", encoding="utf-8", errors="replace")


@contextmanager
def only_holder(path: Path, refusal: str) -> Iterator[None]:
    """Hold the lock file ``path`` for the length of the block; the system frees it however the process ends.

    Raises:
        UserError: another process holds it; ``refusal`` with that process's id in the place of ``{}``.
    """
    while True:
        with open_lock(path) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                raise UserError(refusal.format(file.read(100).strip() or "?")) from None
            if _is_at(file, path):
                file.truncate(0)
                file.write(str(os.getpid()))
                file.flush()
                yield
                return


def _is_at(file: TextIO, path: Path) -> bool:
    """Whether an open file still has its name: who held the lock before may have removed it with its folder."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.lstat())
    except FileNotFoundError:
        return False


@contextmanager
def one_at_a_time(path: Path) -> Iterator[None]:
    """Hold the lock file ``path`` for the length of the block, after waiting for whoever holds it."""
    with open_lock(path) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def discard_output() -> None:
    """Send what is still printed nowhere, after nobody could read it any more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def write_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, data: Any) -> None:
    """Write JSON with sorted keys and a final newline, so that equal data are equal bytes. NaN is refused."""
    write_text(path, json.dumps(data, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n")


def read_whole(path: Path, read: Callable[[], T], no_writer: Callable[[], bool] = lambda: False) -> T:
    """What ``read`` returns or raises while ``path`` is complete, although another program may be writing it in place.

    A complete file was not written for ``QUIET_S`` and did not change while ``read`` ran; else ``read`` is called again. After
    ``PATIENCE_S`` its answer or error counts as it is. A file that is absent is not waited for.

    DVC holds its repository lock while it writes ``dvc.lock``, but also while it hashes and moves gigabytes. To wait for that
    lock could take minutes of a GPU, and whoever holds it makes a ``dvc`` without ``--wait-for-lock`` fail.

    Args:
        path: the file.
        read: reads it.
        no_writer: whether no other program is writing the file at this moment, for certain; ``SETTLED_S`` is enough then.
    """
    begin = since = time.monotonic()
    seen = None
    while True:
        before, now = _state(path), time.monotonic()
        if before != seen:
            seen, since = before, now
        late = now - begin > PATIENCE_S
        # Asked after the state was taken: a writer that ended in between has changed it.
        quiet_s = SETTLED_S if no_writer() else QUIET_S
        # By its age, or as it is seen from here: the clock of a file server may be ahead.
        if late or before is None or time.time() - before[0] / 1e9 > quiet_s or now - since > quiet_s:
            try:
                found = read()
            except Exception:
                if late or _state(path) == before:
                    raise
            else:
                if late or _state(path) == before:
                    return found
        time.sleep(0.05)


def _state(path: Path) -> tuple[int, int] | None:
    """Time of the last write in nanoseconds, and size; None of a file that is absent."""
    try:
        facts = path.stat()
    except FileNotFoundError:
        return None
    return facts.st_mtime_ns, facts.st_size


def read_json(path: Path) -> Any:
    """Read one JSON document.

    Raises:
        UserError: the file is not JSON in UTF-8.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        why = str(error)
    except UnicodeDecodeError as error:
        why = f"not UTF-8 at byte {error.start}"
    except RecursionError:
        why = "lists or objects in one another without end"
    except ValueError:
        why = "a number of thousands of digits"
    raise UserError(
        f"{path}: not JSON in UTF-8 ({why}). Expected one whole document. Correct or replace the file. What a stage wrote "
        "comes back with git checkout or dvc checkout"
    )


def write_jsonl(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write one JSON object a line, keys in the rows' own order."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the objects of a JSONL file; see ``numbered_jsonl``."""
    for _, row in numbered_jsonl(path):
        yield row


def numbered_jsonl(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield line number and object of a JSONL file, also a compressed one (.gz), in UTF-8 with or without a byte order mark.

    Empty lines are passed over, and counted.

    Raises:
        UserError: the file is missing or cut, unpacks without end, or a line is not a JSON object in UTF-8 of at most
            ``MAX_LINE`` bytes (the line is named).
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; expected a JSONL file (one JSON object per line)")
    number, unpacked, size = 0, 0, path.stat().st_size
    # Bytes, so that a line that is not UTF-8 can be named.
    with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
        try:
            for number, line in enumerate(iter(lambda: file.readline(MAX_LINE + 1), b""), start=1):
                unpacked += len(line)
                if len(line) > MAX_LINE:
                    raise UserError(
                        f"{path}:{number}: a line of more than {MAX_LINE:,} bytes. Expected one JSON object per line. Look at the file."
                    )
                if unpacked > max(MAX_UNPACKED, MAX_RATIO * size):
                    raise UserError(
                        f"{path}: unpacks to more than {MAX_RATIO} times its {size:,} bytes (line {number}). Expected text. "
                        "Unpack it by hand if you trust it."
                    )
                if line.strip():
                    yield number, _json_object(f"{path}:{number}", line)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise UserError(
                f"{path}: not a complete gzip file after line {number} ({error}). Fetch it again."
            ) from None


def _json_object(where: str, line: bytes) -> dict[str, Any]:
    try:
        text = line.decode("utf-8-sig")
        row = json.loads(text)
    except UnicodeDecodeError as error:
        raise UserError(
            f"{where}: not UTF-8 (byte 0x{line[error.start]:02x} at position {error.start + 1}). Expected a file in UTF-8. "
            "Convert it, for example: iconv -f WINDOWS-1252 -t UTF-8"
        ) from None
    except (json.JSONDecodeError, RecursionError, ValueError) as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else type(error).__name__
        raise UserError(f"{where}: not JSON ({reason}); expected one JSON object per line") from None
    if not isinstance(row, dict):
        raise UserError(f"{where}: a {type(row).__name__}; expected a JSON object")
    return row


def file_hash(file: Path, algorithm: str = "sha256") -> str:
    """Hexadecimal hash of a file's bytes, read in blocks; DVC's own hashes are ``md5``."""
    with file.open("rb") as stream:
        return file_digest(stream, algorithm).hexdigest()


def rounded(value: float, digits: int = 6) -> float:
    """A metric without the noise of the last bits."""
    return round(float(value), digits)


def csv_text(columns: Sequence[str], rows: Sequence[Mapping[str, float]]) -> str:
    """Numbers as CSV: six significant digits, columns in the order given; a cell that a row lacks is empty."""
    lines = [",".join(f"{row[name]:.6g}" if name in row else "" for name in columns) for row in rows]
    return "\n".join([",".join(columns), *lines]) + "\n"
