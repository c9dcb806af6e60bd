"""How programs are run, what the tests see of a solution, and what a kernel without namespaces comes to."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from scalequest.answers import sandbox
from scalequest.answers.sandbox import (
    EXITED,
    FAILED,
    LANDLOCK,
    LIMITS,
    NAMESPACES,
    PASSED,
    TIMEOUT,
    Program,
    Verdict,
    missing_protection,
    run_program,
    run_programs,
)
from scalequest.errors import UserError
from tests.answers.sandbox_modes import SHORT, refuse_namespaces
from tests.fakes import ROOT


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


def test_a_sandbox_that_cannot_be_built_is_an_error(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sandbox, "PYTHON", (sys.executable, "-c", "import sys; sys.exit(3)"))
    with pytest.raises(UserError, match="the sandbox could not be built"):
        run_program("pass")


def test_without_the_library_for_its_filter_nothing_runs(monkeypatch: pytest.MonkeyPatch):
    start = sandbox.START.replace(
        "del sys.path[0]", "import scalequest.answers.sandbox_filter as f; f.LIBRARY = 'libnone.so'; del sys.path[0]"
    )
    monkeypatch.setattr(sandbox, "PYTHON", (sys.executable, *sandbox.PYTHON[1:-2], start, sandbox.PYTHON[-1]))
    with pytest.raises(UserError, match=r"libnone\.so is not installed"):
        run_program("pass")


# ------------------------------------------------------------------------------------------------- values that cross

VALUES = [
    "None", "True", "-1", "2**64", "-10**5000", "0.1", "-0.0", "float('inf')", "1+2j", "'text'", "'\\ud800'", "b'bytes'", "bytearray(b'x')", "(1, 2)", "[]",
    "[1, [2.0, (3, {'a': {4}})]]", "{1: 'a', (2, 3): None}", "{1, 2}", "frozenset({1})", "range(2, 9, 3)", "slice(1, 2)", "...", "int",
    "__import__('collections').Counter('aab')", "__import__('collections').OrderedDict(b=1, a=2)", "__import__('collections').defaultdict(list, {1: [2]})",
    "__import__('collections').deque([1, 2], 3)", "__import__('decimal').Decimal('0.10')", "__import__('fractions').Fraction(1, 3)",
    "__import__('datetime').date(2024, 2, 29)", "__import__('datetime').datetime(2024, 1, 2, 3, 4, 5)", "__import__('datetime').timedelta(1, 2, 3)",
]  # fmt: skip


def test_plain_values_cross_in_both_directions_with_their_types():
    tests = "\n".join(
        f"assert same(made({at}), {v}) and type(made({at})) is type({v}) and f({v}) == {v}, {v!r}"
        for at, v in enumerate(VALUES)
    )
    setup = "import sys\nsys.set_int_max_str_digits(0)\ndef same(x, y): return repr(x) == repr(y)"
    solution = f"MADE = [{', '.join(VALUES)}]\ndef made(at): return MADE[at]\ndef f(x): return x"
    assert run_program(Program(solution, setup, tests)) == Verdict(PASSED)


NODE = "class Node:\n    def __init__(self, value, next=None):\n        self.value, self.next = value, next\n"
CROSSING = [
    ("argument_changed_in_place", "def f(x): x.append(x.pop(0))", "", "a = [1, [2]]\nb = a\nassert f(a) is None\nassert b == [[2], 1]"),
    ("inner_argument_changed", "def f(x): x['k'].add(3)", "", "a = {'k': {1}}\nf(a)\nassert a == {'k': {1, 3}}"),
    ("an_argument_comes_back_as_itself", "def f(x): return [x, x]", "", "a = [1]\nassert f(a)[0] is a and f(a)[1] is a"),
    ("a_list_that_holds_itself", "def f():\n    x = [1]\n    x.append(x)\n    return x", "", "x = f()\nassert x[0] == 1 and x[1] is x"),
    ("generator", "def f(n):\n    yield from range(n)", "", "assert list(f(3)) == [0, 1, 2] and next(f(1)) == 0 and sum(f(4)) == 6"),
    ("iterators", "def f(x): return map(str, x), zip(x, x)", "", "a, b = f([1])\nassert list(a) == ['1'] and list(b) == [(1, 1)]"),
    ("iterator_as_an_argument", "def f(x): return sum(x)", "", "assert f(iter([1, 2])) == 3 and f(x for x in [3]) == 3"),
    ("function_as_an_argument", "def f(g, x): return [g(y) for y in x]", "", "assert f(lambda x: x * 2, [1, 2]) == [2, 4] and f(str, [1]) == ['1']"),
    ("function_of_a_module", "def f(g): return g(9)", "import math", "assert f(math.sqrt) == 3.0"),
    ("function_as_a_value", "def f(n): return lambda x: x + n", "", "assert f(2)(3) == 5"),
    ("class_of_the_solution", "class Pair:\n    def __init__(self, a, b): self.a, self.b = a, b\n    def total(self): return self.a + self.b\ndef f(p): return max(x.b for x in p)", "",
     "p = Pair(1, b=2)\nassert p.a == 1 and p.total() == 3 and f([p, Pair(0, 7)]) == 7\np.a = 5\nassert p.total() == 7"),
    ("class_of_the_setup", NODE + "def f(n):\n    n.next = Node(7)\n    return n.next", NODE, "n = Node(1)\nm = f(n)\nassert isinstance(m, Node) and m.value == 7 and n.next is m"),
    ("class_of_the_setup_that_is_not_repeated", "def f(n): return Node(n.value + 1, n)", NODE, "n = f(Node(1))\nassert type(n) is Node and n.value == 2 and n.next.value == 1"),
    ("class_of_the_tests", "def f(x): return x.size + x.grow(2)", "", "class X:\n    size = 3\n    def grow(self, n): return n * self.size\nassert f(X()) == 9"),
    ("exception", "def f(x): raise KeyError('k', 1)", "", "try: f(1)\nexcept KeyError as e: assert e.args == ('k', 1)\nelse: assert False"),
    ("exception_of_its_own", "class E(ValueError): pass\ndef f(x): raise E('no')", "", "try: f(1)\nexcept ValueError as e: assert str(e) == 'no'\nelse: assert False"),
    ("exception_with_five_arguments", "def f(x): return x.decode()", "", "try: f(b'\\xff')\nexcept UnicodeDecodeError: pass\nelse: assert False"),
    ("exception_in_a_function_of_the_tests", "def f(g):\n    try: g()\n    except ZeroDivisionError: return 1", "", "assert f(lambda: 1 / 0) == 1"),
    ("coroutine", "async def f(x): return x + 1", "import asyncio", "assert asyncio.run(f(1)) == 2"),
    ("named_tuple", "from collections import namedtuple\nP = namedtuple('P', 'a b')\ndef f(): return P(1, 2)", "", "assert f() == (1, 2)"),
    ("enumeration", "from enum import IntEnum\nclass C(IntEnum):\n    A = 3\ndef f(): return C.A", "", "assert f() == 3"),
    ("match", "import re\ndef f(x): return re.match('a', x)", "", "assert f('ab') and not f('b') and f('a').group() == 'a'"),
    ("constant", "LIMIT = [1, 2]", "", "assert LIMIT == [1, 2]"),
    ("many_calls", "def f(x): return x + 1", "", "assert all(f(x) == x + 1 for x in range(3000))"),
    ("operators_between_its_objects", "class V:\n    def __init__(self, x): self.x = x\n    def __add__(self, o): return V(self.x + o.x)\n    def __lt__(self, o): return self.x < o.x\n"
     "    def __repr__(self): return f'V({self.x})'\n    def __enter__(self): return 5\n    def __exit__(self, *e): pass", "", "assert (V(1) + V(2)).x == 3 and V(1) < V(2) and repr(V(1)) == 'V(1)'\n"
     "with V(1) as x: assert x == 5"),
    ("an_import_of_both", "import random\ndef f(x): return sorted(x)", "", "import random\nx = [random.random() for _ in range(9)]\nassert f(x) == sorted(x)"),
    ("an_import_of_the_tests_alone", "def f(x): return math.sqrt(x)", "", "import math\nassert f(9) == 3.0"),
    ("a_name_of_the_tests", "def check(x): return 1\ndef f(x): return x", "", "def check(g): assert g(1) == 1\ncheck(f)"),
    ("views_of_a_dictionary", "def f(x): return x.keys(), x.items()", "", "a, b = f({1: 2})\nassert a == {1} and b == {(1, 2)}"),
    ("not_a_number", "def f(): return float('nan')", "", "x = f()\nassert x != x"),
    ("helper_of_the_setup", "def poly(xs, x): return 0\ndef f(xs): return -xs[0] / xs[1]", "def poly(xs, x): return xs[0] + xs[1] * x\ndef f(xs):\n    'Find a zero.'",
     "assert abs(poly([1, 2], f([1, 2]))) < 1e-4"),
]  # fmt: skip


@pytest.mark.parametrize(("solution", "setup", "tests"), [pytest.param(a, b, c, id=name) for name, a, b, c in CROSSING])
def test_tests_use_what_the_other_process_made(solution: str, setup: str, tests: str):
    assert run_program(Program(solution, setup, tests)) == Verdict(PASSED)


TOGETHER = [
    ("base_class", "class A: size = 1", "class B(A): pass\nassert B().size == 1"),
    ("except", "class E(Exception): pass\ndef f(): raise E", "try: f()\nexcept E: pass\nelse: assert False"),
    ("printing", "def f(): print('hi')", "import io, contextlib\nout = io.StringIO()\nwith contextlib.redirect_stdout(out): f()\nassert out.getvalue() == 'hi\\n'"),
    ("isinstance", "class A: pass\ndef f(): return A()", "assert isinstance(f(), A)"),
]  # fmt: skip


@pytest.mark.parametrize(("solution", "tests"), [pytest.param(a, b, id=name) for name, a, b in TOGETHER])
def test_tests_that_need_the_solutions_own_classes_are_recorded_as_not_separated(solution: str, tests: str):
    assert run_program(Program(solution, tests=tests)) == Verdict(PASSED, separated=False)
    assert run_program(Program("import os\nos._exit(0)", tests=tests)) == Verdict(EXITED, separated=False)


def test_a_solution_cannot_have_its_tests_run_beside_it():
    # The same solution under tests that need no class of it.
    verdict = run_program(Program("class E(Exception): pass\ndef f(): return 1", tests="assert f() == 1"))
    assert verdict == Verdict(PASSED, separated=True)


# ------------------------------------------------------------------------------------------- a kernel without namespaces


def test_without_namespaces_nothing_runs_unless_it_was_allowed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    refuse_namespaces(monkeypatch)
    mark = tmp_path / "ran"
    with pytest.raises(UserError, match=r"grants no namespaces.*runtime.sandbox: open"):
        run_programs([f"open({str(mark)!r}, 'w')"])
    assert not mark.exists()
    assert missing_protection() == missing_protection(LIMITS) != missing_protection(NAMESPACES) == ()


@pytest.mark.parametrize("landlock", [True, False])
def test_a_verdict_says_how_it_was_isolated(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, landlock: bool
):
    refuse_namespaces(monkeypatch, landlock)
    monkeypatch.setattr(sandbox._Consent, "open", True)
    sandbox._warn.cache_clear()
    programs = ["pass", "1 / 0", "while True: pass", "open('/etc/passwd').read()"]
    with caplog.at_level("WARNING", logger="scalequest"):
        verdicts = run_programs(programs, SHORT)
    if landlock and {v.isolation for v in verdicts} == {LIMITS}:
        pytest.skip("this kernel has no Landlock")
    assert {v.isolation for v in verdicts} == {LANDLOCK if landlock else LIMITS}
    assert not any(v.isolated for v in verdicts)
    assert [v.outcome for v in verdicts] == [PASSED, FAILED, TIMEOUT, FAILED if landlock else PASSED]
    assert ("reading the files" in caplog.text) is not landlock


@pytest.mark.skipif(os.getuid() != 0, reason="needs root, to become a user without rights")
@pytest.mark.parametrize("allowed", ["namespaces", "open"])
def test_an_ordinary_user_has_the_same_walls(allowed: str):
    python = "/usr/bin/python3.11"
    if not (shutil.which("setpriv") and Path(python).exists()):
        pytest.skip("no setpriv or no Python that every user can run")
    code = (
        "from scalequest.answers import sandbox\n"
        f"sandbox.consent({allowed!r})\n"
        + "sandbox.START = sandbox.START.replace('main()', 'c.main()').replace('del', 'import scalequest.answers.sandbox_child as c;"
        " c.leave_the_machine = lambda: False; del')\n"
        * (allowed == "open")
        + "sandbox.PYTHON = (*sandbox.PYTHON[:-2], sandbox.START, sandbox.PYTHON[-1])\n"
        "for p in ('pass', 'import socket; socket.create_connection((\"127.0.0.1\", 22), 1)', 'open(\"/etc/passwd\")',"
        " 'import os\\nwhile True: os.fork()', 'import os; os.kill(os.getppid(), 9)', 'open(\"/tmp/x\", \"w\")'):\n"
        "    v = sandbox.run_program(p)\n    print(v.outcome, v.isolation)\n"
    )
    command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", python, "-c", code]
    environment = {"PYTHONPATH": str(ROOT), "HF_TOKEN": "SECRET"}
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=environment)
    if (
        "Permission denied" in result.stderr
        or "No module named" in result.stderr
        or "grants no namespaces" in result.stderr
    ):
        pytest.skip("the checkout is not readable for other users, or they get no namespaces")
    lines = result.stdout.splitlines()
    assert lines[0] in (f"{PASSED} {NAMESPACES}", f"{PASSED} {LANDLOCK}", f"{PASSED} {LIMITS}"), result.stderr
    if not lines[0].endswith(LIMITS):
        assert {line.split()[0] for line in lines[1:]} == {FAILED}
