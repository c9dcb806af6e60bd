"""The wording of the code domain, byte for byte, and its parsers."""

import pytest

from scalequest.domains import code
from scalequest.domains.code import asks, leaks_solution
from scalequest.io import read_jsonl
from scalequest.problems.known_datasets import canonical
from tests.domains import prompts
from tests.fakes import real_data

# Braces, a percent sign and a backslash: what a template engine would take for its own.
QUESTION = "Write f({a}): 50% of a \\n b."

SOLVE = """Write f({a}): 50% of a \\n b.
Please reason briefly, then write the complete Python code in one ```python block."""

JUDGE_REASONED = """You are a careful programming teacher. A student hands you the following text:

Write f({a}): 50% of a \\n b.

Decide whether it is a programming task that can be solved by writing code. Go through these points:
1. Is it a programming task at all?
2. Is it said what goes in and what must come out, and do the conditions agree with each other?
3. Try to write the program, if that helps you to tell.
Write down your reasoning briefly. Then end with one last line that is only "Yes" if it can be solved, or "No" if not."""

JUDGE_FEW_SHOT = """You check programming tasks. Answer Yes if a task can be solved, No if not. First task: Write a function that adds two numbers.
> Yes
Where is the blue house?
> No
Write a Python function to find the largest number in a list.
> Yes
Write a function to return the.
> No
Write a function that counts the vowels of a string.
> Yes
Write a function that sorts it by the other one.
> No
Given a list of words, return those that start with a capital letter.
> Yes
After 50 tents in 8 hours.
> No
Write a function to check whether a number is even.
> Yes
Write f({a}): 50% of a \\n b."""

REWRITE_SECTIONS_SOLVABILITY = """You are a programming teacher who prepares exercises. Below is a draft:

Write f({a}): 50% of a \\n b.

Make sure that it is a sound exercise. Work in three sections with exactly these headers:
CREATED QUESTION: repeat the draft; if it is not a programming task, or makes no sense, write a new one instead; if it is very short, add the detail it lacks.
VERIFICATION AND MODIFICATION: write the program, check it on an example, and repair every condition that is missing, contradictory or against common sense. It must ask for one program whose result can be tested, say what goes in and what comes out, stand by itself, and hold no part of its solution.
FINAL QUESTION: the exercise alone."""

REWRITE_SECTIONS_DIFFICULTY = """You rewrite programming tasks so that they become harder. The task:

Write f({a}): 50% of a \\n b.

Work in four steps with exactly these headers:
STEP 1, METHODS: repair the task if it has an error, then list ways to make it harder.
STEP 2, PLAN: choose some of them and say how you apply them.
STEP 3, REWRITE: write the harder task; add no more than 10 to 20 words.
STEP 4, REVIEW: check that a program can solve it and repair it if not.
FINAL QUESTION: the reviewed task alone."""

REWRITE_FEW_SHOT_SOLVABILITY = """Rewrite the task so that a program can solve it. Do not write the program.
Write a function to return the.
> Write a function to return the length of a string.
Rewrite the task so that a program can solve it. Do not write the program.
Write a function that sorts it.
> Write a function that sorts a list of numbers from small to large.
Rewrite the task so that a program can solve it. Do not write the program.
Count the words?
> Write a function that counts the words of a sentence.
Rewrite the task so that a program can solve it. Do not write the program.
Write a Python function to check a number.
> Write a Python function to check whether a number is even.
Rewrite the task so that a program can solve it. Do not write the program.
Write f({a}): 50% of a \\n b."""

REWRITE_FEW_SHOT_DIFFICULTY = """Rewrite the task so that it is harder. Do not write the program.
Write a function that adds two numbers.
> Write a function that adds all even numbers of a list.
Rewrite the task so that it is harder. Do not write the program.
Write a function that counts the words of a sentence.
> Write a function that returns the three most frequent words of a sentence, ties in alphabetical order.
Rewrite the task so that it is harder. Do not write the program.
Write a function to reverse a string.
> Write a function to reverse each word of a string, but keep the words' order.
Rewrite the task so that it is harder. Do not write the program.
Write a function to find the largest number in a list.
> Write a function to find the k largest distinct numbers in a list.
Rewrite the task so that it is harder. Do not write the program.
Write f({a}): 50% of a \\n b."""


def test_prompts_are_these_bytes():
    assert prompts(code, QUESTION) == {
        "solve": SOLVE,
        "judge_reasoned": JUDGE_REASONED,
        "judge_few_shot": JUDGE_FEW_SHOT,
        "sections_solvability": REWRITE_SECTIONS_SOLVABILITY,
        "sections_difficulty": REWRITE_SECTIONS_DIFFICULTY,
        "few_shot_solvability": REWRITE_FEW_SHOT_SOLVABILITY,
        "few_shot_difficulty": REWRITE_FEW_SHOT_DIFFICULTY,
    }


@pytest.mark.parametrize(
    ("question", "leaks"),
    [
        pytest.param("Write a function that adds two numbers.\nSolution:\nreturn a + b", True, id="heading"),
        pytest.param("Write f.\n```python\ndef f(x):\n    y = 2 * x\n    return y\n```", True, id="a_whole_function"),
        pytest.param("Complete f.\n```python\ndef f(x):\n    pass\n```", False, id="a_stub"),
        pytest.param(
            'Complete f.\n```python\ndef g(x):\n    return x\n\ndef f(x):\n    """Twice."""\n```',
            False,
            id="a_stub_and_its_helper",
        ),
        pytest.param("Write f.\n```python\nprint(f(2))\n```", False, id="a_call"),
        pytest.param("Write f.\n```\nf(2) -> 4\n```", False, id="no_python"),
        pytest.param("Write a function that finds the solution of a linear equation.", False, id="the_word"),
        pytest.param("Write f. Your code should pass these tests:\nassert f(1) == 2", False, id="tests"),
    ],
)
def test_a_task_that_holds_its_program_is_told(question: str, leaks: bool):
    assert leaks_solution(question) is leaks


@pytest.mark.parametrize(
    ("text", "asking"),
    [
        pytest.param("Write a function that adds two numbers.", True, id="order"),
        pytest.param("Given a list, return its largest element.", True, id="order_in_a_clause"),
        pytest.param("How can I reverse a string in Python?", True, id="question_mark"),
        pytest.param("I need a program that sorts a file", True, id="a_program_that"),
        pytest.param("The list holds numbers.", False, id="a_statement"),
        pytest.param("def f(x): pass", False, id="code_alone"),
    ],
)
def test_a_text_that_asks_for_nothing_is_no_task(text: str, asking: bool):
    assert asks(text) is asking


@pytest.mark.parametrize("name", ["mbpp/mbpp.jsonl", "mbpp/sanitized-mbpp.jsonl", "humaneval/test.jsonl"])
def test_every_real_task_asks_and_leaks_nothing(name: str):
    questions = [canonical(row)["question"] for row in read_jsonl(real_data(name))]
    assert all(map(asks, questions))
    assert not any(map(leaks_solution, questions))


@pytest.mark.parametrize("fence", ["``` python", "```python title=a.py", "~~~python"])
def test_a_solution_in_a_fence_of_any_form_leaks(fence: str):
    closed = fence[:3]
    assert leaks_solution(f"Write f.\n{fence}\ndef f(x):\n    return x\n{closed}")
    assert not leaks_solution(f"Write f.\n{fence}\ndef f(x):\n    pass\n{closed}")
