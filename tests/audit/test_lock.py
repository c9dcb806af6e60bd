"""dvc.lock: YAML as DVC reads it, live stages only, and a clear word where it is another's."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml
from ruamel.yaml import YAML

from scalequest.audit.lock import flatten, live_stages, make_lock, parse_lock, parse_yaml, read_lock
from scalequest.audit.repository import Revision
from scalequest.errors import UserError
from tests.audit.pipeline import Pipeline
from tests.fakes import LAPTOP, ROOT

NOW = Revision("workspace", None)


@pytest.mark.parametrize(
    "text",
    ["3e-05", "1.0e-5", "off", "yes", "010", "0", "-7", "12:30", "true", "False", "null", "~", "", "1_000", ".5", "1.", "'1'", "1e5",
     "2026-11-24", "0x10", "+3", "1.2.3", "'12e34567890123456789012345678901'"],
)  # fmt: skip
def test_scalars_are_what_dvc_takes_them_for(text: str) -> None:
    document = f"key: {text}\n"
    expected = YAML(typ="safe", pure=True).load(document)["key"]
    if text in (
        "1_000",
        "0x10",
        "2026-11-24",
    ):  # ruamel takes these for numbers and dates, YAML 1.2's core schema does not
        assert parse_yaml(document.encode(), "x") == {"key": text}
        return
    found = parse_yaml(document.encode(), "x")["key"]
    assert (found, type(found)) == (expected, type(expected))


@pytest.mark.parametrize("name", ["dvc.lock", "dvc.yaml", "params.yaml"])
def test_this_repositorys_files_are_read_as_dvc_reads_them(name: str) -> None:
    content = (ROOT / name).read_bytes()
    assert parse_yaml(content, name) == YAML(typ="safe", pure=True).load(content)


def test_a_lock_in_blocks_is_the_lock_as_a_whole() -> None:
    content = (ROOT / "dvc.lock").read_bytes()
    whole = yaml.safe_load(content)["stages"]
    stages = parse_lock(content, "dvc.lock")
    assert list(stages) == list(whole)
    for name, entry in whole.items():
        assert [(d.path, d.md5) for d in stages[name].deps] == [(d["path"], d["md5"]) for d in entry.get("deps", [])]
        assert [(o.path, o.md5) for o in stages[name].outs] == [(o["path"], o["md5"]) for o in entry["outs"]]


@pytest.mark.parametrize(
    ("pipeline", "names"),
    [
        ({"stages": {"a": {}, "b": {}}}, ["a", "b"]),
        ({"stages": {"a": {"matrix": {"g": "${mix}"}}}}, ["a@sums", "a@stories"]),
        ({"stages": {"a": {"matrix": {"g": "${mix}", "n": [1, 2]}}}}, ["a@sums-1", "a@sums-2", "a@stories-1", "a@stories-2"]),
        ({"stages": {"a": {"matrix": {"g": [{"x": 1}, {"x": 2}]}}}}, ["a@g0", "a@g1"]),
        ({"stages": {"a": {"foreach": "${models}", "do": {}}}}, ["a@judge", "a@solver"]),
        ({"stages": {"a": {"foreach": ["x", "y"], "do": {}}}}, ["a@x", "a@y"]),
        ({"vars": ["params.yaml", {"who": ["x"]}], "stages": {"a": {"foreach": "${who}", "do": {}}}}, ["a@x"]),
        ({"stages": {"a": {"foreach": "${nowhere.at.all}", "do": {}}}}, None),
        ({}, []),
    ],
)  # fmt: skip
def test_matrix_and_foreach_are_unrolled(pipeline: dict[str, Any], names: list[str] | None) -> None:
    assert live_stages(pipeline, {"mix": ["sums", "stories"], "models": {"judge": "x", "solver": "y"}}) == names


def test_this_repositorys_stages_are_all_known() -> None:
    pipeline, params = (YAML(typ="safe", pure=True).load(file.read_bytes()) for file in (ROOT / "dvc.yaml", LAPTOP))  # fmt: skip
    names = live_stages(pipeline, params)
    assert names is not None
    none = {"own_questions", "own_filtered"}  # one per file that a user brings
    assert {name.split("@")[0] for name in names} == set(pipeline["stages"]) - none
    assert {"qft@sums", "fetch_model@student", "evaluate_student@student", "report"} <= set(names)


def test_what_has_left_the_pipeline_is_left_out_and_what_never_ran_is_named(pipeline: Pipeline) -> None:
    pipeline.edit_lock(
        lambda stages: stages.update(
            {"old": deepcopy(stages["judge"]), "generate@gone": deepcopy(stages["generate@sums"])}
        )
    )
    pipeline.edit_lock(lambda stages: stages.pop("reward"))
    lock = read_lock(pipeline.repository, NOW)
    assert "old" not in lock.stages
    assert "generate@gone" not in lock.stages
    assert lock.absent == ("reward",)


def test_where_the_matrix_cannot_be_told_the_stages_by_name_are_alive(pipeline: Pipeline) -> None:
    content = (pipeline.root / "dvc.lock").read_bytes()
    lock = make_lock(NOW, content, b'stages: {generate: {matrix: "${secret}"}}', b"{}")
    assert list(lock.stages) == ["generate@sums"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("schema: '1.0'\nstages:\n  a: {cmd: x}\n", r"schema '1.0', this audit reads '2.0'"),
        ("schema: '3.0'\nstages:\n  a: {cmd: x}\n", r"schema '3.0', .* dvc commit -f"),
        ("a: {cmd: x}\n", r"schema None"),
        (
            "schema: '2.0'\nstages:\n  a:\n    outs:\n    - path: x\n      etag: y\n",
            r"stage a: entry .* has no path and md5",
        ),
        ("schema: '2.0'\nstages:\n  a: [\n", r"^dvc.lock: not YAML: (?!.*line).* Expected a mapping$"),
        ("a: [\n", r"^dvc.lock: not YAML: .*line 2"),
        ("- a\n", r"^dvc.lock: a list. Expected a mapping$"),
        ("", r"^dvc.lock: empty. Expected a mapping$"),
    ],
)
def test_a_lock_of_another_kind_is_refused_by_name(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_lock(text.encode(), "dvc.lock")


def test_a_damaged_lock_says_whose_it_is_and_what_brings_it_back() -> None:
    with pytest.raises(
        UserError, match=r"^dvc.lock: empty. Expected a mapping. If it .* restore it: git checkout dvc.lock$"
    ):
        make_lock(NOW, b"", b"stages: {}", b"{}")
    with pytest.raises(UserError, match=r"^dvc.lock: empty. Expected a mapping. It is that of old \(abcdefa\)$"):
        make_lock(Revision("old", "abcdefabcdef"), b"", b"stages: {}", b"{}")
    with pytest.raises(UserError, match=r"Resolve it: git checkout --ours dvc.lock && dvc repro$"):
        make_lock(NOW, b"<<<<<<< HEAD\n", b"stages: {}", b"{}")


def test_an_empty_lock_has_no_stages() -> None:
    assert parse_lock(b"schema: '2.0'\nstages: {}\n", "dvc.lock") == {}
    assert parse_lock(b"schema: '2.0'\n", "dvc.lock") == {}


def test_a_revision_without_a_lock_says_what_to_run(tmp_path: Path) -> None:
    pipeline = Pipeline(tmp_path / "r")
    with pytest.raises(
        UserError, match=r"dvc.lock in the workspace: no such file; nothing has been run there yet: dvc repro"
    ):
        read_lock(pipeline.repository, NOW)
    commit = pipeline.commit()
    with pytest.raises(UserError, match=rf"dvc.lock at main \({commit[:7]}\): no such file"):
        read_lock(pipeline.repository, pipeline.repository.revision("main"))


def test_stage_and_artifact_answer_by_name(pipeline: Pipeline) -> None:
    stage = read_lock(pipeline.repository, NOW).stages["generate@sums"]
    assert stage.base == "generate"
    assert stage.option("out") == "data/questions/sums"
    assert stage.option("ledger") is None
    out = stage.out("data/questions/sums")
    assert out is not None
    assert out.is_folder
    assert [out.overlaps(p) for p in ("data/questions", "data/questions/sums/x", "data/questions/sumsx", "data/q")] == [True, True, False, False]  # fmt: skip


def test_flatten_keeps_empty_sections() -> None:
    assert flatten({"a": {"b": 1, "c": {}}, "d": [1]}) == {"a.b": 1, "a.c": {}, "d": [1]}


CONFLICT = b"schema: '2.0'\nstages:\n  a:\n<<<<<<< HEAD\n    cmd: x\n=======\n    cmd: y\n>>>>>>> other\n"


def test_a_merge_conflict_in_the_lock_is_named_with_what_resolves_it() -> None:
    with pytest.raises(
        UserError, match=r"dvc.lock:4: an unfinished merge .* git checkout --ours dvc.lock && dvc repro"
    ):
        parse_lock(CONFLICT, "dvc.lock")


def test_a_merge_conflict_in_the_parameters_is_for_a_person(pipeline: Pipeline) -> None:
    pipeline.write("params.yaml", "<<<<<<< HEAD\nseed: 1\n=======\nseed: 2\n>>>>>>> other\n")
    with pytest.raises(UserError, match=r"params.yaml:1: an unfinished merge .* edit it, then git add params.yaml"):
        read_lock(pipeline.repository, pipeline.repository.revision("workspace"))
