"""Answers that were paid for, kept on disk as soon as they are there: a rerun asks for none of them again."""

import errno
import fcntl
import json
import logging
import os
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from scalequest.errors import UserError
from scalequest.io import private_folder

log = logging.getLogger("scalequest")


@dataclass(frozen=True)
class Answer:
    """One answer of the endpoint, as the journal keeps it.

    Attributes:
        text: what was written; empty for a refusal.
        finish_reason: ``stop``, ``length``, ``too_long`` or ``refusal``.
        input_tokens: tokens of the request that are paid for; None where the endpoint does not say.
        output_tokens: tokens of the answer that are paid for; None where the endpoint does not say.
        model: the name by which the endpoint says who answered; it may be more exact than the one
            asked for.
    """

    text: str
    finish_reason: str
    input_tokens: int | None
    output_tokens: int | None
    model: str


class Journal:
    """Answers by the hash of their request, in memory and, where there is a file, one JSON line each.

    The file is this user's alone, because answers are paid for and may be private. A line is
    written whole or, by a kill, in part. What cannot be read is asked for again, and every other
    line is kept.

    Raises:
        UserError: the file cannot be used: a link, a folder, another user's, or not writable.
    """

    def __init__(self, file: Path | None) -> None:
        self._answers: dict[str, Answer] = {}
        self._lock = threading.Lock()
        self._file: int | None = None
        if file is None:
            return
        self._file = open_private(file)
        with self._alone():
            content = _read_all(self._file)
            whole, newline, rest = content.rpartition(b"\n")
            if rest and parse_line(rest):  # only its line break was lost
                os.write(self._file, b"\n")
                whole = content
            elif rest:
                os.ftruncate(self._file, len(whole) + len(newline))
        for number, line in enumerate(whole.split(b"\n") if whole else [], start=1):
            if found := parse_line(line):
                self._answers[found[0]] = found[1]
            elif line.strip():
                log.warning("%s:%d: unreadable, that answer is asked for again", file, number)

    def __contains__(self, key: str) -> bool:
        return key in self._answers

    def __getitem__(self, key: str) -> Answer:
        return self._answers[key]

    def add(self, key: str, answer: Answer) -> None:
        """Keep an answer; it is on disk when this returns."""
        with self._lock:
            self._answers[key] = answer
            if self._file is None:
                return
            line = json.dumps({"key": key} | asdict(answer), ensure_ascii=False).encode() + b"\n"
            with self._alone():
                end = os.fstat(self._file).st_size
                try:
                    while line:
                        line = line[os.write(self._file, line) :]
                    os.fsync(self._file)
                except OSError:  # half a line would spoil the next one, too
                    os.ftruncate(self._file, end)
                    raise

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold the file's lock: on Ray several workers append to one journal."""
        assert self._file is not None
        fcntl.flock(self._file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)


def open_private(file: Path) -> int:
    """Open a file for reading and appending, as this user's alone (0600, in a folder of 0700).

    Raises:
        UserError: it is a link, no regular file, another user's, or cannot be opened.
    """

    def refused(what: str) -> UserError:
        return UserError(
            f"{file}: {what}. Expected a file of this user that can be written, or none. Its lines are answers that were "
            "paid for: copy it to a file of your own, or move it away"
        )

    try:
        private_folder(file.parent)
        found = os.open(
            file, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600
        )
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise
        raise refused("is a link" if error.errno == errno.ELOOP else f"cannot be opened ({error.strerror})") from None
    facts = os.fstat(found)
    if not stat.S_ISREG(facts.st_mode):
        os.close(found)
        raise refused("is no regular file")
    me = os.geteuid()
    if facts.st_uid != me and me != 0:  # root may well work in another user's folder
        os.close(found)
        raise refused(f"belongs to user {facts.st_uid}, this is user {me}")
    os.fchmod(found, 0o600)
    return found


def _read_all(file: int) -> bytes:
    os.lseek(file, 0, os.SEEK_SET)
    parts = []
    while part := os.read(file, 1 << 20):
        parts.append(part)
    return b"".join(parts)


def parse_line(line: bytes) -> tuple[str, Answer] | None:
    """Key and answer of one line; None where it is damaged.

    Fields of another version are left out, and token counts that are missing are unknown.
    """
    try:
        row = json.loads(line)
        key, text, reason = row["key"], row["text"], row["finish_reason"]
        counts = [row.get(name) for name in ("input_tokens", "output_tokens")]
        row = {field.name: row.get(field.name) for field in fields(Answer)}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):  # a full disk, an editor
        return None
    if not all(isinstance(value, str) for value in (key, text, reason)):
        return None
    if not all(count is None or _is_count(count) for count in counts):
        return None
    return key, Answer(**row | {"model": str(row["model"] or "")})


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53
