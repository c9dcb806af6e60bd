"""Run programs that a model wrote: each in processes of its own that can reach nothing and last seconds at most.

The tests run in one process and the solution in another, as in EvalPlus. The solution's process
never sees the tests, and what it sends are plain values (sandbox_calls.py): a redefined ``abs``, an
object that calls itself equal to everything, a search through memory or an early exit gain nothing.
Tests that need the candidate's own classes (a base class, ``except``, ``isinstance``) run in the
candidate's process; ``Verdict.separated`` is then false.

Where the kernel allows namespaces (as root, or as a user where unprivileged user namespaces are
allowed), a program finds no network, no other process, no file but Python's (read-only) and an
empty folder in memory, and no environment. Everywhere it has limits of CPU time, memory, disk and
wall-clock time, no rights, and only the system calls that computing needs (sandbox_filter.py): it
starts no process.

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
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

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


# A word problem's program does little, and one that loops is to cost little.
COMPUTING = Limits(cpu_s=2, wall_s=10.0)
# What one keeper runs at most: if it dies, this many at most are run again.
PROGRAMS_PER_KEEPER = 64


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
    with tempfile.TemporaryFile() as tests:
        tests.write(parts.tests.encode(errors="surrogatepass"))
        tests.seek(0)
        facts: dict[str, str] = {}
        work = {
            "parts": {"setup": parts.setup, "solution": parts.solution},
            "tests": tests.fileno(),
            "together": together,
        }
        with _keeper(work, limits, (tests.fileno(),)) as report:
            ended = report.read(limits.wall_s, facts.update)
    return _verdict(facts, ended, separated=not together)


@dataclass
class _Report:
    """What a keeper reports, one line of JSON at a time; the program's processes have no hand on this pipe."""

    pipe: int
    isolation: str = ""

    def read(self, wall_s: float, take: Callable[[dict[str, str]], object], each: bool = False) -> bool:
        """Pass on every line; whether everybody at the other end had gone in time.

        Args:
            wall_s: the time for all that follows the first line, or with ``each`` for each line after it.
            take: gets the facts of a line.
            each: whether each line has that time.
        """
        text, deadline = b"", time.monotonic() + START_S
        with selectors.DefaultSelector() as selector:
            selector.register(self.pipe, selectors.EVENT_READ)
            while selector.select(max(0.0, deadline - time.monotonic())):
                if not (block := os.read(self.pipe, REPORT_BYTES)):
                    return True
                *lines, text = (text + block).split(b"\n")
                for line in lines:
                    if each or not self.isolation:
                        deadline = time.monotonic() + wall_s
                    facts = json.loads(line)
                    self.isolation = self.isolation or facts.get("isolation", "")
                    take(facts)
        return False


@contextmanager
def _keeper(work: dict[str, Any], limits: Limits, files: tuple[int, ...] = ()) -> Iterator[_Report]:
    """A keeper at work, which is ended with all that it started.

    Args:
        work: what it is to do, as ``sandbox_child.main`` reads it.
        limits: of each program.
        files: what it inherits.
    """
    with (
        tempfile.TemporaryDirectory(prefix="scalequest-sandbox-", ignore_cleanup_errors=True) as folder,
        tempfile.TemporaryFile() as settings,
    ):
        ours, theirs = os.pipe()
        common = {
            "report": theirs, "folder": folder, "limits": asdict(limits), "open": _Consent.open, "caller": os.getpid(),
        }  # fmt: skip
        settings.write(json.dumps(work | common).encode())
        settings.seek(0)
        try:
            Path(folder).chmod(0o755)  # without namespaces the program starts in it, as another user
            keeper = subprocess.Popen(
                PYTHON, stdin=settings, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder,
                pass_fds=(theirs, *files), env={"PYTHONHASHSEED": "0"}, start_new_session=True,
            )  # fmt: skip
        except BaseException:
            os.close(ours)
            raise
        finally:
            os.close(theirs)
        report = _Report(ours)
        try:
            yield report
        finally:
            os.close(ours)
            _end(keeper, isolated=report.isolation == NAMESPACES)


# --------------------------------------------------------------------------------------------------- computed answers


@dataclass(frozen=True)
class Result:
    """What a program computed.

    Attributes:
        outcome: a word of ``sandbox_results``.
        value: the number as text, the text, what was printed or raised, or the type of what was returned instead.
    """

    outcome: str
    value: str = ""


def compute_answers(
    programs: Sequence[str], function: str, limits: Limits = COMPUTING, workers: int | None = None
) -> list[Result]:
    """What N programs compute when their function is called without arguments, in order; as many at once as there are cores.

    A keeper runs some of them one by one, each in a process of its own: starting a Python for each costs several times as much.

    Args:
        programs: their sources.
        function: the name that was asked for (``sandbox_results.find_function`` says what else counts).
        limits: of each.
        workers: keepers at once; by default one per core.
    """
    workers = workers or len(os.sched_getaffinity(0))
    size = min(PROGRAMS_PER_KEEPER, -(-len(programs) // workers) or 1)
    batches = [programs[at : at + size] for at in range(0, len(programs), size)]
    isolations: set[str] = set()
    with ThreadPoolExecutor(max_workers=workers) as pool:
        parts = list(pool.map(lambda batch: _compute(batch, function, limits, isolations), batches))
    for isolation in isolations - {NAMESPACES}:
        _warn(isolation)
    return [result for part in parts for result in part]


def _compute(programs: Sequence[str], function: str, limits: Limits, isolations: set[str]) -> list[Result]:
    """The results of some programs. A keeper that dies takes the program that it was at with it, and another runs the rest."""
    results: list[Result] = []
    while left := list(programs[len(results) :]):
        facts: list[dict[str, str]] = []
        with _keeper({"programs": left, "function": function}, limits) as report:
            report.read(limits.wall_s + END_S, facts.append, each=True)
        _refuse({name: value for line in facts for name, value in line.items()})
        isolations.add(report.isolation)
        found = [Result(line["outcome"], line["value"]) for line in facts if "outcome" in line]
        results += found or [Result(KILLED)]
    return results


def _end(keeper: "subprocess.Popen[bytes]", isolated: bool) -> None:
    """Kill the keeper; its world dies with it. Without a world of its own it is asked to end its descendants first."""
    if not isolated:
        keeper.terminate()
        with suppress(subprocess.TimeoutExpired):
            keeper.wait(END_S)
    with suppress(ProcessLookupError):
        os.killpg(keeper.pid, signal.SIGKILL)
    keeper.wait()


def _refuse(facts: Mapping[str, str]) -> None:
    """Raise where a keeper reports that it ran nothing."""
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


def _verdict(facts: Mapping[str, str], ended: bool, separated: bool) -> Verdict:
    _refuse(facts)
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
