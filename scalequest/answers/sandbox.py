"""Run programs that a model wrote: each in processes of its own that can reach nothing and last seconds at most.

The tests run in one process and the solution in another, as in EvalPlus. The solution's process never sees the tests, and what it
sends are plain values (sandbox_calls.py): a redefined ``abs``, an object that calls itself equal to everything, a search through
memory or an early exit gain nothing. Tests that need the candidate's own classes (a base class, ``except``, ``isinstance``) run in
the candidate's process; ``Verdict.separated`` is then false.

Where the kernel allows namespaces (as root, or as a user where unprivileged user namespaces are allowed), a program finds no network,
no other process, no file but Python's (read-only) and an empty folder in memory, and no environment. Everywhere it has limits of CPU
time, memory, disk and wall-clock time, no rights, and only the system calls that computing needs (sandbox_filter.py): it starts no
process.

Without namespaces nothing runs unless ``runtime.sandbox: open`` says so. SECURITY.md has what is and what is not contained.
"""

import json
import logging
import os
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

from scalequest.answers.sandbox_tests import need_one_process
from scalequest.errors import UserError

log = logging.getLogger("scalequest")

# passed: the last line was reached. failed: it raised. exited: it ended before its last line. timeout: CPU or wall clock.
# killed: it died of a signal, as a rule of its memory or its stack.
PASSED, FAILED, EXITED, TIMEOUT, KILLED = "passed", "failed", "exited", "timeout", "killed"

# What a verdict's isolation may be. Without namespaces: Landlock keeps files from being read, or nothing does.
NAMESPACES, LANDLOCK, LIMITS = "namespaces", "landlock", "limits"
ROOT = Path(__file__).parents[2]
# The child imports these modules by their full name, and nothing else from this folder.
START = "import sys; sys.path.insert(0, sys.argv[1]); from scalequest.answers.sandbox_child import main; del sys.path[0]; main()"
# What is read from the report at once. No program writes into it.
REPORT_BYTES = 4_096
# Python's own switches: no site packages, nothing from the working folder on its path, no bytecode written.
PYTHON = (sys.executable, "-S", "-s", "-P", "-c", START, str(ROOT))
# A busy machine may take long to start a Python; the limits of a program begin after that.
START_S = 60.0
# For the keeper to end what it started.
END_S = 5.0


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
        isolation: ``namespaces``, ``landlock`` or ``limits``.
        separated: whether the tests ran where the solution could not reach them.
    """

    outcome: str
    detail: str = ""
    isolation: str = NAMESPACES
    separated: bool = True

    @property
    def isolated(self) -> bool:
        """Whether it ran without network, foreign processes and foreign files."""
        return self.isolation == NAMESPACES


class _Consent:
    """Whether programs may run without namespaces (``runtime.sandbox``)."""

    open = False


def consent(mode: str) -> None:
    """Set ``runtime.sandbox`` for this process: ``namespaces``, or ``open`` to run programs where there are none."""
    _Consent.open = mode == "open"


def run_programs(
    programs: Sequence[str | Program], limits: Limits | None = None, workers: int | None = None
) -> list[Verdict]:
    """Run N programs, as many at once as there are cores; their verdicts in order."""
    with ThreadPoolExecutor(max_workers=workers or os.cpu_count()) as pool:
        verdicts = list(pool.map(lambda program: run_program(program, limits), programs))
    for isolation in {verdict.isolation for verdict in verdicts} - {NAMESPACES}:
        _warn(isolation)
    return verdicts


def run_program(program: str | Program, limits: Limits | None = None) -> Verdict:
    """Run one program to its end or to its limits; a text is a program without setup and tests.

    Raises:
        UserError: the sandbox itself could not be built, or there are no namespaces and ``consent("open")`` was not given.
    """
    limits = limits or Limits()
    parts = Program(program) if isinstance(program, str) else program
    together = need_one_process(parts.setup, parts.tests)
    with (
        tempfile.TemporaryDirectory(prefix="scalequest-sandbox-", ignore_cleanup_errors=True) as folder,
        tempfile.TemporaryFile() as settings,
        tempfile.TemporaryFile() as tests,
    ):
        tests.write(parts.tests.encode(errors="surrogatepass"))
        tests.seek(0)
        ours, theirs = os.pipe()
        settings.write(
            json.dumps({
                "parts": {"setup": parts.setup, "solution": parts.solution}, "tests": tests.fileno(), "together": together,
                "report": theirs, "folder": folder, "limits": asdict(limits), "open": _Consent.open, "caller": os.getpid(),
            }).encode()
        )  # fmt: skip
        settings.seek(0)
        try:
            Path(folder).chmod(0o755)  # without namespaces the program starts in it, as another user
            keeper = subprocess.Popen(
                PYTHON, stdin=settings, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder,
                pass_fds=(theirs, tests.fileno()), env={"PYTHONHASHSEED": "0"}, start_new_session=True,
            )  # fmt: skip
        except BaseException:
            os.close(ours)
            raise
        finally:
            os.close(theirs)
        facts: dict[str, str] = {}
        try:
            ended = _read(ours, limits.wall_s, facts)
        finally:
            os.close(ours)
            _end(keeper, isolated=facts.get("isolation") == NAMESPACES)
    return _verdict(facts, ended, separated=not together)


def _read(pipe: int, wall_s: float, facts: dict[str, str]) -> bool:
    """Fill ``facts`` from the report; whether everybody at its other end had gone in time, which begins with the first line."""
    text, deadline = b"", time.monotonic() + START_S
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        while selector.select(max(0.0, deadline - time.monotonic())):
            if not (block := os.read(pipe, REPORT_BYTES)):
                return True
            *lines, text = (text + block).split(b"\n")
            for line in lines:
                if not facts:
                    deadline = time.monotonic() + wall_s
                facts |= json.loads(line)
    return False


def _end(keeper: "subprocess.Popen[bytes]", isolated: bool) -> None:
    """Kill the keeper; its world dies with it. Without a world of its own it is asked to end its descendants first."""
    if not isolated:
        keeper.terminate()
        with suppress(subprocess.TimeoutExpired):
            keeper.wait(END_S)
    with suppress(ProcessLookupError):
        os.killpg(keeper.pid, signal.SIGKILL)
    keeper.wait()


def _verdict(facts: dict[str, str], ended: bool, separated: bool) -> Verdict:
    if "refused" in facts:
        raise UserError(
            f"programs that a model wrote were not run: {facts['refused']}. Expected a kernel that isolates them. Allow unprivileged user "
            "namespaces; or, on a machine without secrets, set runtime.sandbox: open (SECURITY.md)"
        )
    if "broken" in facts or "isolation" not in facts:
        reason = facts.get("broken", "it did not start")
        raise UserError(
            f"the sandbox could not be built: {reason}. No program was run. See docs/evaluation.md, The sandbox"
        )
    if not ended:
        return Verdict(TIMEOUT, "", facts["isolation"], separated)
    # Without an outcome the first process of its world was killed, as by the machine's own lack of memory.
    return Verdict(facts.get("outcome", KILLED), facts.get("detail", ""), facts["isolation"], separated)


def missing_protection(isolation: str | None = None) -> tuple[str, ...]:
    """What a program is not kept from in a run with this isolation, by default this machine's; nothing with namespaces."""
    if isolation is None:
        try:
            isolation = run_program("pass").isolation
        except UserError:  # not even run without consent
            isolation = LIMITS
    return {
        NAMESPACES: (),
        LANDLOCK: ("seeing that files exist and which processes run",),
        LIMITS: ("reading the files that this user may read, other programs' memory and environment among them",),
    }[isolation]


@cache
def _warn(isolation: str) -> None:
    log.warning(
        "the kernel grants no namespaces here, and runtime.sandbox is open: programs that a model wrote are not kept from %s",
        ", ".join(missing_protection(isolation)),
    )
