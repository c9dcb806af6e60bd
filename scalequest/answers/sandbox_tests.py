"""The two sides of a run in the sandbox: the candidate's process, and the process of the tests.

The tests' process runs the setup and the tests, and asks the candidate's for what the solution
alone defines. What the setup defines (helpers, imports) and Python's built-in names are the tests'
own there, whatever the solution redefines.
"""

import ast
import builtins
import random
import symtable
from collections.abc import Iterable
from typing import Any

from scalequest.answers.sandbox_calls import Channel, OtherSideGone
from scalequest.answers.stubs import DEFINITIONS, stubs_of

# First words of the report of the tests' process.
PASSED, FAILED, EXITED, GONE = "passed", "failed", "exited", "gone"
DETAIL_BYTES = 300
# Tests that replace or read the streams of the process, or parts of modules.
PROCESS_WIDE = {"stdout", "stderr", "stdin", "redirect_stdout", "redirect_stderr", "patch", "monkeypatch", "capsys"}


class SolutionError(Exception):
    """The solution raised while it was defined."""


def described(error: BaseException) -> str:
    """Type and text of an exception, cut to DETAIL_BYTES."""
    name = error.__dict__.get("said", type(error).__name__)
    text = str(error) if isinstance(error, SolutionError) else f"{name}: {error}"
    return text.encode(errors="replace")[:DETAIL_BYTES].decode(errors="ignore")


def run_setup(setup: str) -> dict[str, Any]:
    """The namespace after the setup. Its name is not ``__main__``: a demonstration at the end of a solution is not to run."""
    random.seed(0)  # a program that draws at random gets the same verdict each time
    namespace: dict[str, Any] = {"__name__": "program"}
    exec(compile(setup, "setup.py", "exec", dont_inherit=True), namespace)
    return namespace


# ------------------------------------------------------------------------------------------------------------- candidate


def serve_candidate(channel: Channel, setup: str, solution: str) -> None:
    """Define the solution, then do what the tests ask."""
    try:
        channel.namespace |= run_setup(setup)
        channel.given = dict(channel.namespace)
        exec(compile(solution, "program.py", "exec", dont_inherit=True), channel.namespace)
    except SystemExit:
        return
    except BaseException as error:
        channel.send(["raised", described(error)])
        return
    channel.send(["ready"])
    channel.serve()


def run_together(setup: str, solution: str, tests: str) -> str:
    """Run setup, solution and tests in one process, for tests that need the candidate's own classes; the report."""
    try:
        given = run_setup(setup)
        untouched = dict(vars(builtins))
        namespace = dict(given)
        exec(compile(solution, "program.py", "exec", dont_inherit=True), namespace)
        vars(builtins).update(untouched)
        defined = {name for name, value in namespace.items() if given.get(name, given) is not value}
        tree = ast.parse(tests)
        given |= {name: namespace[name] for name in wanted_names(tree, tests, setup, given, defined)}
        exec(compile(tree, "tests.py", "exec", dont_inherit=True), given)
    except SystemExit:
        return EXITED
    except BaseException as error:
        return f"{FAILED} {described(error)}"
    return PASSED


# ----------------------------------------------------------------------------------------------------------------- tests


def run_tests(channel: Channel, setup: str, solution: str, tests: str) -> str:
    """Run the tests against the candidate; the report. A solution without tests passes if it runs to its end."""
    try:
        namespace = run_setup(setup) if tests.strip() else {}
        channel.given = dict(namespace)
        first = channel.receive()
        if first != ["ready"]:
            raise SolutionError(str(first[1]) if isinstance(first, list) and first[:1] == ["raised"] else "no answer")
        if tests.strip():
            _run_statements(channel, namespace, setup, solution, tests)
    except OtherSideGone:
        return GONE
    except SystemExit:
        return EXITED
    except BaseException as error:
        return f"{FAILED} {described(error)}"
    return PASSED


def _run_statements(channel: Channel, namespace: dict[str, Any], setup: str, solution: str, tests: str) -> None:
    tree = ast.parse(tests)
    defined = set(channel.ask("defined", global_names(tests)))
    for name in wanted_names(tree, tests, setup, channel.given, defined):
        namespace[name] = channel.ask("name", name)
    # A solution may use what the tests define, such as a root that they build.
    lent = (global_names(solution) & names_bound(tree.body)) - set(vars(builtins)) - set(channel.given) - defined
    for node in tree.body:
        exec(compile(ast.Module([node], []), "tests.py", "exec", dont_inherit=True), namespace)
        for name in lent & names_bound([node]):
            channel.ask("define", name, namespace[name])


def wanted_names(tree: ast.Module, tests: str, setup: str, given: dict[str, Any], defined: set[str]) -> list[str]:
    """The names that the tests take from the solution.

    Args:
        tree: of the tests.
        tests: their source.
        setup: its source. A stub in it is to be completed; everything else in it is the tests' own.
        given: what it defines.
        defined: names that the solution defines or redefines.

    Returns:
        The defined names that are neither built in nor given. Where the tests use none but such names, they are about one of
        them: the first that they call and the solution defines (MBPP asks for a function ``sum``).
    """
    names = global_names(tests)
    # What the tests define or import by themselves is theirs, too.
    theirs = names_bound(n for n in tree.body if isinstance(n, (ast.Import, ast.ImportFrom, *DEFINITIONS)))
    own = (set(vars(builtins)) | set(given)) - stubs_of(setup) | theirs
    if names - own - names_bound(tree.body):
        return sorted((names & defined) - own)
    calls = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)]
    called = sorted(calls, key=lambda n: (n.lineno, n.col_offset))
    imported = names_bound(n for n in ast.walk(tree) if isinstance(n, ast.Import | ast.ImportFrom))
    return [n.func.id for n in called if isinstance(n.func, ast.Name) and n.func.id in defined - imported][:1]


def global_names(source: str) -> set[str]:
    """The names that a source reads or writes in its global namespace; none where it does not compile."""
    try:
        waiting = [symtable.symtable(source, "source.py", "exec")]
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return set()
    names: set[str] = set()
    while waiting:
        table = waiting.pop()
        waiting += table.get_children()
        top = table.get_type() == "module"
        names |= {s.get_name() for s in table.get_symbols() if s.is_referenced() and (top or s.is_global())}
    return names


def names_bound(nodes: Iterable[ast.AST]) -> set[str]:
    """The names that statements bind: by assignment, definition or import. Nested functions are not looked into."""
    names: set[str] = set()
    waiting = list(nodes)
    while waiting:
        node = waiting.pop()
        if isinstance(node, DEFINITIONS):
            names.add(node.name)
            continue
        if isinstance(node, ast.Lambda | ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp):
            continue
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            names.add(node.id)
        if isinstance(node, ast.Import | ast.ImportFrom):
            names |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
        waiting += ast.iter_child_nodes(node)
    return names


def need_one_process(setup: str, tests: str) -> bool:
    """Whether tests need to be in the candidate's process.

    They do where they use its classes as a base, in ``except`` or in ``isinstance``, or where they capture what it prints.

    It goes by setup and tests alone, so that no solution can bring it about.
    """
    try:
        tree = ast.parse(tests)
        own = set(vars(builtins)) | names_bound(ast.parse(setup).body) | names_bound(tree.body)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    classes: list[ast.AST] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            classes += node.bases
        elif isinstance(node, ast.ExceptHandler) and node.type:
            classes.append(node.type)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute):
            name = node.func.id if isinstance(node.func, ast.Name) else node.func.attr
            if name in ("isinstance", "issubclass", "assertIsInstance"):
                classes += node.args[1:]
            elif name in ("raises", "assertRaises", "assertRaisesRegex"):
                classes += node.args[:1]
    used = {n.id for found in classes for n in ast.walk(found) if isinstance(n, ast.Name)}
    words = {
        n.attr if isinstance(n, ast.Attribute) else n.id
        for n in ast.walk(tree)
        if isinstance(n, ast.Attribute | ast.Name)
    }
    return bool(used - own) or not words.isdisjoint(PROCESS_WIDE)
