"""What the kernel refuses to a program in the sandbox: system calls (libseccomp) and files (Landlock).

The list names what Python's standard library needs to compute. Everything else does not exist for
the program: processes, sockets, io_uring, key rings, System V objects, files in memory, namespaces,
mounts, tracing. Without namespaces files cannot be written, either.
"""

import ctypes
import errno
import os
import struct
from collections.abc import Iterable

ALLOWED = """
read readv write writev pread64 preadv preadv2 pwrite64 pwritev pwritev2 lseek _llseek close close_range dup
dup2 dup3 sendfile sendfile64 copy_file_range fsync fdatasync flock fadvise64 stat stat64 fstat fstat64 lstat
lstat64 newfstatat fstatat64 statx access faccessat faccessat2 getdents getdents64 getcwd chdir fchdir
readlink readlinkat statfs statfs64 fstatfs fstatfs64 umask pipe pipe2 poll ppoll ppoll_time64 select
_newselect pselect6 pselect6_time64 epoll_create epoll_create1 epoll_ctl epoll_wait epoll_pwait epoll_pwait2
eventfd eventfd2 sendto recvfrom sendmsg recvmsg send recv shutdown getsockopt setsockopt getsockname
getpeername mmap mmap2 munmap mprotect mremap brk madvise membarrier rt_sigaction rt_sigprocmask rt_sigreturn
rt_sigpending rt_sigsuspend rt_sigtimedwait sigaltstack sigreturn sigaction sigprocmask alarm setitimer
getitimer pause exit exit_group getpid gettid getppid getuid geteuid getgid getegid getresuid getresgid
getgroups getuid32 geteuid32 getgid32 getegid32 getpgrp getpgid getsid sched_yield sched_getaffinity
sched_getparam sched_getscheduler sched_get_priority_max sched_get_priority_min uname sysinfo times getrusage
getrlimit ugetrlimit set_tid_address set_robust_list rseq futex futex_time64 restart_syscall arch_prctl
set_thread_area getrandom wait4 waitid getcpu clock_gettime clock_gettime64 clock_getres clock_getres_time64
clock_nanosleep clock_nanosleep_time64 nanosleep gettimeofday time
"""
WRITING = """
creat mkdir mkdirat rmdir unlink unlinkat rename renameat renameat2 link linkat symlink symlinkat chmod fchmod
fchmodat ftruncate ftruncate64 truncate truncate64 fallocate utime utimes utimensat futimesat
"""
# Commands of fcntl: duplicate, flags, locks, size of a pipe. F_SETOWN could send signals to others.
FCNTL = (0, 1, 2, 3, 4, 5, 6, 7, 1030, 1032)
IOCTL = (
    0x5401,
    0x5413,
    0x541B,
    0x5421,
    0x5450,
    0x5451,
)  # is it a terminal, its size, bytes waiting, blocking, close on exec
SET_NAME, GET_NAME = 15, 16
AF_UNIX = 1
CLONE_THREAD = 0x10000
# Of open's flags what changes a file: O_WRONLY, O_RDWR, O_CREAT, O_TRUNC, O_TMPFILE's own bit.
OPEN_TO_WRITE = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | (os.O_TMPFILE & ~os.O_DIRECTORY)

ALLOW, REFUSE, KILL = 0x7FFF0000, 0x00050000, 0x80000000
EQUAL, MASKED = 4, 7
LIBRARY = "libseccomp.so.2"


class _Argument(ctypes.Structure):
    _fields_ = (("number", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64))


Test = tuple[int, int, int] | tuple[int, int, int, int]


def load_library() -> ctypes.CDLL:
    """Libseccomp.

    Raises:
        OSError: it is not installed.
    """
    try:
        library = ctypes.CDLL(LIBRARY)
    except OSError as error:
        raise OSError(
            errno.ENOENT, f"{LIBRARY} is not installed; install libseccomp 2 (Debian: libseccomp2)"
        ) from error
    library.seccomp_init.restype = ctypes.c_void_p
    library.seccomp_init.argtypes = (ctypes.c_uint32,)
    library.seccomp_rule_add_array.argtypes = (
        ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint, ctypes.POINTER(_Argument),
    )  # fmt: skip
    library.seccomp_load.argtypes = library.seccomp_release.argtypes = (ctypes.c_void_p,)
    library.seccomp_attr_set.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_uint32)
    return library


def rules(writes: bool) -> list[tuple[str, int, list[Test]]]:
    """System call, action, tests of its arguments; a call without a rule is unknown to the kernel (ENOSYS).

    Args:
        writes: whether files may be written, which a folder in memory allows.
    """
    me = os.getpid()
    refused = REFUSE | errno.EPERM
    found: list[tuple[str, int, list[Test]]] = [(name, ALLOW, []) for name in ALLOWED.split()]
    found += [(name, ALLOW if writes else REFUSE | errno.EROFS, []) for name in WRITING.split()]
    found += [("fcntl", ALLOW, [(1, EQUAL, command)]) for command in FCNTL]
    found += [("fcntl64", ALLOW, [(1, EQUAL, command)]) for command in FCNTL]
    found += [("ioctl", ALLOW, [(1, EQUAL, command)]) for command in IOCTL]
    found += [("prctl", ALLOW, [(0, EQUAL, option)]) for option in (SET_NAME, GET_NAME)]
    found += [
        ("clone", ALLOW, [(0, MASKED, CLONE_THREAD, CLONE_THREAD)]),
        ("clone", refused, [(0, MASKED, CLONE_THREAD, 0)]),
    ]
    found += [("socketpair", ALLOW, [(0, EQUAL, AF_UNIX)])]
    found += [(name, ALLOW, [(0, EQUAL, me)]) for name in ("kill", "tgkill")]
    found += [("prlimit64", ALLOW, [(0, EQUAL, pid), (2, EQUAL, 0)]) for pid in (0, me)]
    for name, flags in (("open", 1), ("openat", 2)):
        found.append((name, ALLOW, [] if writes else [(flags, MASKED, OPEN_TO_WRITE, 0)]))
    found += [
        (name, refused, [])
        for name in ("fork", "vfork", "execve", "execveat", "socket", "connect", "bind", "listen", "accept", "accept4")
    ]
    return found


def refuse_system_calls(library: ctypes.CDLL, writes: bool) -> None:
    """Load the filter into this process, for good.

    Raises:
        OSError: the kernel takes no filter.
    """
    context = library.seccomp_init(REFUSE | errno.ENOSYS)
    if not context:
        raise OSError(errno.ENOMEM, "seccomp_init")
    for name, action, tests in rules(writes):
        number = library.seccomp_syscall_resolve_name(name.encode())
        if number < 0:  # not on this architecture
            continue
        arguments = (_Argument * max(1, len(tests)))(*(_Argument(*test) for test in tests))
        checked(library.seccomp_rule_add_array(context, action, number, len(tests), arguments), f"seccomp rule {name}")
    checked(library.seccomp_load(context), "seccomp_load")
    library.seccomp_release(context)


def checked(result: int, what: str) -> None:
    """Raise the error that libseccomp returned."""
    if result < 0:
        raise OSError(-result, f"{what}: {os.strerror(-result)}")


# -------------------------------------------------------------------------------------------------------------- Landlock

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446  # the same numbers on every architecture
READ_FILE, READ_FOLDER, EXECUTE = 1 << 2, 1 << 3, 1 << 0
# Rights of a file system by version of the interface: 13 at first, then moving files, truncating, and ioctl on devices.
RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}


def refuse_files(libc: ctypes.CDLL, readable: Iterable[str]) -> bool:
    """Leave this process nothing but reading below some folders; False where the kernel has no Landlock."""
    version = libc.syscall(CREATE_RULESET, None, ctypes.c_size_t(0), 1)
    if version < 1:
        return False
    handled = struct.pack("=Q", (1 << RIGHTS[min(version, max(RIGHTS))]) - 1)
    ruleset = libc.syscall(CREATE_RULESET, handled, ctypes.c_size_t(len(handled)), 0)
    if ruleset < 0:
        return False
    for folder in readable:
        try:
            place = os.open(folder, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            continue
        rule = struct.pack("=Qi", READ_FILE | READ_FOLDER | EXECUTE, place)
        libc.syscall(ADD_RULE, ruleset, 1, rule, 0)
        os.close(place)
    done = libc.syscall(RESTRICT_SELF, ruleset, 0) == 0
    os.close(ruleset)
    return bool(done)
