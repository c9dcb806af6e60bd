import time

import pytest

from scalequest.domains import DIFFICULTY, SOLVABILITY
from scalequest.domains.maths import asks, judge_turns, leaks_solution, rewrite_turns, solve_prompt
from scalequest.errors import UserError
from scalequest.io import read_jsonl
from scalequest.models.chat import ChatFormat
from stages.judge import parse_verdict
from stages.preferences import parse_rewrite
from tests.fakes import CharTokenizer, chatml_tokenizer, deepseek_tokenizer, real_data, render_chatml, render_deepseek

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


def script(turns: list[str]) -> str:
    """A conversation as one text, the model's turns marked."""
    return "\n".join(f"> {turn}" if number % 2 else turn for number, turn in enumerate(turns))


@pytest.mark.parametrize(
    ("made", "golden"),
    [
        pytest.param(solve_prompt(QUESTION), SOLVE, id="solve"),
        pytest.param(script(judge_turns(QUESTION, "reasoned")), JUDGE_REASONED, id="judge_reasoned"),
        pytest.param(script(judge_turns(QUESTION, "few_shot")), JUDGE_FEW_SHOT, id="judge_few_shot"),
        pytest.param(script(rewrite_turns(QUESTION, SOLVABILITY, "sections")), REWRITE_SECTIONS_SOLVABILITY, id="sections_solvability"),
        pytest.param(script(rewrite_turns(QUESTION, DIFFICULTY, "sections")), REWRITE_SECTIONS_DIFFICULTY, id="sections_difficulty"),
        pytest.param(script(rewrite_turns(QUESTION, SOLVABILITY, "few_shot")), REWRITE_FEW_SHOT_SOLVABILITY, id="few_shot_solvability"),
        pytest.param(script(rewrite_turns(QUESTION, DIFFICULTY, "few_shot")), REWRITE_FEW_SHOT_DIFFICULTY, id="few_shot_difficulty"),
    ],
)  # fmt: skip
def test_prompts_are_these_bytes(made: str, golden: str):
    assert made == golden


@pytest.mark.parametrize("style", ["sections", "few_shot"])
def test_rewrite_prompts_are_named_for_what_they_ask(style: str):
    # The paper's code crosses the two names (docs/paper-differences.md, 1).
    assert "harder" in rewrite_turns("Q", DIFFICULTY, style)[-1]
    assert "harder" not in rewrite_turns("Q", SOLVABILITY, style)[-1]
    assert "solve" in rewrite_turns("Q", SOLVABILITY, style)[-1]


# --------------------------------------------------------------------------------------------------------- chat format

BOTH = pytest.mark.parametrize(
    ("tokenizer", "render"),
    [
        pytest.param(chatml_tokenizer(), render_chatml, id="chatml"),
        pytest.param(deepseek_tokenizer(), render_deepseek, id="deepseek"),
    ],
)


@BOTH
def test_the_prefix_ends_where_the_users_words_begin_without_a_space(tokenizer, render):
    chat = ChatFormat.of(tokenizer)
    prefix = chat.decode(chat.question_prefix)
    assert not prefix.endswith(" ")
    assert render("@").split("@")[0].rstrip(" ") == prefix


@BOTH
def test_a_prefix_and_its_question_are_the_opened_users_turn(tokenizer, render):
    chat = ChatFormat.of(tokenizer)
    # What a generator reads and writes is byte for byte what a chat with that question begins with.
    text = chat.decode(chat.question_prefix + chat.question("Tom has 3.")[:-1])
    assert text == render("Tom has 3.")[: len(text)]
    assert text.endswith("Tom has 3.")


@BOTH
def test_a_users_turn_is_the_templates_own_rendering(tokenizer, render):
    chat = ChatFormat.of(tokenizer)
    words = "  Tom has {3} apples.\n\nHow many?\n"
    assert chat.user_turn(words) == tokenizer.encode(render(words), add_special_tokens=False)


def test_there_is_one_bos_and_the_template_writes_it(deepseek: ChatFormat):
    bos = deepseek.encode("<|bos|>")[0]
    for ids in (deepseek.question_prefix, deepseek.user_turn("Tom"), deepseek.solution("Tom", "3")):
        assert ids[0] == bos
        assert ids.count(bos) == 1
    # The tokenizer would add one if asked to: the paper's code does (docs/paper-differences.md, 7).
    assert deepseek.tokenizer.encode(deepseek.prefix)[:2] == [bos, bos]


def test_continuations_get_no_bos(deepseek: ChatFormat):
    bos = deepseek.encode("<|bos|>")[0]
    assert bos not in deepseek.question("Tom")
    assert bos not in deepseek.response("3")


def test_chatml_ends_a_question_with_the_turns_own_end(chatml: ChatFormat):
    assert chatml.decode([chatml.question_end]) == "<|im_end|>"
    assert chatml.decode(chatml.question("Tom")) == "Tom<|im_end|>"


def test_deepseek_ends_a_question_with_the_end_of_sequence_and_no_blank_line(deepseek: ChatFormat):
    # After the user's words comes text ("Assistant:"), so nothing but EOS can end the question.
    assert deepseek.decode([deepseek.question_end]) == "<|eos|>"
    assert deepseek.decode(deepseek.question("Tom")) == " Tom<|eos|>"


def test_a_turn_that_ends_in_another_token_than_the_sequence_stops_at_both():
    tokenizer = CharTokenizer(["<|user|>", "<|end|>", "<|eos|>"], "<|eos|>", lambda q: f"<|user|>{q}<|end|>")
    chat = ChatFormat.of(tokenizer)
    assert chat.decode([chat.question_end]) == "<|end|>"
    assert sorted(chat.decode([i]) for i in chat.stop_ids) == ["<|end|>", "<|eos|>"]


@BOTH
def test_whatever_ends_a_question_or_a_sequence_stops_generation(tokenizer, render):
    chat = ChatFormat.of(tokenizer)
    assert chat.question_end in chat.stop_ids
    assert tokenizer.eos_token_id in chat.stop_ids
    assert chat.stop_ids == sorted(set(chat.stop_ids))


@BOTH
def test_a_response_ends_with_the_end_of_sequence(tokenizer, render):
    chat = ChatFormat.of(tokenizer)
    assert chat.response("It is 3.") == [*map(ord, "It is 3."), tokenizer.eos_token_id]


@BOTH
def test_a_solution_for_the_reward_model_asks_for_the_box_and_has_no_end_token(tokenizer, render):
    chat = ChatFormat.of(tokenizer)
    expected = render(solve_prompt("Tom has 3.")) + "It is 3."
    assert chat.solution(solve_prompt("Tom has 3."), "It is 3.") == tokenizer.encode(expected, add_special_tokens=False)


@pytest.mark.parametrize(
    ("tokenizer", "expected"),
    [
        pytest.param(CharTokenizer(["<|eos|>"], "<|eos|>", None), "char-model: its tokenizer has no chat template", id="no_template"),
        pytest.param(CharTokenizer(["<|eos|>"], "<|eos|>", lambda q: f"{q} {q}"), "its chat template repeats or drops the user's words", id="words_twice"),
        pytest.param(CharTokenizer(["<|eos|>"], "<|eos|>", lambda q: q.lower()), "its chat template repeats or drops the user's words", id="words_changed"),
        pytest.param(CharTokenizer(["<|x|>"], None, lambda q: f"User: {q}\n"), "no end-of-sequence token", id="no_end"),
    ],
)  # fmt: skip
def test_a_tokenizer_that_cannot_ask_is_refused(tokenizer: CharTokenizer, expected: str):
    with pytest.raises(UserError, match=expected):
        ChatFormat.of(tokenizer)


# ------------------------------------------------------------------------------------------------------------- parsers


@pytest.mark.parametrize(
    ("completion", "verdict"),
    [
        pytest.param("Yes", True, id="yes"),
        pytest.param("No", False, id="no"),
        pytest.param("yes.", True, id="full_stop"),
        pytest.param(" NO!", False, id="shouted"),
        pytest.param("**Yes**", True, id="bold"),
        pytest.param("`No`", False, id="code"),
        pytest.param('"Yes"', True, id="quoted"),
        pytest.param("_Yes_", True, id="italic"),
        pytest.param("\\boxed{No}", False, id="boxed"),
        pytest.param("\\text{Yes}", True, id="latex_text"),
        pytest.param("Verdict:Yes", True, id="after_a_colon"),
        pytest.param("Yes, it can be solved.\nNo", False, id="last_one_wins_no"),
        pytest.param("No condition is missing, and there is no contradiction.\n\nYes", True, id="last_one_wins_yes"),
        pytest.param("Yes or No? I say: Yes", True, id="repeats_the_asking"),
        pytest.param("Yes.\nYes.\nNo.\n\n\n", False, id="blank_lines_at_the_end"),
        # The price of the rule: what counts is the last standalone word, not what the sentence means.
        pytest.param("Yes, there is no missing condition.", False, id="a_no_inside_a_sentence_counts"),
        pytest.param("yesterday", None, id="yesterday_is_no_yes"),
        pytest.param("Tom bought them yesterday. Nothing is known, not even now.", None, id="no_inside_words"),
        pytest.param("Noon. Nobody knows. Eyes.", None, id="only_inside_words"),
        pytest.param("nº 5", None, id="number_sign_is_no_no"),
        pytest.param("", None, id="empty"),
        pytest.param("42", None, id="number"),
        pytest.param("It can be solved.", None, id="sentence_without_a_verdict"),
        pytest.param("Yesno", None, id="run_together"),
        pytest.param("Sí", None, id="other_language"),
    ],
)
def test_the_last_standalone_yes_or_no_is_the_verdict(completion: str, verdict: bool | None):
    assert parse_verdict(completion) is verdict


Q = "Tom has 3 apples. How many?"


@pytest.mark.parametrize(
    ("completion", "rewrite"),
    [
        pytest.param(f"CREATED QUESTION: a\nVERIFICATION AND MODIFICATION: b\nFINAL QUESTION: {Q}", Q, id="as_asked"),
        pytest.param(f"STEP 1, METHODS: a\nSTEP 2, PLAN: b\nSTEP 3, REWRITE: c\nSTEP 4, REVIEW: d\nFINAL QUESTION: {Q}", Q, id="four_steps"),
        pytest.param(f"FINAL QUESTION:\n{Q}", Q, id="on_the_next_line"),
        pytest.param(f"FINAL QUESTION:\n\n\n{Q}\n", Q, id="after_blank_lines"),
        pytest.param(f"FINAL QUESTION : {Q}", Q, id="space_before_the_colon"),
        pytest.param(f"final question: {Q}", Q, id="lower_case"),
        pytest.param(f"**FINAL QUESTION:** {Q}", Q, id="bold_colon_inside"),
        pytest.param(f"**Final Question**: {Q}", Q, id="bold_colon_outside"),
        pytest.param(f"**Final Question**\n\n{Q}", Q, id="bold_without_a_colon"),
        pytest.param(f"### FINAL QUESTION\n{Q}", Q, id="markdown_heading"),
        pytest.param(f"### **Final Question:**\n{Q}", Q, id="bold_markdown_heading"),
        pytest.param(f"# Final Question #\n{Q}", Q, id="closed_markdown_heading"),
        pytest.param(f"3. Final Question: {Q}", Q, id="numbered"),
        pytest.param(f"## 3. Final Question:\n{Q}", Q, id="numbered_heading"),
        pytest.param(f"3) **Final Question:** {Q}", Q, id="numbered_with_a_bracket"),
        pytest.param(f"Section 3: Final Question: {Q}", Q, id="numbered_section"),
        pytest.param(f"**Section 3: Final Question**\n{Q}", Q, id="bold_numbered_section"),
        pytest.param(f"STEP 5: FINAL QUESTION\n{Q}", Q, id="numbered_step"),
        pytest.param(f"> FINAL QUESTION: {Q}", Q, id="block_quote"),
        pytest.param(f"#Finally Rewritten Question#:\n{Q}", Q, id="papers_header"),
        pytest.param(f"#Finally Rewritten Question#: {Q}", Q, id="papers_header_one_line"),
        pytest.param(f"Final Rewritten Question: {Q}", Q, id="rewritten"),
        pytest.param(f"Finally Created Question: {Q}", Q, id="created"),
        pytest.param(f"Final Problem: {Q}", Q, id="problem"),
        pytest.param(f"Final Question - {Q}", Q, id="dash"),
        pytest.param(f"The final question is: {Q}", Q, id="sentence_with_a_colon"),
        pytest.param(f'FINAL QUESTION: "{Q}"', Q, id="quoted"),
        pytest.param(f"FINAL QUESTION: draft\nBetter:\nFINAL QUESTION: {Q}", Q, id="last_header_wins"),
        pytest.param("FINAL QUESTION: Ann has 3.\nShe buys 2.\nHow many?", "Ann has 3.\nShe buys 2.\nHow many?", id="several_lines"),
        pytest.param("FINAL QUESTION: What is it?\nFinal speed is in m/s.", "What is it?\nFinal speed is in m/s.", id="final_in_the_question_is_no_header"),
        pytest.param("FINAL QUESTION: Ann takes a test.\nThe final question asks for 5. What is it?", "Ann takes a test.\nThe final question asks for 5. What is it?", id="sentence_about_a_final_question_is_no_header"),
        pytest.param("Final speed was 3 m/s.", "", id="final_alone_is_no_header"),
        pytest.param("Final answer: 3", "", id="final_answer_is_no_header"),
        pytest.param("Finally, rewrite the question: it is hard.", "", id="finally_comma_is_no_header"),
        pytest.param("Here is my harder question: 2 + 2?", "", id="no_header"),
        pytest.param("CREATED QUESTION: a\nVERIFICATION AND MODIFICATION: b", "", id="cut_before_the_last_section"),
        pytest.param("FINAL QUESTION:", "", id="header_without_a_question"),
        pytest.param("FINAL QUESTION: ***\n", "", id="header_with_decoration_only"),
        pytest.param("", "", id="empty"),
    ],
)  # fmt: skip
def test_a_rewrite_in_sections_is_what_follows_the_last_final_header(completion: str, rewrite: str):
    assert parse_rewrite(completion, "sections") == rewrite


@pytest.mark.parametrize(
    ("completion", "rewrite"),
    [
        pytest.param(Q, Q, id="alone"),
        pytest.param(f"\n  {Q} \n", Q, id="spaces"),
        pytest.param(f'"{Q}"', Q, id="quoted"),
        pytest.param(f"**{Q}**", Q, id="bold"),
        pytest.param(f"Here is a harder problem:\n\n{Q}", Q, id="here_is"),
        pytest.param(f"Here is a harder problem: {Q}", Q, id="here_is_one_line"),
        pytest.param(f"Here's the corrected problem:\n{Q}", Q, id="heres"),
        pytest.param(f"Here’s the corrected problem:\n{Q}", Q, id="heres_typographic"),
        pytest.param(f"Sure!\n\nHere is a harder problem:\n{Q}", Q, id="sure_line"),
        pytest.param(f"Sure! Here is a harder version: {Q}", Q, id="sure_here_is_one_line"),
        pytest.param(f"Certainly! Here's the corrected problem:\n\n{Q}", Q, id="certainly_heres"),
        pytest.param(f"Of course, here is a new problem:\n\n{Q}", Q, id="of_course_here_is"),
        pytest.param(f"Problem: {Q}", Q, id="problem"),
        pytest.param(f"Question:\n{Q}", Q, id="question"),
        pytest.param(f"New problem: {Q}", Q, id="new_problem"),
        pytest.param(f"The new problem is: {Q}", Q, id="the_new_problem_is"),
        pytest.param(f"The corrected math problem is:\n{Q}", Q, id="the_corrected_math_problem_is"),
        pytest.param(f"Rewritten question:\n{Q}", Q, id="rewritten_question"),
        pytest.param(f"A harder problem:\n{Q}", Q, id="a_harder_problem"),
        pytest.param(f"Better question: {Q}", Q, id="better_question"),
        pytest.param(f"Harder question: {Q}", Q, id="harder_question"),
        # The prompt shows pairs of questions; a base model may go on with the next pair.
        pytest.param(f"{Q}\n\nQuestion: Ann has 2.\nBetter question: Ann has 2. How many?", Q, id="next_example"),
        pytest.param(f"**New problem:** {Q}", Q, id="bold_label"),
        pytest.param(f"### Problem\n{Q}", Q, id="markdown_heading"),
        pytest.param("The problem set has 3 items. How many?", "The problem set has 3 items. How many?", id="a_question_about_a_problem_stays"),
        pytest.param("Problems 1 to 9 take 5 minutes each. How long?", "Problems 1 to 9 take 5 minutes each. How long?", id="problems_stay"),
        pytest.param("Here is a list of prices: 3, 4, 5. What is their mean?", "Here is a list of prices: 3, 4, 5. What is their mean?", id="a_question_that_shows_something_stays"),
        pytest.param("Tom says: here is a problem: 2 + 2?", "Tom says: here is a problem: 2 + 2?", id="not_at_the_start"),
        pytest.param("", "", id="empty"),
        pytest.param("Here is a harder problem:\n", "", id="remark_alone"),
    ],
)  # fmt: skip
def test_a_direct_rewrite_loses_the_remark_before_it(completion: str, rewrite: str):
    assert parse_rewrite(completion, "few_shot") == rewrite


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


@pytest.mark.parametrize(
    "read",
    [
        pytest.param(lambda text: parse_rewrite(text, "sections"), id="sections"),
        pytest.param(lambda text: parse_rewrite(text, "few_shot"), id="few_shot"),
        pytest.param(leaks_solution, id="leaks_solution"),
        pytest.param(asks, id="asks"),
        pytest.param(parse_verdict, id="verdict"),
    ],
)
def test_a_runaway_of_blank_lines_is_read_at_once(read):
    # A model that repeats one token until max_tokens is common; a pattern that backtracks over it takes minutes a shard.
    text = "\n" * 4_000 + "- " * 1_000
    started = time.perf_counter()
    read(text)
    # Linear reading takes under 1 ms; quadratic backtracking took 0.4 to 1.1 s.
    assert time.perf_counter() - started < 0.2


def test_a_template_that_prints_the_date_is_refused():
    tokenizer = chatml_tokenizer()
    tokenizer.chat_template = "{{ strftime_now('%d %b %Y') }}" + tokenizer.chat_template
    with pytest.raises(UserError, match="prints today's date"):
        ChatFormat.of(tokenizer)


def test_where_words_end_a_turn_they_end_a_question(chatml: ChatFormat, deepseek: ChatFormat):
    # An untuned model would go on with the assistant's turn, and the answer would be taken for a part of the question.
    assert deepseek.question_stops == ["Assistant:"]
    assert chatml.question_stops == []


def test_many_prompts_are_encoded_as_one_by_one(chatml: ChatFormat, deepseek: ChatFormat):
    texts = ["What is 2 + 3?", "", " Zwei, é 😀?", "x" * 300]
    turns = [["a", "b", "c"], ["q"]]
    for chat in (chatml, deepseek):
        assert chat.user_turns(texts) == [chat.user_turn(text) for text in texts]
        assert chat.conversations(turns) == [chat.conversation(t) for t in turns]
        assert chat.user_turns([]) == []
