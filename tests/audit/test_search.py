"""Where a file or a piece of text went."""

import shutil
from typing import Any

import pytest

from scalequest.audit.search import find_text, trace_data
from scalequest.audit.tables import Store
from scalequest.errors import UserError
from tests.audit.pipeline import Pipeline


def trace(pipeline: Pipeline, asked: str, rev: str = "workspace") -> dict[str, Any]:
    return trace_data(pipeline.history, Store(pipeline.repository), pipeline.tables(rev).lock, asked)


def models(found: dict[str, Any]) -> set[tuple[str, str, bool]]:
    return {(m["version"].split(" (")[0], m["path"], m["direct"]) for m in found["models"]}


@pytest.fixture
def history(pipeline: Pipeline) -> Pipeline:
    """Beside the run an experiment with other training rows and so another student."""
    pipeline.change("data/instruct.parquet", lambda rows: rows[:1])
    pipeline.write("models/student/model.safetensors", "other")
    pipeline.lock("reward_select", "instruct_tune")
    pipeline.experiment("cut")
    pipeline.checkout()
    return pipeline


def test_an_output_leads_to_the_models_of_its_own_content_only(history: Pipeline) -> None:
    assert models(trace(history, "data/instruct.parquet")) == {("workspace, main", "models/student", True)}
    assert models(trace(history, "data/instruct.parquet", "cut")) == {("experiment cut", "models/student", True)}
    both = models(trace(history, "data/seeds.parquet"))
    assert both == {(v, p, d) for v in ("workspace, main", "experiment cut") for p, d in (("models/qft/sums", True), ("models/student", False))}  # fmt: skip


def test_the_way_is_told_step_by_step(history: Pipeline) -> None:
    (student,) = [m for m in trace(history, "data/rewards")["models"] if m["version"].startswith("experiment")]
    assert student["way"] == ("data/rewards", "data/instruct.parquet", "models/student")


def test_a_hash_its_beginning_and_a_copy_elsewhere_are_the_same_thing(history: Pipeline) -> None:
    value = history.md5("data/instruct.parquet")
    copy = history.root.parent / "copy.parquet"
    shutil.copy(history.root / "data" / "instruct.parquet", copy)
    expected = models(trace(history, "data/instruct.parquet"))
    for asked in (value, value[:7], str(copy)):
        assert models(trace(history, asked)) == expected


def test_a_file_inside_a_folder_stands_for_the_folder(history: Pipeline) -> None:
    expected = trace(history, "data/rewards")["models"]
    part = history.root / "data" / "rewards" / "part-00000.parquet"
    copy = history.root.parent / "part"
    shutil.copy(part, copy)
    assert trace(history, "data/rewards/part-00000.parquet")["models"] == expected
    assert trace(history, str(copy))["models"] == expected


def test_readers_and_writers_are_named(history: Pipeline) -> None:
    places = trace(history, "data/benchmarks")["places"]
    assert {(p["role"], p["stage"]) for p in places} == {("written by", "benchmarks"), ("read by", "screen"), ("read by", "evaluate@student")}  # fmt: skip


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("data/instrukt.parquet", "Did you mean 'data/instruct.parquet'"),
        ("0123456789ab", r"hash '0123456789ab': looked in 2 versions of dvc.lock .* found none"),
        ("data/rewards/part-9.parquet", r"data/rewards of workspace has no file 'part-9.parquet'; it has part-00000.parquet"),
        ("{file}", r"a file that no stage read or wrote as it is; hash '[0-9a-f]{32}': looked in 2 versions"),
    ],
)  # fmt: skip
def test_what_was_never_there_is_told(history: Pipeline, asked: str, message: str) -> None:
    (history.root.parent / "strange").write_text("never in the pipeline")
    with pytest.raises(UserError, match=message):
        trace(history, asked.format(file=history.root.parent / "strange"))


# ---------------------------------------------------------------------------------------------------------------- text


def counts(found: dict[str, Any]) -> dict[str, int]:
    return {step["path"]: step["rows"] for step in found["steps"] if step["rows"]}


def test_text_is_counted_at_every_step_with_its_surroundings(pipeline: Pipeline) -> None:
    found = find_text(pipeline.tables(), "is 1")
    # Seed 1 + 7; questions 0 and 2, of which 2 fell; both responses to question 1, and the better one of them.
    assert counts(found) == {"data/seeds.parquet": 1, "data/questions/sums": 2, "data/filtered.parquet": 1, "data/responses": 2, "data/instruct.parquet": 2}  # fmt: skip
    (questions,) = [step for step in found["steps"] if step["path"] == "data/questions/sums"]
    assert questions["first"] == [{"id": "sums/0/0", "completion": "What is 1 + 1?"}, {"id": "sums/0/2", "completion": "What is 1 + 1 ?"}]  # fmt: skip
    assert found["outcomes"] == {"exact_duplicate": 1, "kept": 1}


def test_a_benchmark_item_is_found_where_it_stands(pipeline: Pipeline) -> None:
    assert counts(find_text(pipeline.tables(), "8 + 8")) == {"data/benchmarks": 1, "data/samples/student.parquet": 1}


def test_case_counts_unless_told_otherwise(pipeline: Pipeline) -> None:
    assert counts(find_text(pipeline.tables(), "GREEN")) == {}
    assert counts(find_text(pipeline.tables(), "GREEN", ignore_case=True)) == {"data/questions/sums": 1}


@pytest.mark.parametrize("text", ["100%", "it's", '"', "_", "\\", "?"])
def test_signs_are_looked_for_as_they_are(pipeline: Pipeline, text: str) -> None:
    pipeline.change("data/filtered.parquet", lambda rows: [r | {"question": f"<{text}>"} for r in rows[:1]] + rows[1:2])
    pipeline.lock("filter")
    found = counts(find_text(pipeline.tables(), f"<{text}>"))
    assert found == {"data/filtered.parquet": 1}


def test_only_the_surroundings_of_a_long_text_are_shown(pipeline: Pipeline) -> None:
    pipeline.change("data/responses", lambda rows: [r | {"response": "a" * 500 + "NEEDLE" + "b" * 500} for r in rows])
    pipeline.lock("respond")
    (step,) = [s for s in find_text(pipeline.tables(), "NEEDLE")["steps"] if s["rows"]]
    assert step["rows"] == 6
    assert [row["response"] for row in step["first"]] == ["a" * 60 + "NEEDLE" + "b" * 60] * 3


def test_no_text_is_an_error(pipeline: Pipeline) -> None:
    with pytest.raises(UserError, match="the text is empty"):
        find_text(pipeline.tables(), "  ")
