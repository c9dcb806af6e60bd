"""What is asked of the model roles in a code run.

The paper says that its code prompts are its mathematics prompts "slightly modified" and does not print them (C.2); these follow
ours for mathematics, step by step. The responder gets the question with the request for a code block, because the presence of an
answer is judged by that block (the paper's code asks the bare question and checks nothing).
"""

import ast
import re
import warnings

from scalequest.answers.stubs import is_stub
from scalequest.domains import DIFFICULTY, SHORT, SOLVABILITY, WORKED, judge_conversation, rewrite_conversation

ANSWERS = "code"
SEEDS_NEED_ANSWERS = False  # CodeFeedback has no tests

# ------------------------------------------------------------------------------------------------------------- solving


_SOLVE = {
    WORKED: "Please reason briefly, then write the complete Python code in one ```python block.",
    SHORT: "Please write only the complete Python code in one ```python block, without explanations.",
}


def solve_prompt(question: str, form: str = WORKED) -> str:
    """Ask for a program in a block of its own, or for nothing but it (``respond.form``)."""
    return f"{question}\n{_SOLVE[form]}"


# ------------------------------------------------------------------------------------------------------------- judging

_JUDGE = {
    "reasoned": """You are a careful programming teacher. A student hands you the following text:

{question}

Decide whether it is a programming task that can be solved by writing code. Go through these points:
1. Is it a programming task at all?
2. Is it said what goes in and what must come out, and do the conditions agree with each other?
3. Try to write the program, if that helps you to tell.
Write down your reasoning briefly. Then end with one last line that is only "Yes" if it can be solved, or "No" if not.""",
}
_JUDGE_EXAMPLES = [
    "You check programming tasks. Answer Yes if a task can be solved, No if not. First task: Write a function that adds two numbers.", "Yes",
    "Where is the blue house?", "No",
    "Write a Python function to find the largest number in a list.", "Yes",
    "Write a function to return the.", "No",
    "Write a function that counts the vowels of a string.", "Yes",
    "Write a function that sorts it by the other one.", "No",
    "Given a list of words, return those that start with a capital letter.", "Yes",
    "After 50 tents in 8 hours.", "No",
    "Write a function to check whether a number is even.", "Yes",
]  # fmt: skip


def judge_turns(question: str, style: str) -> list[str]:
    """Ask whether a task can be solved, in the turns of a conversation."""
    return judge_conversation(_JUDGE, _JUDGE_EXAMPLES, question, style)


# ----------------------------------------------------------------------------------------------------------- rewriting

_REWRITE = {
    ("sections", SOLVABILITY): """You are a programming teacher who prepares exercises. Below is a draft:

{question}

Make sure that it is a sound exercise. Work in three sections with exactly these headers:
CREATED QUESTION: repeat the draft; if it is not a programming task, or makes no sense, write a new one instead; if it is very \
short, add the detail it lacks.
VERIFICATION AND MODIFICATION: write the program, check it on an example, and repair every condition that is missing, \
contradictory or against common sense. It must ask for one program whose result can be tested, say what goes in and what comes \
out, stand by itself, and hold no part of its solution.
FINAL QUESTION: the exercise alone.""",
    ("sections", DIFFICULTY): """You rewrite programming tasks so that they become harder. The task:

{question}

Work in four steps with exactly these headers:
STEP 1, METHODS: repair the task if it has an error, then list ways to make it harder.
STEP 2, PLAN: choose some of them and say how you apply them.
STEP 3, REWRITE: write the harder task; add no more than 10 to 20 words.
STEP 4, REVIEW: check that a program can solve it and repair it if not.
FINAL QUESTION: the reviewed task alone.""",
    ("few_shot", SOLVABILITY): """Rewrite the task so that a program can solve it. Do not write the program.
{question}""",
    ("few_shot", DIFFICULTY): """Rewrite the task so that it is harder. Do not write the program.
{question}""",
}
_REWRITE_EXAMPLES = {
    SOLVABILITY: [
        ("Write a function to return the.", "Write a function to return the length of a string."),
        ("Write a function that sorts it.", "Write a function that sorts a list of numbers from small to large."),
        ("Count the words?", "Write a function that counts the words of a sentence."),
        ("Write a Python function to check a number.", "Write a Python function to check whether a number is even."),
    ],
    DIFFICULTY: [
        ("Write a function that adds two numbers.", "Write a function that adds all even numbers of a list."),
        (
            "Write a function that counts the words of a sentence.",
            "Write a function that returns the three most frequent words of a sentence, ties in alphabetical order.",
        ),
        (
            "Write a function to reverse a string.",
            "Write a function to reverse each word of a string, but keep the words' order.",
        ),
        (
            "Write a function to find the largest number in a list.",
            "Write a function to find the k largest distinct numbers in a list.",
        ),
    ],
}


def rewrite_turns(question: str, direction: str, style: str) -> list[str]:
    """Ask for a rewrite of a task that improves one thing, in the turns of a conversation."""
    return rewrite_conversation(_REWRITE, _REWRITE_EXAMPLES, question, direction, style)


def leaks_solution(question: str) -> bool:
    """Whether a question holds its own solution: under a heading, or as a block of functions that are all complete.

    A stub to be completed (a signature, a docstring, ``pass``), with or without helpers, and calls are part of many tasks.
    """
    return bool(_LEAK.search(question)) or any(_is_solved(block) for _, block in _BLOCK.findall(question))


def asks(question: str) -> bool:
    """Whether a text asks for something: a question mark, or an order to make a program."""
    return "?" in question or bool(_ORDER.search(question))


def _is_solved(block: str) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(block)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    return bool(functions) and not any(is_stub(function) for function in functions)


_BLOCK = re.compile(r"(?P<signs>```|~~~)[^\n]*\n(.*?)(?P=signs)", re.DOTALL)
_LEAK = re.compile(
    r"^[ \t#*>_]*+(?:final )?(?:solution|answer|implementation)[ \t*_]*+(?::|$)|\((?:answer|solution):|\bhere is the (?:code|solution)\b",
    re.IGNORECASE | re.MULTILINE,
)
# An order where a sentence or a clause begins, or what is wanted. Of MBPP's 974 tasks and HumanEval's 164 all ask by this rule.
_ORDER = re.compile(
    r"(?:^|[.:,;!)\]}`][ \t]*+|\n[ \t]*+)(?:(?:then|and|please|now|also|next) )*"
    r"(?:write|implement|create|develop|design|build|define|code|complete|make|generate|return|print|find|check|count|sort|convert|"
    r"calculate|compute|determine|modify|refactor|fix|optimi[sz]e|add|remove|use|extend|rewrite|reverse|extract|filter|given)\b"
    r"|\b(?:function|program|script|class|method|code|query) (?:that|to|which|called|named)\b"
    r"|\b(?:how (?:to|can|do|would|should)|what(?:'s| is| are| would| will))\b",
    re.IGNORECASE,
)
