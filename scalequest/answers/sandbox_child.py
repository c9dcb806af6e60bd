"""The inside of the sandbox: started by scalequest.answers.sandbox in a Python of its own; imports the standard library only.

Four processes. The keeper leaves the machine's network, processes, mounts and System V objects
behind, as far as it may. Its child is the first process of the new world and builds an empty file
system around itself; when it ends, the kernel ends everything in there. It starts the process of
the tests and the candidate's, each confined, and reports. A candidate has no other connection than
the one to the tests.
"""

import ctypes
import fcntl
import json
import os
import resource
import select
import shutil
import signal
import struct
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from scalequest.answers import sandbox_filter, sandbox_results, sandbox_tests
from scalequest.answers.sandbox_calls import Channel

LIBC = ctypes.CDLL(None, use_errno=True)
NEW_MOUNTS, NEW_IPC, NEW_USER, NEW_PIDS, NEW_NET = 0x00020000, 0x08000000, 0x10000000, 0x20000000, 0x40000000
BIND, RECURSIVE, PRIVATE = 0x1000, 0x4000, 0x40000
SET_DEATH_SIGNAL, SET_DUMPABLE, SET_NO_NEW_PRIVILEGES, SET_SUBREAPER = 1, 4, 38, 36
# Numbers of system calls that libc has no function for; mount_setattr has one number on every architecture.
MOUNT_SETATTR = 442
KEYCTL = {"x86_64": 250, "aarch64": 219, "riscv64": 219, "ppc64le": 271, "s390x": 280}
JOIN_SESSION_KEYRING = 1
READ_ONLY_NO_SUID_NO_DEV, AT_FDCWD, AT_RECURSIVE = 1 | 2 | 4, -100, 0x8000
CAPABILITY_VERSION_3 = 0x20080522
# Where a Python and its libraries live; whatever else the machine has is not there for the program.
LIBRARIES = ("/usr", "/lib", "/lib64", "/bin")
# Above every user id that somebody has; one of its own for each sandbox, so that limits and signals reach no other.
FIRST_USER = 2_000_000_000
# How a run was isolated. Without namespaces: with Landlock, or with nothing but limits and refused system calls.
NAMESPACES, LANDLOCK, LIMITS = "namespaces", "landlock", "limits"
REPORT_BYTES = 1_000
# Of what a program computed: a word, and at most 300 signs of up to four bytes.
RESULT_BYTES = 1_500
READY = b"ready\n"


def checked(result: int, what: str) -> None:
    """Raise what a failed call of libc left in errno."""
    if result:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    """Mount, as the system call does."""
    checked(LIBC.mount(source.encode(), target.encode(), kind.encode(), flags, options.encode()), f"mount {target}")


def leave_the_machine() -> bool:
    """Move the process's children into a world of their own; False where the kernel does not let us."""
    user, group = os.getuid(), os.getgid()
    ours = NEW_MOUNTS | NEW_IPC | NEW_PIDS | NEW_NET
    if user == 0 and LIBC.unshare(ours) == 0:
        return True
    if LIBC.unshare(ours | NEW_USER):
        return False
    for name, text in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
        Path(f"/proc/self/{name}").write_text(text)
    return True


def build_an_empty_root(folder: str, disk_bytes: int) -> None:
    """Make ``folder`` the root: Python's own folders, read-only, and an empty one in memory to work in."""
    mount("none", "/", "none", RECURSIVE | PRIVATE)
    mount("tmpfs", folder, "tmpfs", 0, "size=64k,mode=755")
    places = [*LIBRARIES] + [sys.base_prefix] * (not sys.base_prefix.startswith("/usr"))
    for place in places:
        target = Path(folder + place)
        if Path(place).is_symlink():  # /bin -> usr/bin
            target.symlink_to(Path(place).readlink())
        elif Path(place).is_dir():
            target.mkdir(parents=True)
            mount(place, str(target), "none", BIND | RECURSIVE)
    work = f"{folder}/box"
    Path(work).mkdir()
    attributes = struct.pack("=QQQQ", READ_ONLY_NO_SUID_NO_DEV, 0, 0, 0)
    checked(
        LIBC.syscall(MOUNT_SETATTR, AT_FDCWD, folder.encode(), AT_RECURSIVE, attributes, len(attributes)),
        "mount_setattr",
    )
    mount("tmpfs", work, "tmpfs", 2 | 4, f"size={disk_bytes},nr_inodes=1024,mode=777")
    os.chroot(folder)
    os.chdir("/box")


def give_up_rights(user: int) -> None:
    """No root, no capability, and no way back to either."""
    if os.getuid() == 0:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    header = struct.pack("=Ii", CAPABILITY_VERSION_3, 0)
    checked(LIBC.capset(header, bytes(24)), "capset")
    checked(LIBC.prctl(SET_NO_NEW_PRIVILEGES, 1, 0, 0, 0), "prctl")


def take_limits(limits: dict[str, int], user_of_its_own: bool) -> None:
    """The kernel's limits of this process. That of processes counts the threads of a user, so it needs one of its own."""
    values = {
        "CPU": limits["cpu_s"],
        "AS": limits["memory_bytes"],
        "FSIZE": limits["disk_bytes"],
        "NPROC": limits["processes"],
        "NOFILE": 64,
        "CORE": 0,
        "MEMLOCK": 0,
        "MSGQUEUE": 0,
    }
    for name, value in values.items():
        if name != "NPROC" or user_of_its_own:
            # One second more of CPU for a program that does not heed the first signal: the second one cannot be caught.
            resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (value, value + (name == "CPU")))


def close_all_but(*kept: int, nothing: int) -> None:
    """Renumber the files ``kept`` as 3, 4, ... and close all others; standard input and outputs become ``nothing``."""
    # Out of each other's way first.
    moved = [fcntl.fcntl(number, fcntl.F_DUPFD, 16) for number in kept]
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
    for at, number in enumerate(moved):
        os.dup2(number, 3 + at)
    os.closerange(3 + len(kept), os.sysconf("SC_OPEN_MAX"))


def confine(settings: dict[str, Any], isolation: str, user: int, library: Any) -> None:
    """Give up every right, and have the kernel refuse what is not needed to compute."""
    LIBC.prctl(SET_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
    give_up_rights(user)
    # A change of user clears the signal.
    LIBC.prctl(SET_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
    LIBC.prctl(SET_DUMPABLE, 0, 0, 0, 0)
    if not os.access(os.__file__, os.R_OK):  # root's own Python, and no namespace to show it in
        raise PermissionError(
            f"{os.__file__} cannot be read without root's rights; allow namespaces, or do not be root"
        )
    if isolation == LANDLOCK:
        sandbox_filter.refuse_files(LIBC, [*LIBRARIES, sys.base_prefix, settings["folder"]])
    take_limits(settings["limits"], user_of_its_own=isolation == NAMESPACES or os.getuid() == user)
    sandbox_filter.refuse_system_calls(library, writes=isolation == NAMESPACES)
    os.environ.clear()
    sys.argv = ["program.py"]


def start(work: Callable[[], None], kept: tuple[int, ...], setting_up: int, confining: Callable[[], None]) -> int:
    """A process that is confined, says so on ``setting_up``, and does its work; its number.

    It has the files ``kept`` as 3, 4, ... and no other. Standard input, which is /dev/null by now, is its output, too.
    """
    number = os.fork()
    if number:
        return number
    try:
        os.setsid()
        close_all_but(*kept, setting_up, nothing=0)
        setting_up = 3 + len(kept)
        try:
            confining()
        except BaseException as error:  # ours: the program had no turn yet
            os.write(setting_up, f"{type(error).__name__}: {error}\n".encode())
            os._exit(1)
        os.write(setting_up, READY)
        os.close(setting_up)
        work()
    finally:
        os._exit(0)


def candidate(setup: str, solution: str) -> None:
    """The work of the candidate's process."""
    sandbox_tests.serve_candidate(Channel(4, 3, False, {}), setup, solution)


def tests_of(setup: str, solution: str, tests: int, together: bool) -> Callable[[], None]:
    """The work of the process of the tests. Only this process reads them: the candidate's has no copy in its memory."""

    def work() -> None:
        source = read_all(tests).decode()
        if together:
            report = sandbox_tests.run_together(setup, solution, source)
        else:
            report = sandbox_tests.run_tests(Channel(4, 3, True, {}), setup, solution, source)
        os.write(5, report.encode(errors="replace")[:REPORT_BYTES])

    return work


def read_all(number: int) -> bytes:
    """What a pipe or file holds up to its end, at most 64 MiB."""
    text = b""
    while len(text) < 64 << 20 and (block := os.read(number, 1 << 20)):
        text += block
    return text


def status_of(child: int, patience_s: float) -> int | None:
    """Exit status of a child as ``waitstatus_to_exitcode`` gives it; None if it has not ended in time, and is killed."""
    end = time.monotonic() + patience_s
    while True:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > end:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return None
        time.sleep(0.002)


def outcome(report: str, tests: int | None, candidate: int | None) -> tuple[str, str]:
    """Outcome and detail of a run from the report of the tests and the exit statuses of both processes."""
    word, _, detail = report.partition(" ")
    if tests is not None and tests < 0:
        word, ended = "gone", tests
    elif word in ("passed", "failed", "exited"):
        return word, detail
    else:
        ended = candidate or 0
    if word == "gone" and ended == -signal.SIGXCPU:
        return "timeout", ""
    return ("killed", f"signal {-ended}") if ended < 0 else ("exited", "")


def run(settings: dict[str, Any], isolation: str, user: int, report: int, tests: int, library: Any) -> None:
    """Run the candidate and the tests in a process each, and report how it ended."""
    parts = settings["parts"]
    setting_up, both = os.pipe()
    verdict, writes = os.pipe()
    from_candidate, to_tests = os.pipe()
    from_tests, to_candidate = os.pipe()
    judge = tests_of(**parts, tests=6, together=settings["together"])
    started = [
        start(
            judge,
            (to_candidate, from_candidate, writes, tests),
            both,
            lambda: confine(settings, isolation, user + 1, library),
        )
    ]
    if not settings["together"]:
        serve = partial(candidate, **parts)
        started.append(start(serve, (to_tests, from_tests), both, lambda: confine(settings, isolation, user, library)))
    for number in (both, writes, from_candidate, to_tests, from_tests, to_candidate):
        os.close(number)
    if (said := read_all(setting_up)) != READY * len(started):
        problem = said.replace(READY, b"").decode(errors="replace").strip()
        tell(report, broken=problem[:300] or "a process ended before it was confined")
        return
    text = read_all(verdict).decode(errors="replace")
    # Who wrote the report has ended or is about to; a candidate that is gone has, too, or only closed its connection.
    codes = [status_of(child, patience_s=2.0 if at == 0 or text == "gone" else 0.0) for at, child in enumerate(started)]
    word, detail = outcome(text, codes[0], codes[1] if len(codes) > 1 else codes[0])
    tell(report, outcome=word, detail=detail)


def run_one_by_one(settings: dict[str, Any], isolation: str, user: int, report: int, library: Any) -> None:
    """Run programs that compute an answer, each in a process of its own, and report each; nothing of one is left for the next."""
    sandbox_results.warm_up()
    for program in settings["programs"]:
        setting_up, both = os.pipe()
        result, writes = os.pipe()
        work = partial(sandbox_results.report_result, program, settings["function"], 3)
        child = start(work, (writes,), both, lambda: confine(settings, isolation, user, library))
        os.close(both)
        os.close(writes)
        said = read_all(setting_up)
        os.close(setting_up)
        if said != READY:
            tell(report, broken=said.decode(errors="replace")[:300] or "a process ended before it was confined")
            return
        text, ended = read_in_time(result, settings["limits"]["wall_s"])
        os.close(result)
        status = status_of(child, patience_s=2.0 if ended else 0.0)
        word, _, value = text.decode(errors="replace").partition(" ")
        if not word:
            word, value = result_outcome(status if ended else None)
        tell(report, outcome=word, value=value)
        if isolation == NAMESPACES:
            empty_folder()


def read_in_time(number: int, seconds: float) -> tuple[bytes, bool]:
    """What a pipe holds up to its end or RESULT_BYTES, and whether that came in time."""
    text, deadline = b"", time.monotonic() + seconds
    while select.select([number], [], [], max(0.0, deadline - time.monotonic()))[0]:
        block = os.read(number, RESULT_BYTES)
        text = (text + block)[:RESULT_BYTES]
        if not block or len(text) == RESULT_BYTES:
            return text, True
    return b"", False


def result_outcome(status: int | None) -> tuple[str, str]:
    """What a program came to that reported nothing, by its exit status; None for one that was still running."""
    if status is None or status == -signal.SIGXCPU:
        return sandbox_results.TIMEOUT, ""
    return (sandbox_results.KILLED, f"signal {-status}") if status < 0 else (sandbox_results.EXITED, "")


def empty_folder() -> None:
    """Remove what a program wrote."""
    for entry in os.scandir("."):
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path, ignore_errors=True)
        else:
            with suppress(OSError):
                Path(entry.path).unlink()


def tell(report: int, **facts: str) -> None:
    """One line of the report to the caller. The program's processes have no hand on this pipe."""
    os.write(report, json.dumps(facts).encode() + b"\n")


def isolation_of(open_allowed: bool) -> str:
    """Leave the machine where the kernel lets us; else say what is left, if that was allowed."""
    if leave_the_machine():
        return NAMESPACES
    if not open_allowed:
        return ""
    return LANDLOCK if LIBC.syscall(sandbox_filter.CREATE_RULESET, None, ctypes.c_size_t(0), 1) >= 1 else LIMITS


def end_descendants() -> None:
    """Without a process world of its own: kill whatever has been left behind, until nothing is left."""
    with suppress(ChildProcessError):
        while True:
            for child in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split():
                os.kill(int(child), signal.SIGKILL)
            os.waitpid(-1, 0)


def main() -> None:
    """Keep one program, or some that run one by one: settings and source come as JSON on standard input.

    The verdict goes to the pipe that they name.
    """
    settings: dict[str, Any] = json.load(sys.stdin)
    report = settings["report"]
    os.dup2(os.open(os.devnull, os.O_RDWR), 0)  # there is none in the new world
    LIBC.prctl(SET_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != settings["caller"]:
        return  # gone before the line above
    # A key ring of our own: the caller's may hold passwords of network drives, tickets of Kerberos.
    LIBC.syscall(KEYCTL[os.uname().machine], JOIN_SESSION_KEYRING, None)
    os.umask(0o022)  # whatever the caller's: folders of the new root are for another user to enter
    user = FIRST_USER + 2 * os.getpid()
    try:
        library = sandbox_filter.load_library()
        isolation = isolation_of(settings["open"])
    except OSError as error:
        tell(report, broken=str(error))
        return
    if not isolation:
        tell(report, refused="the kernel grants no namespaces")
        return
    LIBC.prctl(SET_DUMPABLE, 0, 0, 0, 0)  # nobody reads the tests in our memory
    LIBC.prctl(SET_SUBREAPER, 1, 0, 0, 0)
    first = os.fork()
    if first == 0:
        LIBC.prctl(SET_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
        os.setsid()
        try:
            if isolation == NAMESPACES:
                build_an_empty_root(settings["folder"], settings["limits"]["disk_bytes"])
            else:
                os.chdir(settings["folder"])
            tell(report, isolation=isolation)
            if "programs" in settings:
                run_one_by_one(settings, isolation, user, report, library)
            else:
                run(settings, isolation, user, report, settings["tests"], library)
        except BaseException as error:  # ours
            tell(report, broken=f"{type(error).__name__}: {error}")
        os._exit(0)
    if isolation == NAMESPACES:  # if we are killed, the kernel ends that world
        os.waitpid(first, 0)
        return
    signal.signal(signal.SIGTERM, lambda *_: os.kill(first, signal.SIGKILL))  # out of time
    os.waitpid(first, 0)
    end_descendants()


if __name__ == "__main__":
    main()
