"""What the model roles are told in a mathematics run, after the paper's prompts (Figs 10 to 12), in our words."""

import re

from scalequest.domains import DIFFICULTY, SOLVABILITY, judge_conversation, rewrite_conversation

# ------------------------------------------------------------------------------------------------------------- solving


def solve_prompt(question: str) -> str:
    """Ask for a worked solution (the Qwen-Math instruction that the paper's responder gets)."""
    return f"{question}\nPlease reason step by step, and put your final answer within \\boxed{{}}."


# ------------------------------------------------------------------------------------------------------------- judging

_JUDGE = {
    "reasoned": """You are a careful mathematics teacher. A student hands you the following text:

{question}

Decide whether it is a mathematics problem that can be solved. Go through these points:
1. Is it a mathematics problem at all?
2. Are all the conditions given that a solution needs, and do they agree with each other?
3. Try to solve it, if that helps you to tell.
Write down your reasoning briefly. Then end with one last line that is only "Yes" if it can be solved, or "No" if not.""",
}
# A conversation that shows the task, turn about: a model of 135M parameters follows examples, not instructions.
_JUDGE_EXAMPLES = [
    "You check math questions. Answer Yes if a question can be solved, No if not. First question: What is 3 + 4?", "Yes",
    "Where is the blue house?", "No",
    "Ann has 2 cats and 3 dogs. How many pets does Ann have?", "Yes",
    "Tom has some apples. How many are red?", "No",
    "What is 20 / 5?", "Yes",
    "After 50 tents in 8 hours.", "No",
    "A car goes 30 miles an hour. How far does it go in 2 hours?", "Yes",
    "What is 9 * +?", "No",
    "How many legs do 3 dogs have?", "Yes",
]  # fmt: skip


def judge_turns(question: str, style: str) -> list[str]:
    """Ask whether a question can be solved, in the turns of a conversation."""
    return judge_conversation(_JUDGE, _JUDGE_EXAMPLES, question, style)


# ----------------------------------------------------------------------------------------------------------- rewriting

_REWRITE = {
    ("sections", SOLVABILITY): """You are a mathematics teacher who prepares exercises. Below is a draft:

{question}

Make sure that it is a sound exercise. Work in three sections with exactly these headers:
CREATED QUESTION: repeat the draft; if it is not a mathematics question, or makes no sense, write a new one instead; if it \
is very short, add the detail it lacks.
VERIFICATION AND MODIFICATION: solve it, check your solution, and repair every condition that is missing, contradictory or \
against common sense. It must ask for one thing, have a numeric answer, stand by itself, and hold no part of its solution.
FINAL QUESTION: the exercise alone.""",
    ("sections", DIFFICULTY): """You rewrite mathematics questions so that they become harder. The question:

{question}

Work in four steps with exactly these headers:
STEP 1, METHODS: repair the question if it has an error, then list ways to make it harder.
STEP 2, PLAN: choose some of them and say how you apply them.
STEP 3, REWRITE: write the harder question; add no more than 10 to 20 words.
STEP 4, REVIEW: check that it can be solved and repair it if not.
FINAL QUESTION: the reviewed question alone.""",
    ("few_shot", SOLVABILITY): """Rewrite the question so that it can be solved. Do not answer it.
{question}""",
    ("few_shot", DIFFICULTY): """Rewrite the question so that it is harder. Do not answer it.
{question}""",
}
# Shown before a few-shot request: without examples a model of 135M parameters answers the question instead of rewriting it.
_REWRITE_EXAMPLES = {
    SOLVABILITY: [
        (
            "Tom has some apples and buys 3. How many?",
            "Tom has 5 apples and buys 3 more. How many apples does Tom have?",
        ),
        ("What is 7 + * 2?", "What is 7 + 2?"),
        ("How many wheels do cars have?", "How many wheels do 3 cars have in total?"),
        ("What is 6 times?", "What is 6 * 9?"),
    ],
    DIFFICULTY: [
        ("What is 3 + 4?", "What is 3 + 4 - 2 + 8?"),
        (
            "Tom has 5 apples and buys 3 more. How many apples does Tom have?",
            "Tom has 5 apples, buys 3 more and gives 2 to Ann. How many apples does Tom have?",
        ),
        ("How many wheels do 2 cars have?", "How many wheels do 2 cars and 3 bikes have?"),
        ("What is 6 * 9?", "What is 6 * 9 + 17?"),
    ],
}


def rewrite_turns(question: str, direction: str, style: str) -> list[str]:
    """Ask for a rewrite of a question that improves one thing, in the turns of a conversation."""
    return rewrite_conversation(_REWRITE, _REWRITE_EXAMPLES, question, direction, style)


def leaks_solution(question: str) -> bool:
    """Whether a question holds its own solution or answer: under a heading, or worked out after what is asked."""
    return bool(_LEAK.search(question)) or bool(
        _WORKED_OUT.search(question[question.rfind("?") + 1 :] if "?" in question else "")
    )


def asks(question: str) -> bool:
    """Whether a text asks for something: a question mark, or a sentence that begins with an order to work something out."""
    return "?" in question or bool(_ORDER.search(question))


# "Solution A holds 20% acid" and "Answer as a fraction" leak nothing: a heading or a colon makes the difference.
_LEAK = re.compile(
    r"\\boxed|\banswer(?: to [^.?!\n]*)? is\b|^[ \t#*>_]*+(?:final )?(?:solution|answer)[ \t*_]*+(?::|$)|\((?:answer|solution):"
    r"|, which is -?\d[\d,.]*\s*$",
    re.IGNORECASE | re.MULTILINE,
)
_RUN = r"[-+*/×÷\d,.() $]"
# After the last question mark: a start of the solution, an equation of numbers alone, or a number and nothing else.
_WORKED_OUT = re.compile(
    r"\A[\s*_#>-]*(?:(?:so|now|first),? )?let(?:['’]s| us) (?:solve|find|calculate|compute|work|break|start|begin|see|think|figure)\b"
    r"|\A[\s*_#>-]*(?:in order )?to (?:solve|answer) (?:this|the|it)\b"
    # A run of numbers and operators is read once from its start: possessive, because backtracking over it would be quadratic.
    rf"|(?<!{_RUN})(?={_RUN}*\d[ ]?(?:[-+*/×÷]|\\times|\\cdot|\\div)[ ]?[\d($])(?:{_RUN}|\\times|\\cdot|\\div)++=[ ]?[$]?-?\d"
    r"|\A[\s*_$=]*-?\d[\d,.]*\s*(?:[a-z]+)?[\s*_.$!]*\Z",
    re.IGNORECASE,
)
# An order where a sentence or a clause begins (also after a formula), or one with an object; or a question word without its mark.
# Of MATH's training questions 99.4% ask by this rule.
_ORDER = re.compile(
    r"(?:^|[.:,;!)$\]}][ \t]*+|\n[ \t]*+)(?:(?:then|and|please|fully|completely|now|also|algebraically) )*"
    r"(?:find|calculate|compute|determine|evaluate|solve|simplify|prove|show|express|factor|expand|convert|round|estimate|write|give|"
    r"state|list|count|graph|rationalize|identify|name|arrange|choose|enter)\b"
    r"|(?<!to )(?<!we )(?<!can )\b(?:find|calculate|compute|determine|evaluate)\b (?:the|all|an?|\$|how|its|each|every|both)"
    r"|\b(?:how (?:many|much|long|far|old|fast)|what(?:'s| is| are| was| were| would| will)|(?:in|at|by) what)\b",
    re.IGNORECASE,
)
