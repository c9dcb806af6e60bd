"""Git without a checkout: names of revisions, and files as they stand there."""

import os
import subprocess
from pathlib import Path

import pytest

from scalequest.audit.history import History
from scalequest.audit.repository import Repository, Revision, blob_hash, nearest
from scalequest.errors import UserError
from tests.audit.pipeline import Pipeline


def test_every_kind_of_name_leads_to_its_commit(pipeline: Pipeline) -> None:
    first = pipeline.git("rev-parse", "HEAD")
    pipeline.git("tag", "-a", "v1", "-m", "annotated")
    pipeline.write("note.txt", "a")
    experiment = pipeline.experiment("cut")
    second = pipeline.commit("second")
    repository = pipeline.repository
    cases = {
        "main": second,
        "HEAD": second,
        "HEAD~1": first,
        "v1": first,
        first[:8]: first,
        "cut": experiment,
        "workspace": None,
    }
    for name, commit in cases.items():
        assert repository.revision(name).commit == commit, name
    assert repository.revision("cut").experiment
    assert not repository.revision("main").experiment
    assert repository.tips["refs/tags/v1"] == first


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "mian",
            "revision 'mian': looked among branches, tags, commits and DVC experiments, found none; nearest: main",
        ),
        ("workspce", "nearest: workspace"),
        ("cutt", "nearest: cut"),
        ("zzzzzzzz", "there are: workspace, HEAD, main, cut"),
        ("--help", "revision '--help'"),
    ],
)
def test_an_unknown_revision_is_told_with_the_nearest(pipeline: Pipeline, name: str, message: str) -> None:
    pipeline.write("note.txt", "a")
    pipeline.experiment("cut")
    with pytest.raises(UserError) as error:
        pipeline.repository.revision(name)
    assert message in str(error.value)


def test_before_the_first_commit_no_commit_is_offered(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    with pytest.raises(
        UserError, match=r"revision 'HEAD': .* found none; there is no commit yet; there are: workspace$"
    ):
        Repository(tmp_path).revision("HEAD")


def test_files_that_are_not_yet_added_are_in_the_workspace(pipeline: Pipeline) -> None:
    pipeline.write("stages/new.py", "new")
    pipeline.write(".gitignore", "/sources/\n*.log\n")
    pipeline.write("sources/given.jsonl", "{}")
    pipeline.write("stages/run.log", "")
    workspace = Revision("workspace", None)
    there = pipeline.repository.listing(workspace, ["stages", "sources/given.jsonl", "gone.py"])
    assert "stages/new.py" in there
    assert "sources/given.jsonl" in there, "a dependency that Git ignores"
    assert not {"stages/run.log", "gone.py"} & set(there)


def test_two_experiments_of_one_name_are_told_apart_by_commit(pipeline: Pipeline) -> None:
    commits = []
    for text in ("a", "b"):
        pipeline.write("note.txt", text)
        commits.append(pipeline.experiment("cut"))
        pipeline.write("other.txt", text)
        pipeline.commit()
    with pytest.raises(UserError, match="2 experiments have this name") as error:
        pipeline.repository.revision("cut")
    assert all(commit[:10] in str(error.value) for commit in commits)
    assert pipeline.repository.revision(commits[0]).commit == commits[0]


def test_files_are_read_as_they_stand_in_a_revision(pipeline: Pipeline) -> None:
    pipeline.write("note.txt", "old\n")
    old = Revision("old", pipeline.commit())
    pipeline.write("note.txt", "new\n")
    repository = pipeline.repository
    assert repository.read(old, "note.txt") == b"old\n"
    assert repository.read(Revision("workspace", None), "note.txt") == b"new\n"
    assert repository.read(old, "no such file") is None
    assert repository.read_all(old, ["missing", "note.txt", "dvc.yaml"]).keys() == {"note.txt", "dvc.yaml"}


def test_a_blob_is_named_as_git_names_it(pipeline: Pipeline) -> None:
    assert blob_hash(b"x\n") == subprocess.run(["git", "hash-object", "--stdin"], input=b"x\n", capture_output=True, check=True).stdout.decode().strip()  # fmt: skip


def test_changes_of_experiments_count_and_scratch_refs_do_not(pipeline: Pipeline) -> None:
    pipeline.write("note.txt", "a")
    experiment = pipeline.experiment("cut")
    pipeline.write("note.txt", "b")
    scratch = pipeline.experiment("scratch")
    pipeline.git("update-ref", "refs/exps/exec/EXEC_HEAD", scratch)
    pipeline.git("update-ref", "-d", next(ref for ref in pipeline.repository.tips if ref.endswith("/scratch")))
    assert [commit for commit, _, _ in pipeline.repository.changes("note.txt")] == [experiment]


def test_outside_a_repository_or_a_pipeline_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a git repository"):
        Repository.find(tmp_path)
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    with pytest.raises(UserError, match=r"no dvc\.yaml in this repository's root"):
        Repository.find(tmp_path)


def test_it_is_found_from_a_folder_inside(pipeline: Pipeline) -> None:
    assert Repository.find(pipeline.root / "reports" / "metrics").root == pipeline.root.resolve()


@pytest.mark.parametrize(
    ("known", "end"),
    [
        (["sums", "stories"], "; nearest: sums"),
        (["other"], "; there are: other"),
        ([], ""),
        ([f"x{n}" for n in range(9)], "; there are: x0, x1, x2, x3, x4, x5, x6, x7, ..."),
    ],
)
def test_nearest_names_the_like_else_the_first(known: list[str], end: str) -> None:
    assert nearest("sum", known) == end


def test_a_repository_of_another_owner_is_refused_with_gits_reason(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    with pytest.raises(UserError, match=r"dubious ownership in repository .* safe.directory"):
        Repository.find(pipeline.root)


def test_a_shallow_clone_says_what_it_did_not_look_at(pipeline: Pipeline, tmp_path: Path) -> None:
    pipeline.commit("another")
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", "--depth=1", pipeline.root.as_uri(), clone], check=True)
    assert History(Repository(clone)).unread == [
        "commits that this shallow clone does not have; bring them: git fetch --unshallow"
    ]
    assert History(pipeline.repository).unread == []
