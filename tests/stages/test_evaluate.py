import json
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

from scalequest import evaluation
from scalequest.domains.maths import SOLVED_PROGRAMS, solve_prompt
from scalequest.evaluation import Exam
from scalequest.io import write_jsonl
from scalequest.params import Params
from scalequest.records import PROBLEM, SAMPLE, read_rows, write_rows
from scalequest.runtime.stage import StageRun
from stages import evaluate
from tests.fakes import ROOT, changed
from tests.test_evaluation import answered

TASKS = ROOT / "eval" / "tasks"
RIGHT, WRONG, UNPARSED, FORM = (1.0, 1.0, 0.0), (0.0, 0.0, 0.0), (0.0, 0.0, 1.0), (0.0, 1.0, 0.0)
NO_FLAG = {"score_zero": 0, "many_unparsed": 0, "many_cut": 0}


@pytest.fixture
def args(tmp_path: Path) -> Namespace:
    write_jsonl(tmp_path / "benchmarks" / "embedded_sums.jsonl", [{"id": "x"}])
    seeds = [
        {"id": f"s/{n}", "source": "s", "stratum": "", "question": f"q{n}", "solution": f"s{n}", "answer": "1"}
        for n in range(9)
    ]
    write_rows(tmp_path / "seeds.parquet", seeds, PROBLEM)
    return Namespace(
        model=tmp_path, benchmarks=tmp_path / "benchmarks", tasks=TASKS, seeds=tmp_path / "seeds.parquet", few_shot="no",
        samples=tmp_path / "s.parquet", scores=tmp_path / "scores.json",
    )  # fmt: skip


def run_with(
    args: Namespace, params: Params, rows: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> dict[str, Any]:
    """The call of the engine's part, and the scores file that comes of its rows."""
    calls: dict[str, Any] = {}

    def run_exam(model: Path, exam: Exam, engine: Any, runtime: Any, examples: Any) -> list[dict[str, Any]]:
        calls.update(exam=exam, examples=examples)
        return rows

    monkeypatch.setattr(evaluation, "run_exam", run_exam)
    evaluate.main(args, StageRun(params))
    return calls | {"scores": json.loads(args.scores.read_text())}


@pytest.mark.parametrize(
    ("items", "flags"),
    [
        pytest.param([WRONG] * 20, {"score_zero": 1}, id="zero"),
        pytest.param([RIGHT] * 19 + [UNPARSED], {}, id="one_of_twenty_unparsed"),
        pytest.param([RIGHT] * 18 + [UNPARSED] * 2, {"many_unparsed": 1}, id="two_of_twenty_unparsed"),
        pytest.param([FORM] * 20, {}, id="strict_zero_is_a_matter_of_form"),
    ],
)
def test_a_doubtful_score_is_flagged(items, flags, args: Namespace, laptop: Params, monkeypatch: pytest.MonkeyPatch):
    params = changed(laptop, evaluate={"tasks": ["embedded_sums"]})
    found = run_with(args, params, answered("embedded_sums", *items), monkeypatch)
    assert found["scores"]["warnings"] == NO_FLAG | flags
    assert found["scores"]["embedded_sums"]["n"] == len(read_rows(args.samples, SAMPLE)) == 20


@pytest.mark.parametrize(("n_cut", "flag"), [(1, 0), (2, 1)], ids=["one_of_twenty", "two_of_twenty"])
def test_many_cut_answers_are_flagged(
    n_cut: int, flag: int, args: Namespace, laptop: Params, monkeypatch: pytest.MonkeyPatch
):
    rows = answered("embedded_sums", *[RIGHT] * 20)
    for row in rows[:n_cut]:
        row["finish_reason"] = "length"
    scores = run_with(args, laptop, rows, monkeypatch)["scores"]
    assert scores["embedded_sums"]["cut"] == n_cut / 20
    assert scores["warnings"] == NO_FLAG | {"many_cut": flag}


@pytest.mark.parametrize(("few_shot", "k"), [("yes", 3), ("no", 0)])
def test_the_base_is_shown_solved_seeds(
    few_shot: str, k: int, args: Namespace, laptop: Params, monkeypatch: pytest.MonkeyPatch
):
    args.few_shot = few_shot
    params = changed(laptop, evaluate={"few_shot": 3, "limit": 7, "dev_frac": 0.25})
    found = run_with(args, params, answered("embedded_sums", RIGHT), monkeypatch)
    assert len(found["examples"]) == k
    # Asked in the words that the solver is trained with.
    assert all(
        asked.startswith("q") and "\\boxed{}" in asked and answer[0] == "s" for asked, answer in found["examples"]
    )
    assert (found["exam"].limit, found["exam"].dev_frac) == (7, 0.25)


def test_the_base_is_shown_programs_where_it_is_asked_for_them(
    args: Namespace, laptop: Params, monkeypatch: pytest.MonkeyPatch
):
    args.few_shot = "yes"
    params = changed(laptop, evaluate={"few_shot": 2, "form": "program"})
    found = run_with(args, params, answered("embedded_sums", RIGHT), monkeypatch)
    assert found["examples"] == [
        (solve_prompt(question, "program"), answer) for question, answer in SOLVED_PROGRAMS[:2]
    ]
    assert found["exam"].form == "program"
