"""Run programs that a model wrote: each in a process of its own that can reach nothing and lasts seconds at most.

Where the kernel allows it (as root, or with unprivileged user namespaces) a program finds no network, no process but its own
children, no file but Python's (read-only) and an empty folder in memory, and no environment. On every machine it has limits of
CPU time, memory, disk, processes and wall-clock time, no rights, and is killed with all that it started.

A program counts as passed only if its last line was reached: the process then shows a token that it got for this one run.
``sys.exit(0)``, ``os._exit(0)`` and a printed "passed" show none. Tests see the built-in functions and the imported modules as
Python has them, whatever the solution redefines.

Not covered: a program written against this very checker, which looks for the token in its own process's memory; objects that
call themselves equal to everything; holes of the kernel. Where namespaces are refused (the default in many containers),
``missing_protection`` says what is missing and a warning is logged: run such a machine without secrets and without network.
"""

import json
import logging
import os
import secrets
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from scalequest.errors import UserError

log = logging.getLogger("scalequest")

# passed: the last line was reached. failed: it raised. exited: it ended before its last line. timeout: CPU or wall clock.
# killed: it died of a signal, as a rule of its memory or its stack.
PASSED, FAILED, EXITED, TIMEOUT, KILLED = "passed", "failed", "exited", "timeout", "killed"

CHILD = Path(__file__).with_name("sandbox_child.py")
# Longest report. A program that writes more into the pipe of verdicts is ended.
REPORT_BYTES = 4_096
# Python's own switches: no site packages, nothing from the working folder on its path, no bytecode written.
PYTHON = (sys.executable, "-S", "-s", "-P", "-B", str(CHILD))


@dataclass(frozen=True)
class Limits:
    """What one program may use. CPU seconds decide before wall-clock seconds do, so that a busy machine changes no verdict."""

    cpu_s: int = 5
    wall_s: float = 20.0
    memory_bytes: int = 512 << 20
    disk_bytes: int = 16 << 20
    processes: int = 16


@dataclass(frozen=True)
class Program:
    """A solution with what runs before and after it. A solution alone passes if it runs to its end.

    Attributes:
        solution: source of what is tested.
        setup: source that runs before it, in the same namespace: imports, helpers, the stub of the question.
        tests: source that runs after it, in the same namespace, with Python's own built-in functions.
    """

    solution: str
    setup: str = ""
    tests: str = ""


@dataclass(frozen=True)
class Verdict:
    """How a program ended.

    Attributes:
        outcome: one of the five.
        detail: what it raised, at most 300 bytes; empty otherwise.
        isolated: whether it ran without network, foreign processes and foreign files.
    """

    outcome: str
    detail: str = ""
    isolated: bool = True


def run_programs(
    programs: Sequence[str | Program], limits: Limits | None = None, workers: int | None = None
) -> list[Verdict]:
    """Run N programs, as many at once as there are cores; their verdicts in order."""
    if missing := missing_protection():
        _warn(missing)
    with ThreadPoolExecutor(max_workers=workers or os.cpu_count()) as pool:
        return list(pool.map(lambda program: run_program(program, limits), programs))


def run_program(program: str | Program, limits: Limits | None = None) -> Verdict:
    """Run one program to its end or to its limits; a text is a program without setup and tests.

    Raises:
        UserError: the sandbox itself could not be built.
    """
    limits = limits or Limits()
    parts = asdict(Program(program) if isinstance(program, str) else program)
    token = secrets.token_hex(16)
    ours, theirs = os.pipe()
    with tempfile.TemporaryDirectory(prefix="scalequest-sandbox-") as folder, tempfile.TemporaryFile() as settings:
        Path(folder).chmod(0o777)  # without namespaces the program works in it, as another user
        settings.write(json.dumps(
            {"parts": parts, "token": token, "report": theirs, "folder": folder, "limits": asdict(limits)}
        ).encode())  # fmt: skip
        settings.seek(0)
        deadline = time.monotonic() + limits.wall_s
        keeper = subprocess.Popen(
            PYTHON, stdin=settings, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, pass_fds=(theirs,),
            env={"PYTHONHASHSEED": "0"}, cwd=folder, start_new_session=True,
        )  # fmt: skip
        try:
            os.close(theirs)
            report = _read(ours, deadline)
            code = None if report is None else _exit_code(keeper, deadline)
        finally:
            os.close(ours)
            _end(keeper)
    return _verdict(report, code, token)


def _read(pipe: int, deadline: float) -> bytes | None:
    """What came through the pipe until everybody at its other end had gone; None if that took too long or was too much."""
    text = b""
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        while selector.select(max(0.0, deadline - time.monotonic())):
            block = os.read(pipe, REPORT_BYTES)
            if not block:
                return text
            text += block
            if len(text) > REPORT_BYTES:
                return None
    return None


def _exit_code(keeper: "subprocess.Popen[bytes]", deadline: float) -> int | None:
    try:
        return keeper.wait(max(0.1, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        return None


def _end(keeper: "subprocess.Popen[bytes]") -> None:
    """Kill the keeper; its world dies with it."""
    with suppress(ProcessLookupError):
        os.killpg(keeper.pid, signal.SIGKILL)
    keeper.wait()


def _verdict(report: bytes | None, code: int | None, token: str) -> Verdict:
    if report is None or code is None:
        return Verdict(TIMEOUT)
    first, *lines = report.decode(errors="replace").splitlines() or [""]
    isolated = first == "isolated"
    # A line of ours comes first; the program may have written others, but none with the token.
    if first.startswith("broken") or first not in ("isolated", "open"):
        raise UserError(f"the sandbox could not be built ({first or 'no word from it'}); no program was run")
    if lines and lines[0].startswith("broken"):
        raise UserError(f"the sandbox could not be built ({lines[0]}); no program was run")
    if lines == [f"done {token}"] and code == 0:
        return Verdict(PASSED, isolated=isolated)
    if code == 128 + signal.SIGXCPU:
        return Verdict(TIMEOUT, isolated=isolated)
    if code > 128:
        return Verdict(KILLED, f"signal {code - 128}", isolated)
    if lines and lines[-1].startswith("raised "):
        return Verdict(FAILED, lines[-1].removeprefix("raised "), isolated)
    return Verdict(EXITED, isolated=isolated)


@cache
def missing_protection() -> tuple[str, ...]:
    """What a program is not kept from on this machine: nothing, where namespaces are allowed."""
    if run_program("pass").isolated:
        return ()
    return ("the network", "reading the files that this user may read") + (
        () if os.getuid() == 0 else ("writing the files that this user may write", "signals to this user's processes")
    )


@cache
def _warn(missing: tuple[str, ...]) -> None:
    log.warning(
        "the kernel grants no namespaces here, so programs that a model wrote are not kept from %s; run them on a machine without "
        "secrets, or allow unprivileged user namespaces",
        ", ".join(missing),
    )
