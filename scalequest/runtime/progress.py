"""Progress lines of a sharded stage, and the file by which another terminal sees a running one."""

import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from scalequest.io import write_json
from scalequest.redaction import redacted

log = logging.getLogger("scalequest")

# Seconds between two lines of progress where there is no terminal.
PROGRESS_EVERY_S = 10.0
# Below a repository's root: one file per running stage and process.
RUNNING = Path(".work") / "running"


class Notice:
    """What ``scalequest status`` reads of this process's stage: ``.work/running/STAGE.PID.json``. No output depends on it."""

    def __init__(self, root: Path, stage: str) -> None:
        self._path = root / RUNNING / f"{stage}.{os.getpid()}.json"
        self._facts: dict[str, Any] = {
            "stage": stage, "pid": os.getpid(), "started": time.time(), "folder": str(Path.cwd()),
            "gpus": os.environ.get("CUDA_VISIBLE_DEVICES"),
        }  # fmt: skip
        for old in self._path.parent.glob(f"{stage}.*.json"):  # of runs that were killed or failed
            if old != self._path and not Path("/proc", old.name.split(".")[-2]).exists():
                old.unlink(missing_ok=True)
        self.write()

    def write(self, **facts: Any) -> None:
        """Add facts."""
        self._facts |= facts
        write_json(self._path, self._facts)

    def remove(self) -> None:
        """The stage has finished."""
        self._path.unlink(missing_ok=True)


@contextmanager
def noticed(root: Path | None, stage: str) -> Iterator[Notice | None]:
    """Keep a notice for the length of the block; the reason of a failure stays in it until the stage runs again."""
    if root is None:
        yield None
        return
    notice = Notice(root, stage)
    try:
        yield notice
    except BaseException as error:
        lines = redacted(str(error)).strip().splitlines() or [type(error).__name__]
        stopped = isinstance(error, KeyboardInterrupt | SystemExit)
        notice.write(ended="stopped" if stopped else lines[0][:200])
        raise
    notice.remove()


def clock(seconds: float) -> str:
    """Hours, minutes and seconds, rounded: ``0:02:39``."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


class Progress:
    """Rows done, tokens per second and time left: a bar on a terminal, elsewhere a plain line every few seconds."""

    def __init__(self, stage: str, total: int, resumed: int, notice: Notice | None = None) -> None:
        self._notice, self._noticed = notice, 0.0
        self.stage, self.total, self.done, self.resumed = stage, total, resumed, resumed
        self.tokens, self.started, self.printed = 0, time.monotonic(), 0.0
        if resumed:
            log.info("%s: %d of %d rows are there from an earlier run", stage, resumed, total)
        self._tell(0.0)

    def add(self, rows: int, tokens: int) -> None:
        """Count a finished shard."""
        self.done += rows
        self.tokens += tokens
        elapsed = max(time.monotonic() - self.started, 1e-9)
        left = (self.total - self.done) * elapsed / max(self.done - self.resumed, 1)
        if self.done == self.total or time.monotonic() - self._noticed >= 1.0:
            self._tell(elapsed)
        line = (
            f"{self.stage}: {self.done:,}/{self.total:,} rows, {self.tokens / elapsed:,.0f} tokens/s, "
            f"{clock(left)} left"
        )
        if sys.stderr.isatty():
            print(f"\r{line} ", end="\n" if self.done == self.total else "", file=sys.stderr, flush=True)
        elif self.done == self.total or time.monotonic() - self.printed >= PROGRESS_EVERY_S:
            self.printed = time.monotonic()
            log.info(line)

    def _tell(self, elapsed: float) -> None:
        if self._notice:
            self._noticed = time.monotonic()
            counts = {"total": self.total, "done": self.done, "resumed": self.resumed, "tokens": self.tokens}
            self._notice.write(**counts, seconds=round(elapsed, 1), written=time.time())
