"""The wording of the logic domain, byte for byte, and its parsers."""

import time

import pytest

from scalequest.domains import logic
from scalequest.domains.logic import asks, leaks_solution
from scalequest.params import ReasoningGymSource
from scalequest.problems.puzzles import PUZZLES, known_answer
from scalequest.problems.sources import load_problems
from tests.domains import prompts

QUESTION = "Is {a} 50% of a \\n b?"

SOLVE = """Is {a} 50% of a \\n b?
Please reason step by step, and put your final answer within \\boxed{}, in the form that the puzzle asks for."""

JUDGE_REASONED = """You are a careful teacher of logic. A student hands you the following text:

Is {a} 50% of a \\n b?

Decide whether it is a puzzle that can be solved by reasoning. Go through these points:
1. Is it a puzzle at all, and is it said what is asked?
2. Are all the conditions given that a solution needs, and can they all be true at once?
3. Do they leave one answer? Try to find it, if that helps you to tell.
Write down your reasoning briefly. Then end with one last line that is only "Yes" if it can be solved, or "No" if not."""

JUDGE_FEW_SHOT = """You check puzzles. Answer Yes if a puzzle can be solved, No if not. First puzzle: Ann is older than Bob. Bob is older than Tom. Who is the oldest?
> Yes
Where is the blue house?
> No
A cube is red on top and blue at the bottom. It is turned upside down. What color is the top now?
> Yes
Ann is taller than Bob. Ann is taller than Tom. Who is the shortest?
> No
Mary is the mother of Ann. Tom is Ann's brother. What is Mary to Tom?
> Yes
After 50 tents in 8 hours.
> No
Knights always tell the truth and knaves always lie. Bob says that 2 + 2 is 5. Is Bob a knight or a knave?
> Yes
Ann sits left of Bob, and Bob sits left of Ann. Who sits on the left?
> No
All cats are animals. Tom is a cat. Is Tom an animal?
> Yes
Is {a} 50% of a \\n b?"""

REWRITE_SECTIONS_SOLVABILITY = """You are a teacher of logic who prepares puzzles. Below is a draft:

Is {a} 50% of a \\n b?

Make sure that it is a sound puzzle. Work in three sections with exactly these headers:
CREATED QUESTION: repeat the draft; if it is not a puzzle, or makes no sense, write a new one instead; if it is very short, add the detail it lacks.
VERIFICATION AND MODIFICATION: solve it, check that the conditions leave exactly one answer, and repair every condition that is missing, contradictory or against common sense. It must ask for one thing, have an answer of a few words, stand by itself, and hold no part of its solution.
FINAL QUESTION: the puzzle alone."""

REWRITE_SECTIONS_DIFFICULTY = """You rewrite logic puzzles so that they become harder. The puzzle:

Is {a} 50% of a \\n b?

Work in four steps with exactly these headers:
STEP 1, METHODS: repair the puzzle if it has an error, then list ways to make it harder.
STEP 2, PLAN: choose some of them and say how you apply them.
STEP 3, REWRITE: write the harder puzzle; add no more than 10 to 20 words.
STEP 4, REVIEW: check that the conditions leave exactly one answer and repair it if not.
FINAL QUESTION: the reviewed puzzle alone."""

REWRITE_FEW_SHOT_SOLVABILITY = """Rewrite the puzzle so that it can be solved. Do not answer it.
Ann is taller than Bob. Who is the tallest of the three?
> Ann is taller than Bob. Bob is taller than Tom. Who is the tallest of the three?
Rewrite the puzzle so that it can be solved. Do not answer it.
A cube is red on top. What color is it now?
> A cube is red on top and blue at the bottom. It is turned upside down. What color is the top now?
Rewrite the puzzle so that it can be solved. Do not answer it.
Mary is the mother of Ann. What is she to Tom?
> Mary is the mother of Ann. Tom is Ann's brother. What is Mary to Tom?
Rewrite the puzzle so that it can be solved. Do not answer it.
All cats are animals. Is Tom?
> All cats are animals. Tom is a cat. Is Tom an animal?
Rewrite the puzzle so that it can be solved. Do not answer it.
Is {a} 50% of a \\n b?"""

REWRITE_FEW_SHOT_DIFFICULTY = """Rewrite the puzzle so that it is harder. Do not answer it.
Ann is older than Bob. Who is the oldest?
> Ann is older than Bob. Tom is older than Ann, but younger than Eve. Who is the oldest?
Rewrite the puzzle so that it is harder. Do not answer it.
Mary is the mother of Ann. What is Mary to Ann?
> Mary is the mother of Ann. Ann is the sister of Tom. Tom is the father of Eve. What is Mary to Eve?
Rewrite the puzzle so that it is harder. Do not answer it.
A cube is red on top and blue at the bottom. It is turned upside down. What color is the top now?
> A cube is red on top, blue at the bottom and green in front. The front is turned to the top. Then it is turned upside down. What color is at the bottom now?
Rewrite the puzzle so that it is harder. Do not answer it.
All cats are animals. Tom is a cat. Is Tom an animal?
> All cats are animals. No animal is a stone. Tom is a cat. Is Tom a stone?
Rewrite the puzzle so that it is harder. Do not answer it.
Is {a} 50% of a \\n b?"""


def test_prompts_are_these_bytes():
    assert prompts(logic, QUESTION) == {
        "solve": SOLVE,
        "judge_reasoned": JUDGE_REASONED,
        "judge_few_shot": JUDGE_FEW_SHOT,
        "sections_solvability": REWRITE_SECTIONS_SOLVABILITY,
        "sections_difficulty": REWRITE_SECTIONS_DIFFICULTY,
        "few_shot_solvability": REWRITE_FEW_SHOT_SOLVABILITY,
        "few_shot_difficulty": REWRITE_FEW_SHOT_DIFFICULTY,
    }


@pytest.fixture(scope="module")
def puzzles() -> list[dict[str, str]]:
    """Three real puzzles of each data set."""
    return [
        problem
        for name in PUZZLES
        for problem in load_problems(
            name, ReasoningGymSource(kind="reasoning_gym", dataset=name, n=3, seed=31_000_000, templates="all", config={}), 0, True
        )
    ]  # fmt: skip


def test_every_real_puzzle_asks_and_leaks_nothing(puzzles: list[dict[str, str]]):
    assert [row["id"] for row in puzzles if not asks(row["question"]) or leaks_solution(row["question"])] == []


def test_a_real_puzzle_with_its_answer_leaks(puzzles: list[dict[str, str]]):
    for row in puzzles:
        answer = known_answer(row["answer"])
        assert leaks_solution(f"{row['question']}\nAnswer: {answer}")
        assert leaks_solution(f"{row['question']} The answer is {answer}.")
        # A path or a grid alone may be a part of the puzzle.
        if row["source"] not in ("mini_sudoku", "quantum_lock"):
            assert leaks_solution(f"{row['question']}\n{answer}"), row["id"]


@pytest.mark.parametrize(
    "question",
    [
        "Who is the oldest? Ann is the oldest.",
        "Is Tom an animal? Yes.",
        "Is Tom an animal? Yes, because all cats are animals.",
        "Who lies? So Bob lies.",
        "Who lies? Therefore, Ann is a knight.",
        "Who lies?\nSolution: Bob.",
        "Who lies? (Answer: Bob)",
        "Who lies? The correct answer is Bob.",
        "What is Mary to Tom? mother-in-law",
        "Who is a knight? Ann is a knight, and Bob is a knave.",
        "What color is the top? \\boxed{red}",
    ],
)
def test_a_puzzle_that_holds_its_answer_leaks(question: str):
    assert leaks_solution(question)


@pytest.mark.parametrize(
    "question",
    [
        "Ann is a knight, and Bob says that Ann lies. Who is Bob?",
        "Who is the oldest?\nAnn\nBob\nTom",
        "Is Tom an animal? Answer with yes or no.",
        "Is the answer a number?",
        "Bob says: the answer is not 3. Is he right?",
        "What color is on top? Provide only the color as your final answer.",
        "Who is a knight? (Format your answer like: \"Ann is a knight/knave\")",
        "Find a path. Your answer is a sequence of letters.",
        "If the answer is yes, Ann lies. Does she?",
        "",
    ],
)  # fmt: skip
def test_a_puzzle_that_holds_no_answer_does_not_leak(question: str):
    assert not leaks_solution(question)


@pytest.mark.parametrize(
    ("text", "asking"),
    [
        pytest.param("Ann is older than Bob. Who is older?", True, id="question_mark"),
        pytest.param("Fill the grid with the numbers from 1 to 4.", True, id="order"),
        pytest.param("There are three houses. Determine who lives in the first.", True, id="order_in_a_later_sentence"),
        pytest.param("Given these, what can we conclude", True, id="what_can_we_conclude"),
        pytest.param("Ann is older than Bob.", False, id="statement"),
        pytest.param("Ann is a knight, and Bob is a knave.", False, id="answer"),
        pytest.param("The puzzle asks for the oldest.", False, id="talks_about_the_puzzle"),
        pytest.param("Michael, who is a sage, is a ludan.", False, id="relative_clause"),  # a rewrite of the laptop run
        pytest.param("Ann lives in the house in which one of them was born.", False, id="in_which_one"),
        pytest.param("Ann and Bob lie. So who is a knight and who is a knave.", True, id="so_who"),
        pytest.param("Ann lies. (Which of them is older.)", True, id="which_of"),
        pytest.param("Ann lies, Bob does not. Can you tell me who is older", True, id="tell_me_who"),
        pytest.param("", False, id="empty"),
    ],
)
def test_a_text_that_asks_for_nothing_is_no_puzzle(text: str, asking: bool):
    assert asks(text) is asking


@pytest.mark.parametrize(
    "part", ["Ann is a knight, ", "so so ", "answer is ", "(", "the answer to ", "? ", "A", "\n", "and Bob "]
)
def test_no_puzzle_takes_long(part: str):
    started = time.process_time()
    for start in ("", "Who lies? ", "Find x. "):
        leaks_solution(start + part * (8_000 // len(part)))
        asks(start + part * (8_000 // len(part)))
    assert time.process_time() - started < 1
