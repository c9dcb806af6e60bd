"""One row's life: kept, rejected by each filter, unanswered; and in which models of which revisions it is."""

import re
import shutil
from typing import Any

import pytest

from scalequest.audit.rows import life
from scalequest.audit.show import row_text
from scalequest.audit.tables import pull_command
from scalequest.errors import UserError
from tests.audit.pipeline import Pipeline


def of(pipeline: Pipeline, row_id: str, rev: str = "workspace") -> dict[str, Any]:
    return life(pipeline.tables(rev), pipeline.history, row_id)


def test_a_kept_row_from_its_generator_to_the_models_trained_on_it(pipeline: Pipeline) -> None:
    found = of(pipeline, "sums/0/1")
    lock = pipeline.tables().lock
    assert found["generated"]["model"] == {"path": "models/qft/sums", "md5": lock.stages["qft@sums"].outs[0].md5}
    assert (found["generated"]["shard"], found["generated"]["row"], found["generated"]["seed"]) == (0, 1, 5)
    assert found["generated"]["completion"] == "What is 2 + 2?"
    assert found["screen"]["verdict"] == "kept"
    assert found["screen"]["settings"] == {"screen.min_words": 3, "screen.decontaminate_ngram": 13}
    assert (found["judge"]["verdict"], found["judge"]["completion"]) == ("solvable", "Yes.")
    assert found["difficulty"]["score"] == pytest.approx(0.5)
    assert found["filter"]["outcome"] == "kept"
    assert [(r["sample"], r["reward"], r["kept"]) for r in found["responses"]["rows"]] == [
        (0, 0.0, False),
        (1, 1.0, True),
    ]
    assert found["training_row"]["response"] == "The answer is 11."
    assert [(m["path"], m["direct"], m["row"]) for m in found["models"]] == [("models/student", True, "same")]


def test_a_row_of_a_run_without_rewards_was_not_scored(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline.without_rewards(monkeypatch)
    found = of(pipeline, "sums/0/1")
    assert [(r["reward"], r["kept"]) for r in found["responses"]["rows"]] == [(None, False), (None, True)]
    assert (found["responses"]["reward_model"], found["training_row"]["reward"]) == (None, None)
    text = row_text(found)
    assert "not scored" in text
    assert "training row: final answer 11, no reward, agreement 0.50" in text


@pytest.mark.parametrize(
    ("number", "outcome", "steps"),
    [
        (2, "exact_duplicate", {"screen", "filter"}),
        (3, "unsolvable", {"screen", "judge", "difficulty", "filter"}),
        (4, "too_easy", {"screen", "judge", "difficulty", "filter"}),
    ],
)
def test_a_rejected_row_is_told_as_far_as_it_came(
    pipeline: Pipeline, number: int, outcome: str, steps: set[str]
) -> None:
    found = of(pipeline, f"sums/0/{number}")
    assert found["filter"]["outcome"] == outcome
    assert found.keys() == {"id", "revision", "generated", "models", "not_looked_at"} | steps
    assert found["models"] == []


def test_the_twin_of_a_duplicate_is_quoted(pipeline: Pipeline) -> None:
    screen = of(pipeline, "sums/0/2")["screen"]
    assert (screen["matched"], screen["matched_question"]) == ("sums/0/0", "What is 1 + 1?")


def test_a_question_whose_answers_all_failed_has_no_training_row(pipeline: Pipeline) -> None:
    found = of(pipeline, "sums/0/5")
    assert len(found["responses"]["rows"]) == 2
    assert found["training_row"] is None
    assert found["models"] == []


def test_every_response_that_was_kept_is_marked(pipeline: Pipeline) -> None:
    pipeline.change(
        "data/instruct.parquet",
        lambda rows: [*rows, rows[1] | {"response": "The answer is 10.", "final_answer": "10", "reward": 0.0}],
    )
    pipeline.params["reward_select"]["keep"] = "all_agreeing"
    pipeline.lock()
    found = of(pipeline, "sums/0/1")
    assert [row["kept"] for row in found["responses"]["rows"]] == [True, True]
    assert found["training_row"]["response"] == "The answer is 11."
    assert {model["row"] for model in found["models"]} == {"same"}


def test_a_responses_id_leads_to_its_question(pipeline: Pipeline) -> None:
    assert of(pipeline, "sums/0/1#1")["id"] == "sums/0/1"


def test_an_experiment_that_was_never_applied_is_looked_at(pipeline: Pipeline) -> None:
    """In it row 1 has fallen; its student is another, and only the workspace's holds row 1."""
    pipeline.change(
        "data/ledger.parquet",
        lambda rows: [r | {"outcome": "too_easy" if r["id"] == "sums/0/1" else r["outcome"]} for r in rows],
    )
    for path in ("data/filtered.parquet", "data/instruct.parquet"):
        pipeline.change(path, lambda rows: [r for r in rows if r["id"] != "sums/0/1"])
    pipeline.write("models/student/model.safetensors", "other")
    pipeline.lock("filter", "reward_select", "instruct_tune")
    pipeline.experiment("cut")
    pipeline.checkout()
    assert of(pipeline, "sums/0/1", "cut")["filter"]["outcome"] == "too_easy"
    assert of(pipeline, "sums/0/1")["filter"]["outcome"] == "kept"
    assert [m["version"].split(" (")[0] for m in of(pipeline, "sums/0/1", "cut")["models"]] == ["workspace, main"]
    both = of(pipeline, "sums/0/0")["models"]
    assert [m["version"].split(" (")[0] for m in both] == ["workspace, main", "experiment cut"]
    assert both[0]["md5"] != both[1]["md5"]


def test_the_same_id_under_another_model_is_another_row(pipeline: Pipeline) -> None:
    for path in ("data/questions/sums", "data/instruct.parquet"):
        pipeline.change(path, lambda rows: [r | {"question": f"Other: {r['question']}"} for r in rows])
    pipeline.lock("generate@sums", "reward_select", "instruct_tune")
    pipeline.experiment("other")
    pipeline.checkout()
    assert [m["version"].split(" (")[0] for m in of(pipeline, "sums/0/1")["models"]] == ["workspace, main"]


def test_another_response_to_the_same_question_is_said(pipeline: Pipeline) -> None:
    pipeline.change("data/instruct.parquet", lambda rows: [r | {"response": "The answer is 10."} for r in rows])
    pipeline.lock("reward_select", "instruct_tune")
    pipeline.experiment("other")
    pipeline.checkout()
    assert [(m["version"].split(" (")[0], m["row"]) for m in of(pipeline, "sums/0/1")["models"]] == [
        ("workspace, main", "same"),
        ("experiment other", "other response"),
    ]


@pytest.mark.parametrize(
    ("row_id", "message"),
    [
        ("sums/0/17", r"row 'sums/0/17': not among the 6 questions in data/questions/sums of workspace \(rows of shard 0 go from 0 to 5\)\. Did you mean sums/0/5\?"),
        ("sums/9/2", r"shards go from 0 to 0\)\. Did you mean sums/0/2\?"),
        ("sumz/0/1", r"workspace has no generator 'sumz'; nearest: sums"),
        ("17", r"row '17': expected GENERATOR/SHARD/ROW, as in sums/0/12"),
        ("sums/0/x", r"expected GENERATOR/SHARD/ROW"),
    ],
)  # fmt: skip
def test_an_unknown_id_is_told_with_the_nearest(pipeline: Pipeline, row_id: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        of(pipeline, row_id)


@pytest.mark.parametrize(
    ("rev", "command"),
    [
        ("workspace", r"dvc pull data/responses data/rewards"),
        ("main", r"git checkout main && dvc pull data/responses data/rewards"),
        ("cut", r"dvc exp apply cut && dvc pull data/responses data/rewards"),
    ],
)
def test_data_that_are_not_here_come_with_one_command(pipeline: Pipeline, rev: str, command: str) -> None:
    pipeline.params["seed"] = 18
    pipeline.lock()
    pipeline.experiment("cut")
    pipeline.checkout()
    for path in ("data/responses", "data/rewards"):
        pipeline.object(pipeline.md5(path)).unlink()
        shutil.rmtree(pipeline.root / path)
    with pytest.raises(UserError, match=command):
        of(pipeline, "sums/0/1", rev)


TABLES = "['remote \"tables\"']\n    url = ../tables\n"


@pytest.mark.parametrize(
    ("config", "local", "command"),
    [
        ("", "", "`dvc pull data/ledger.parquet`"),
        (TABLES, "", "`dvc pull -r tables data/ledger.parquet`"),
        (TABLES, "[core]\n    remote = tables\n", "`dvc pull data/ledger.parquet`"),
        (
            TABLES,
            "['remote \"disk\"']\n    url = /disk\n",
            "`dvc pull data/ledger.parquet`",
        ),  # which of them is the user's to say
    ],
    ids=["none", "no_default", "default", "two"],
)
def test_the_command_names_a_remote_that_is_no_default(
    pipeline: Pipeline, config: str, local: str, command: str
) -> None:
    (pipeline.root / ".dvc" / "config").write_text(config)
    (pipeline.root / ".dvc" / "config.local").write_text(local)
    pipeline.object(pipeline.md5("data/ledger.parquet")).unlink()
    (pipeline.root / "data" / "ledger.parquet").unlink()
    with pytest.raises(UserError, match=re.escape(command)):
        of(pipeline, "sums/0/1")


def test_the_tables_remote_is_named_for_tables_of_the_workspace_alone(pipeline: Pipeline) -> None:
    """It has no models, and another commit's configuration may have other remotes."""
    (pipeline.root / ".dvc" / "config").write_text(TABLES)
    now, before = pipeline.repository.revision("workspace"), pipeline.repository.revision("HEAD")
    assert pull_command(pipeline.root, now, ["data/a", "data/b"]) == "dvc pull -r tables data/a data/b"
    assert pull_command(pipeline.root, now, ["data/a", "models/b"]) == "dvc pull data/a models/b"
    assert pull_command(pipeline.root, before, ["data/a"]).endswith("&& dvc pull data/a")


def test_without_a_cache_the_workspaces_own_files_do(pipeline: Pipeline) -> None:
    shutil.rmtree(pipeline.root / ".dvc" / "cache")
    assert of(pipeline, "sums/0/1")["filter"]["outcome"] == "kept"
    pipeline.change("data/ledger.parquet", lambda rows: rows[1:])
    with pytest.raises(UserError, match=r"dvc pull data/ledger.parquet"):  # another ledger than the lock's is none
        of(pipeline, "sums/0/1")


def test_training_rows_that_cannot_be_looked_at_are_named(pipeline: Pipeline) -> None:
    pipeline.change("data/instruct.parquet", lambda rows: rows[:1])
    pipeline.lock("reward_select", "instruct_tune")
    gone = pipeline.object(pipeline.md5("data/instruct.parquet"))
    pipeline.experiment("lost")
    pipeline.checkout()
    gone.unlink()
    (note,) = of(pipeline, "sums/0/1")["not_looked_at"]
    assert note.startswith("experiment lost (")
    assert "dvc exp apply lost && dvc pull data/instruct.parquet" in note


def test_the_cache_may_lie_elsewhere(pipeline: Pipeline) -> None:
    shutil.move(pipeline.root / ".dvc" / "cache", pipeline.root / ".shared")
    for path in ("data/responses", "data/rewards"):
        shutil.rmtree(pipeline.root / path)
    pipeline.write(
        ".dvc/config", "[core]\n    analytics = false\n[cache]\n    dir = ../.shared\n['remote \"x\"']\n    url = /x\n"
    )
    assert of(pipeline, "sums/0/1")["training_row"]
