import json
from argparse import Namespace
from pathlib import Path

import pytest

from scalequest.errors import UserError
from scalequest.io import read_jsonl
from scalequest.params import Params
from scalequest.problems.sources import load_problems
from scalequest.records import PROBLEM, write_rows
from scalequest.runtime.stage import StageRun
from scalequest.text import question_key
from stages.benchmarks import main, unseen
from stages.seeds import collect
from tests.fakes import pinned_file


def problem(question: str) -> dict[str, str]:
    return {"id": "a/0", "source": "a", "stratum": "", "question": question, "solution": "", "answer": "1"}


@pytest.fixture
def benchmarks(tmp_path: Path, laptop: Params):
    """Run the stage with these seed questions and this benchmark's questions."""

    def run(seeds: list[str], questions: list[str]) -> Path:
        file = tmp_path / "test.jsonl"
        file.write_text("".join(json.dumps({"question": q, "answer": "1"}) + "\n" for q in questions))
        source = pinned_file(file)
        write_rows(tmp_path / "seeds.parquet", map(problem, seeds), PROBLEM)
        stage = StageRun(laptop.model_copy(update={"benchmarks": {"exam": source}}))
        main(Namespace(seeds=tmp_path / "seeds.parquet", out=tmp_path / "out", metrics=tmp_path / "m.json"), stage)
        return tmp_path

    return run


def test_a_seed_is_no_test_question(benchmarks):
    folder = benchmarks(["What is 1 + 1?"], ["what is 1+1", "What is 1 + 2?"])
    assert list(read_jsonl(folder / "out" / "exam.jsonl")) == [
        {"id": "exam/1", "question": "What is 1 + 2?", "answer": "1"}
    ]
    assert json.loads((folder / "m.json").read_text()) == {"exam": {"items": 1, "dropped_as_seed": 1}}


def test_a_benchmark_of_seeds_only_is_refused(benchmarks):
    with pytest.raises(UserError, match=r"benchmarks\.exam: all 2 questions are seeds too"):
        benchmarks(["A?", "B?", "C?"], ["A?", "B?"])


def test_tests_share_no_question_with_seeds_also_where_the_draws_overlap(laptop: Params):
    # 200 sums and differences of two digits: 90 seeds and 60 tests of far-apart ranges are bound to overlap.
    small = {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1}
    sources = {"seeds": (1_000_000, 90), "tests": (101_000_000, 60)}
    seed_source, test_source = (
        laptop.seeds["chain_sum"].model_copy(update={"seed": seed, "n": n, "config": small})
        for seed, n in sources.values()
    )
    seeds = {question_key(p["question"]) for p in collect({"seeds": seed_source}, 17, "maths")}
    problems = load_problems("tests", test_source, 17, need_solution=False)
    kept = unseen(problems, seeds)
    assert 0 < len(kept) < len(problems) == 60
    assert not seeds & {question_key(p["question"]) for p in kept}


def test_the_laptop_runs_tests_share_no_question_with_its_seeds(laptop: Params):
    seeds = {question_key(p["question"]) for p in collect(laptop.seeds, laptop.seed, laptop.domain)}
    for name, source in laptop.benchmarks.items():
        left = unseen(load_problems(name, source, laptop.seed, need_solution=False), seeds)
        assert left
        assert not seeds & {question_key(p["question"]) for p in left}
