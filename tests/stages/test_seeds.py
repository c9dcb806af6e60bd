import json
from argparse import Namespace
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from scalequest.io import read_jsonl, write_jsonl
from scalequest.params import JsonlSource, Params
from scalequest.problems.sources import load_problems
from scalequest.records import PROBLEM, read_rows
from scalequest.runtime.stage import StageRun
from scalequest.text import question_key
from stages.seeds import collect_seeds, main, overlap
from tests.fakes import changed, pinned_file, real_data


def source(path: Path, *questions: str) -> JsonlSource:
    rows = [{"question": q, "answer": "1", "solution": "It is 1."} for q in questions]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return pinned_file(path)


def test_a_question_that_an_earlier_source_has_is_dropped(tmp_path: Path):
    sources = {"a": source(tmp_path / "a", "One?", "Two?"), "b": source(tmp_path / "b", "two ?", "Three?")}
    assert [(p["id"], p["source"]) for p in collect_seeds(sources, 17, "maths").problems] == [
        ("a/0", "a"),
        ("a/1", "a"),
        ("b/1", "b"),
    ]


def test_the_order_of_the_sources_is_the_order_of_the_seeds(tmp_path: Path):
    one, two = source(tmp_path / "a", "One?"), source(tmp_path / "b", "Two?")
    assert [p["question"] for p in collect_seeds({"b": two, "a": one}, 17, "maths").problems] == ["Two?", "One?"]


@pytest.fixture
def stage(tmp_path: Path, laptop: Params):
    """Run the stage with these sources and these benchmark questions; give the rows and the metrics."""

    def run(
        sources: dict[str, JsonlSource], ngram: int = 13, **exams: list[str]
    ) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        for name, questions in exams.items():
            items = [{"id": f"{name}/{i}", "question": q, "answer": "1"} for i, q in enumerate(questions)]
            write_jsonl(tmp_path / "benchmarks" / f"{name}.jsonl", items)
        args = Namespace(
            benchmarks=tmp_path / "benchmarks", out=tmp_path / "seeds.parquet", metrics=tmp_path / "m.json"
        )
        main(args, StageRun(changed(laptop, seeds=sources, screen={"decontaminate_ngram": ngram})))
        return read_rows(args.out, PROBLEM), json.loads(args.metrics.read_text())

    return run


def test_the_stage_writes_problems_and_counts_them(stage, tmp_path: Path):
    sources = {"a": source(tmp_path / "a", "One?", "Two?"), "b": source(tmp_path / "b", "Two?", "Three?")}
    rows, metrics = stage(sources)
    assert rows[0] == {
        "id": "a/0", "source": "a", "stratum": "", "question": "One?", "answer": "1",
        "solution": "It is 1.\nThe answer is \\boxed{1}.",
    }  # fmt: skip
    assert metrics == {
        "problems": 3,
        "by_source": {"a": 2, "b": 1},
        "left_out": {"a": {}, "b": {"in_an_earlier_source": 1}},
        "without_solution": {"a": 0, "b": 0},
        "shared_with_benchmarks": {},
    }


def test_seeds_that_teach_the_bare_answer_are_counted(stage, tmp_path: Path):
    file = tmp_path / "a"
    file.write_text(
        '{"question": "A?", "answer": "7", "solution": null}\n{"question": "B?", "answer": "", "solution": "x"}\n'
    )
    rows, metrics = stage({"a": pinned_file(file)})
    assert [row["solution"] for row in rows] == ["The answer is \\boxed{7}."]
    assert (metrics["without_solution"], metrics["left_out"]) == ({"a": 1}, {"a": {"no_answer": 1}})


def test_a_question_that_is_seed_and_test_item_is_no_seed(stage, tmp_path: Path):
    rows, metrics = stage({"a": source(tmp_path / "a", "What is 1 + 1?", "Two?")}, exam=["what is 1\u200b+1", "Other?"])
    assert [row["question"] for row in rows] == ["Two?"]
    assert metrics["left_out"] == {"a": {"benchmark_item": 1}}
    assert metrics["shared_with_benchmarks"]["exam"]["items"] == 0


def test_what_seeds_share_with_benchmarks_is_reported_with_the_span(stage, tmp_path: Path):
    run = "natalia sold clips to 48 of her friends in april and then she"
    seeds = source(tmp_path / "a", f"{run} left. How?", f"{run} came. How?", "Say: what is 17 + 25?", "Clean?")
    rows, metrics = stage(
        {"a": seeds}, clips=[f"Once {run} sang.", "Other?"], sums=["What is 17 + 25?"], clean=["Why so?"]
    )
    assert len(rows) == 4
    assert metrics["shared_with_benchmarks"] == {
        "clips": {"items": 1, "items_frac": 0.5, "seeds": 2, "set_phrases": 0, "examples": {"clips/0": {"seed": "a/0", "item": "clips/0", "span": run}}},
        "sums": {"items": 1, "items_frac": 1.0, "seeds": 1, "set_phrases": 0, "examples": {"sums/0": {"seed": "a/2", "item": "sums/0", "span": "what is 17 + 25"}}},
        "clean": {"items": 0, "items_frac": 0.0, "seeds": 0, "set_phrases": 0, "examples": {}},
    }  # fmt: skip


def test_without_decontamination_no_overlap_is_reported(stage, tmp_path: Path):
    run = "natalia sold clips to 48 of her friends in april and then she"
    _, metrics = stage({"a": source(tmp_path / "a", f"{run} left. How?")}, ngram=0, clips=[f"Once {run} sang."])
    # 0 items would be a measured number: with 13 words it is 1 of 1.
    assert metrics["shared_with_benchmarks"] is None


def test_the_laptop_runs_seeds_and_tests_share_no_question(laptop: Params):
    tests = {
        question_key(p["question"])
        for name, benchmark in laptop.benchmarks.items()
        for p in load_problems(name, benchmark, laptop.seed, need_solution=False)
    }
    seeds = collect_seeds(laptop.seeds, laptop.seed, laptop.domain, tests)
    assert not tests & {question_key(p["question"]) for p in seeds.problems}
    # As many as are configured: what a benchmark has is replaced by the next item.
    assert Counter(p["source"] for p in seeds.problems) == {name: s.n for name, s in laptop.seeds.items()}


def test_math_500_and_the_published_training_set():
    tests = [{"id": r["id"], "question": r["question"]} for r in read_jsonl(real_data("math500/test.jsonl"))]
    problems = [{"id": r["id"], "question": r["question"]} for r in read_jsonl(real_data("math/train.jsonl"))]
    found = overlap(problems, {"math500": tests}, 13)["math500"]
    # The end "where m and n are relatively prime positive integers. Find m + n" of one item is in 47 of these seeds.
    assert (found["items"], found["items_frac"], found["set_phrases"]) == (57, 0.114, 3)
    assert len(found["examples"]) == 5
