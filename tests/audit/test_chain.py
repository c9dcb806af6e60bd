"""The graph both ways, the state of the code, and the first difference."""

from hashlib import md5

import pytest

from scalequest.audit import facts, show
from scalequest.audit.chain import compare, downstream, folder_hash
from scalequest.audit.lock import read_lock
from scalequest.audit.tables import Store, Tables
from scalequest.errors import UserError
from scalequest.io import write_json
from scalequest.runtime.environment import ENVIRONMENT_FILE, local_file
from tests.audit.pipeline import STAGES, Pipeline


def test_the_chain_ends_in_seeds_and_base_models_and_comes_in_order(pipeline: Pipeline) -> None:
    chain = pipeline.chain()
    names = [stage.name for stage in chain.stages]
    assert names[0] == "instruct_tune"
    assert set(names) == set(STAGES) - {"evaluate@student"}
    for stage in chain.stages:
        for item in chain.inputs(stage):
            assert all(names.index(maker) > names.index(stage.name) for maker in item.makers)


def test_a_folder_above_its_parts_leads_to_their_makers(pipeline: Pipeline) -> None:
    chain = pipeline.chain("data/screened")
    assert {i.artifact.path: i.makers for i in chain.inputs(chain.stage)} == {
        "data/questions": ("generate@sums",),
        "data/benchmarks": ("benchmarks",),
    }


def test_an_input_that_was_remade_since_is_stale(pipeline: Pipeline) -> None:
    pipeline.change("data/filtered.parquet", lambda rows: rows[:2])
    pipeline.lock("filter")
    chain = pipeline.chain()
    respond = chain.lock.stages["respond"]
    assert {i.artifact.path: i.stale for i in chain.inputs(respond)} == {"data/filtered.parquet": True, "models/base/solver": False}  # fmt: skip


def test_scores_are_those_of_this_very_model(pipeline: Pipeline) -> None:
    assert [artifact.path for _, artifact in pipeline.chain().scores()] == ["eval/scores/student.json"]
    pipeline.write("models/student/model.safetensors", "another")
    pipeline.lock("instruct_tune")
    assert pipeline.chain().scores() == []


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("models/studnt", r"no such output in dvc.lock of workspace \(\d+ outputs\)\. Did you mean 'models/student'\?"),
        ("models", r"under this path are models/base/solver, .*models/student"),
        ("stages/filter.py", "no such output in dvc.lock"),
    ],
)  # fmt: skip
def test_an_unknown_path_is_told_with_the_nearest(pipeline: Pipeline, path: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        pipeline.chain(path)


@pytest.mark.parametrize(
    "path", ["models/student", "models/student/", "./models/student", "models/student/config.json"]
)
def test_an_output_is_found_by_any_of_its_spellings(pipeline: Pipeline, path: str) -> None:
    assert pipeline.chain(path).target.path == "models/student"


# ---------------------------------------------------------------------------------------------------------------- code


def test_code_committed_with_the_run_is_clean(pipeline: Pipeline) -> None:
    chain = pipeline.chain()
    code = chain.code(chain.lock.stages["filter"])
    assert (code.commit, code.dirty, code.changed_since) == (pipeline.git("rev-parse", "HEAD"), {}, ())


def test_code_of_an_uncommitted_run_is_clean_where_head_has_it(pipeline: Pipeline) -> None:
    pipeline.params["filter"]["require_solvable"] = False
    pipeline.lock("filter")
    chain = pipeline.chain()
    assert chain.code(chain.lock.stages["filter"]).commit == pipeline.git("rev-parse", "HEAD")


def test_code_that_ran_uncommitted_is_dirty_and_named(pipeline: Pipeline) -> None:
    pipeline.write("stages/filter.py", "edited\n")
    pipeline.lock("filter")
    chain = pipeline.chain()
    code = chain.code(chain.lock.stages["filter"])
    assert (code.commit, code.dirty) == (None, {"stages/filter.py": ""})
    assert chain.code(chain.lock.stages["generate@sums"]).commit == pipeline.git("rev-parse", "HEAD")


def test_dirty_code_that_another_commit_has_is_traced_to_it(pipeline: Pipeline) -> None:
    pipeline.write("stages/filter.py", "edited\n")
    pipeline.write("stages/generate.py", "edited\n")
    elsewhere = pipeline.experiment("idea")
    pipeline.write("stages/filter.py", "edited\n")
    pipeline.lock("filter")
    pipeline.write("stages/filter.py", "filter\n")
    pipeline.commit("the lock without the code that made it")
    chain = pipeline.chain(rev="main")
    assert chain.code(chain.lock.stages["filter"]).dirty == {"stages/filter.py": elsewhere}


def test_code_committed_after_the_run_is_clean_there(pipeline: Pipeline) -> None:
    pipeline.write("stages/filter.py", "edited\n")
    pipeline.lock("filter")
    pipeline.git("add", "dvc.lock")
    pipeline.git("commit", "-qm", "the lock first")
    second = pipeline.commit("then the code")
    chain = pipeline.chain(rev="main")
    assert chain.code(chain.lock.stages["filter"]).commit == second


def test_code_edited_since_is_told_beside_the_clean_commit(pipeline: Pipeline) -> None:
    first = pipeline.git("rev-parse", "HEAD")
    pipeline.write("stages/filter.py", "edited\n")
    pipeline.commit()
    chain = pipeline.chain(rev="main")
    code = chain.code(chain.lock.stages["filter"])
    assert (code.commit, code.changed_since) == (first, ("stages/filter.py",))


def test_a_folder_of_code_counts_as_a_whole(pipeline: Pipeline) -> None:
    chain = pipeline.chain("data/samples/student.parquet")
    assert chain.code(chain.stage).commit == pipeline.git("rev-parse", "HEAD")
    pipeline.write("eval/tasks/new.yaml", "task\n")
    pipeline.git("add", "-A")
    chain = pipeline.chain("data/samples/student.parquet")
    assert chain.code(chain.stage).changed_since == ("eval/tasks",)


def test_a_folders_hash_is_dvcs() -> None:
    from dvc_data.hashfile.hash_info import HashInfo
    from dvc_data.hashfile.tree import Tree

    files = {"b/a.txt": "1" * 32, "b.txt": "2" * 32, "a": "3" * 32, "b/é.txt": "4" * 32}
    tree = Tree()
    for path, value in files.items():
        tree.add(tuple(path.split("/")), None, HashInfo("md5", value))
    tree.digest()
    assert folder_hash(files) == tree.hash_info.value
    assert folder_hash({"x": md5(b"").hexdigest()}).endswith(".dir")


# ---------------------------------------------------------------------------------------------------------- downstream


def test_seeds_reach_every_model_that_was_trained_and_no_fetched_one(pipeline: Pipeline) -> None:
    lock = read_lock(pipeline.repository, pipeline.repository.revision("main"))
    seeds = lock.stages["seeds"].outs[0].md5
    ways = downstream(lock, [seeds])
    assert {path for path in ways if path.startswith("models/")} == {"models/qft/sums", "models/student"}
    assert [a.path for a in ways["models/qft/sums"]] == ["data/seeds.parquet", "models/qft/sums"]
    # Through the questions' folder above the generators' own.
    assert "data/questions/sums" in [a.path for a in ways["data/screened"]] or "data/benchmarks" in [a.path for a in ways["data/screened"]]  # fmt: skip


def test_what_was_remade_since_is_not_what_was_read(pipeline: Pipeline) -> None:
    pipeline.change("data/filtered.parquet", lambda rows: rows[:2])
    pipeline.lock("filter")
    lock = read_lock(pipeline.repository, pipeline.repository.revision("workspace"))
    assert downstream(lock, [lock.stages["filter"].outs[0].md5]) == {}


# ---------------------------------------------------------------------------------------------------------- difference


def differ(pipeline: Pipeline) -> list[tuple[str, list[str], int, int]]:
    found = compare(pipeline.chain(rev="main"), pipeline.chain(rev="other"))
    return [(d.stage, [what for what, _, _ in d.causes], len(d.inputs), len(d.outs)) for d in found]


def test_equal_revisions_do_not_differ(pipeline: Pipeline) -> None:
    pipeline.git("branch", "other")
    assert differ(pipeline) == []


def test_the_first_difference_is_the_cause_and_the_rest_follows(pipeline: Pipeline) -> None:
    pipeline.params["filter"]["require_solvable"] = False
    pipeline.change("data/filtered.parquet", lambda rows: rows[:2])
    pipeline.change("data/responses", lambda rows: rows[:4])
    pipeline.lock("filter", "respond")
    pipeline.experiment("other")
    assert differ(pipeline) == [
        ("filter", ["parameter filter.require_solvable"], 0, 1),
        ("respond", [], 1, 1),
    ]


def test_code_and_command_are_causes(pipeline: Pipeline) -> None:
    pipeline.write("stages/filter.py", "edited\n")
    pipeline.lock("filter")
    pipeline.edit_lock(lambda stages: stages["judge"].update(cmd="python -m stages.judge --new"))
    pipeline.experiment("other")
    # The furthest upstream first, whatever the order of the edits.
    assert differ(pipeline) == [("judge", ["command"], 0, 0), ("filter", ["code stages/filter.py"], 0, 0)]


def test_bytes_that_did_not_repeat_have_no_cause(pipeline: Pipeline) -> None:
    pipeline.write("models/student/model.safetensors", "another")
    pipeline.lock("instruct_tune")
    pipeline.experiment("other")
    assert differ(pipeline) == [("instruct_tune", [], 0, 1)]


def test_a_stage_of_one_side_only_is_named(pipeline: Pipeline) -> None:
    pipeline.git("branch", "other")
    pipeline.edit_lock(lambda stages: stages.pop("benchmarks"))
    pipeline.commit()
    assert ("benchmarks", ["stage"], 0, 0) in differ(pipeline)


# --------------------------------------------------------------------------------------------------------- environment


def text_of_chain(pipeline: Pipeline, path: str = "models/student") -> str:
    chain = pipeline.chain(path)
    return show.chain_text(facts.chain_facts(chain, Tables(chain.lock, Store(pipeline.repository))))


def test_one_environment_is_one_line_and_two_are_two(pipeline: Pipeline) -> None:
    assert text_of_chain(pipeline).count("made with") == 1
    assert "\nmade with torch==1.0, cpu: test\n" in text_of_chain(pipeline)
    pipeline.record("reward", "respond", environment=["torch==1.0", "cpu: other"])
    text = text_of_chain(pipeline)
    assert text.count("made with") == 2
    assert "reward, respond: made with torch==1.0, cpu: other" in text


def test_facts_about_a_run_are_not_told_of_another(pipeline: Pipeline) -> None:
    # As after `dvc repro` took `qft@sums` out of the run cache: the lock changes, and no stage ran.
    pipeline.params["seed"] = 18
    pipeline.lock("qft@sums", ran=False)
    chain = pipeline.chain()
    stages = {stage.name: facts.environment_of(chain.repository, chain.lock, stage) for stage in chain.stages}
    assert stages["qft@sums"] == []
    assert stages["screen"] == ["torch==1.0", "cpu: test"]


def test_a_run_that_the_committed_file_no_longer_names_is_found_in_this_checkout(pipeline: Pipeline) -> None:
    chain = pipeline.chain()
    stage = chain.lock.stages["qft@sums"]
    pipeline.write(ENVIRONMENT_FILE, '{"environments": {}, "stages": {}}')
    assert facts.environment_of(chain.repository, chain.lock, stage) == []
    write_json(local_file(pipeline.root, "qft@sums", stage.given), {"given": stage.given, "outs": {}, "params": {}, "deps": {}, "environment": ["cpu: mine"]})  # fmt: skip
    assert facts.environment_of(chain.repository, chain.lock, stage) == ["cpu: mine"]


def test_the_environment_of_runs_before_the_file_is_read_from_their_metrics(pipeline: Pipeline) -> None:
    pipeline.write(ENVIRONMENT_FILE, '{"environments": {}, "stages": {}}')
    pipeline.write("reports/metrics/judge.json", '{"questions": 5, "solvable": 4, "environment": ["cpu: old"]}')
    pipeline.lock("judge", ran=False)
    chain = pipeline.chain()
    assert facts.environment_of(chain.repository, chain.lock, chain.lock.stages["judge"]) == ["cpu: old"]


def test_another_machine_is_one_line_of_a_difference_however_many_stages(pipeline: Pipeline) -> None:
    pipeline.commit()
    pipeline.write("models/student/model.safetensors", "rounded otherwise")
    pipeline.params["seed"] = 18
    pipeline.lock()
    pipeline.record(*STAGES, environment=["torch==1.0", "cpu: other"])
    pipeline.commit("elsewhere")
    found = facts.diff_facts(pipeline.chain(rev="HEAD~1"), pipeline.chain(rev="HEAD"))
    (change,) = found["environments"]
    assert (change["first"], change["second"]) == ("cpu: test", "cpu: other")
    text = show.diff_text(found)
    assert text.count("cpu: test → cpu: other") == 1
    assert text.index("parameter seed: 17 → 18") < text.index("cpu: test")


def test_a_merge_conflict_in_the_environment_file_is_named(pipeline: Pipeline) -> None:
    pipeline.write(ENVIRONMENT_FILE, "<<<<<<< HEAD\n{}\n=======\n{}\n>>>>>>> other\n")
    with pytest.raises(UserError, match=r"reports/environment.json: cannot be read.*git checkout"):
        text_of_chain(pipeline)
