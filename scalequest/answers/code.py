"""Python programs in a model's text, and the test programs that say whether one is right.

A code problem's ``answer`` is a test program: Python source with one marked line where the solution goes, so that what the tests
need stands before it and the tests stand after it. Nothing is run here; scalequest.answers.sandbox runs.
"""

import ast
import re
import warnings

# The line of a test program that a solution takes the place of.
SOLUTION_LINE = "# ---- the solution goes here ----"

_FENCE = re.compile(r"^[ \t]*```[ \t]*([\w+.#-]*)[^\n]*\n(.*?)(?:^[ \t]*```|\Z)", re.MULTILINE | re.DOTALL)
_PYTHON_NAMES = ("", "python", "python3", "py")
# How code begins that stands in a text without a fence.
_CODE_START = re.compile(r"^(?:def |class |import |from |@|async def )", re.MULTILINE)
_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def program_of_tests(before: str, after: str) -> str:
    """Source with ``before``, the place of the solution, and ``after``."""
    return "\n".join([*([before.strip("\n")] if before.strip() else []), SOLUTION_LINE, after.strip("\n")]) + "\n"


def is_test_program(answer: str) -> bool:
    """Whether a problem's answer is a test program, which makes it a code problem."""
    return SOLUTION_LINE in answer


def with_solution(tests: str, code: str) -> str:
    """A test program with its solution in place."""
    return tests.replace(SOLUTION_LINE, code, 1)


def parsed(code: str) -> ast.Module | None:
    """The syntax tree; None for what is no Python program, or an empty one."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "invalid escape sequence" in a model's code is nothing to be told of
            tree = ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    return tree if tree.body else None


def fenced_code(text: str) -> str | None:
    """The program in a text, as it is asked for: in a closed Python block that compiles. None without one.

    Of several the first that defines something: usage examples come after, shell commands do not compile.
    """
    blocks = [
        m.group(2) for m in _FENCE.finditer(text) if m.group(1).lower() in _PYTHON_NAMES and "```" in m.group()[3:]
    ]
    return _first_program(blocks)


def any_code(text: str) -> str | None:
    """The program in a text however it is put: fenced, in a block that was cut, or bare between sentences."""
    if found := fenced_code(text):
        return found
    cut = [m.group(2) for m in _FENCE.finditer(text)]
    bare = [text[m.start() :] for m in _CODE_START.finditer(text)][:1]
    return _first_program([_longest_program(block) for block in (*cut, *bare)])


def same_program(first: str, second: str) -> bool:
    """Whether two programs differ in nothing but layout and comments."""
    one, other = parsed(first), parsed(second)
    return one is not None and other is not None and ast.dump(one) == ast.dump(other)


def asserts(text: str) -> list[str]:
    """The lines of a text that are an assertion, such as the examples in a question."""
    return [line.strip() for line in text.splitlines() if line.lstrip().startswith("assert ") and parsed(line.strip())]


def _first_program(blocks: list[str]) -> str | None:
    trees = [(block, parsed(block)) for block in blocks]
    programs = [(block, tree) for block, tree in trees if tree]
    defining = [block for block, tree in programs if any(isinstance(node, _DEFINITIONS) for node in tree.body)]
    return next(iter(defining), programs[0][0] if programs else None)


def _longest_program(text: str) -> str:
    """The longest run of lines from the start that compiles; empty if none does."""
    lines = text.splitlines()
    for end in range(len(lines), 0, -1):
        block = "\n".join(lines[:end])
        if parsed(block):
            return block
    return ""
