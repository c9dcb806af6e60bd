"""Which definitions are stubs: a signature with nothing below it that computes."""

import ast

DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def is_stub(node: ast.stmt) -> bool:
    """Whether a definition has nothing to run.

    That is a docstring, ``pass``, ``...``, an import, a ``return`` of nothing, NotImplementedError
    (raised or returned), and in a class methods that are stubs. A class that declares or inherits
    something is none.
    """
    if not isinstance(node, DEFINITIONS):
        return False
    if isinstance(node, ast.ClassDef) and node.bases:
        return False  # `class NotFound(Exception): pass` is complete
    return all(_is_empty(statement) for statement in node.body)


def has_work(tree: ast.Module) -> bool:
    """Whether a program is more than docstrings, imports, ``pass``, ``...`` and stubs: usage of a stub is no work, either."""
    defined = [node for node in tree.body if isinstance(node, DEFINITIONS)]
    return any(not is_stub(node) for node in defined) if defined else not all(_is_empty(node) for node in tree.body)


def stubs_of(source: str) -> set[str]:
    """Names that a source leaves as stubs; a later complete definition of the same name counts."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return set()
    last = {node.name: is_stub(node) for node in tree.body if isinstance(node, DEFINITIONS)}
    return {name for name, stub in last.items() if stub}


def _is_empty(node: ast.stmt) -> bool:
    if isinstance(node, ast.Pass | ast.Import | ast.ImportFrom | ast.Global | ast.Nonlocal):
        return True
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return True
    if isinstance(node, ast.Return) and (node.value is None or _is_constant(node.value, None, ...)):
        return True
    if isinstance(node, ast.Raise | ast.Return):
        value = node.exc if isinstance(node, ast.Raise) else node.value
        called = value.func if isinstance(value, ast.Call) else value
        name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
        return name in ("NotImplementedError", "NotImplemented")
    return is_stub(node)


def _is_constant(node: ast.expr, *values: object) -> bool:
    return isinstance(node, ast.Constant) and any(node.value is value for value in values)
