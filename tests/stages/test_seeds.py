import json
from argparse import Namespace
from pathlib import Path

from scalequest.params import JsonlSource, Params
from scalequest.records import PROBLEM, read_rows
from scalequest.runtime.stage import StageRun
from stages.seeds import collect, main
from tests.fakes import pinned_file


def source(path: Path, *questions: str) -> JsonlSource:
    rows = [{"question": q, "answer": "1", "solution": "It is 1."} for q in questions]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return pinned_file(path)


def test_a_question_that_an_earlier_source_has_is_dropped(tmp_path: Path):
    sources = {"a": source(tmp_path / "a", "One?", "Two?"), "b": source(tmp_path / "b", "two ?", "Three?")}
    assert [(p["id"], p["source"]) for p in collect(sources, 17, "maths")] == [("a/0", "a"), ("a/1", "a"), ("b/1", "b")]


def test_the_order_of_the_sources_is_the_order_of_the_seeds(tmp_path: Path):
    one, two = source(tmp_path / "a", "One?"), source(tmp_path / "b", "Two?")
    assert [p["question"] for p in collect({"b": two, "a": one}, 17, "maths")] == ["Two?", "One?"]


def test_the_stage_writes_problems_and_counts_them(tmp_path: Path, laptop: Params):
    sources = {"a": source(tmp_path / "a", "One?", "Two?"), "b": source(tmp_path / "b", "Two?", "Three?")}
    run = StageRun(laptop.model_copy(update={"seeds": sources}))
    main(Namespace(out=tmp_path / "seeds.parquet", metrics=tmp_path / "m.json"), run)
    rows = read_rows(tmp_path / "seeds.parquet", PROBLEM)
    assert rows[0] == {
        "id": "a/0", "source": "a", "stratum": "", "question": "One?", "answer": "1",
        "solution": "It is 1.\nThe answer is \\boxed{1}.",
    }  # fmt: skip
    assert json.loads((tmp_path / "m.json").read_text()) == {"problems": 3, "by_source": {"a": 2, "b": 1}}
