"""What is asked of the model roles in a run on logic puzzles; the paper has no such domain.

The prompts follow ours for mathematics, step by step. A puzzle's answer is words: a name, yes or no, who is a knight.
"""

import re

from scalequest.domains import DIFFICULTY, SHORT, SOLVABILITY, WORKED, judge_conversation, rewrite_conversation
from scalequest.signs import plain

ANSWERS = "puzzle"
SEEDS_NEED_ANSWERS = True

# ------------------------------------------------------------------------------------------------------------- solving


_SOLVE = {
    WORKED: "Please reason step by step, and put your final answer within \\boxed{}, in the form that the puzzle asks for.",
    SHORT: "Please reason in a few short lines, without headings, and put your final answer within \\boxed{}, in the form that the "
    "puzzle asks for.",
}


def solve_prompt(question: str, form: str = WORKED) -> str:
    """Ask for a conclusion that is worked out, or for a short one (``respond.form``), and its answer in a box."""
    return f"{question}\n{_SOLVE[form]}"


# ------------------------------------------------------------------------------------------------------------- judging

_JUDGE = {
    "reasoned": """You are a careful teacher of logic. A student hands you the following text:

{question}

Decide whether it is a puzzle that can be solved by reasoning. Go through these points:
1. Is it a puzzle at all, and is it said what is asked?
2. Are all the conditions given that a solution needs, and can they all be true at once?
3. Do they leave one answer? Try to find it, if that helps you to tell.
Write down your reasoning briefly. Then end with one last line that is only "Yes" if it can be solved, or "No" if not.""",
}
_JUDGE_EXAMPLES = [
    "You check puzzles. Answer Yes if a puzzle can be solved, No if not. First puzzle: Ann is older than Bob. Bob is older than Tom. Who is the oldest?", "Yes",
    "Where is the blue house?", "No",
    "A cube is red on top and blue at the bottom. It is turned upside down. What color is the top now?", "Yes",
    "Ann is taller than Bob. Ann is taller than Tom. Who is the shortest?", "No",
    "Mary is the mother of Ann. Tom is Ann's brother. What is Mary to Tom?", "Yes",
    "After 50 tents in 8 hours.", "No",
    "Knights always tell the truth and knaves always lie. Bob says that 2 + 2 is 5. Is Bob a knight or a knave?", "Yes",
    "Ann sits left of Bob, and Bob sits left of Ann. Who sits on the left?", "No",
    "All cats are animals. Tom is a cat. Is Tom an animal?", "Yes",
]  # fmt: skip


def judge_turns(question: str, style: str) -> list[str]:
    """Ask whether a puzzle can be solved, in the turns of a conversation."""
    return judge_conversation(_JUDGE, _JUDGE_EXAMPLES, question, style)


# ----------------------------------------------------------------------------------------------------------- rewriting

_REWRITE = {
    ("sections", SOLVABILITY): """You are a teacher of logic who prepares puzzles. Below is a draft:

{question}

Make sure that it is a sound puzzle. Work in three sections with exactly these headers:
CREATED QUESTION: repeat the draft; if it is not a puzzle, or makes no sense, write a new one instead; if it is very short, add \
the detail it lacks.
VERIFICATION AND MODIFICATION: solve it, check that the conditions leave exactly one answer, and repair every condition that is \
missing, contradictory or against common sense. It must ask for one thing, have an answer of a few words, stand by itself, and \
hold no part of its solution.
FINAL QUESTION: the puzzle alone.""",
    ("sections", DIFFICULTY): """You rewrite logic puzzles so that they become harder. The puzzle:

{question}

Work in four steps with exactly these headers:
STEP 1, METHODS: repair the puzzle if it has an error, then list ways to make it harder.
STEP 2, PLAN: choose some of them and say how you apply them.
STEP 3, REWRITE: write the harder puzzle; add no more than 10 to 20 words.
STEP 4, REVIEW: check that the conditions leave exactly one answer and repair it if not.
FINAL QUESTION: the reviewed puzzle alone.""",
    ("few_shot", SOLVABILITY): """Rewrite the puzzle so that it can be solved. Do not answer it.
{question}""",
    ("few_shot", DIFFICULTY): """Rewrite the puzzle so that it is harder. Do not answer it.
{question}""",
}
_REWRITE_EXAMPLES = {
    SOLVABILITY: [
        (
            "Ann is taller than Bob. Who is the tallest of the three?",
            "Ann is taller than Bob. Bob is taller than Tom. Who is the tallest of the three?",
        ),
        ("A cube is red on top. What color is it now?", "A cube is red on top and blue at the bottom. It is turned upside down. What color is the top now?"),
        ("Mary is the mother of Ann. What is she to Tom?", "Mary is the mother of Ann. Tom is Ann's brother. What is Mary to Tom?"),
        ("All cats are animals. Is Tom?", "All cats are animals. Tom is a cat. Is Tom an animal?"),
    ],
    DIFFICULTY: [
        (
            "Ann is older than Bob. Who is the oldest?",
            "Ann is older than Bob. Tom is older than Ann, but younger than Eve. Who is the oldest?",
        ),
        (
            "Mary is the mother of Ann. What is Mary to Ann?",
            "Mary is the mother of Ann. Ann is the sister of Tom. Tom is the father of Eve. What is Mary to Eve?",
        ),
        (
            "A cube is red on top and blue at the bottom. It is turned upside down. What color is the top now?",
            "A cube is red on top, blue at the bottom and green in front. The front is turned to the top. Then it is turned upside down. What color is at the bottom now?",
        ),
        ("All cats are animals. Tom is a cat. Is Tom an animal?", "All cats are animals. No animal is a stone. Tom is a cat. Is Tom a stone?"),
    ],
}  # fmt: skip


def rewrite_turns(question: str, direction: str, style: str) -> list[str]:
    """Ask for a rewrite of a puzzle that improves one thing, in the turns of a conversation."""
    return rewrite_conversation(_REWRITE, _REWRITE_EXAMPLES, question, direction, style)


# -------------------------------------------------------------------------------------------------------------- leaks


def leaks_solution(question: str) -> bool:
    """Whether a puzzle holds its own answer: under a label, announced, or as what follows the last thing asked.

    What follows the last question mark leaks if it is a conclusion ("So Ann is a knight.") or an answer alone ("Yes.", "Ann is a
    knight, and Bob is a knave."), and so does a last line that is an answer alone. How to write the answer, options and a drawing
    may follow the question.
    """
    text = plain(question)
    if _LABELLED.search(text) or any(not _OF_ITS_FORM.match(text, found.end()) for found in _ANNOUNCED.finditer(text)):
        return True
    _, mark, tail = text.rpartition("?")
    if mark and (_CONCLUSION.match(tail) or _ANSWER_ALONE.fullmatch(tail)):
        return True
    *above, last = [line for line in text.splitlines() if line.strip()] or [""]
    # Not the last one of a list: options, names.
    return bool(above and _ANSWER_ALONE.fullmatch(last)) and not _ANSWER_ALONE.fullmatch(above[-1])


def asks(question: str) -> bool:
    """Whether a text asks for something: a question mark, or an order to find something out or to write an answer."""
    return "?" in question or bool(_ORDER.search(question))


_LABEL = r"(?:(?:final|correct|right|expected|full|detailed) )?(?:solution|answer|conclusion|explanation|reasoning)"
_LABELLED = re.compile(
    rf"^[ \t#*>_]*+{_LABEL}[ \t*_]*+(?::|$)|[\[(]\s*{_LABEL}\s*[:=]|[.?!)][*_ \t]+{_LABEL}\s*:[*_]*\s*\S|\\boxed|(?<!\S)####\s*\S",
    re.IGNORECASE | re.MULTILINE,
)
_ANNOUNCED = re.compile(
    r"(?<!\bif )(?<!\bwhether )(?<!\bunless )\b(?:the|its|our|my|his|her|correct|right|final) (?:(?:correct|right|final) )?(?:answer|solution|conclusion)"
    r"(?: to (?:this|the) \w+)?\s+(?:is|was|must be|would be|will be)\b",
    re.IGNORECASE,
)
# After "the answer is": it speaks of the answer's form or worth, or the puzzle quotes it.
_OF_ITS_FORM = re.compile(
    r"\s*(?:not\b|in\b|unique|an? (?:single|word|name|number|list|sequence|letter|color)\b|one of\b|to be\b|always\b|given\b|expected\b|written|"
    r"required|obvious|wrong|correct\b|either\b)",
    re.IGNORECASE,
)
_CONCLUSION = re.compile(
    r"[\s*_>#-]*(?:so|therefore|thus|hence|consequently|because|since|let's|let us|first,|step 1)\b", re.IGNORECASE
)
# "Yes.", "7", "a knave", "Ann and Bob.", "Ann is a knight, and Bob is a knave."
_NAME = r"(?!(?:Answer|Reply|Respond|Return|Provide|Give|Write|Note|Hint|Format|Think|Explain)\b)[A-Z][a-z]+"
_IS_SO = rf"{_NAME} is (?:not )?(?:an? |the )?\w+"
_ANSWER_ALONE = re.compile(
    rf"[\s*_\"'(]*(?:(?:yes|no|true|false)\b[^?\n]*|\d+|(?i:an? |the )?[a-z]+(?:-[a-z]+)*|{_NAME}(?:(?:,| and|, and) {_NAME}){{0,3}}"
    rf"|(?:{_IS_SO})(?:(?:,| and|, and) (?:{_IS_SO})){{0,5}})[\s*_\"').!]*",
    re.IGNORECASE,
)
_ORDER = re.compile(
    r"(?:^|[.:,;!)\]}][ \t(]*+|\n[ \t]*+)(?:(?:then|and|please|now|also|next) )*"
    r"(?:find|determine|decide|deduce|infer|identify|solve|complete|fill|arrange|place|choose|select|name|list|count|say|tell|state|show|"
    r"prove|explain|work out|figure out|conclude|press|return|reply|answer|respond|provide|give|write|format|use)\b"
    r"|\b(?:your (?:task|goal|job|answer)|what can (?:we|you|be) conclude\w*|how many)\b"
    # Not "Ann, who is a knight, ..." or "the house in which one of them lives".
    r"|(?:^|[.:;!)\]}\n][ \t(\"']*+|\b(?:so|then|and|now|out|know|say|me|us|deduce|determine|find|decide|infer|identify) )"
    r"(?:who (?:is|are|was)|which (?:of|one|person|house))\b",
    re.IGNORECASE,
)
