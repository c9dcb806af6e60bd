import json
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

from scalequest.errors import UserError
from scalequest.params import Params
from scalequest.records import FILTERED, INSTRUCTION, RESPONSE, REWARD, read_rows, write_rows
from scalequest.runtime.stage import StageRun
from scalequest.sampling.scorer import check_finite
from stages.reward_select import main, select
from tests.fakes import ROOT, changed

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


def chosen(answers: list[Any], values: list[float], min_reward: float | None = None) -> Any:
    row = select(QUESTION, responses(*answers), rewards(*values), min_reward, "maths")
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


# --------------------------------------------------------------------------------------------------- scores are finite


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")], ids=["nan", "inf", "minus_inf"])
def test_a_reward_that_is_no_number_never_gets_here(bad: float):
    # A NaN loses or wins every comparison by its place in the list; the scorer refuses it where it arises.
    with pytest.raises(UserError, match=f"score 2 of the shard is {bad}, expected a finite number"):
        check_finite([0.0, -1e30, bad, 1.0])
    check_finite([0.0, -1e30, 1e30])


def test_the_check_needs_no_engine():
    code = "import sys; from scalequest.sampling.scorer import check_finite; print('vllm' in sys.modules, 'torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["False", "False"]


# --------------------------------------------------------------------------------------------------------- whole stage


@pytest.fixture
def stage(tmp_path: Path, laptop: Params):
    def run(
        answers: dict[str, list[str]], values: dict[str, list[float]], min_reward: float | None = None, domain: str = "maths",
        execute: bool = False, question: str = "Q?",
    ) -> Path:  # fmt: skip
        write_rows(
            tmp_path / "filtered.parquet", [QUESTION | {"id": q, "question": question} for q in answers], FILTERED
        )
        rows = [
            {"id": f"{q}#{k}", "question_id": q, "sample": k, "response": t, "finish_reason": "stop", "n_tokens": 1}
            for q, texts in answers.items() for k, t in enumerate(texts)
        ]  # fmt: skip
        write_rows(tmp_path / "responses", rows, RESPONSE)
        scores = [
            {"id": f"{q}#{k}", "question_id": q, "sample": k, "reward": r} for q, rs in values.items() for k, r in enumerate(rs)
        ]  # fmt: skip
        write_rows(tmp_path / "rewards", scores, REWARD)
        args = Namespace(
            questions=tmp_path / "filtered.parquet", responses=tmp_path / "responses", rewards=tmp_path / "rewards",
            out=tmp_path / "instruct.parquet", metrics=tmp_path / "m.json",
        )  # fmt: skip
        main(
            args, StageRun(changed(laptop, reward_select={"min_reward": min_reward, "execute": execute}, domain=domain))
        )
        return tmp_path

    return run


def test_every_question_is_kept_or_counted(stage):
    folder = stage(
        {"a": ["\\boxed{1}", "\\boxed{2}"], "b": ["no", "no"], "c": ["\\boxed{3}", "\\boxed{3}"]},
        {"a": [-1.0, -2.0], "b": [5.0, 5.0], "c": [1.0, 2.0]},
        min_reward=0.0,
    )
    rows = read_rows(folder / "instruct.parquet", INSTRUCTION)
    assert [(r["id"], r["final_answer"], r["reward"], r["agreement"]) for r in rows] == [("c", "3", 2.0, 1.0)]
    metrics = json.loads((folder / "m.json").read_text())
    assert metrics == {
        "questions": 3, "kept": 1, "dropped": {"no_answer": 1, "crashed": 0, "low_reward": 1}, "crashed_responses": 0,
        "mean_reward": {"kept": 2.0, "all": round(10 / 6, 4)},  # -1 - 2 + 5 + 5 + 1 + 2 = 10
        "mean_agreement": 1.0, "mean_candidates": 2.0,
    }  # fmt: skip


def test_nothing_left_is_an_error_that_says_why(stage, tmp_path: Path):
    with pytest.raises(UserError, match=r"of 2, \{'no_answer': 2\}; raise respond.max_tokens"):
        stage({"a": ["no"], "b": ["no"]}, {"a": [1.0], "b": [1.0]})
    assert not (tmp_path / "instruct.parquet").exists()


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
    ("execute", "kept", "metrics"),
    [
        # `a`: the best fails its question's example. `b`: all crash at once. `c`: has no program.
        pytest.param(True, [("a", GOOD)], ({"no_answer": 1, "crashed": 1, "low_reward": 0}, 3), id="on"),
        pytest.param(False, [("a", BAD), ("b", block("1 / 0"))], ({"no_answer": 1, "crashed": 0, "low_reward": 0}, 0), id="off"),
    ],
)  # fmt: skip
def test_the_execution_filter_drops_what_crashes_on_its_own_examples(stage, execute: bool, kept, metrics):
    folder = stage(
        {"a": [BAD, GOOD], "b": [block("1 / 0"), block("while True: pass")], "c": ["no", "no"]},
        {"a": [2.0, 1.0], "b": [2.0, 1.0], "c": [1.0, 1.0]},
        domain="code", execute=execute, question="Write f.\nassert f(1) == 1",
    )  # fmt: skip
    assert [(r["id"], r["response"]) for r in read_rows(folder / "instruct.parquet", INSTRUCTION)] == kept
    found = json.loads((folder / "m.json").read_text())
    assert (found["dropped"], found["crashed_responses"]) == metrics
