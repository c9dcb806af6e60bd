"""Every distinct lock once, under all the names that have it."""

from scalequest.audit.lock import read_lock
from tests.audit.pipeline import Pipeline


def test_locks_are_distinct_and_carry_all_their_names(pipeline: Pipeline) -> None:
    first = pipeline.git("rev-parse", "HEAD")
    pipeline.git("branch", "same")
    pipeline.write("note.txt", "no change of the lock")
    pipeline.commit()
    pipeline.params["filter"]["require_solvable"] = False
    pipeline.lock("filter")
    experiment = pipeline.experiment("cut")
    versions = pipeline.history.versions
    assert [(v.names, v.commit) for v in versions] == [
        (("workspace", "main", "same"), first),
        (("experiment cut",), experiment),
    ]
    assert versions[1].label == f"experiment cut ({experiment[:7]}, {versions[1].date})"
    assert versions[1].revision.name == "cut"


def test_a_lock_that_history_has_left_behind_is_still_there(pipeline: Pipeline) -> None:
    old = pipeline.git("rev-parse", "HEAD")
    pipeline.params["seed"] = 18
    pipeline.lock()
    pipeline.commit()
    labels = [version.label for version in pipeline.history.versions]
    assert labels[0].startswith("workspace, main (")
    assert labels[1].startswith(old[:7])


def test_an_uncommitted_lock_is_a_version_of_its_own(pipeline: Pipeline) -> None:
    pipeline.params["seed"] = 18
    pipeline.lock()
    labels = [version.label for version in pipeline.history.versions]
    assert labels[0] == "workspace (not committed)"
    assert labels[1].startswith("main (")


def test_an_entry_is_dated_by_the_oldest_commit_that_leads_here(pipeline: Pipeline) -> None:
    first = pipeline.git("rev-parse", "HEAD")
    pipeline.params["filter"]["require_solvable"] = False
    pipeline.lock("filter")
    experiment = pipeline.experiment("cut")
    pipeline.params["filter"]["require_solvable"] = True
    pipeline.params["seed"] = 18
    pipeline.lock("respond")
    second = pipeline.commit()
    lock, at = (
        read_lock(pipeline.repository, pipeline.repository.revision("main")),
        pipeline.repository.revision("main"),
    )
    history = pipeline.history
    assert history.first_with(lock.stages["judge"], at) == first
    assert history.first_with(lock.stages["respond"], at) == second
    cut = read_lock(pipeline.repository, pipeline.repository.revision("cut"))
    assert history.first_with(cut.stages["filter"], at) == experiment


def test_mentioning_finds_by_the_beginning(pipeline: Pipeline) -> None:
    lock = read_lock(pipeline.repository, pipeline.repository.revision("main"))
    value = lock.stages["filter"].outs[0].md5
    assert [lock.revision.name for _, lock in pipeline.history.mentioning(value[:8])] == ["workspace"]
    assert list(pipeline.history.mentioning("f" * 32)) == []
