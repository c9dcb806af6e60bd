"""Rows of a user's own questions: where they came from, and that what `verify` checks still holds."""

from typing import Any

import pytest
import yaml

from scalequest import records
from scalequest.audit.links import verify
from scalequest.audit.rows import life
from scalequest.audit.show import row_text
from scalequest.errors import UserError
from tests.audit.pipeline import PIPELINE, M, Pipeline, tables

SOURCE = {"kind": "jsonl", "path": "sources/book.jsonl", "n": None, "sha256": "5" * 64}


def declare(pipeline: Pipeline, section: str, name: str) -> None:
    """Put the stage into dvc.yaml and the file into params.yaml."""
    pipeline.params |= {"own": {section: {name: SOURCE}}, "mix": ["sums"] if section == "filtered" else []}
    pipeline.write("params.yaml", yaml.safe_dump(pipeline.params))
    pipeline.write("dvc.yaml", f'{PIPELINE}  own_{section}: {{foreach: "${{own.{section}}}", do: {{}}}}\n')


def at_screen(pipeline: Pipeline) -> None:
    """The questions of `sums` came from a file."""
    declare(pipeline, "questions", "sums")

    def edit(stages: dict[str, Any]) -> None:
        made = stages.pop("generate@sums")
        made["cmd"] = (
            f"python -m stages.own_questions --generator sums --out data/questions/sums --metrics {M}/generate/sums.json"
        )
        made["deps"], made["params"] = [], {"params.yaml": {"own.questions": {"sums": SOURCE}}}
        stages["own_questions@sums"] = made

    pipeline.edit_lock(edit)


def at_respond(pipeline: Pipeline) -> None:
    """`respond` read a file; the filters' own table is still there, of other questions."""

    declare(pipeline, "filtered", "book")

    def renamed(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{k: v.replace("sums", "book") if isinstance(v, str) else v for k, v in row.items()} for row in rows]

    schema, rows = tables()["data/filtered.parquet"]
    pipeline.table("data/own/book.parquet", [row | {"difficulty": None} for row in renamed(rows)], schema)
    for path in ("data/responses", "data/rewards", "data/instruct.parquet"):
        pipeline.change(path, renamed)
        pipeline._cache(path)
    pipeline._cache("data/own/book.parquet")

    def edit(stages: dict[str, Any]) -> None:
        stages["own_filtered@book"] = {
            "cmd": "python -m stages.own_filtered --generator book --out data/own/book.parquet",
            "params": {"params.yaml": {"own.filtered": {"book": SOURCE}}},
            "outs": [pipeline._entry("data/own/book.parquet")],
        }
        stages["respond"]["cmd"] += " --questions data/own/book.parquet"
        for name in ("respond", "reward", "reward_select"):
            for out in stages[name]["outs"]:
                out |= pipeline._entry(out["path"])

    pipeline.edit_lock(edit)


@pytest.mark.parametrize(("enter", "row"), [(at_screen, "sums/0/1"), (at_respond, "book/0/1")])
def test_a_row_leads_to_the_users_file(pipeline: Pipeline, enter: Any, row: str):
    enter(pipeline)
    found = life(pipeline.tables(), pipeline.history, row)
    assert found["generated"]["given"] == SOURCE
    assert found["generated"]["model"] is None
    assert found["training_row"]["response"] == "The answer is 11."
    assert ("filter" in found) is (enter is at_screen)  # nothing filtered what was answered as it is
    text = row_text(found)
    assert "brought by a user" in text
    assert "sources/book.jsonl" in text
    assert "row 1 of the file" in text
    assert "None" not in text
    with pytest.raises(UserError, match=f"not among the . questions in data/.*Did you mean {row[:-2]}/"):
        life(pipeline.tables(), pipeline.history, f"{row[:-2]}/99")


@pytest.mark.parametrize("enter", [at_screen, at_respond])
def test_a_sound_run_with_own_questions_verifies(pipeline: Pipeline, enter: Any):
    enter(pipeline)
    for check in verify(pipeline.repository, pipeline.tables().lock, ["counts", "rows"]):
        assert [str(broken) for broken in check.broken] == [], check.name
        assert check.links


def test_a_training_row_that_is_not_of_the_file_is_found(pipeline: Pipeline):
    at_respond(pipeline)
    schema, _ = tables()["data/filtered.parquet"]
    rows = records.read_rows(pipeline.root / "data/own/book.parquet", schema)
    pipeline.table("data/own/book.parquet", rows[1:], schema)
    pipeline._cache("data/own/book.parquet")
    pipeline.edit_lock(
        lambda stages: stages["own_filtered@book"].update(outs=[pipeline._entry("data/own/book.parquet")])
    )
    [counts, found] = verify(pipeline.repository, pipeline.tables().lock, ["counts", "rows"])
    assert any("have none in filtered" in str(broken) for broken in counts.broken)
    assert any("no question that passed the filters" in str(broken) for broken in found.broken)
