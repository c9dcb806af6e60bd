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


# Rewrites that give their answer away: announced, named while asking, given, concluded or worked out after the question.
LEAKING = [
    "What is 2 + 2? The answer is 4.",
    "What is 2 + 2? Answer: 4",
    "What is 2 + 2?\nAnswer: 4",
    "What is 2 + 2? Ans: 4",
    "What is 2 + 2? Ans. 4",
    "What is 2 + 2? (Answer: 4)",
    "What is 2 + 2? [Answer = 4]",
    "What is 2 + 2? \\boxed{4}",
    "What is 2 + 2?\n#### 4",
    "What is 2 + 2? It is 4.",
    "What is 2 + 2? It's 4.",
    "What is 2 + 2? That's 4",
    "What is 2 + 2? 4",
    "What is 2 + 2? 4.",
    "What is 2 + 2? (4)",
    "What is 2 + 2? = 4",
    "What is 2 + 2? Four.",
    "What is 2 + 2 = 4?",
    "What is 2 + 2, which is 4?",
    "Find the sum of 3 and 4, which equals 7.",
    "Find the sum of 3 and 4, i.e. 7.",
    "Find the sum of 3 and 4 (= 7).",
    "Find the sum of 3 and 4 => 7",
    "2 + 2 equals 4. What is 2 + 2?",
    "Since 5 + 3 = 8, how many apples does Tom have?",
    "Tom has 5 apples and buys 3. How many apples has he? He has 8 apples.",
    "Tom has 5 apples and buys 3. How many apples has he? Tom has 8 apples in total.",
    "Tom has 5 apples and buys 3. How many apples has he? So the total is 8.",
    "Tom has 5 apples and buys 3. How many apples has he? Therefore, Tom has $8$ apples.",
    "Tom has 5 apples and buys 3. How many apples has he? 5 + 3 = 8",
    "Tom has 5 apples and buys 3. How many apples has he? 8 apples",
    "Tom has 5 apples and buys 3. How many apples has he? Adding both gives 8.",
    "Tom has 5 apples and buys 3. How many apples has he? First, add 5 and 3 to get 8.",
    "Tom has 5 apples and buys 3. How many apples has he? We get 8.",
    "Tom has 5 apples and buys 3. How many apples has he? The total number of apples is 8.",
    "Tom has 5 apples and buys 3. How many apples has he? Let's solve it step by step.",
    "Tom has 5 apples and buys 3. How many apples has he? To find the total, we add 5 and 3.",
    "Tom has 5 apples and buys 3. How many apples has he?\n\nExplanation: add the two numbers.",
    "Tom has 5 apples and buys 3. How many apples has he? Step 1: add 5 and 3.",
    "Solve 2x = 8. x = 4.",
    "Solve 2x = 8. The solution is x = 4.",
    "Find x if 2x = 8. So x = 4.",
    "Calculate 12 × 3. 12 × 3 = 36.",
    "Compute $12 \\times 3$. The result is 36.",
    "Calculate 15% of 80. It equals 12.",
    "The answer is 4. What is 2 + 2?",
    "Answer: 4\nWhat is 2 + 2?",
    "Which is larger, 3 or 5? The correct option is B.",
    "Which is larger?\nA) 3\nB) 5\nCorrect answer: B",
    "Q: What is 2 + 2?\nA: 4",
    "Is 7 prime? Yes.",
    "What is 2 + 2? The final answer is four apples.",
    "What is 2 + 2? Express your answer as an integer. It is 4.",
    "What is 2 + 2? Solution: add them.",
    "What is the cost? Hint: the answer is $5.",
    "The final answer to this problem is 3.",
    "How much does she pay? She pays $12.50 in total.",
    "What is 1/2 + 1/2? $\\frac{2}{2} = 1$",
    "What is 2 + 2? Result: 4",
    "What is x? x=4",
    "Ann has 3 cats and 4 dogs. How many pets does she have? The answer would be 7 pets.",
    "Ann has 3 cats and 4 dogs. How many pets does she have? She has seven pets.",
    "Ann has 3 cats and 4 dogs. How many pets does she have? 3 cats plus 4 dogs is 7 pets.",
    "Ann has 3 cats and 4 dogs. How many pets does she have? Ann has a total of 7 pets.",
    "Ann has 3 cats and 4 dogs. How many pets does she have altogether? (7 pets)",
    "Ann has 3 cats and 4 dogs. How many pets does she have altogether? -> 7",
    "Ann has 3 cats and 4 dogs. How many pets does she have? (3 + 4 = 7)",
    "Ann has 3 cats and 4 dogs. How many pets does she have? Simply add 3 and 4.",
    "Ann has 3 cats and 4 dogs. How many pets does she have? Add 3 and 4 to get 7.",
    "Ann has 3 cats and 4 dogs. How many pets does she have? That makes 7 pets.",
    "Ann has 3 cats and 4 dogs. How many pets does she have? There are 7 pets.",
    "Ann has 3 cats and 4 dogs. How many pets does she have? There are 7 pets in total.",
    "Ann has 3 cats and 4 dogs. How many pets does she have? Her total is 7.",
    "Ann has 3 cats and 4 dogs. How many pets does she have?\n\n**Solution:** 3 + 4 = 7",
    "Ann has 3 cats and 4 dogs. How many pets does she have?\n\nFinal answer: 7",
    "Ann has 3 cats and 4 dogs. How many pets does she have? Correct answer: 7",
    "Ann has 3 cats and 4 dogs. How many pets does she have? Answer - 7",
    "Ann has 3 cats and 4 dogs. How many pets does she have? The number is 7.",
    "Ann has 3 cats and 4 dogs. How many pets does she have? The correct answer is seven.",
    "Ann has 3 cats and 4 dogs. How many pets does she have? We know that 3 and 4 is 7.",
    "Ann has 3 cats and 4 dogs. How many pets does she have? By adding them you get 7.",
    "Ann has 3 cats and 4 dogs. How many pets does she have? Solution\n3+4=7",
    "Ann has 3 cats and 4 dogs. How many pets does she have? In total, 7 pets.",
    "What is 5 * 6? 5 * 6 is 30.",
    "What is 5 * 6? Thirty",
    "What is 5 * 6? **30**",
    "What is 5 * 6? $30$",
    "What is 5 * 6? `30`",
    "What is 5 * 6 if it equals 30?",
    "Calculate 5 * 6 = 30.",
    "What is 5 times 6? 5 times 6 equals 30.",
    "Is 9 a prime number? No, because 9 = 3 * 3.",
    "Is 9 a prime? No, it is not.",
    "Find 5*6. 30",
    "Find 5*6.\n30",
    "What is 5 * 6? Answer is 30",
    "What is 5*6? ans=30",
    "What is 5 * 6? The product is 30.",
    "What is 5 * 6? The product of 5 and 6 is 30.",
    "Evaluate 5 * 6 (answer is 30).",
    "What is the value of x if 2x = 8? x is 4.",
    "What is the value of x if 2x = 8? x equals 4",
    "What is the value of $x$ if $2x = 8$? $x = 4$.",
    "Solve $2x=8$ for $x$, where $x = 4$.",
    "What is 5 * 6?\nA: 30",
    "Question: What is 5*6? Answer: 30",
    "What is 5 * 6? I think it is 30.",
    "What is 5 * 6? You should get 30.",
    "What is 5 * 6? Hint: multiply 5 by 6.",
]
# Reminders, forms of the answer, choices, drawings, chemistry. Some are from GSM8K, MATH and TheoremQA.
INNOCENT = [
    "Tom has 3. How many?",
    "What is the answer?",
    "How many solutions has x^2 = 1?",
    "Solution A holds 20% acid, solution B 50%. How much of each?",
    "Mix them.\nSolution B is pure water. How much is needed?",
    "Solve 2x = 6.\nAnswer as a fraction.",
    "What is 1/3 of 7? Express your answer as a fraction.",
    "What is 10/3? Round to 2 decimal places.",
    "How many inches is it? (There are 2.5 centimeters per inch.)",
    "How much milk is it? There are 1,000 ml in 1 liter.",
    "When does he arrive? (24-hr time)",
    "How many ounces? (A cup equals 8 ounces and a pint equals 16 ounces.)",
    "How many letters? (Remember there are 5 vowels and 21 consonants in the alphabet.)",
    "What is $11^4$ in base $b$? (Note: here, $11^4$ in base $b$ means that the number is raised to the fourth power.)",
    "What is $|a|^2$?\n\nNote: $i^2 = -1$",
    "When the square root of $x$ is cubed, the answer is 64. What is the value of $x$?",
    "If his answer is $7$, what was the original number?",
    "He got an answer of $50+40=90$. This answer is not correct. What is the correct answer?",
    "If the answer is written as $a/b$, find $a + b$.",
    'Find the number of matrices. If you think the answer is infinite, then enter "infinite".',
    "If your answer is in the form $\\frac{A+\\sqrt{B}}{C}$, what is $A+B+C$?",
    "How many zeroes are there? (Reminder: The number $n!$ is the product of the integers from 1 to $n$. For example, $5!=5\\cdot 4\\cdot3\\cdot2\\cdot 1= 120$.)",
    "Which is closest?\n\nA. 0.10\n\nB. 0.15\n\nC. 0.20",
    "Find the number of real roots to\n\\[x^4 - 2x^2 - 7 = 0.\\]",
    "Compute\n\n$\\frac{1622^2-1615^2}{1629^2-1608^2}$.",
    "How many symbols can be made using 1, 2, 3, or 4 dots?",
    "Is it stable? Answer 1 for yes and 0 for no.",
    "How many tables? Each table must have at least 1 person seated.",
    "What is the speed? Assume that the wheel has radius 0.33 m. The wheel turns 3 times per second.",
    'What is the area? [asy] draw((0,0)--(3,0)); label("3",(1,0)); [/asy]',
    "Let $\\boxed{n}$ be the sum of the divisors of $n$. Find $\\boxed{11}$.",
    "For example, $3 \\star 4 = 3 + 4 = 7$. What is $5 \\star 2$?",
    "A 20-liter solution is 30% acid. How much water must be added?",
    "If 3 + 5 = 8 and 8 + 2 = 10, what is 10 + 3?",
    "The sum of two numbers is 10 and their product is 21. Find the numbers.",
    "What value of x makes 2x + 3 = 7 true?",
    "What is the sum of the first 102 counting numbers? (The first counting number is 1.)",
    "Enter your answer as an ordered pair.",
    "How far is it? Give your answer in miles, to 1 decimal place.",
    "Tom has 5 apples. He buys 3 more, which cost $2 each. How much does he pay?",
    "",
    "Solutions of two acids are mixed. How strong is the mix?",
    "Express your answer in simplest form.",
    "He has a total of 7 pets. How many are cats?",
    "Find $x$ such that $3^x = 9$.",
    "Compute \\[1 + 2 + 3 + \\cdots + 10.\\]",
]


@pytest.mark.parametrize("question", LEAKING)
def test_a_question_that_holds_its_answer_leaks(question: str):
    assert leaks_solution(question)


@pytest.mark.parametrize("question", INNOCENT)
def test_a_question_that_holds_no_answer_does_not_leak(question: str):
    assert not leaks_solution(question)


@pytest.mark.parametrize(
    ("name", "questions", "false"),
    [
        ("gsm8k/train.jsonl", 7_473, 0),
        ("gsm8k/test.jsonl", 1_019, 0),
        ("math/train.jsonl", 7_500, 4),
        ("math/test.jsonl", 4_700, 1),
        ("college_math/test.jsonl", 1_259, 0),
        ("olympiadbench/test.jsonl", 675, 1),
        ("theoremqa/test.jsonl", 747, 2),
    ],
)
def test_false_leaks_among_published_questions(name: str, questions: int, false: int):
    """At most as many as counted on 2026-11-28: 0 of 8,492 in GSM8K and 5 of 12,200 in MATH."""
    found = [row["question"] for row in read_jsonl(real_data(name))]
    assert len(found) == questions
    assert sum(map(leaks_solution, found)) <= false


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
def test_nearly_every_real_question_asks(name: str):
    questions = [row["question"] for row in read_jsonl(real_data(name))]
    # A rewrite as good as these must pass the pair filters. What is left are multiple choices that end in "... is".
    assert sum(map(asks, questions)) > 0.98 * len(questions)


@pytest.mark.parametrize(
    "part",
    [
        "1,",
        "so so ",
        "the the ",
        "Find the ",
        "answer is ",
        "1 + ",
        "(",
        "So he ",
        "? 1 + 1 = ",
        "the answer to ",
        "one ",
        "$",
        "(a) ",
    ],
)
def test_no_question_takes_long(part: str):
    started = time.perf_counter()
    for start in ("", "What is 2 + 2? ", "Find x. "):
        leaks_solution(start + part * (8_000 // len(part)))
    assert time.perf_counter() - started < 1  # quadratic backtracking took up to 6 s


@pytest.mark.parametrize("read", [leaks_solution, asks])
def test_a_runaway_of_blank_lines_is_read_at_once(read):
    # A model that repeats one token until max_tokens is common; a pattern that backtracks over it takes minutes a shard.
    text = "\n" * 4_000 + "- " * 1_000
    started = time.perf_counter()
    read(text)
    # Linear reading takes under 1 ms; quadratic backtracking took 0.4 to 1.1 s.
    assert time.perf_counter() - started < 0.2


@pytest.mark.parametrize(
    "question",
    [
        "Find the area of a circle of radius 2. The area is 4\u03c0.",
        "What is the side of a square of area 2? \u221a2",
        "What is 3 + 4?\n\u7b54\u6848\uff1a7",
        "What is 3 + 4? \u7b54\u6848\u662f 7",
        "What is 3 + 4?\nRespuesta: 7",
        "Solve 2x = 8 for x, giving x = 4.",
        "The sum of two numbers is 12 and their difference is 4. What are they? 8 and 4.",
        "What are the roots? 3, -5 and 7",
        "Tom has 5 apples and buys 3. How many? Tom ends up with 8 apples.",
        "What do you get, since 2 + 2 = 4?",
    ],
)
def test_an_answer_in_other_signs_words_or_numbers_leaks(question: str):
    assert leaks_solution(question)


@pytest.mark.parametrize(
    "question",
    [
        "Given that 3 + 4 = 7, what is 3 + 5?",
        "How old is Ann? Ann is 5 years older than Bob, who is 7.",
        "How tall is Ann? Ann is 12 cm taller than Bob.",
        "Solve 2x = 7 for x, giving your answer to 2 decimal places.",
    ],
)
def test_a_fact_or_a_request_beside_the_question_leaks_nothing(question: str):
    assert not leaks_solution(question)
