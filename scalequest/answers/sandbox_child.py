"""The inside of the sandbox: started by scalequest.answers.sandbox in a Python of its own; imports the standard library only.

Three processes. The keeper leaves the machine's network, processes, mounts and System V objects behind, as far as it may. Its
child is the first process of the new world, builds an empty file system around itself and waits; when it ends, the kernel ends
everything that was started in there. Its child in turn gives up every right, takes the limits and runs the program.
"""

import ast
import builtins
import ctypes
import errno
import json
import os
import resource
import signal
import struct
import sys
from pathlib import Path
from typing import Any, NoReturn

LIBC = ctypes.CDLL(None, use_errno=True)
NEW_MOUNTS, NEW_IPC, NEW_USER, NEW_PIDS, NEW_NET = 0x00020000, 0x08000000, 0x10000000, 0x20000000, 0x40000000
BIND, RECURSIVE, PRIVATE = 0x1000, 0x4000, 0x40000
SET_DEATH_SIGNAL, SET_NO_NEW_PRIVILEGES, SET_SUBREAPER = 1, 38, 36
# Numbers of system calls that libc has no function for; mount_setattr has one number on every architecture.
MOUNT_SETATTR = 442
READ_ONLY_NO_SUID_NO_DEV, AT_FDCWD, AT_RECURSIVE = 1 | 2 | 4, -100, 0x8000
CAPABILITY_VERSION_3 = 0x20080522
# Where a Python and its libraries live; whatever else the machine has is not there for the program.
LIBRARIES = ("/usr", "/lib", "/lib64", "/bin")
# Before the built-in names of the tests: no Python name begins so.
UNTOUCHED = "untouched "
# Above every user id that somebody has; one of its own for each sandbox, so that limits and signals reach no other.
FIRST_USER = 2_000_000_000


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
    work = f"{folder}/work"
    Path(work).mkdir()
    attributes = struct.pack("=QQQQ", READ_ONLY_NO_SUID_NO_DEV, 0, 0, 0)
    checked(
        LIBC.syscall(MOUNT_SETATTR, AT_FDCWD, folder.encode(), AT_RECURSIVE, attributes, len(attributes)),
        "mount_setattr",
    )
    mount("tmpfs", work, "tmpfs", 2 | 4, f"size={disk_bytes},nr_inodes=1024,mode=777")
    os.chroot(folder)
    os.chdir("/work")


def give_up_rights(user: int) -> None:
    """No root, no capability, and no way back to either."""
    if os.getuid() == 0:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    header = struct.pack("=Ii", CAPABILITY_VERSION_3, 0)
    checked(LIBC.capset(header, bytes(24)), "capset")
    checked(LIBC.prctl(SET_NO_NEW_PRIVILEGES, 1, 0, 0, 0), "prctl")


def take_limits(limits: dict[str, int]) -> None:
    """The kernel's limits of this process and, for the number of processes, of all that it starts."""
    for name, value in {
        "CPU": limits["cpu_s"],
        "AS": limits["memory_bytes"],
        "FSIZE": limits["disk_bytes"],
        "NPROC": limits["processes"],
        "NOFILE": 64,
        "CORE": 0,
    }.items():
        # One second more of CPU for a program that does not heed the first signal: the second one cannot be caught.
        resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (value, value + (name == "CPU")))


def execute(setup: str, solution: str, tests: str) -> None:
    """Run the three one after the other in one namespace; the tests see nothing of what the solution did to Python itself.

    Built-in names in the tests mean what Python or the setup says, and the modules that setup and tests import have their own
    attributes again. One exception: where the tests call nothing but a built-in name, the solution's definition of it is what
    they test (MBPP asks for a function ``sum``).
    """
    # Not "__main__": a demonstration at the end of a solution is not to run.
    shared: dict[str, Any] = {"__name__": "program"}
    imported = imported_modules(setup) | imported_modules(tests)
    for name in imported:
        try:
            __import__(name)
        except ImportError:  # the tests themselves will say so
            continue
    if setup.strip():
        exec(compile(setup, "setup.py", "exec"), shared)
    given = dict(shared)
    untouched = dict(vars(builtins))
    modules = {name: dict(vars(sys.modules[name])) for name in imported if name in sys.modules}
    exec(compile(solution, "program.py", "exec"), shared)
    if not tests.strip():
        return
    vars(builtins).update(untouched)
    for name, attributes in modules.items():
        if name in sys.modules:
            vars(sys.modules[name]).update(attributes)
    tree = ast.parse(tests)
    for name in replaced_builtins(tree, setup, set(untouched)):
        shared[UNTOUCHED + name] = given.get(name, untouched[name])
    exec(compile(tree, "tests.py", "exec"), shared)


def imported_modules(source: str) -> set[str]:
    """Names of the modules that a source imports."""
    try:
        nodes = list(ast.walk(ast.parse(source)))
    except (SyntaxError, ValueError, RecursionError):
        return set()
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return names | {
        node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module and not node.level
    }


def replaced_builtins(tests: ast.Module, setup: str, built_in: set[str]) -> set[str]:
    """Rename the built-in names that the tests use, so that no definition of the solution takes their place.

    Returns:
        The names. Those that the tests bind themselves keep their name, and so does the one that the tests are about: the first
        that they call, if they use no name that only a solution can define.
    """
    nodes = list(ast.walk(tests))
    bound = {n.id for n in nodes if isinstance(n, ast.Name) and not isinstance(n.ctx, ast.Load)}
    bound |= {n.name for n in nodes if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)}
    bound |= {n.arg for n in nodes if isinstance(n, ast.arg)}
    bound |= names_of_imports(nodes)
    used = dict.fromkeys(n.id for n in nodes if isinstance(n, ast.Name) and n.id not in bound)
    if set(used) <= built_in | names_of_imports(list(ast.walk(ast.parse(setup)))):
        called = {n.func.id for n in nodes if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}
        bound.add(next((name for name in used if name in called & built_in), ""))
    names = (set(used) & built_in) - bound
    for node in nodes:
        if isinstance(node, ast.Name) and node.id in names:
            node.id = UNTOUCHED + node.id
    return names


def names_of_imports(nodes: list[ast.AST]) -> set[str]:
    """The names that import statements bind."""
    imports = [n for n in nodes if isinstance(n, ast.Import | ast.ImportFrom)]
    return {(alias.asname or alias.name).split(".")[0] for node in imports for alias in node.names}


def run(parts: dict[str, str], token: str, report: int, nothing: int) -> NoReturn:
    """Run the program, and write the token only if its last line was reached; else what it raised."""
    import random

    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
    os.environ.clear()
    sys.argv = ["program.py"]
    random.seed(0)  # a program that draws at random gets the same verdict each time
    myself = os.getpid()
    try:
        execute(**parts)
    except SystemExit:
        os._exit(0)
    except BaseException as error:
        if os.getpid() != myself:
            os._exit(1)
        text = f"{type(error).__name__}: {error}".encode(errors="replace")[:300]
        os.write(report, b"raised " + text + b"\n")
        os._exit(1)
    if os.getpid() == myself:  # a child that gets here has not passed for its parent
        os.write(report, f"done {token}\n".encode())
    os._exit(0)


def wait(child: int) -> int:
    """Exit status of ``child`` as a shell gives it; other orphans are reaped on the way."""
    while True:
        pid, status = os.wait()
        if pid == child:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code


def end_descendants() -> None:
    """Without a process world of its own: kill whatever the program has left behind, until nothing is left."""
    while True:
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        if not children:
            return
        for child in children:
            os.kill(int(child), signal.SIGKILL)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return


def main() -> None:
    """Keep one program: settings and source come as JSON on standard input, the verdict goes to the pipe that they name."""
    settings: dict[str, Any] = json.load(sys.stdin)
    limits, report = settings["limits"], settings["report"]
    LIBC.prctl(SET_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
    nothing = os.open(os.devnull, os.O_RDWR)
    user = FIRST_USER + os.getpid()
    isolated = leave_the_machine()
    LIBC.prctl(SET_SUBREAPER, 1, 0, 0, 0)
    first = os.fork()
    if first == 0:
        LIBC.prctl(SET_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
        os.setsid()  # so that a signal to "my group" does not reach the keeper
        try:
            if isolated:
                build_an_empty_root(settings["folder"], limits["disk_bytes"])
            else:
                os.chdir(settings["folder"])
            os.write(report, b"isolated\n" if isolated else b"open\n")
            program = os.fork() if isolated else 0
            if program == 0:
                if isolated:
                    os.setsid()
                give_up_rights(user)
                if not os.access(os.__file__, os.R_OK):  # root's own Python, and no namespace to show it in
                    raise PermissionError(
                        f"{os.__file__} cannot be read without root's rights; allow namespaces, or do not be root"
                    )
                take_limits(limits)
                run(settings["parts"], settings["token"], report, nothing)
        except BaseException as error:  # ours, before the program had its turn
            os.write(report, f"broken {type(error).__name__}: {error}\n".encode())
            os._exit(1)
        os._exit(wait(program))
    code = wait(first)
    if not isolated:
        end_descendants()
    os._exit(code)


if __name__ == "__main__":
    try:
        main()
    except OSError as error:
        if error.errno != errno.EPIPE:  # the caller is gone
            raise
