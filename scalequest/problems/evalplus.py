"""Tests of HumanEval+ and MBPP+ as the hub has them, made to run with the standard library alone (Liu et al. 2023, EvalPlus).

A row's ``test`` is a program: inputs, expected results, and ``assertion(out, exp, atol)``, which compares floats by NumPy. The
sandbox has no NumPy, so a class with the functions that these tests call takes its place. Two faults of the published
tests are corrected, because no solution, or every one, would pass: see ``plus_tests``.
"""

import ast
import io
import re
import tokenize

# In the tests' process. Unlike NumPy's, a result of another shape is not close: NumPy calls [] close to [1.0].
NUMPY = """\
class np:
    ndarray = float32 = float64 = type("absent", (), {})

    def allclose(a, b, rtol=1e-05, atol=1e-08):
        if isinstance(a, (list, tuple)) or isinstance(b, (list, tuple)):
            same = isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)) and len(a) == len(b)
            return same and all(np.allclose(x, y, rtol, atol) for x, y in zip(a, b))
        return a == b or abs(a - b) <= atol + rtol * abs(b) < float("inf")

    class testing:
        def assert_allclose(actual, desired, rtol=1e-07, atol=0):
            assert np.allclose(actual, desired, rtol, atol)
"""
# Digits that Python reads in a decimal integer unless told otherwise; it has no limit for hexadecimal ones.
MAX_DIGITS = 4_300
_LONG = re.compile(rf"\d{{{MAX_DIGITS + 1},}}")
_IMPORT = re.compile(r"^import numpy as np[ \t]*$", re.MULTILINE)
# HumanEval/32 unpacks the root that the solution returns, which raises for every solution.
_ROOT, _ROOT_AS_MEANT = "_poly(*candidate(*inp), inp)", "abs(_poly(*inp, candidate(*inp)))"


def plus_tests(test: str) -> str:
    """The tests of a row, without NumPy.

    HumanEval/32 asks whether the returned number is a root, as EvalPlus's own evaluator does. In Mbpp/737, 787 and 794
    ``assertion`` computes ``exact_match`` and asserts nothing; the assertion is added. Integers that are too long for
    Python's limit, which are among the results of a few tasks, become hexadecimal.
    """
    test = _with_assertion(_readable_integers(test))
    return _IMPORT.sub(lambda _: NUMPY, test).replace(_ROOT, _ROOT_AS_MEANT)


def _readable_integers(test: str) -> str:
    if not _LONG.search(test):
        return test
    lines = test.splitlines(keepends=True)
    try:
        tokens = list(tokenize.generate_tokens(io.StringIO(test).readline))
    except (tokenize.TokenError, SyntaxError):
        return test
    for token in reversed(tokens):  # from the end, so that the places of the others hold
        if token.type == tokenize.NUMBER and _LONG.fullmatch(token.string):
            (row, start), (_, end) = token.start, token.end
            lines[row - 1] = lines[row - 1][:start] + hex(_integer(token.string)) + lines[row - 1][end:]
    return "".join(lines)


def _integer(digits: str) -> int:
    """The value of a decimal of any length, in parts that are within Python's limit."""
    if len(digits) <= MAX_DIGITS:
        return int(digits)
    half = len(digits) // 2
    return _integer(digits[:-half]) * 10**half + _integer(digits[-half:])


def _with_assertion(test: str) -> str:
    try:
        tree = ast.parse(test)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return test  # the sandbox reports it
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == "assertion":
            inside = list(ast.walk(node))
            computed = any(isinstance(n, ast.Name) and n.id == "exact_match" for n in inside)
            if computed and not any(isinstance(n, ast.Assert | ast.Raise) for n in inside):
                lines = test.split("\n")
                lines.insert(node.end_lineno or len(lines), " " * node.body[0].col_offset + "assert exact_match")
                return "\n".join(lines)
    return test
