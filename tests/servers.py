"""What the small HTTP servers of the tests share."""

import logging
from typing import Any

log = logging.getLogger("tests.servers")


class Quiet:
    """Before ``BaseHTTPRequestHandler``: requests are shown with a failed test, and not on every test's terminal."""

    def log_message(self, format: str, *values: Any) -> None:
        log.debug(format, *values)
