"""Progress lines of a sharded stage."""

import logging
import sys
import time

log = logging.getLogger("scalequest")

# Seconds between two lines of progress where there is no terminal.
PROGRESS_EVERY_S = 10.0


class Progress:
    """Rows done, tokens per second and time left: a bar on a terminal, elsewhere a plain line every few seconds."""

    def __init__(self, stage: str, total: int, resumed: int) -> None:
        self.stage, self.total, self.done, self.resumed = stage, total, resumed, resumed
        self.tokens, self.started, self.printed = 0, time.monotonic(), 0.0
        if resumed:
            log.info("%s: %d of %d rows are there from an earlier run", stage, resumed, total)

    def add(self, rows: int, tokens: int) -> None:
        """Count a finished shard."""
        self.done += rows
        self.tokens += tokens
        elapsed = max(time.monotonic() - self.started, 1e-9)
        left = (self.total - self.done) * elapsed / max(self.done - self.resumed, 1)
        line = (
            f"{self.stage}: {self.done:,}/{self.total:,} rows, {self.tokens / elapsed:,.0f} tokens/s, "
            f"{int(left // 60)}:{int(left % 60):02d} left"
        )
        if sys.stderr.isatty():
            print(f"\r{line} ", end="\n" if self.done == self.total else "", file=sys.stderr, flush=True)
        elif self.done == self.total or time.monotonic() - self.printed >= PROGRESS_EVERY_S:
            self.printed = time.monotonic()
            log.info(line)
