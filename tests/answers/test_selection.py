from typing import Any

import pytest

from scalequest.answers.selection import find_crashes, select_all

QUESTION = {"id": "q", "generator": "sums", "question": "Q?", "difficulty": 0.5}


def responses(*answers: str | tuple[str, str]) -> list[dict[str, Any]]:
    """Samples 0, 1, ... of the question: a text, or a text and its finish reason."""
    pairs = [(a, "stop") if isinstance(a, str) else a for a in answers]
    return [
        {"id": f"q#{k}", "question_id": "q", "sample": k, "response": text, "finish_reason": reason, "n_tokens": 1}
        for k, (text, reason) in enumerate(pairs)
    ]


def rewards(*values: float) -> dict[str, float]:
    return {f"q#{k}": value for k, value in enumerate(values)}


def select(*given: Any, **named: Any) -> Any:
    """The one row that a question keeps, or why it has none."""
    found = select_all(*given, **named)
    if isinstance(found, str):
        return found
    [row] = found
    return row


def chosen(
    answers: list[Any], values: list[float], min_reward: float | None = None, by: str = "reward", seed: int = 0
) -> Any:
    row = select(QUESTION, responses(*answers), rewards(*values), min_reward, "maths", by=by, seed=seed)
    return row if isinstance(row, str) else row["response"]


@pytest.mark.parametrize(
    ("answers", "values", "best"),
    [
        pytest.param(["\\boxed{1}", "\\boxed{2}", "\\boxed{3}"], [0.1, 0.9, 0.5], "\\boxed{2}", id="highest"),
        pytest.param(["\\boxed{1}", "\\boxed{2}"], [-3.0, -2.0], "\\boxed{2}", id="highest_of_negative_ones"),
        pytest.param(["\\boxed{1}", "\\boxed{2}", "\\boxed{3}"], [0.5, 0.9, 0.9], "\\boxed{2}", id="lowest_sample_of_equals"),
        pytest.param([("\\boxed{1}", "length"), "\\boxed{2}"], [9.0, 0.1], "\\boxed{2}", id="a_cut_one_is_never_chosen"),
        pytest.param(["I do not know.", "\\boxed{2}"], [9.0, 0.1], "\\boxed{2}", id="one_without_an_answer_is_never_chosen"),
        pytest.param(["It is 7.", "The answer is 7."], [9.0, 0.1], "The answer is 7.", id="a_number_is_no_announced_answer"),
        pytest.param(["It is 7.", "No."], [1.0, 2.0], "no_answer", id="no_answer_at_all"),
        pytest.param([("\\boxed{1}", "length")], [1.0], "no_answer", id="only_cut_ones"),
        pytest.param([], [], "no_answer", id="no_response"),
    ],
)  # fmt: skip
def test_the_best_rewarded_complete_answer_is_chosen(answers: list[Any], values: list[float], best: str):
    assert chosen(answers, values) == best


def test_equal_rewards_go_to_the_lowest_sample_in_any_order_of_rows():
    rows = responses("\\boxed{1}", "\\boxed{2}", "\\boxed{3}")
    for order in ([2, 1, 0], [1, 2, 0], [0, 2, 1]):
        row = select(QUESTION, [rows[k] for k in order], rewards(0.5, 0.5, 0.5), None, "maths")
        assert row["response"] == "\\boxed{1}"


@pytest.mark.parametrize(
    ("min_reward", "expected"),
    [(None, "\\boxed{1}"), (0.5, "\\boxed{1}"), (0.51, "low_reward"), (-1.0, "\\boxed{1}")],
    ids=["no_threshold", "equal_stays", "below", "far_below"],
)
def test_a_best_response_below_the_threshold_drops_the_question(min_reward: float | None, expected: str):
    assert chosen(["\\boxed{1}", "\\boxed{2}"], [0.5, 0.1], min_reward) == expected


def test_agreement_is_the_share_of_all_responses_with_the_same_final_answer():
    answers = [
        "\\boxed{1,000}",  # the winner
        "The answer is 1000.",  # the same, spelt otherwise
        ("so \\boxed{1000.0}", "length"),  # the same; cut, so no candidate, but it counts as a response
        "\\boxed{7}",
        "I do not know.",
    ]
    row = select(QUESTION, responses(*answers), rewards(5, 1, 1, 1, 1), None, "maths")
    assert row == {
        "id": "q", "generator": "sums", "question": "Q?", "response": "\\boxed{1,000}", "final_answer": "1,000",
        "reward": 5, "agreement": 3 / 5, "n_candidates": 3,
    }  # fmt: skip


def test_a_lone_answer_agrees_with_itself():
    assert select(QUESTION, responses("\\boxed{1}"), rewards(0.0), None, "maths")["agreement"] == 1.0


# ------------------------------------------------------------------------------------------------------------- the rules


@pytest.mark.parametrize(
    ("by", "answers", "values", "best"),
    [
        pytest.param("reward", ["\\boxed{1}", "\\boxed{2}"], [0.1, 0.9], "\\boxed{2}", id="reward"),
        pytest.param("first", ["\\boxed{1}", "\\boxed{2}"], [0.1, 0.9], "\\boxed{1}", id="first"),
        pytest.param("first", ["none", "\\boxed{2}", "\\boxed{3}"], [9, 0.1, 0.9], "\\boxed{2}", id="first_with_an_answer"),
        pytest.param("majority", ["\\boxed{1}", "\\boxed{0.5}", "The answer is 1/2."], [9, 0.1, 0.2], "The answer is 1/2.", id="majority_by_value"),
        pytest.param("majority", ["\\boxed{1}", "\\boxed{2}", "so \\boxed{2}"], [9, 0.2, 0.2], "\\boxed{2}", id="majority_lowest_sample"),
        pytest.param("majority", ["\\boxed{1}", "\\boxed{2}"], [0.1, 0.9], "\\boxed{2}", id="no_majority_the_reward_decides"),
        pytest.param("majority", ["\\boxed{1}", ("\\boxed{2}", "length"), ("\\boxed{2}", "length")], [0.1, 9, 9], "\\boxed{1}", id="cut_ones_do_not_vote"),
    ],
)  # fmt: skip
def test_each_rule_chooses_by_its_own_measure(by: str, answers: list[Any], values: list[float], best: str):
    assert chosen(answers, values, by=by) == best


def test_a_threshold_holds_for_every_rule():
    assert chosen(["\\boxed{1}", "\\boxed{2}"], [0.1, 0.9], min_reward=0.5, by="first") == "low_reward"


# --------------------------------------------------------------------------------------------------------------- code


def block(code: str) -> str:
    return f"```python\n{code}\n```"


GOOD, BAD, BROKEN = block("def f(x): return x"), block("def f(x): return x + 1"), block("def f(x:")


def test_a_block_that_compiles_is_an_answer_in_a_code_run():
    row = select(QUESTION, responses("\\boxed{1}", BROKEN, GOOD), rewards(3.0, 2.0, 1.0), None, "code")
    assert (row["response"], row["n_candidates"]) == (GOOD, 1)
    layout = select(
        QUESTION, responses(GOOD, block("def f( x ):\n    return x  # itself")), rewards(2.0, 1.0), None, "code"
    )
    assert layout["agreement"] == 1.0


@pytest.mark.parametrize(
    ("code", "question", "crashes"),
    [
        pytest.param(
            "def f(x): return 0\nimport sys\nsys.exit(0)",
            "Write f.\nassert f(1) == 2",
            True,
            id="exit_before_the_example",
        ),
        pytest.param("print(1)\nimport sys\nsys.exit(0)", "Print one.", False, id="exit_at_the_end"),
        pytest.param(
            "abs = lambda x: 0\ndef f(x): return 0", "Write f.\nassert abs(f(1) - 2) < 1", True, id="redefined_abs"
        ),
        pytest.param("def f(x): return 2", "Write f.\nassert f(1) == 2", False, id="passes"),
    ],
)
def test_a_program_crashes_unless_it_passes_its_examples(code: str, question: str, crashes: bool):
    rows = responses(block(code))
    assert find_crashes([QUESTION | {"question": question}], {"q": rows}) == ({"q#0"} if crashes else set())
