import time

import pytest

from scalequest.answers.code import (
    any_code,
    asserts,
    fenced_code,
    is_test_program,
    parsed,
    parts_of,
    program_of_tests,
    same_program,
)

ADD = "def add(a, b):\n    return a + b\n"

# text -> fenced (the presence rule and the strict score), any (the flexible score)
FOUND = [
    ("python_block", f"Here:\n```python\n{ADD}```\nDone.", ADD, ADD),
    ("py_block", f"```py\n{ADD}```", ADD, ADD),
    ("block_without_a_name", f"```\n{ADD}```", ADD, ADD),
    ("upper_case", f"```Python\n{ADD}```", ADD, ADD),
    ("indented_fence", f"1. So:\n   ```python\n{ADD}   ```", ADD, ADD),
    ("indented_code", "1. So:\n   ```python\n   def add(a, b):\n       return a + b\n   ```", ADD, ADD),
    ("indented_by_a_tab", "\t```python\n\tdef add(a, b):\n\t    return a + b\n\t```", ADD, ADD),
    ("code_indented_more_than_its_fence", "```python\n    def add(a, b):\n        return a + b\n```", ADD, ADD),
    ("stub_first", f"```python\ndef add(a, b):\n    'Add.'\n```\n```python\n{ADD}```", ADD, ADD),
    ("ellipsis_stub_first", f"```python\ndef add(a, b): ...\n```\n```python\n{ADD}```", ADD, ADD),
    ("not_implemented_first", f"```python\ndef add(a, b):\n    raise NotImplementedError\n```\n```python\n{ADD}```", ADD, ADD),
    ("class_of_stubs_first", f"```python\nclass A:\n    def add(self): pass\n```\n```python\n{ADD}```", ADD, ADD),
    ("another_language", "```java\nint x;\n```", None, None),
    ("shell_first", f"```\npip install numpy\n```\n```python\n{ADD}```", ADD, ADD),
    ("usage_first", f"```python\nprint(add(1, 2))\n```\n```python\n{ADD}```", ADD, ADD),
    ("usage_after", f"```python\n{ADD}```\n```python\nprint(add(1, 2))\n```", ADD, ADD),
    ("usage_only", "```python\nprint(1)\n```", "print(1)\n", "print(1)\n"),
    ("two_answers_the_first_counts", f"```python\n{ADD}```\n```python\ndef add(a, b): return 0\n```", ADD, ADD),
    ("does_not_compile", "```python\ndef add(a, b:\n```", None, None),
    ("empty_block", "```python\n```", None, None),
    ("only_comments", "```python\n# nothing\n```", None, None),
    ("cut_block", f"```python\n{ADD}", None, ADD.rstrip()),
    ("cut_in_a_line", f"```python\n{ADD}def more(", None, ADD.rstrip()),
    ("bare", ADD, None, ADD.rstrip()),
    ("bare_between_sentences", f"Sure:\n{ADD}This adds them, of course.", None, ADD.rstrip()),
    ("prose", "I would add the numbers.", None, None),
    ("prose_that_imports", "import is a word", None, None),
    ("nothing", "", None, None),
]  # fmt: skip


@pytest.mark.parametrize(("text", "fenced", "any_"), [pytest.param(*case, id=name) for name, *case in FOUND])
def test_programs_are_found(text: str, fenced: str | None, any_: str | None):
    assert fenced_code(text) == fenced
    found = any_code(text)
    assert (found and found.rstrip()) == (any_ and any_.rstrip())


@pytest.mark.parametrize(
    ("code", "is_program"),
    [("(" * 50_000, False), ("x = '\0'", False), ("-" * 100_000 + "1", False), ("\ud800", False), ("[" * 90 + "]" * 90, True),
     ("lambda: " * 5_000 + "1", False)],
    ids=["parentheses", "zero_byte", "signs", "surrogate", "lists", "lambdas"],
)  # fmt: skip
def test_no_text_of_a_model_can_crash_the_parser(code: str, is_program: bool):
    assert (parsed(code) is not None) is is_program


def test_a_long_answer_without_an_end_is_read_soon():
    # Each line does not compile with what stands before it: the worst case for the search of the longest program.
    started = time.monotonic()
    any_code("```python\n" + "def f(x):\n" * 1_000)
    assert time.monotonic() - started < 5


def test_a_solution_takes_the_place_between_setup_and_tests():
    tests = program_of_tests("import math\n", "assert add(1, 2) == 3")
    assert is_test_program(tests)
    assert not is_test_program("72")
    assert parts_of(tests) == ("import math\n", "\nassert add(1, 2) == 3\n")


HEAD = "def add(a, b):\n    "
NO_WORK = {
    "pass": HEAD + "pass", "ellipsis": HEAD + "...", "docstring": HEAD + "'Add.'", "docstring_and_pass": HEAD + "'Add.'\n    pass",
    "not_implemented": HEAD + "raise NotImplementedError", "not_implemented_with_a_text": HEAD + "'Add.'\n    raise NotImplementedError('later')",
    "returns_not_implemented": HEAD + "return NotImplemented", "qualified": HEAD + "raise builtins.NotImplementedError()", "bare_return": HEAD + "return",
    "returns_nothing": HEAD + "return None", "import_and_stub": "import math\n" + HEAD + "pass", "stub_and_usage": HEAD + "pass\nprint(add(1, 2))",
    "class": "class A:\n    'Doc.'\n    def add(self): ...", "async": "async def add(): pass", "stub_in_a_stub": HEAD + "def inner(): pass",
    "only_imports": "import math", "only_a_text": "'add'", "only_pass": "pass", "only_ellipsis": "...",
}  # fmt: skip
WORK = {
    "one_line": HEAD + "return a + b", "abstract_and_complete": "class A:\n    def f(self): raise NotImplementedError\nclass B(A):\n    def f(self): return 1",
    "exception": "class NotFound(Exception): pass", "record": "class P:\n    x: int = 0", "script": "print(1)", "stub_and_function": HEAD + "pass\ndef f(): return 1",
    "lambda": "add = lambda a, b: a + b", "returns_true": "def f(): return True",
}  # fmt: skip


@pytest.mark.parametrize("code", NO_WORK.values(), ids=NO_WORK.keys())
def test_a_stub_alone_is_no_answer(code: str):
    assert fenced_code(f"```python\n{code}\n```") is None
    assert any_code(f"```python\n{code}") is None


@pytest.mark.parametrize("code", WORK.values(), ids=WORK.keys())
def test_what_does_something_is_an_answer(code: str):
    assert fenced_code(f"```python\n{code}\n```") == code + "\n"


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        pytest.param("x = 1", "x  =  1  # one", True, id="layout_and_comments"),
        pytest.param("x = 1", "x = 2", False, id="value"),
        pytest.param("x = 1", "y = 1", False, id="name"),
        pytest.param("def f(:", "def f(:", False, id="no_programs"),
    ],
)
def test_what_makes_two_programs_one(first: str, second: str, same: bool):
    assert same_program(first, second) is same


def test_assertions_of_a_question_are_its_examples():
    text = "Write f.\nYour code should pass these tests:\nassert f(1) == 2\n  assert f(2) == 3\nassert that it works\nassertion"
    assert asserts(text) == ["assert f(1) == 2", "assert f(2) == 3"]


@pytest.mark.parametrize(
    "text",
    [
        "~~~python\ndef f(x):\n    return x\n~~~",
        "~~~~py\ndef f(x):\n    return x\n~~~~",
        "> ```python\n> def f(x):\n>     return x\n> ```",
        "> ```python\n>def f(x):\n>    return x\n> ```",
        "```{python}\ndef f(x):\n    return x\n```",
        "<think>```python\ndef f(x):\n    return 1\n```</think>\n```python\ndef f(x):\n    return x\n```",
        "<think>\n```python\ndef f(x):\n    return 1\n```\n</think>\n```python\ndef f(x):\n    return x\n```",
    ],
)
def test_fences_of_every_form_hold_a_program(text: str):
    found = fenced_code(text)
    assert found is not None
    assert same_program(found, "def f(x):\n    return x")
    assert any_code(text) == found


def test_a_longer_fence_holds_a_shorter_one():
    program = "def f(x):\n    return '''\n```\n'''\n"
    assert fenced_code(f"````python\n{program}````") == program
    assert any_code("<think>def f(x): return 1</think>\nNo.") is None


@pytest.mark.parametrize(
    "rest",
    ["and so on it goes\n" * 4000, "    x = 1\n" * 3000 + "oops oops\n" * 1000, "    x = (1,\n" + "    2,\n" * 3000],
)
def test_a_long_answer_is_read_in_few_attempts(rest: str):
    # Before, each run of lines was compiled: 2 to 28 s.
    began = time.monotonic()
    any_code("def f(x):\n    return x\n" + rest)
    assert time.monotonic() - began < 1


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("def f(x):\n    y = (x +\n    1)\n    return y\nThat is it.", 4),
        ("def f(x):\n    return x\n\ndef g(y):\n    z = [1,\n", 3),
        ("def f(x):\n    '''doc\n    text'''\n    return x\n    s = '''open\n more", 4),
        ("def f(x):\n    return x\ntry:\n    f(1)\nSo it is.", 2),
        ("def f(x):\n    if x:\n        return 1\n  return 2\nmore", 3),
        ("def f(x):\n    return x\nx\0y", 2),
    ],
)
def test_bare_code_ends_where_it_stops_to_compile(text: str, kept: int):
    found = any_code(text)
    assert found is not None
    assert same_program(found, "\n".join(text.splitlines()[:kept]))
