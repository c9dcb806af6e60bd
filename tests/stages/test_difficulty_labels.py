import json
from argparse import Namespace
from pathlib import Path

import pytest

from scalequest.answers.code import SOLUTION_LINE
from scalequest.domains.maths import solve_prompt
from scalequest.errors import UserError
from scalequest.models.chat import ChatFormat
from scalequest.params import Params
from scalequest.records import ATTEMPT, PROBLEM, read_rows, write_rows
from scalequest.runtime.stage import StageRun
from scalequest.sampling import sample as sampling
from stages import difficulty_labels
from stages.difficulty_labels import pick_evenly
from tests.fakes import QueueEngine, changed, cut


def problem(source: str, number: int, answer: str = "4") -> dict[str, str]:
    return {
        "id": f"{source}/{number}", "source": source, "stratum": "", "question": f"{source} {number}?", "solution": "", "answer": answer,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("sizes", "n", "picked"),
    [
        pytest.param({"a": 5, "b": 5}, 4, ["a/0", "a/1", "b/0", "b/1"], id="even"),
        pytest.param({"a": 5, "b": 5}, 3, ["a/0", "a/1", "b/0"], id="odd_one_goes_to_the_first"),
        # b has one only: a fills up.
        pytest.param({"a": 5, "b": 1}, 4, ["a/0", "a/1", "a/2", "b/0"], id="short_source"),
        pytest.param({"a": 2, "b": 1}, 9, ["a/0", "a/1", "b/0"], id="fewer_than_asked_for"),
    ],
)
def test_problems_are_drawn_evenly_over_the_sources_in_the_seeds_order(sizes, n: int, picked: list[str]):
    seeds = [problem(source, i) for source, size in sizes.items() for i in range(size)]
    assert [row["id"] for row in pick_evenly(seeds, n)] == picked


@pytest.fixture
def stage(tmp_path: Path, laptop: Params, chatml: ChatFormat, monkeypatch: pytest.MonkeyPatch):
    def run(problems, answers, domain="maths"):
        engine = QueueEngine(chatml, answers)
        monkeypatch.setattr(sampling, "Engine", engine)
        write_rows(tmp_path / "seeds.parquet", problems, PROBLEM)
        args = Namespace(
            model=tmp_path, seeds=tmp_path / "seeds.parquet", out=tmp_path / "attempts", metrics=tmp_path / "m.json"
        )
        settings = {"n_seeds": len(problems), "n_samples": 2, "shard_size": 2}
        difficulty_labels.main(args, StageRun(changed(laptop, difficulty_labels=settings, domain=domain)))
        return engine, read_rows(tmp_path / "attempts", ATTEMPT), json.loads((tmp_path / "m.json").read_text())

    return run


def test_each_problem_is_sampled_and_every_answer_checked(stage):
    problems = [problem("a", 0), problem("a", 1), problem("b", 0, "1000")]
    answers = [
        "So \\boxed{4}.",
        "The answer is 5.",
        "I do not know.",
        cut("Well, \\boxed{4} or"),
        "\\boxed{1,000}",
        "#### 1000",
    ]
    engine, rows, metrics = stage(problems, answers)
    assert engine.prompts[::2] == [
        engine.chat.decode(engine.chat.user_turn(solve_prompt(p["question"]))) for p in problems
    ]
    assert [(r["problem_id"], r["sample"], r["final_answer"], r["outcome"]) for r in rows] == [
        ("a/0", 0, "4", "right"),
        ("a/0", 1, "5", "wrong"),
        ("a/1", 0, "", "no_answer"),
        ("a/1", 1, "4", "right"),
        ("b/0", 0, "1,000", "right"),
        ("b/0", 1, "1000", "right"),
    ]
    assert rows[3]["finish_reason"] == "length"
    assert metrics["outcomes"] == {"right": 4, "wrong": 1, "no_answer": 1}
    assert metrics["right_frac"] == round(4 / 6, 6)
    # a/0 fails 1 of 2, a/1 1 of 2, b/0 none: two different rates.
    assert metrics["mean_fail_rate"] == {"a": 0.5, "b": 0.0}
    assert metrics["distinct_fail_rates"] == 2
    assert metrics["warnings"] == {"one_fail_rate": 0, "one_class": 0}


@pytest.mark.parametrize(
    ("answers", "flags"),
    [
        pytest.param(["\\boxed{4}"] * 4, {"one_fail_rate": 1, "one_class": 1}, id="all_right"),
        pytest.param(["\\boxed{5}"] * 4, {"one_fail_rate": 1, "one_class": 1}, id="all_wrong"),
        pytest.param(["\\boxed{4}", "\\boxed{5}"] * 2, {"one_fail_rate": 1, "one_class": 0}, id="all_half_right"),
        pytest.param(["\\boxed{4}"] * 3 + ["\\boxed{5}"], {"one_fail_rate": 0, "one_class": 0}, id="mixed"),
    ],
)
def test_labels_that_teach_nothing_are_told(stage, answers: list[str], flags: dict[str, int]):
    assert stage([problem("a", 0), problem("a", 1)], answers)[2]["warnings"] == flags


# --------------------------------------------------------------------------------------------------------------- code

TESTS = f"{SOLUTION_LINE}\nassert double(2) == 4"


def test_code_is_right_if_the_seeds_tests_pass(stage):
    answers = [
        "```python\ndef double(x): return 2 * x\n```",
        "```python\ndef double(x): return x\n```",
        "```python\nimport os\nos._exit(0)\n```",
        "I would multiply.",
    ]
    problems = [problem("mbpp", 0, TESTS), problem("mbpp", 1, TESTS), problem("feedback", 2, "")]
    engine, rows, metrics = stage(problems, answers, domain="code")
    assert [row["outcome"] for row in rows] == ["right", "wrong", "wrong", "no_answer"]
    assert rows[0]["final_answer"] == "def double(x): return 2 * x\n"
    assert "```python block" in engine.prompts[0]
    # The seed without tests is not sampled, but counted.
    assert (metrics["problems"], metrics["seeds_without_answer"]) == (2, 1)


def test_seeds_without_tests_alone_stop_the_stage(stage):
    with pytest.raises(
        UserError, match="none of 2 seeds has an answer or tests to check a response by; add a source that has"
    ):
        stage([problem("feedback", 0, ""), problem("feedback", 1, "")], [], domain="code")
