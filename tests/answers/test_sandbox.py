"""What hostile programs come to. Each line of the tables is a program that a model could write, by accident or not."""

import os
import shutil
import socket
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
    PASSED,
    TIMEOUT,
    Limits,
    missing_protection,
    run_program,
    run_programs,
)
from scalequest.errors import UserError
from tests.fakes import ROOT

# Short, so that the programs that never end cost a second each.
SHORT = Limits(cpu_s=1, wall_s=4.0)
ISOLATED = not missing_protection()
needs_namespaces = pytest.mark.skipif(not ISOLATED, reason="this kernel grants no namespaces, and the sandbox says so")

# name, program, the outcomes that it may come to
HOSTILE = [
    ("exit_before_the_asserts", "import sys\nsys.exit(0)\nassert False", {EXITED}),
    ("hard_exit", "import os\nos._exit(0)", {EXITED}),
    ("raised_exit", "raise SystemExit(0)", {EXITED}),
    ("printed_success", "print('passed')\nimport sys\nprint('done', file=sys.stderr)\nassert False", {FAILED}),
    ("success_written_to_every_pipe", "import os\nfor fd in range(64):\n  try: os.write(fd, b'done\\ndone 0\\nisolated\\n')\n  except OSError: pass\nos._exit(0)", {EXITED}),
    ("success_of_a_child", "import os\nif os.fork():\n  os._exit(0)", {EXITED}),
    ("fork_bomb", "import os\nwhile True:\n  try: os.fork()\n  except OSError: pass", {TIMEOUT, KILLED}),
    ("fork_bomb_that_fails", "import os\nwhile True: os.fork()", {FAILED, TIMEOUT}),
    ("threads", "import threading, time\nwhile True: threading.Thread(target=time.sleep, args=(99,)).start()", {FAILED, KILLED}),
    ("endless_output", "while True: print('x' * 10_000)", {TIMEOUT}),
    ("endless_verdicts", "import os\nwhile True:\n  for fd in range(3, 20):\n    try: os.write(fd, b'x' * 999)\n    except OSError: pass", {TIMEOUT, KILLED}),
    ("memory", "x = []\nwhile True: x.append(bytearray(10_000_000))", {FAILED, KILLED}),
    ("big_number", "x = 9 ** 9 ** 9", {TIMEOUT, FAILED, KILLED}),
    ("stack", "import sys\nsys.setrecursionlimit(10**9)\ndef f(): f()\nf()", {FAILED, KILLED, TIMEOUT}),
    ("disk", "f = open('x', 'wb')\nwhile True: f.write(bytes(1_000_000))", {FAILED, KILLED}),
    ("endless_loop", "while True: pass", {TIMEOUT}),
    ("loop_that_hears_no_signal", "import signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True: pass", {KILLED, TIMEOUT}),
    ("sleep", "import time\ntime.sleep(999)", {TIMEOUT}),
    ("stop", "import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)", {TIMEOUT}),
    ("suicide", "import os\nos.kill(os.getpid(), 9)", {KILLED}),
    ("input", "input()", {FAILED}),
    ("no_python", "def f(:", {FAILED}),
    ("zero_byte", "x = '\0'", {FAILED}),
    ("deep_nesting", "(" * 5_000 + ")" * 5_000, {FAILED, KILLED}),
    ("root_again", "import os\nos.setuid(0)\nassert os.getuid() != 0 or os.stat('/').st_uid != 0", {FAILED}),
    ("a_thread_left_behind", "import threading, time\nthreading.Thread(target=time.sleep, args=(99,)).start()", {PASSED}),
]  # fmt: skip

# What only namespaces keep a program from.
OUTSIDE = [
    ("kill_the_parent", "import os\nos.kill(os.getppid(), 9)", {FAILED, KILLED, PASSED}),
    ("kill_my_group", "import os\nos.kill(0, 9)", {KILLED}),
    ("kill_everybody", "import os\nos.kill(-1, 9)", {FAILED, KILLED}),
    ("kill_by_number", "import os\nfor pid in range(1, 70_000):\n  try: os.kill(pid, 9)\n  except OSError: pass", {KILLED}),
    ("socket", "import socket\nsocket.create_connection(('1.1.1.1', 53), 2)", {FAILED}),
    ("name_lookup", "import socket\nsocket.getaddrinfo('example.com', 80)", {FAILED}),
    ("write_etc", "open('/etc/x', 'w').write('x')", {FAILED}),
    ("write_tmp", "open('/tmp/x', 'w').write('x')", {FAILED}),
    ("write_python", "import os\nopen(os.__file__, 'a').write('#')", {FAILED}),
    ("remove_python", "import os\nos.remove(os.__file__)", {FAILED}),
    ("read_passwords", "open('/etc/passwd').read()", {FAILED}),
    ("read_the_parents_environment", "open('/proc/1/environ').read()", {FAILED}),
    ("many_files", "i = 0\nwhile True:\n  open(str(i), 'w').close()\n  i += 1", {FAILED}),
    ("new_namespace", "import ctypes\nassert ctypes.CDLL(None).unshare(0x10000000 | 0x20000) == 0\n"
                      "assert ctypes.CDLL(None).mount(b'none', b'/', b'tmpfs', 0, None) == 0", {FAILED}),
]  # fmt: skip


@pytest.mark.parametrize(("program", "outcomes"), [pytest.param(p, o, id=name) for name, p, o in HOSTILE])
def test_a_hostile_program_ends_with_a_verdict(program: str, outcomes: set[str]):
    started = time.monotonic()
    assert run_program(program, SHORT).outcome in outcomes
    assert time.monotonic() - started < SHORT.wall_s + 3


@needs_namespaces
@pytest.mark.parametrize(("program", "outcomes"), [pytest.param(p, o, id=name) for name, p, o in OUTSIDE])
def test_a_program_reaches_nothing_outside(program: str, outcomes: set[str]):
    assert run_program(program, SHORT).outcome in outcomes


@needs_namespaces
def test_a_local_server_is_not_reached():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        verdict = run_program(f"import socket\nsocket.create_connection(('127.0.0.1', {port}), 2)", SHORT)
    assert verdict.outcome == FAILED


def test_nothing_of_a_program_is_left_running():
    # Its own session, its own name, a parent that has gone: still killed with the rest.
    marker = f"left-behind-{os.getpid()}"
    program = f"""
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        import ctypes
        ctypes.CDLL(None).prctl(15, b"{marker[:15]}", 0, 0, 0)
        time.sleep(99)
    os._exit(0)
time.sleep(0.5)
"""
    assert run_program(program, Limits(cpu_s=1, wall_s=8.0)).outcome == PASSED
    time.sleep(0.2)
    assert not [p for p in psutil.process_iter(["name"]) if p.info["name"] == marker[:15]]


@pytest.mark.parametrize(
    "program",
    [
        pytest.param("import os\nassert dict(os.environ) == {}", id="no_environment"),
        pytest.param("import os\nassert os.listdir('.') == []", id="an_empty_folder"),
        pytest.param("open('x', 'w').write('x')\nassert open('x').read() == 'x'", id="to_write_in"),
        pytest.param("import os\nassert os.getuid() != 0", id="not_as_root"),
        pytest.param("import math, re, json, heapq, collections, itertools, decimal, datetime, hashlib, typing", id="the_standard_library"),
        pytest.param("import sys\nassert not [p for p in sys.path if 'site-packages' in p]", id="no_installed_packages"),
        pytest.param("if __name__ == '__main__': assert False", id="a_demonstration_is_not_run"),
        pytest.param("assert {'a', 'b', 'c', 'd'} and hash('a') == hash('a')", id="sets"),
    ],
)  # fmt: skip
def test_what_a_program_finds(program: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SECRET", "token")
    assert run_program(program, SHORT).outcome == PASSED


def test_a_random_program_gets_the_same_verdict_each_time():
    # Random numbers and the order of a set of strings are fixed, so what a program says of itself is, too.
    program = "import random\nraise ValueError(str([random.random(), list({'a', 'b', 'c', 'd', 'e', 'f'})]))"
    assert len({run_program(program, SHORT).detail for _ in range(4)}) == 1


def test_what_was_raised_is_told_in_short():
    assert run_program("assert 1 == 2, 'one is not two'").detail == "AssertionError: one is not two"
    assert len(run_program("raise ValueError('x' * 10_000)").detail) <= 300


def test_verdicts_come_in_order():
    outcomes = [v.outcome for v in run_programs(["pass", "1 / 0", "import os\nos._exit(0)", "pass"])]
    assert outcomes == [PASSED, FAILED, EXITED, PASSED]


def test_a_sandbox_that_cannot_be_built_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    child = tmp_path / "child.py"
    child.write_text("import sys\nsys.exit(3)\n")
    monkeypatch.setattr(sandbox, "PYTHON", (sys.executable, str(child)))
    with pytest.raises(UserError, match="the sandbox could not be built"):
        run_program("pass")


# ------------------------------------------------------------------------------------------- a kernel without namespaces


@pytest.fixture
def without_namespaces(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """The sandbox as it is where the kernel refuses: in many containers."""
    child = tmp_path / "child.py"
    child.write_text(
        f"import sys\nsys.path.insert(0, {str(ROOT / 'scalequest' / 'answers')!r})\nimport sandbox_child\n"
        "sandbox_child.leave_the_machine = lambda: False\nsandbox_child.main()\n"
    )
    python = "/usr/bin/python3.11" if os.getuid() == 0 else sys.executable  # root's own may be closed to others
    if not Path(python).exists():
        pytest.skip("as root this needs a Python that every user can run")
    monkeypatch.setattr(sandbox, "PYTHON", (python, "-S", "-s", "-P", "-B", str(child)))
    missing_protection.cache_clear()
    yield
    missing_protection.cache_clear()


def test_what_is_missing_is_told(without_namespaces, caplog: pytest.LogCaptureFixture):
    sandbox._warn.cache_clear()
    with caplog.at_level("WARNING", logger="scalequest"):
        assert [v.outcome for v in run_programs(["pass", "1 / 0"])] == [PASSED, FAILED]
    assert "not kept from the network" in caplog.text


@pytest.mark.parametrize(
    ("program", "outcomes"),
    [pytest.param(p, o, id=name) for name, p, o in HOSTILE if name not in ("fork_bomb", "stop", "endless_verdicts")],
)
def test_limits_and_verdicts_hold_without_namespaces(without_namespaces, program: str, outcomes: set[str]):
    verdict = run_program(program, SHORT)
    assert not verdict.isolated or verdict.outcome == TIMEOUT
    assert verdict.outcome in outcomes


@pytest.mark.skipif(os.getuid() != 0, reason="needs root, to become a user without rights")
def test_an_ordinary_user_has_the_same_walls():
    python = "/usr/bin/python3.11"
    if not (shutil.which("setpriv") and Path(python).exists()):
        pytest.skip("no setpriv or no Python that every user can run")
    code = (
        "from scalequest.answers.sandbox import run_program\n"
        "for p in ('pass', 'import socket; socket.create_connection((\"127.0.0.1\", 22), 1)', 'open(\"/etc/passwd\")',"
        " 'import os\\nwhile True: os.fork()'):\n"
        "    v = run_program(p)\n    print(v.outcome, v.isolated)\n"
    )
    command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", python, "-c", code]
    result = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, env={"PYTHONPATH": str(ROOT)}
    )
    if "Permission denied" in result.stderr or "No module named" in result.stderr:
        pytest.skip("the checkout is not readable for other users")
    assert result.stdout.splitlines()[0].startswith(PASSED), result.stderr
    if result.stdout.splitlines()[0] == f"{PASSED} True":
        assert result.stdout.split("\n")[1:4] == [f"{FAILED} True"] * 3
