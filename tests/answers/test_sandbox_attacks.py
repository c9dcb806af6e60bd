"""What hostile programs come to, with and without namespaces. Each line of the tables is a program that a model could write."""

import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from scalequest.answers import sandbox
from scalequest.answers.sandbox import (
    EXITED,
    FAILED,
    KILLED,
    NAMESPACES,
    PASSED,
    TIMEOUT,
    Program,
    run_program,
    run_programs,
)
from scalequest.answers.sandbox_child import FIRST_USER
from tests.answers.sandbox_modes import SHORT, isolations
from tests.fakes import ROOT

# ------------------------------------------------------------------------------------------------ a pass that is not earned

WRONG = "def f(x): return 0\n"
ASSERT = "assert f(3) == 9"
# name, solution that does not compute 9, the outcomes that it may come to
FORGED = [
    ("exit_before_the_tests", WRONG + "import sys\nsys.exit(0)", {EXITED}),
    ("hard_exit", WRONG + "import os\nos._exit(0)", {EXITED}),
    ("raised_exit", WRONG + "raise SystemExit(0)", {EXITED}),
    ("exit_in_a_call", "def f(x):\n  import os\n  os._exit(0)", {EXITED}),
    ("exit_raised_in_a_call", "def f(x): raise SystemExit(0)", {EXITED}),
    ("exit_at_exit", WRONG + "import atexit, os\natexit.register(os._exit, 0)\nraise SystemExit", {EXITED}),
    ("patched_exit", WRONG + "import os\nos._exit = lambda code: None\nraise SystemExit", {EXITED}),
    ("killed_by_itself", WRONG + "import os\nos.kill(os.getpid(), 9)", {KILLED}),
    ("equal_to_everything", "class E:\n  __eq__ = lambda s, o: True\n  __ne__ = lambda s, o: False\n  __hash__ = lambda s: 1\nf = lambda x: E()", {FAILED}),
    ("number_equal_to_everything", "class E(int):\n  __eq__ = lambda s, o: True\n  __hash__ = int.__hash__\nf = lambda x: E(0)", {FAILED}),
    ("list_equal_to_everything", "class E(list):\n  __eq__ = lambda s, o: True\nf = lambda x: E()", {FAILED}),
    ("object_that_claims_a_class", "class E:\n  __class__ = int\n  __eq__ = lambda s, o: True\nf = lambda x: E()", {FAILED}),
    ("frames_of_the_caller",
     "import sys, os\nframe = sys._getframe()\nwhile frame:\n  for v in list(frame.f_locals.values()):\n    for fd in range(64):\n      try: os.write(fd, b'passed')\n"
     "      except OSError: pass\n  frame = frame.f_back\nos._exit(0)\n", {EXITED, FAILED}),
    ("search_of_the_memory",
     "import gc, sys\nfound = [o for o in gc.get_objects() if isinstance(o, dict) and any('== 9' in str(v)[:200] for v in list(o.values()) if isinstance(v, str)"
     " and 'def f' not in v)]\nf = lambda x: 9 if found else 0", {FAILED}),
    ("tests_in_the_files", "import os\nfound = b''\nfor fd in range(64):\n  try:\n    os.lseek(fd, 0, 0); found += os.read(fd, 10_000)\n  except OSError: pass\n"
     "f = lambda x: 9 if b'assert' in found else 0", {FAILED}),
    ("assertion_error", "import builtins\nbuiltins.AssertionError = type('A', (Exception,), {})\nclass AssertionError(Exception): pass\n" + WRONG, {FAILED}),
    ("builtins_and_modules", "import builtins, sys, types\nbuiltins.abs = builtins.all = lambda *a: True\nsys.modules['math'] = types.ModuleType('math')\n" + WRONG, {FAILED}),
    ("a_trace_function", "import sys\nsys.settrace(lambda *a: None)\nsys.setprofile(lambda *a: None)\n" + WRONG, {FAILED}),
    ("verdicts_on_every_pipe", WRONG + "import os\nfor fd in range(64):\n  try: os.write(fd, b'passed\\n{\"outcome\": \"passed\"}\\n')\n  except OSError: pass\nos._exit(0)", {EXITED, FAILED}),
    ("set_up_error_on_every_pipe", "import os\nfor fd in range(3, 64):\n  try: os.write(fd, b'broken x\\n{\"broken\": \"x\"}\\n')\n  except OSError: pass\n" + WRONG, {EXITED, FAILED}),
    ("no_json", WRONG + "import os\nos.write(3, bytes(4) + (5).to_bytes(4, 'big') + b'[[[[[')", {EXITED, FAILED}),
    ("deep_json", WRONG + "import os\nos.write(3, (60_000).to_bytes(4, 'big') + b'[' * 60_000)", {EXITED, FAILED}),
    ("endless_message", WRONG + "import os\nos.write(3, b'\\xff' * 8)", {EXITED, FAILED}),
    ("messages_without_end", WRONG + "import os\nwhile True: os.write(3, b'\\0\\0\\0\\2[]')", {EXITED, FAILED, TIMEOUT, KILLED}),
    ("answer_before_the_question", WRONG + "import os\nfor m in (b'[\"ready\"]', b'[\"ok\",[],true]', b'[\"ok\",[],[\"f\"]]'):\n  os.write(3, len(m).to_bytes(4, 'big') + m)", {EXITED, FAILED}),
    ("a_builtin_for_a_value", "import os\nm = b'[\"ok\",[],[\"builtin\",\"exec\"]]'\ndef f(x): os.write(3, len(m).to_bytes(4, 'big') + m)", {EXITED, FAILED}),
    ("the_connection_closed", WRONG + "import os\nos.close(3)", {EXITED, FAILED}),
    ("iterator_without_end", "import itertools\ndef f(x): return itertools.count()", {FAILED}),
]  # fmt: skip


@pytest.mark.parametrize(("solution", "outcomes"), [pytest.param(s, o, id=name) for name, s, o in FORGED])
def test_a_pass_cannot_be_forged(mode: str, solution: str, outcomes: set[str]):
    verdict = run_program(Program(solution, tests=ASSERT), SHORT)
    assert verdict.outcome in outcomes, verdict
    assert verdict.separated
    assert verdict.isolation in isolations(mode)


@pytest.mark.parametrize(
    ("solution", "tests"),
    [
        pytest.param("def f(g): return g.__globals__", "def g(): pass\nassert f(g)", id="globals_of_a_function"),
        pytest.param("def f(g): return 'SECRET' in g.gi_frame.f_globals", "SECRET = 1\nassert f(x for x in [1])", id="frame_of_a_generator"),
        pytest.param("def f(g): return g.func_globals", "assert f(lambda: 1)", id="attribute_of_a_function"),
        pytest.param("f = lambda x: E()\nclass E:\n  __sub__ = __rsub__ = __abs__ = lambda *a: 0", "assert abs(f(3) - 9) < 1", id="arithmetic_with_the_expected_value"),
        pytest.param("f = lambda x: E()\nclass E:\n  __lt__ = __gt__ = __contains__ = lambda *a: True", "assert f(3) > 8", id="comparison_with_the_expected_value"),
        pytest.param("f = lambda x: E()\nclass E:\n  __contains__ = lambda *a: True\n  __len__ = lambda s: 0\n  __iter__ = lambda s: iter([])", "assert 9 in f(3)", id="membership"),
    ],
)  # fmt: skip
def test_the_tests_give_nothing_away(mode: str, solution: str, tests: str):
    assert run_program(Program(solution, tests=tests), SHORT).outcome == FAILED


def test_a_class_of_the_setup_keeps_its_methods(mode: str):
    setup = (
        "class Tree:\n    def __init__(self, value): self.value = value\n    def is_right(self): return self.value == 9"
    )
    solution = "def f(x):\n    t = Tree(0)\n    t.is_right = lambda: True\n    return t"
    assert run_program(Program(solution, setup, "assert f(3).is_right()"), SHORT).outcome == FAILED
    assert run_program(Program("f = lambda x: Tree(9)", setup, "assert f(3).is_right()"), SHORT).outcome == PASSED


# ------------------------------------------------------------------------------------------------------ the machine

LINUX_64 = platform.machine() == "x86_64"
CALL = "import ctypes, os\nlibc = ctypes.CDLL(None, use_errno=True)\nresult = libc.syscall({})\nassert result >= 0, os.strerror(ctypes.get_errno())"
# System calls by their number on x86-64.
CALLS = {
    "fork": "57", "vfork_as_clone": "56, 0x4111, 0, 0, 0, 0", "clone3": "435, bytes(64), 64", "execve": "59, b'/bin/sh', None, None", "execveat": "322, -100, b'/bin/sh', None, None, 0",
    "io_uring_setup": "425, 8, bytes(120)", "userfaultfd": "323, 1", "bpf": "321, 0, bytes(64), 64", "perf_event_open": "298, bytes(112), 0, -1, -1, 0",
    "ptrace": "101, 0, 0, 0, 0", "process_vm_readv": "310, os.getppid(), None, 0, None, 0, 0", "pidfd_open": "434, os.getpid(), 0", "kcmp": "312, 1, 1, 0, 0, 0",
    "keyctl": "250, 0, -3, 1", "add_key": "248, b'user', b'x', b'y', 1, -2", "request_key": "249, b'user', b'x', None, 0",
    "memfd_create": "319, b'x', 0", "memfd_secret": "447, 0", "shmget": "29, 0, 4096, 0o1777", "semget": "64, 0, 1, 0o1777", "msgget": "68, 0, 0o1777", "mq_open": "240, b'x', 0o102, 0o600, None",
    "unshare": "272, 0x10000000", "setns": "308, 0, 0", "mount": "165, b'x', b'/', b'tmpfs', 0, None", "pivot_root": "155, b'.', b'.'", "chroot": "161, b'/'", "open_tree": "428, -100, b'/', 1",
    "kexec_load": "246, 0, 0, None, 0", "init_module": "175, b'', 0, b''", "reboot": "169, 0, 0, 0, None", "open_by_handle_at": "304, -100, bytes(32), 0",
    "inotify_init": "253", "fanotify_init": "300, 0, 0", "personality": "135, 0x40000", "setuid": "105, 0", "setsid": "112", "setpgid": "109, 0, 0",
    "sched_setaffinity": "203, 0, 8, b'\\x01' + bytes(7)", "setpriority": "141, 0, 0, 19", "stop_the_death_signal": "157, 1, 0, 0, 0, 0", "dumpable_again": "157, 4, 1, 0, 0, 0",
    "tkill": "200, os.getppid(), 0", "rt_sigqueueinfo": "129, os.getppid(), 9, bytes(128)", "signals_by_a_file": "72, 0, 8, os.getppid()", "raise_a_limit": "302, 0, 7, (ctypes.c_ulong * 2)(64, 64), None",
    "old_interface": "0x40000000 + 39",
    "tcp": "41, 2, 1, 0", "unix": "41, 1, 1, 0", "netlink": "41, 16, 3, 0", "vsock": "41, 40, 1, 0", "packet": "41, 17, 3, 0", "kernel_crypto": "41, 38, 5, 0",
}  # fmt: skip


@pytest.mark.skipif(not LINUX_64, reason="the numbers are those of x86-64")
@pytest.mark.parametrize("arguments", [pytest.param(value, id=name) for name, value in CALLS.items()])
def test_a_system_call_that_computing_does_not_need_is_refused(mode: str, arguments: str):
    verdict = run_program(CALL.format(arguments), SHORT)
    assert verdict.outcome in (FAILED, KILLED), verdict
    assert verdict.isolation in isolations(mode)


# name, program, outcomes with namespaces, and without if they differ
HOSTILE = [
    ("fork_bomb", "import os\nwhile True:\n  try: os.fork()\n  except OSError: pass", {TIMEOUT, KILLED}),
    ("child_in_a_session_of_its_own", "import os, time\nif os.fork() == 0:\n  os.setsid()\n  time.sleep(99)", {FAILED}),
    ("a_command", "import subprocess\nsubprocess.run(['/bin/sh', '-c', 'true'], check=True)", {FAILED}),
    ("threads", "import threading, time\nwhile True: threading.Thread(target=time.sleep, args=(99,)).start()", {FAILED, KILLED, TIMEOUT}),
    ("endless_output", "while True: print('x' * 10_000)", {TIMEOUT}),
    ("memory", "x = []\nwhile True: x.append(bytearray(10_000_000))", {FAILED, KILLED, TIMEOUT}),
    ("shared_memory", "import mmap\nx = []\nwhile True:\n  x.append(mmap.mmap(-1, 100_000_000)); x[-1][::4096] = bytes(len(x[-1][::4096]))", {FAILED, KILLED, TIMEOUT}),
    ("big_number", "x = 9 ** 9 ** 9", {TIMEOUT, FAILED, KILLED}),
    ("stack", "import sys\nsys.setrecursionlimit(10**9)\ndef f(): f()\nf()", {FAILED, KILLED, TIMEOUT}),
    ("endless_loop", "while True: pass", {TIMEOUT}),
    ("endless_loop_in_a_call", Program("def f(x):\n  while True: pass", tests=ASSERT), {TIMEOUT}),
    ("loop_that_hears_no_signal", "import signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True: pass", {KILLED, TIMEOUT}),
    ("sleep", "import time\ntime.sleep(999)", {TIMEOUT}),
    ("sleep_without_a_connection", "import os, time\nos.close(3)\ntime.sleep(999)", {EXITED}),
    ("stop", "import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)", {TIMEOUT}),
    ("input", "input()", {FAILED}),
    ("no_python", "def f(:", {FAILED}),
    ("zero_byte", "x = '\0'", {FAILED}),
    ("surrogate", "x = '\ud800'", {FAILED}),
    ("deep_nesting", "(" * 5_000 + ")" * 5_000, {FAILED, KILLED, TIMEOUT}),
    ("a_thread_left_behind", "import threading, time\nthreading.Thread(target=time.sleep, args=(99,)).start()", {PASSED}),
    ("kill_the_parent", "import os\nos.kill(os.getppid(), 9)", {FAILED}),
    ("kill_my_group", "import os\nos.kill(0, 9)", {FAILED}),
    ("kill_everybody", "import os\nos.kill(-1, 9)", {FAILED}),
    ("socket", "import socket\nsocket.create_connection(('1.1.1.1', 53), 2)", {FAILED}),
    ("name_lookup", "import socket\nsocket.getaddrinfo('example.com', 80)", {FAILED}),
    ("disk", "f = open('x', 'wb')\nwhile True: f.write(bytes(1_000_000))", {FAILED, KILLED, TIMEOUT}),
    ("disk_in_many_files", "for i in range(20): open(str(i), 'wb').write(bytes(15 << 20))", {FAILED, KILLED, TIMEOUT}),
    ("many_files", "i = 0\nwhile True:\n  open(str(i), 'w').close()\n  i += 1", {FAILED}),
    ("deep_folder", "import os\nfor i in range(3000): os.mkdir('d'); os.chdir('d')", {FAILED}),
    ("write_etc", "open('/etc/x', 'w').write('x')", {FAILED}),
    ("write_tmp", "open('/tmp/x', 'w').write('x')", {FAILED}),
    ("write_python", "import os\nopen(os.__file__, 'a').write('#')", {FAILED}),
    ("remove_python", "import os\nos.remove(os.__file__)", {FAILED}),
    ("read_passwords", "open('/etc/passwd').read()", {FAILED}),
    ("read_by_a_link", "import os\nos.symlink('/etc/passwd', 'x')\nopen('x').read()", {FAILED}),
    ("read_above_the_root", "open('/box/' + '../' * 50 + 'etc/passwd').read()", {FAILED}),
    ("read_an_environment", "open('/proc/1/environ').read()", {FAILED}),
    ("read_a_memory", "import os\nopen(f'/proc/{os.getppid()}/mem', 'rb').read(1)", {FAILED}),
    ("read_a_device", "open('/dev/mem', 'rb').read(1)", {FAILED}),
]  # fmt: skip


@pytest.fixture
def keepers(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of the first processes of the sandboxes that a test has started."""
    numbers: list[int] = []
    end = sandbox._end

    def noted(keeper: "subprocess.Popen[bytes]", isolated: bool) -> None:
        numbers.append(keeper.pid)
        end(keeper, isolated)

    monkeypatch.setattr(sandbox, "_end", noted)
    return numbers


def left_running(keepers: list[int]) -> list[psutil.Process]:
    """Processes of these sandboxes that are still there some time after they have ended, by their user."""
    users = {FIRST_USER + 2 * pid + more for pid in keepers for more in (0, 1)}
    for _ in range(50):
        found = [
            p for p in psutil.process_iter(["uids", "status"])
            if p.info["uids"] and p.info["uids"].real in users and p.info["status"] != psutil.STATUS_ZOMBIE
        ]  # fmt: skip
        if not found:
            break
        time.sleep(0.1)
    return found


@pytest.mark.parametrize(("program", "outcomes"), [pytest.param(p, o, id=name) for name, p, o in HOSTILE])
def test_a_hostile_program_ends_with_a_verdict(
    mode: str, keepers: list[int], program: str | Program, outcomes: set[str]
):
    started = time.monotonic()
    verdict = run_program(program, SHORT)
    assert verdict.outcome in outcomes, verdict
    assert verdict.isolation in isolations(mode)  # of a timeout, too
    assert time.monotonic() - started < SHORT.wall_s + 20  # a busy machine may be slow to start it
    assert keepers
    assert not left_running(keepers)


def test_the_key_ring_of_the_caller_is_not_seen(mode: str):
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if not LINUX_64 or libc.syscall(248, b"user", b"scalequest-test", b"SECRET", 6, -3) < 0:
        pytest.skip("this kernel has no key rings")
    search = "import ctypes\nassert ctypes.CDLL(None).syscall(250, 10, -3, b'user', b'scalequest-test', 0) >= 0"
    assert run_program(search, SHORT).outcome == FAILED


def test_a_token_of_the_caller_is_in_no_file_and_no_environment(
    mode: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setenv("HF_TOKEN", "SECRET-hf")
    (tmp_path / "token").write_text("SECRET-hf")
    program = f"""
import os
seen = str(dict(os.environ))
for name in ("/proc/self/environ", "/proc/{os.getpid()}/environ", {str(tmp_path / "token")!r}):
    try: seen += open(name).read()
    except OSError: pass
assert "SECRET" not in seen, seen
"""
    verdict = run_program(program, SHORT)
    assert verdict.outcome == PASSED, verdict
    if mode == NAMESPACES or verdict.isolation == "landlock":
        assert run_program(f"open({str(tmp_path / 'token')!r}).read()", SHORT).outcome == FAILED


def test_one_hostile_program_costs_its_own_row_alone(mode: str):
    noise = "import os\nfor fd in range(3, 64):\n  try: os.write(fd, b'broken x\\n')\n  except OSError: pass"
    outcomes = [
        v.outcome for v in run_programs(["pass", noise, "import os\nos.closerange(0, 99)", "1 / 0", "pass"], SHORT)
    ]
    assert outcomes[0] == outcomes[4] == PASSED
    assert outcomes[3] == FAILED


# In a process of its own: the kernel's peak of all children would be that of whatever this one started before.
BATCH = """
import resource
from pathlib import Path
from scalequest.answers.sandbox import Limits, consent, run_programs
consent("open")
open_files = lambda: len(list(Path("/proc/self/fd").iterdir()))
before = open_files()
run_programs(["pass", "1 / 0", "x = bytearray(200 << 20)", "while True: pass"], Limits(cpu_s=1, wall_s=4.0))
print(open_files() - before, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss >> 10)
"""


def test_all_programs_of_a_batch_together_leave_no_file_and_no_open_pipe():
    result = subprocess.run(
        [sys.executable, "-c", BATCH],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(ROOT)},
    )
    left, peak_mib = map(int, result.stdout.split())
    assert left == 0
    assert 200 < peak_mib < 700  # the limit is 512


def test_a_callers_umask_closes_no_folder_of_the_sandbox(mode: str):
    before = os.umask(0o077)
    try:
        assert run_program("import json", SHORT).outcome == PASSED
    finally:
        os.umask(before)
