import json
from argparse import Namespace
from collections import Counter
from pathlib import Path

import pytest

from scalequest.answers.code import SOLUTION_LINE
from scalequest.domains.maths import solve_prompt
from scalequest.errors import UserError
from scalequest.io import read_jsonl
from scalequest.models.chat import ChatFormat
from scalequest.params import Params
from scalequest.problems.known_datasets import stratum
from scalequest.problems.split import split_for_solver
from scalequest.records import ATTEMPT, PROBLEM, read_rows, write_rows
from scalequest.runtime.stage import StageRun
from scalequest.sampling import sample as sampling
from stages import difficulty_labels
from stages.difficulty_labels import answer_of, pick_evenly
from tests.fakes import QueueEngine, changed, cut, real_data


def problem(source: str, number: int, answer: str = "4") -> dict[str, str]:
    return {
        "id": f"{source}/{number}", "source": source, "stratum": "", "question": f"{source} {number}?", "solution": "", "answer": answer,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("sizes", "n", "picked"),
    [
        pytest.param({"a": 500, "b": 500}, 40, {"a": 20, "b": 20}, id="even"),
        pytest.param({"a": 5000, "b": 50}, 40, {"a": 20, "b": 20}, id="even_whatever_the_sizes"),
        # b has one only: a fills up.
        pytest.param({"a": 5, "b": 1}, 4, {"a": 3, "b": 1}, id="short_source"),
        pytest.param({"a": 2, "b": 1}, 9, {"a": 2, "b": 1}, id="fewer_than_asked_for"),
    ],
)
def test_problems_are_drawn_evenly_over_the_sources_in_the_seeds_order(sizes, n: int, picked: dict[str, int]):
    seeds = [problem(source, i) for source, size in sizes.items() for i in range(size)]
    drawn = pick_evenly(seeds, n, 17)
    assert Counter(row["source"] for row in drawn) == picked
    assert drawn == [row for row in seeds if row in drawn]


def test_a_file_sorted_by_subject_gives_every_subject():
    # MATH's train file: 1,744 problems of Algebra come first. The first 1,024 of it are nothing else.
    sizes = {"Algebra": 1744, "Counting & Probability": 771, "Geometry": 870, "Intermediate Algebra": 1295,
             "Number Theory": 869, "Prealgebra": 1205, "Precalculus": 746}  # fmt: skip
    subjects = [subject for subject, n in sizes.items() for _ in range(n)]
    seeds = [problem("math", i) | {"stratum": subject} for i, subject in enumerate(subjects)]
    drawn = Counter(row["stratum"] for row in pick_evenly(seeds, 1024, 17))
    for subject, n in sizes.items():
        assert abs(drawn[subject] - 1024 * n / 7500) <= 1
    # Without subjects the draw is by hash all the same: 232 to 244 of Algebra expected, standard deviation 12.6.
    plain = Counter(
        subjects[int(row["id"].split("/")[1])]
        for row in pick_evenly([problem("math", i) for i in range(7500)], 1024, 17)
    )
    assert abs(plain["Algebra"] - 238) < 51
    assert set(plain) == set(sizes)


def test_real_math_is_drawn_from_all_its_subjects():
    rows = list(read_jsonl(real_data("math/train.jsonl")))
    subjects = {f"math/{i}": stratum(row) for i, row in enumerate(rows)}
    if not any(subjects.values()):
        pytest.skip("this copy of MATH names no subjects")
    seeds = [problem("math", i) | {"stratum": subjects[f"math/{i}"]} for i in range(len(rows))]
    assert {row["stratum"] for row in pick_evenly(seeds, 64, 17)} == set(subjects.values())


def test_more_problems_keep_those_that_fewer_had():
    seeds = [problem(source, i) for source in "abc" for i in range(100)]
    drawn = [{row["id"] for row in pick_evenly(seeds, n, 3)} for n in (10, 50, 200)]
    assert drawn[0] < drawn[1] < drawn[2]
    assert drawn[0] != {row["id"] for row in pick_evenly(seeds, 10, 4)}


@pytest.fixture
def stage(tmp_path: Path, laptop: Params, chatml: ChatFormat, monkeypatch: pytest.MonkeyPatch):
    def run(problems, answers, domain="maths", solver=None, n_seeds=None):
        engine = QueueEngine(chatml, answers)
        monkeypatch.setattr(sampling, "Engine", engine)
        write_rows(tmp_path / "seeds.parquet", problems, PROBLEM)
        args = Namespace(
            model=tmp_path, seeds=tmp_path / "seeds.parquet", out=tmp_path / "attempts", metrics=tmp_path / "m.json"
        )
        settings = {"n_seeds": n_seeds or len(problems), "n_samples": 2, "shard_size": 2}
        difficulty_labels.main(
            args,
            StageRun(changed(laptop, difficulty_labels=settings, domain=domain, solver=solver or {"method": "none"})),
        )
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
    assert (metrics["seeds_for_the_solver"], metrics["seen_by_the_solver"]) == (0, 0)


@pytest.mark.parametrize(
    ("kind", "text", "answer"),
    [
        # The model may have been writing 125.
        pytest.param("maths", "I count: The answer is 12", None, id="announced_at_the_end"),
        pytest.param("maths", "The answer is 12. Let me check", None, id="announced_before_the_end"),
        pytest.param("maths", "So \\boxed{12", None, id="open_box"),
        pytest.param("maths", "So \\boxed{12}", "12", id="closed_box_at_the_end"),
        pytest.param("maths", "So \\boxed{12}. Let me", "12", id="closed_box"),
        pytest.param("maths", "So \\boxed 12", None, id="box_without_braces_at_the_end"),
        pytest.param("maths", "So $\\boxed 12$", "12", id="box_without_braces"),
        pytest.param("maths", "<think>So \\boxed{12}", None, id="thought"),
        pytest.param("maths", "", None, id="nothing"),
        pytest.param("code", "```python\nx = 1\n```", "x = 1\n", id="closed_block"),
        pytest.param("code", "```python\nx = 1\n", None, id="open_block"),
        pytest.param("puzzle", "The answer is An", None, id="half_a_word"),
        pytest.param("puzzle", "\\boxed{Ann}, because", "Ann", id="closed_box_of_words"),
    ],
)
def test_a_cut_text_has_an_answer_only_in_a_closed_box_or_block(kind: str, text: str, answer: str | None):
    assert answer_of(kind, cut(text)) == answer


def test_a_cut_announcement_is_not_credited(stage):
    _, rows, metrics = stage([problem("a", 0, "12")], [cut("I count: The answer is 12"), "The answer is 12."])
    assert [(row["final_answer"], row["outcome"]) for row in rows] == [("", "no_answer"), ("12", "right")]
    assert metrics["mean_fail_rate"] == {"a": 0.5}


R, W = "\\boxed{4}", "\\boxed{5}"


@pytest.mark.parametrize(
    ("answers", "flags"),
    [
        pytest.param([R] * 40, {"one_fail_rate": 1, "one_class": 1}, id="all_right"),
        pytest.param([W] * 40, {"one_fail_rate": 1, "one_class": 1}, id="all_wrong"),
        pytest.param([R] + [W] * 39, {"one_fail_rate": 1, "one_class": 1}, id="one_lucky_answer_is_no_class"),
        pytest.param([R, W] * 20, {"one_fail_rate": 1, "one_class": 0}, id="all_half_right"),
        # Two draws of a coin for each problem: 5 both right, 10 one of two, 5 none, as luck alone would have it.
        pytest.param([R, R] * 5 + [R, W] * 10 + [W, W] * 5, {"one_fail_rate": 1, "one_class": 0}, id="luck"),
        pytest.param([R, R] * 10 + [W, W] * 10, {"one_fail_rate": 0, "one_class": 0}, id="easy_and_hard"),
    ],
)
def test_labels_that_teach_nothing_are_warned_of(stage, answers: list[str], flags: dict[str, int]):
    assert stage([problem("a", i) for i in range(20)], answers)[2]["warnings"] == flags


def test_the_solver_has_seen_no_labelled_seed(stage):
    problems = [problem(source, i) for source in "ab" for i in range(50)]
    taught, unseen = split_for_solver(problems, "lora", 0.6, 17)
    assert taught
    _, rows, metrics = stage(problems, [R] * 40, solver={"method": "lora", "seeds_frac": 0.6}, n_seeds=20)
    assert {row["problem_id"] for row in rows} <= {row["id"] for row in unseen}
    assert metrics["problems"] == 20
    assert (metrics["seeds_for_the_solver"], metrics["seen_by_the_solver"]) == (len(taught), 0)


def test_a_split_that_leaves_nothing_to_label_is_refused(stage):
    with pytest.raises(
        UserError, match=r"none of 0 seeds that the solver was not trained on .* Lower solver\.seeds_frac"
    ):
        stage([problem("a", 0)], [], solver={"method": "lora", "seeds_frac": 0.999999})


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
        UserError,
        match="none of 2 seeds that the solver was not trained on has an answer or tests to check a response by",
    ):
        stage([problem("feedback", 0, ""), problem("feedback", 1, "")], [], domain="code")


# -------------------------------------------------------------------------------------------------------------- puzzles


def test_a_puzzle_is_right_if_its_own_verifier_says_so(stage):
    answer = '{"puzzle": "knights_knaves", "answer": "Ann is a knight, and Bob is a knave.", "metadata": {}}'
    answers = [
        "So \\boxed{Bob is a knave, and Ann is a knight}.",
        "The answer is Ann is a knight, and Bob is a knight.",
        "Ann is a knight and Bob is a knave",
        "Final answer: Ann is a knight and Bob is a knave.",
    ]
    engine, rows, _ = stage([problem("knights", 0, answer), problem("knights", 1, answer)], answers, domain="logic")
    # The third states no answer. Half of an answer is none.
    assert [row["outcome"] for row in rows] == ["right", "wrong", "no_answer", "right"]
    assert "in the form that the puzzle asks for" in engine.prompts[0]
