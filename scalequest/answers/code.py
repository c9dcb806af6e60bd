"""Python programs in a model's text, and the test programs that decide whether one is right.

A code problem's ``answer`` is a test program: Python source with one marked line where the solution
goes. What the tests need comes before that line, the tests come after it. Nothing runs here;
scalequest.answers.sandbox runs programs.
"""

import ast
import re
import textwrap
import warnings

from scalequest.answers.stubs import DEFINITIONS, has_work, is_stub
from scalequest.answers.thoughts import without_thoughts

# The line of a test program that a solution replaces.
SOLUTION_LINE = "# ---- the solution goes here ----"

# Also ~~~, a fence of more signs around text with ```, and a quoted block (>).
_FENCE = re.compile(
    r"^(?P<indent>[ \t>]*)(?P<signs>`{3,}|~{3,})[ \t]*\{?(?P<language>[\w+.#-]*)[^\n]*\n(?P<code>.*?)(?:^[ \t>]*(?P<end>(?P=signs))|\Z)",
    re.MULTILINE | re.DOTALL,
)
_PYTHON_NAMES = ("", "python", "python3", "py")
# How code begins in a text without a fence.
_CODE_START = re.compile(r"^(?:def |class |import |from |@|async def )", re.MULTILINE)


def program_of_tests(before: str, after: str) -> str:
    """Source with ``before``, the place of the solution, and ``after``."""
    return "\n".join([*([before.strip("\n")] if before.strip() else []), SOLUTION_LINE, after.strip("\n")]) + "\n"


def is_test_program(answer: str) -> bool:
    """Whether a problem's answer is a test program, which makes it a code problem."""
    return SOLUTION_LINE in answer


def parts_of(tests: str) -> tuple[str, str]:
    """What a test program runs before the solution, and the tests that come after it."""
    before, _, after = tests.partition(SOLUTION_LINE)
    return before, after


def parsed(code: str) -> ast.Module | None:
    """The syntax tree; None for what is no Python program, or an empty one."""
    try:
        tree = _tree(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    return tree if tree.body else None


def _tree(code: str) -> ast.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a model's code may hold an invalid escape sequence
        return ast.parse(code)


def fenced_code(text: str) -> str | None:
    """The program in a text, in the form that the prompt asks for: a closed Python block that compiles. None without one.

    Of several the first that defines something: usage examples come after, shell commands do not compile, and a stub (a signature
    and a docstring) repeats the question. A block with nothing but stubs is no answer.
    """
    blocks = _FENCE.finditer(without_thoughts(text))
    return _first_program([_block(m) for m in blocks if m["language"].lower() in _PYTHON_NAMES and m["end"]])


def any_code(text: str) -> str | None:
    """The program in a text however it is put: fenced, in a block that was cut, or bare between sentences."""
    if found := fenced_code(text):
        return found
    text = without_thoughts(text)
    cut = [_block(m) for m in _FENCE.finditer(text)]
    bare = [text[m.start() :] for m in _CODE_START.finditer(text)][:1]
    return _first_program([_longest_program(block) for block in (*cut, *bare)])


def same_program(first: str, second: str) -> bool:
    """Whether two programs differ in nothing but layout and comments."""
    one, other = parsed(first), parsed(second)
    return one is not None and other is not None and ast.dump(one) == ast.dump(other)


def asserts(text: str) -> list[str]:
    """The lines of a text that are an assertion, such as the examples in a question."""
    return [line.strip() for line in text.splitlines() if line.lstrip().startswith("assert ") and parsed(line.strip())]


def _block(fence: "re.Match[str]") -> str:
    """The content of a block without the indentation of its fence, as in a list item, or without its own."""
    indent, content = fence["indent"], fence["code"]
    quoted = indent.rstrip()  # a quoted block's empty line is ">" alone
    without_indent = "".join(
        line.removeprefix(indent) if line.startswith(indent) else line.removeprefix(quoted)
        for line in content.splitlines(keepends=True)
    )
    forms = (content, without_indent, textwrap.dedent(content))
    return next((form for form in forms if parsed(form)), without_indent)


def _first_program(blocks: list[str]) -> str | None:
    """The first block that defines something complete, else the first that does something; a stub alone is no answer."""
    trees = [(block, tree) for block in blocks if (tree := parsed(block)) and has_work(tree)]
    defining = [block for block, tree in trees if any(isinstance(n, DEFINITIONS) and not is_stub(n) for n in tree.body)]
    return next(iter(defining), trees[0][0] if trees else None)


def _longest_program(text: str) -> str:
    """The longest run of lines from the start that compiles; empty without one.

    No run that reaches beyond the line of an error compiles, so the next one tried ends there: a cut answer of 4,000 lines
    takes a few attempts instead of thousands.
    """
    lines = text.splitlines()
    end = next((number for number, line in enumerate(lines) if "\0" in line), len(lines))
    while end:
        block = "\n".join(lines[:end])
        try:
            return block if _tree(block).body else ""
        except SyntaxError as error:
            end = min(end - 1, error.lineno or end)
        except (ValueError, RecursionError, MemoryError):
            end -= 1
    return ""
