"""Outputs that `dvc commit` took over after an edit are told from outputs of a run."""

import pytest

from scalequest.audit import show
from scalequest.audit.facts import chain_facts
from scalequest.audit.takeover import TakenOver, taken_over
from scalequest.cli import main
from scalequest.io import write_json
from scalequest.runtime.environment import local_file
from tests.audit.pipeline import ENVIRONMENT, Pipeline


def found(pipeline: Pipeline, stage: str = "filter", rev: str = "workspace") -> TakenOver | None:
    lock = pipeline.tables(rev).lock
    return taken_over(pipeline.history, lock, lock.stages[stage])


@pytest.fixture
def accepted(pipeline: Pipeline) -> tuple[Pipeline, str]:
    """A run, then an edit of the filter's code that `dvc commit` accepted; and the commit of the run."""
    before = pipeline.git("rev-parse", "HEAD")
    pipeline.write("stages/filter.py", "filter, with a comment\n")
    pipeline.lock("filter", ran=False)
    pipeline.commit("edit")
    return pipeline, before


def test_a_run_is_not_taken_over(pipeline: Pipeline) -> None:
    assert [name for name in pipeline.tables().lock.stages if found(pipeline, name)] == []


def test_an_accepted_edit_is_named_with_the_commit_of_the_run(accepted: tuple[Pipeline, str]) -> None:
    pipeline, before = accepted
    assert found(pipeline) == TakenOver(before, ("stages/filter.py",))
    assert found(pipeline, "generate@sums") is None
    assert found(pipeline, rev="main") == TakenOver(before, ("stages/filter.py",))


def test_a_rerun_with_the_same_bytes_is_a_run(accepted: tuple[Pipeline, str]) -> None:
    pipeline, _ = accepted
    pipeline.record("filter")
    assert found(pipeline) is None


def test_a_run_whose_facts_were_overwritten_by_another_branch_is_still_a_run(pipeline: Pipeline) -> None:
    """The file of facts has one run per stage; an earlier commit's file knows the other."""
    pipeline.write("stages/filter.py", "other\n")
    pipeline.lock("filter")
    pipeline.commit("other code, run")
    pipeline.write("stages/filter.py", "filter\n")
    pipeline.lock("filter", ran=False)  # restored by DVC's run cache: no stage ran
    assert found(pipeline) is None


def test_facts_of_this_checkout_name_a_run_that_was_never_committed(pipeline: Pipeline) -> None:
    pipeline.change("data/filtered.parquet", lambda rows: rows[:2])
    pipeline.write("stages/filter.py", "edited\n")
    pipeline.lock("filter", ran=False)
    stage = pipeline.tables().lock.stages["filter"]
    run = {
        "stage": "filter", "given": "0" * 16, "deps": {dep.path: dep.md5 for dep in stage.deps} | {"stages/filter.py": "1" * 32},
        "params": {}, "outs": {out.path: out.md5 for out in stage.outs}, "environment": ENVIRONMENT, "git": {"commit": "c" * 40},
    }  # fmt: skip
    write_json(local_file(pipeline.root, "filter", "0" * 16), run)
    assert found(pipeline) == TakenOver("c" * 40, ("stages/filter.py",))


def test_where_no_run_is_recorded_nothing_is_claimed(pipeline: Pipeline) -> None:
    pipeline.change("data/filtered.parquet", lambda rows: rows[:2])
    pipeline.write("stages/filter.py", "edited\n")
    pipeline.lock("filter", ran=False)
    assert found(pipeline) is None


def test_audit_and_verify_say_so(accepted: tuple[Pipeline, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    pipeline, before = accepted
    says = f"taken over from the code of commit {before[:7]}, not rerun (stages/filter.py changed since)"
    chain = pipeline.chain()
    text = show.chain_text(chain_facts(chain, pipeline.tables()))
    assert f"TAKEN OVER  outputs {says}" in text
    assert text.count("TAKEN OVER") == 1
    monkeypatch.chdir(pipeline.root)
    with pytest.raises(SystemExit) as ended:
        main(["verify", "stages"])
    assert ended.value.code == 0  # no broken link
    assert f"outputs of filter: {says}" in capsys.readouterr().out
