"""The wording of the mathematics domain, byte for byte, and its parsers."""

import time

import pytest

from scalequest.domains import DIFFICULTY, SOLVABILITY, maths
from scalequest.domains.maths import asks, leaks_solution, rewrite_turns
from scalequest.io import read_jsonl
from tests.domains import prompts
from tests.fakes import real_data

# Braces, a percent sign and a backslash: what a template engine would take for its own.
QUESTION = "If {a} = 50%, what is \\frac{a}{2}?"

# ------------------------------------------------------------------------------------------------------ golden strings

SOLVE = """If {a} = 50%, what is \\frac{a}{2}?
Please reason step by step, and put your final answer within \\boxed{}."""

JUDGE_REASONED = """You are a careful mathematics teacher. A student hands you the following text:

If {a} = 50%, what is \\frac{a}{2}?

Decide whether it is a mathematics problem that can be solved. Go through these points:
1. Is it a mathematics problem at all?
2. Are all the conditions given that a solution needs, and do they agree with each other?
3. Try to solve it, if that helps you to tell.
Write down your reasoning briefly. Then end with one last line that is only "Yes" if it can be solved, or "No" if not."""

JUDGE_FEW_SHOT = """You check math questions. Answer Yes if a question can be solved, No if not. First question: What is 3 + 4?
> Yes
Where is the blue house?
> No
Ann has 2 cats and 3 dogs. How many pets does Ann have?
> Yes
Tom has some apples. How many are red?
> No
What is 20 / 5?
> Yes
After 50 tents in 8 hours.
> No
A car goes 30 miles an hour. How far does it go in 2 hours?
> Yes
What is 9 * +?
> No
How many legs do 3 dogs have?
> Yes
If {a} = 50%, what is \\frac{a}{2}?"""

REWRITE_SECTIONS_SOLVABILITY = """You are a mathematics teacher who prepares exercises. Below is a draft:

If {a} = 50%, what is \\frac{a}{2}?

Make sure that it is a sound exercise. Work in three sections with exactly these headers:
CREATED QUESTION: repeat the draft; if it is not a mathematics question, or makes no sense, write a new one instead; if it is very short, add the detail it lacks.
VERIFICATION AND MODIFICATION: solve it, check your solution, and repair every condition that is missing, contradictory or against common sense. It must ask for one thing, have a numeric answer, stand by itself, and hold no part of its solution.
FINAL QUESTION: the exercise alone."""

REWRITE_SECTIONS_DIFFICULTY = """You rewrite mathematics questions so that they become harder. The question:

If {a} = 50%, what is \\frac{a}{2}?

Work in four steps with exactly these headers:
STEP 1, METHODS: repair the question if it has an error, then list ways to make it harder.
STEP 2, PLAN: choose some of them and say how you apply them.
STEP 3, REWRITE: write the harder question; add no more than 10 to 20 words.
STEP 4, REVIEW: check that it can be solved and repair it if not.
FINAL QUESTION: the reviewed question alone."""

REWRITE_FEW_SHOT_SOLVABILITY = """Rewrite the question so that it can be solved. Do not answer it.
Tom has some apples and buys 3. How many?
> Tom has 5 apples and buys 3 more. How many apples does Tom have?
Rewrite the question so that it can be solved. Do not answer it.
What is 7 + * 2?
> What is 7 + 2?
Rewrite the question so that it can be solved. Do not answer it.
How many wheels do cars have?
> How many wheels do 3 cars have in total?
Rewrite the question so that it can be solved. Do not answer it.
What is 6 times?
> What is 6 * 9?
Rewrite the question so that it can be solved. Do not answer it.
If {a} = 50%, what is \\frac{a}{2}?"""

REWRITE_FEW_SHOT_DIFFICULTY = """Rewrite the question so that it is harder. Do not answer it.
What is 3 + 4?
> What is 3 + 4 - 2 + 8?
Rewrite the question so that it is harder. Do not answer it.
Tom has 5 apples and buys 3 more. How many apples does Tom have?
> Tom has 5 apples, buys 3 more and gives 2 to Ann. How many apples does Tom have?
Rewrite the question so that it is harder. Do not answer it.
How many wheels do 2 cars have?
> How many wheels do 2 cars and 3 bikes have?
Rewrite the question so that it is harder. Do not answer it.
What is 6 * 9?
> What is 6 * 9 + 17?
Rewrite the question so that it is harder. Do not answer it.
If {a} = 50%, what is \\frac{a}{2}?"""


def test_prompts_are_these_bytes():
    assert prompts(maths, QUESTION) == {
        "solve": SOLVE,
        "judge_reasoned": JUDGE_REASONED,
        "judge_few_shot": JUDGE_FEW_SHOT,
        "sections_solvability": REWRITE_SECTIONS_SOLVABILITY,
        "sections_difficulty": REWRITE_SECTIONS_DIFFICULTY,
        "few_shot_solvability": REWRITE_FEW_SHOT_SOLVABILITY,
        "few_shot_difficulty": REWRITE_FEW_SHOT_DIFFICULTY,
    }


@pytest.mark.parametrize("style", ["sections", "few_shot"])
def test_rewrite_prompts_are_named_for_what_they_ask(style: str):
    # The paper's code crosses the two names (docs/paper-differences.md, 1).
    assert "harder" in rewrite_turns("Q", DIFFICULTY, style)[-1]
    assert "harder" not in rewrite_turns("Q", SOLVABILITY, style)[-1]
    assert "solve" in rewrite_turns("Q", SOLVABILITY, style)[-1]


# ---------------------------------------------------------------------------------------------------------- what a question says


@pytest.mark.parametrize(
    ("question", "leaks"),
    [
        pytest.param("Tom has 3. How many?", False, id="plain"),
        pytest.param("What is the answer?", False, id="asks_for_the_answer"),
        pytest.param("How many solutions has x^2 = 1?", False, id="asks_for_solutions"),
        pytest.param("Solutions of two acids are mixed. How strong is the mix?", False, id="chemistry_plural"),
        pytest.param("Solution A holds 20% acid, solution B 50%. How much of each?", False, id="chemistry"),
        pytest.param("Mix them.\nSolution B is pure water. How much is needed?", False, id="chemistry_on_its_own_line"),
        pytest.param("Solve 2x = 6.\nAnswer as a fraction.", False, id="form_of_the_answer"),
        pytest.param("Express your answer in simplest form.", False, id="express_your_answer"),
        pytest.param("What is 2 + 2? The answer is 4.", True, id="the_answer_is"),
        pytest.param("What is 2 + 2? the final answer is 4", True, id="final_answer_is"),
        pytest.param("The answer to this math problem is 3.", True, id="the_answer_to_this_problem_is"),
        pytest.param("What is 2 + 2?\nAnswer: 4", True, id="answer_line"),
        pytest.param("What is 2 + 2?\n**Answer:** 4", True, id="bold_answer_line"),
        pytest.param("What is 2 + 2?\n\nSolution:\n2 + 2 = 4", True, id="solution_section"),
        pytest.param("What is 2 + 2?\n**Solution**\n2 + 2 = 4", True, id="bold_solution_heading"),
        pytest.param("What is 2 + 2?\n### Solution\n2 + 2 = 4", True, id="markdown_solution_heading"),
        pytest.param("What is 2 + 2?\n### Answer: 4", True, id="markdown_answer_heading"),
        pytest.param("What is 2 + 2? (Answer: 4)", True, id="answer_in_brackets"),
        pytest.param("What is 2 + 2? \\boxed{4}", True, id="box"),
        pytest.param("Answer: 4\nWhat is 2 + 2?", True, id="answer_first"),
        pytest.param("", False, id="empty"),
    ],
)
def test_a_question_that_holds_its_solution_is_told(question: str, leaks: bool):
    assert leaks_solution(question) is leaks


@pytest.mark.parametrize(
    ("text", "asking"),
    [
        pytest.param("Tom has 3. How many?", True, id="question_mark"),
        pytest.param("Find x if 2x = 6.", True, id="order"),
        pytest.param("Let 2x = 6. Find x.", True, id="order_in_a_later_sentence"),
        pytest.param("If 2x = 6, find x.", True, id="order_after_a_comma"),
        pytest.param("Two lines:\nCompute their sum.", True, id="order_on_its_own_line"),
        pytest.param("Let \\[f(x) = x + 1.\\]Find $f(3)$.", True, id="order_after_a_formula"),
        pytest.param("Since $a < b$ find the pair $(a,b)$.", True, id="order_without_a_comma"),
        pytest.param("Fully factor the following expression: $2x^2-8$", True, id="adverb_before_the_order"),
        pytest.param("How much does he have to pay in a year.", True, id="question_word_without_a_mark"),
        pytest.param("Tom has 3 apples.", False, id="statement"),
        pytest.param("3 + 2 = 5", False, id="equation"),
        # Real answers of a 135M optimizer that was asked to rewrite.
        pytest.param("1. No solution yet.", False, id="no_solution_yet"),
        pytest.param("The original math problem is 9 * 2 = 18.", False, id="talks_about_the_problem"),
        pytest.param("The problem is asking for the total number of legs of three snakes.", False, id="explains_the_problem"),
        pytest.param("To find 4 * 5, we can multiply 4 by 5, which gives us 20.", False, id="explains_how_to_find"),
        pytest.param("The number of legs needed to hang 6 chicken legs is 6.", False, id="answers"),
        pytest.param("汤姆有三个苹果。", False, id="statement_in_another_script"),
        pytest.param("", False, id="empty"),
    ],
)  # fmt: skip
def test_a_text_that_asks_for_nothing_is_no_question(text: str, asking: bool):
    assert asks(text) is asking


@pytest.mark.parametrize("name", ["gsm8k/train.jsonl", "math/train.jsonl"])
def test_nearly_every_real_question_asks_and_leaks_nothing(name: str):
    questions = [row["question"] for row in read_jsonl(real_data(name))]
    # A rewrite as good as these must pass the pair filters. What is left are multiple choices that end in "... is".
    assert sum(map(asks, questions)) > 0.98 * len(questions)
    assert sum(map(leaks_solution, questions)) < 0.002 * len(questions)


@pytest.mark.parametrize("read", [leaks_solution, asks])
def test_a_runaway_of_blank_lines_is_read_at_once(read):
    # A model that repeats one token until max_tokens is common; a pattern that backtracks over it takes minutes a shard.
    text = "\n" * 4_000 + "- " * 1_000
    started = time.perf_counter()
    read(text)
    # Linear reading takes under 1 ms; quadratic backtracking took 0.4 to 1.1 s.
    assert time.perf_counter() - started < 0.2
