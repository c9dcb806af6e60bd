"""Every kind of broken link is caught and named; a sound run is not complained of."""

import shutil
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from scalequest.audit.links import CHECKS, verify
from scalequest.audit.lock import read_lock
from scalequest.io import file_hash, write_json
from scalequest.runtime.environment import local_file
from scalequest.runtime.facts import StageFacts
from tests.audit.pipeline import METRICS, M, Pipeline


def broken(pipeline: Pipeline, *checks: str, rev: str = "workspace") -> list[str]:
    lock = pipeline.tables(rev).lock
    return [str(link) for check in verify(pipeline.repository, lock, list(checks or CHECKS)) for link in check.broken]


def test_a_sound_run_holds_in_every_link(pipeline: Pipeline) -> None:
    checks = list(verify(pipeline.repository, pipeline.tables().lock, list(CHECKS)))
    assert [check.name for check in checks] == ["stages", "hashes", "counts", "rows"]
    assert all(check.links > 0 and not check.broken for check in checks)
    assert broken(pipeline, rev="main") == []


# ------------------------------------------------------------------------------------- as an accident or a hand leaves it


def flip_a_byte(pipeline: Pipeline) -> None:
    path = pipeline.root / "data" / "ledger.parquet"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def damage(path: str) -> Callable[[Pipeline], None]:
    def change(pipeline: Pipeline) -> None:
        pipeline.object(pipeline.md5(path)).write_text("damaged")

    return change


def lose_a_part(pipeline: Pipeline) -> None:
    file = pipeline.root / "data" / "responses" / "part-00000.parquet"
    pipeline.object(pipeline.md5("data/responses/part-00000.parquet")).unlink()
    file.unlink()


def test_a_module_that_is_not_yet_added_is_no_broken_link(pipeline: Pipeline) -> None:
    pipeline.git("rm", "-q", "--cached", "stages/filter.py")
    assert [
        link for check in verify(pipeline.repository, pipeline.tables().lock, ["stages"]) for link in check.broken
    ] == []


def edit(stage: str, change: Callable[[dict[str, Any]], Any]) -> Callable[[Pipeline], None]:
    return lambda pipeline: pipeline.edit_lock(lambda stages: change(stages[stage]))


@pytest.mark.parametrize(
    ("change", "first"),
    [
        (flip_a_byte, r"stage filter → data/ledger.parquet: dvc.lock says [0-9a-f]{32}, the workspace has [0-9a-f]{32}\. Run `dvc checkout data/ledger.parquet`"),
        (lambda p: p.change("data/screened", lambda rows: rows[1:]), r"stage screen → data/screened/part-00000.parquet: expected [0-9a-f]{32}, the workspace has"),
        (lambda p: p.write("models/student/extra.txt", "x"), r"stage instruct_tune → models/student/extra.txt: expected no such file"),
        (lambda p: shutil.rmtree(p.root / "models" / "student"), r"stage instruct_tune → models/student: not in the workspace\. Run `dvc checkout"),
        (damage("data/filtered.parquet"), r"stage filter → data/filtered.parquet: the cache's .* the object is damaged\. Run `rm -f .* && dvc pull data/filtered.parquet"),
        (damage("models/student"), r"stage instruct_tune → models/student \(its list of files\): .* damaged"),
        (lose_a_part, r"stage respond → data/responses/part-00000.parquet: [0-9a-f]{32} is not in the cache .*\. Run `dvc pull data/responses`, or `dvc repro` if no remote has it"),
        (lambda p: p.write(f"{M}/filter.json", "{}"), rf"stage filter → {M}/filter.json: dvc.lock says [0-9a-f]{{32}}, workspace has [0-9a-f]{{32}}"),
        (lambda p: (p.root / "eval/scores/student.json").unlink(), r"stage evaluate@student → eval/scores/student.json: dvc.lock says [0-9a-f]{32}, workspace has no such file"),
        (edit("instruct_tune", lambda s: s["params"]["params.yaml"]["instruct_tune"].update(epochs=2)), r"stage instruct_tune, parameter instruct_tune.epochs: dvc.lock says it ran with 2, params.yaml of workspace says 1; run: dvc repro instruct_tune"),
        (edit("respond", lambda s: s["deps"][0].update(md5="0" * 32)), r"stage respond ← data/filtered.parquet: it read 0{32}, filter wrote"),
        (edit("screen", lambda s: s["deps"][0].update(md5="0" * 32 + ".dir")), r"stage screen ← data/questions: it read 0{32}.dir, what generate@sums wrote gives"),
        (edit("filter", lambda s: s["deps"][3].update(md5="0" * 32)), r"stage filter ← stages/filter.py: it ran with 0{32}, workspace has [0-9a-f]{32}"),
        (lambda p: p.write("stages/filter.py", "edited"), r"stage filter ← stages/filter.py: it ran with"),
        (lambda p: p.write("eval/tasks/maths.yaml", "edited"), r"stage evaluate@student ← eval/tasks: it ran with"),
        (lambda p: p.edit_lock(lambda stages: stages.pop("judge")), r"stage judge: dvc.yaml has it, dvc.lock has no entry"),
    ],
    ids=["byte", "row", "stranger", "folder_gone", "cache_damaged", "list_damaged", "part_gone", "metrics", "scores_gone", "parameter", "read", "read_folder", "lock_code", "code", "code_folder", "stage_gone"],
)  # fmt: skip
def test_a_broken_link_is_named_first(pipeline: Pipeline, change: Callable[[Pipeline], Any], first: str) -> None:
    change(pipeline)
    found = broken(pipeline)
    assert found
    import re

    assert re.search(first, found[0]), found


# ------------------------------------------------------------ with a lock that was made to agree: only the data can tell


def without(row_id: str) -> Callable[[list[dict[str, Any]]], list[dict[str, Any]]]:
    return lambda rows: [row for row in rows if row["id"] != row_id]


@pytest.mark.parametrize(
    ("path", "edit_rows", "stage", "message"),
    [
        ("data/screened", without("sums/0/3"), "screen", r"questions → screened: 1 rows of questions have none in screened, the first is sums/0/3 \(screen gives every generated question a verdict\); run: dvc repro -f -s screen"),
        ("data/judged", without("sums/0/1"), "judge", r"screened → judged: 1 rows of screened have none in judged, the first is sums/0/1"),
        ("data/difficulty", lambda rows: [*rows, rows[0]], "difficulty", r"screened → difficulty: 1 rows of difficulty have none in screened, the first is sums/0/0"),
        ("data/ledger.parquet", without("sums/0/2"), "filter", r"screened → ledger: 1 rows of screened have none in ledger, the first is sums/0/2 \(the ledger holds every question\)"),
        ("data/ledger.parquet", lambda rows: [r | {"outcome": "kept"} for r in rows], "filter", r"ledger → filtered: 3 rows of ledger have none in filtered, the first is sums/0/2"),
        ("data/filtered.parquet", lambda rows: [*rows, rows[0] | {"id": "sums/7/7"}], "filter", r"ledger → filtered: 1 rows of filtered have none in ledger, the first is sums/7/7"),
        ("data/responses", lambda rows: rows[:-1], "respond", r"responses → rewards: 1 rows of rewards have none in responses, the first is sums/0/5#1"),
        ("data/responses", lambda rows: rows[2:], "respond", r"filtered → responses: 1 rows of filtered have none in responses, the first is sums/0/0"),
        ("data/rewards", lambda rows: [rows[0], *rows[:-1]], "reward", r"responses → rewards: 1 rows of responses have none in rewards, the first is sums/0/5#1"),
        ("data/instruct.parquet", lambda rows: [*rows, rows[0]], "reward_select", r"filtered → instruct: 1 rows of instruct have none in filtered, the first is sums/0/0"),
    ],
)  # fmt: skip
def test_a_row_lost_or_added_is_named(pipeline: Pipeline, path: str, edit_rows: Any, stage: str, message: str) -> None:
    pipeline.change(path, edit_rows)
    pipeline.lock()
    assert broken(pipeline, "stages", "hashes") == []
    import re

    assert any(re.search(message, link) for link in broken(pipeline, "counts")), broken(pipeline, "counts")


def test_files_that_another_run_left_in_a_folder_are_named(pipeline: Pipeline) -> None:
    """A profile with other generators leaves the metrics of those before it, which Git keeps, to the report."""
    pipeline.write("data/questions/tasks/part-00000.parquet", "of the run before")
    pipeline.lock("screen")
    pipeline.write(".dvcignore", ".gitkeep\n")
    pipeline.write("data/questions/.gitkeep", "")  # so it is no part of the folder's hash
    [link] = [link for link in broken(pipeline, "stages") if "data/questions" in link]
    assert link == (
        "stage screen ← data/questions: it also read 1 file that no stage of this run writes "
        "(data/questions/tasks/part-00000.parquet). Another run left them: delete them, and run: dvc repro screen"
    )
    (pipeline.root / "data/questions/tasks/part-00000.parquet").unlink()
    (pipeline.root / "data/questions/.gitkeep").unlink()
    pipeline.lock("screen")
    assert broken(pipeline, "stages") == []


def test_several_rows_of_a_question_hold_where_the_run_keeps_them(pipeline: Pipeline) -> None:
    import json

    # Question 0 has both of its responses; the metrics count two questions and three rows.
    both = [
        {"response": "The answer is 01.", "reward": 1.0},
        {"response": "The answer is 00.", "final_answer": "00", "reward": 0.0},
    ]
    pipeline.change("data/instruct.parquet", lambda rows: [*(rows[0] | one for one in both), *rows[1:]])
    metrics = {"questions": 3, "kept": 2, "rows": 3, "dropped": {"no_answer": 1}}
    pipeline.write("reports/metrics/reward_select.json", json.dumps(metrics))
    pipeline.lock()
    assert any(
        "filtered → instruct: 1 rows" in link for link in broken(pipeline, "counts")
    )  # one per question by default
    pipeline.params["reward_select"]["keep"] = "all_agreeing"
    pipeline.lock()
    assert broken(pipeline, "counts", "rows") == []
    pipeline.change("data/instruct.parquet", lambda rows: [rows[1], *rows])
    pipeline.lock()
    found = broken(pipeline, "counts")
    assert any(
        "filtered → instruct: 1 rows of instruct have none in filtered, the first is sums/0/0" in link for link in found
    )
    assert any("it says rows 3, the data have 4" in link for link in found)


def test_a_made_up_response_beside_a_sampled_one_is_named(pipeline: Pipeline) -> None:
    pipeline.params["reward_select"]["keep"] = "all_agreeing"
    pipeline.change("data/instruct.parquet", lambda rows: [*rows, rows[0] | {"response": "Never sampled."}])
    pipeline.lock()
    assert any("1 have no sampled response of that text and reward" in link for link in broken(pipeline, "rows"))


def test_too_few_samples_are_named(pipeline: Pipeline) -> None:
    for path in ("data/responses", "data/rewards"):
        pipeline.change(path, lambda rows: [row for row in rows if row["id"] != "sums/0/5#1"])
    pipeline.lock()
    assert any("5 responses to 3 questions, respond.n_samples 2 makes 6" in link for link in broken(pipeline, "counts"))


@pytest.mark.parametrize("path", [path for path in METRICS if "instruct_tune" not in path and "scores" not in path])
def test_a_metrics_file_that_lies_is_named(pipeline: Pipeline, path: str) -> None:
    import json

    pipeline.write(
        path, json.dumps({key: value + 1 if isinstance(value, int) else value for key, value in METRICS[path].items()})
    )
    pipeline.lock()
    assert broken(pipeline, "stages", "hashes") == []
    assert any(f"→ {path}: it says" in link for link in broken(pipeline, "counts"))


@pytest.mark.parametrize(
    ("edit_rows", "message"),
    [
        (lambda rows: [rows[0] | {"id": "sums/9/9"}, *rows[1:]], "1 have no question that passed the filters, the first is sums/9/9; see: scalequest audit --row sums/9/9"),
        (lambda rows: [rows[0] | {"question": "Slipped in?"}, *rows[1:]], "1 have no question that passed the filters"),
        (lambda rows: [rows[0] | {"response": "Never sampled."}, *rows[1:]], "1 have no sampled response of that text and reward, the first is sums/0/0"),
        (lambda rows: [rows[0] | {"reward": 99.0}, *rows[1:]], "1 have no sampled response of that text and reward"),
        (lambda rows: [row | {"generator": "stranger"} for row in rows], "2 have no generated question of that text"),
    ],
)  # fmt: skip
def test_a_training_row_from_nowhere_is_named(pipeline: Pipeline, edit_rows: Any, message: str) -> None:
    pipeline.change("data/instruct.parquet", edit_rows)
    pipeline.lock()
    assert broken(pipeline, "stages", "hashes") == []
    assert any(message in link for link in broken(pipeline, "rows"))


def test_a_run_without_rewards_is_sound_whatever_an_earlier_one_left(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline.without_rewards(monkeypatch)
    assert broken(pipeline) == []
    pipeline.edit_lock(lambda stages: stages.pop("reward"))
    assert broken(pipeline) == []
    # A reward that no model gave, and a text that was never sampled, are named.
    pipeline.change("data/instruct.parquet", lambda rows: [rows[0] | {"reward": 1.0}, *rows[1:]])
    pipeline.lock("reward_select", "instruct_tune", "evaluate@student")
    assert any("1 have no sampled response of that text and reward, the first is sums/0/0" in link for link in broken(pipeline, "rows"))  # fmt: skip
    pipeline.change(
        "data/instruct.parquet", lambda rows: [row | {"reward": None, "response": "Never."} for row in rows]
    )
    pipeline.lock("reward_select", "instruct_tune", "evaluate@student")
    assert any("2 have no sampled response of that text and reward" in link for link in broken(pipeline, "rows"))


def test_a_generator_whose_model_no_stage_fetched_is_named(pipeline: Pipeline) -> None:
    pipeline.edit_lock(lambda stages: stages.pop("fetch_model@sums"))
    found = broken(pipeline, "rows")
    assert any(link.startswith("stage qft@sums ← models/base/sums") for link in found)
    assert any("generator sums: its chain ends in no fetched model" in link for link in found)


# -------------------------------------------------------------------------------------------------- another revision


@pytest.mark.parametrize("edit", ["change", "remove", "add"])
def test_a_folder_that_git_keeps_is_held_against_its_lock(pipeline: Pipeline, edit: str) -> None:
    """DVC caches neither its files nor their list: `cache: false`."""
    assert broken(pipeline, "hashes") == []
    pipeline.experiment("cut")
    assert broken(pipeline, "hashes", rev="cut") == []
    words = pipeline.root / "reports" / "plots" / "student" / "words.csv"
    if edit == "remove":
        words.unlink()
    else:
        pipeline.write(f"reports/plots/student/{'words' if edit == 'change' else 'more'}.csv", "from,kept\n0,3\n")
    (link,) = broken(pipeline, "hashes")
    assert link.startswith("stage evaluate@student → reports/plots/student: dvc.lock says ")


def test_a_revision_is_held_against_the_cache_and_not_the_workspace(pipeline: Pipeline) -> None:
    pipeline.params["seed"] = 18
    pipeline.write("models/student/model.safetensors", "other")
    pipeline.lock()
    value = pipeline.md5("models/student/model.safetensors")
    pipeline.experiment("cut")
    pipeline.checkout()
    pipeline.write("data/seeds.parquet", "the workspace's own damage")
    assert broken(pipeline, rev="cut") == []
    assert any("data/seeds.parquet" in link for link in broken(pipeline))
    pipeline.object(value).unlink()
    (link,) = broken(pipeline, "hashes", rev="cut")
    assert link.startswith("stage instruct_tune → models/student/model.safetensors")
    assert link.endswith("Run `dvc exp apply cut && dvc pull models/student`, or `dvc repro` if no remote has it")


def test_tables_that_are_not_here_are_a_broken_link_and_no_crash(pipeline: Pipeline) -> None:
    pipeline.object(pipeline.md5("data/judged")).unlink()
    shutil.rmtree(pipeline.root / "data" / "judged")
    found = broken(pipeline, "counts")
    assert found[-1].startswith("data: not in DVC's cache")
    assert "dvc pull data/judged" in found[-1]


# ------------------------------------------------------------------------------------------- what the stage ran with


def ran(pipeline: Pipeline, stage: str, params: dict[str, Any], deps: dict[str, str] | None = None) -> None:
    """What the stage itself kept of a run that wrote the bytes of the lock."""
    found = read_lock(pipeline.repository, pipeline.repository.revision("workspace")).stages[stage]
    facts = StageFacts(
        stage, pipeline.root, {dep.path: dep.md5 for dep in found.deps} | (deps or {}), params,
        written={out.path: out.md5 for out in found.outs},
    )  # fmt: skip
    write_json(
        local_file(pipeline.root, stage, facts.given),
        {"given": facts.given, "outs": facts.written, "params": facts.params, "deps": facts.deps, "environment": []},
    )


def test_a_record_of_another_form_breaks_no_check(pipeline: Pipeline) -> None:
    for stage in ("seeds", "filter"):
        write_json(local_file(pipeline.root, stage, "x"), {"a": 1})
    assert broken(pipeline, "stages") == []


def test_a_lock_that_names_other_parameters_than_the_stage_ran_with_is_broken(pipeline: Pipeline) -> None:
    trained = {"seed": 17, "instruct_tune": {"epochs": 1, "learning_rate": 3e-05}}
    ran(pipeline, "instruct_tune", trained)
    assert broken(pipeline, "stages") == []
    pipeline.params["instruct_tune"]["learning_rate"] = 1.0
    pipeline.lock("instruct_tune")  # the same bytes, as DVC records them after an edit in the last instant
    (link,) = broken(pipeline, "stages")
    assert link.startswith(
        "stage instruct_tune, parameter instruct_tune.learning_rate: dvc.lock says it ran with 1.0, "
    )
    assert "wrote these bytes with 3e-05; run: dvc repro -f -s instruct_tune" in link
    # A run that did have it and came to the same bytes settles it.
    ran(pipeline, "instruct_tune", trained | {"instruct_tune": {"epochs": 1, "learning_rate": 1.0}})
    assert broken(pipeline, "stages") == []


def test_a_lock_that_names_another_input_than_the_stage_read_is_broken(pipeline: Pipeline) -> None:
    ran(pipeline, "instruct_tune", {}, {"data/instruct.parquet": "0" * 32})
    (link,) = broken(pipeline, "stages")
    assert "stage instruct_tune ← data/instruct.parquet" in link
    assert f"wrote these bytes from {'0' * 32}" in link


# ------------------------------------------------------------------------------------------------ from outside the history


def test_a_changed_byte_of_a_local_source_breaks_a_link(pipeline: Pipeline) -> None:
    pipeline.write("own.jsonl", "{}\n")
    params = pipeline.root / "params.yaml"
    data = yaml.safe_load(params.read_text())
    data["seeds"]["own"] = {"kind": "jsonl", "path": "own.jsonl", "sha256": file_hash(pipeline.root / "own.jsonl")}
    params.write_text(yaml.safe_dump(data))
    assert not [link for link in broken(pipeline, "stages") if "own.jsonl" in link]
    pipeline.write("own.jsonl", "{ }\n")
    [found] = [link for link in broken(pipeline, "stages") if "own.jsonl" in link]
    assert found.startswith("source of seeds: seeds.own: ")
    assert found.endswith("run: dvc repro -f seeds")


def test_a_changed_lock_of_packages_breaks_a_link(pipeline: Pipeline) -> None:
    # What the runs of this pipeline recorded: torch 1.0, and no engine.
    pipeline.write("requirements/cpu.lock", "torch==1.0 --hash=sha256:aa\n")
    assert broken(pipeline, "stages") == []
    from scalequest.audit import outside

    pipeline.write("requirements/cpu.lock", "torch==2.0 --hash=sha256:aa\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(outside.LOCKS, "torch", ("requirements/cpu.lock",))
        [found] = broken(pipeline, "stages")
    assert "made with torch 1.0, requirements/cpu.lock names 2.0; run: make setup && dvc repro -f -s" in found
