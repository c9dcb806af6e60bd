"""The whole DAG in the code domain on a tiny model: what differs from mathematics is looked at."""

import json

import pytest

from scalequest.answers.code import fenced_code
from scalequest.records import ATTEMPT, INSTRUCTION, PREFERENCE, PROBLEM, SAMPLE, read_rows
from tests.checkout import Checkout, copy_repository
from tests.fakes import parameter_file
from tests.tiny import make_model, tiny_code_params, write_code_tasks
from tests.warm import Warm

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory, warm: Warm) -> Checkout:
    """The finished run, its stages in forked processes; in tests/test_dag.py each starts as a user's does."""
    base = tmp_path_factory.mktemp("code")
    tasks = write_code_tasks(base / "tasks.jsonl")
    params = tiny_code_params(parameter_file("laptop-code"), make_model(base / "model"), tasks)
    checkout = copy_repository(base / "repository", params, warm.path())
    checkout.run("dvc", "repro")
    return checkout


def test_seeds_keep_their_tests_and_lose_nothing(code: Checkout) -> None:
    seeds = read_rows(code.path / "data" / "seeds.parquet", PROBLEM)
    assert len(seeds) == 32
    assert all("assert" in row["answer"] and fenced_code(row["solution"]) for row in seeds)


def test_answers_to_seeds_were_run_against_their_tests(code: Checkout) -> None:
    attempts = read_rows(code.path / "data" / "attempts", ATTEMPT)
    assert len(attempts) == 24
    for row in attempts:
        assert (row["outcome"] == "no_answer") is (fenced_code(row["response"]) is None)
    # The solver has learned what an answer looks like, so some were run.
    assert {row["outcome"] for row in attempts} & {"right", "wrong"}


def test_every_training_row_holds_a_program(code: Checkout) -> None:
    rows = read_rows(code.path / "data" / "instruct.parquet", INSTRUCTION)
    assert rows
    assert all(fenced_code(row["response"]) == row["final_answer"] for row in rows)
    metrics = code.metrics("reward_select")
    assert metrics["questions"] == metrics["kept"] + sum(metrics["dropped"].values())


def test_rewrites_were_asked_for_in_the_domains_words(code: Checkout) -> None:
    rows = read_rows(code.path / "data" / "preferences" / "tasks.parquet", PREFERENCE)
    assert {row["direction"] for row in rows} <= {"solvability", "difficulty"}
    assert any(row["verdict"] == "kept" for row in rows)


def test_programs_are_scored_by_the_tests_of_both_benchmarks(code: Checkout) -> None:
    for model in ("base", "solver", "student"):
        scores = json.loads((code.path / "eval" / "scores" / f"{model}.json").read_text())
        assert (scores["humaneval"]["n"], scores["mbpp"]["n"]) == (2, 4)
        items = read_rows(code.path / "data" / "samples" / f"{model}.parquet", SAMPLE)
        tasks = ["humaneval"] * 4 + ["mbpp"] * 8  # two answers per item
        assert [row["task"] for row in items] == (tasks * 2 if model == "base" else tasks)  # the base few-shot, too
        assert [row["id"].partition("#")[2] for row in items] == ["0", "1"] * (len(items) // 2)
        assert scores["mbpp"]["samples"] == 2
        for row in items:
            assert row["strict"] <= row["flexible"]
    report = (code.path / "reports" / "report.md").read_text()
    assert "`humaneval`" in report


def test_mathematics_depends_on_no_word_of_the_code_domain(code: Checkout) -> None:
    lock = (code.path / "dvc.lock").read_text()
    judge = lock[lock.index("  judge:") : lock.index("  judge:") + 2_000]
    assert "scalequest/domains/code.py" in judge
    assert "scalequest/domains/maths.py" not in judge
