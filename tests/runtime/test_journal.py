"""Whatever is in the journals' files: a named error, or the work is done again. Nothing that is whole is lost."""

import fcntl
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from scalequest import io
from scalequest.cli import main
from scalequest.errors import UserError
from scalequest.io import one_at_a_time, only_holder, private_folder, write_json
from scalequest.params import load_all
from scalequest.records import SCORE, SCORED, write_table
from scalequest.runtime import rows as row_stores
from scalequest.runtime.environment import Recorded, local_file, local_runs
from scalequest.runtime.facts import StageFacts
from scalequest.runtime.journal import IDENTITY, LOCK, Journal, only_writer
from scalequest.runtime.rows import RowStore
from scalequest.runtime.stage import StageRun
from scalequest.sampling.shards import map_shards
from tests.fakes import LAPTOP, shard_file

PARAMS = load_all(LAPTOP)
HOSTILE = {
    "empty": b"", "cut": b"PAR1 and no more", "invalid_utf8": b"\xff\xfe\x80\x81", "nul": b"\x00" * 4096, "deep": b"[" * 100_000,
    "conflict": b"<<<<<<< HEAD\n{}\n=======\n", "null": b"null", "list": b"[1, 2]", "text": b'"x"', "number": b"9" * 9_000, "other": b'{"a": 1}',
}  # fmt: skip
each_hostile = pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)


def stage_facts(root: Path) -> StageFacts:
    return StageFacts("generate@sums", root, {"models/x": "abc"}, {"generate.top_p": 0.99})


def run(root: Path, done: list[int]) -> list[dict[str, Any]]:
    """Three shards of two rows; notes the shards that are computed."""

    def work(items: Sequence[int], seed: int, shard: int) -> tuple[list[dict[str, Any]], int]:
        done.append(shard)
        return [{"id": str(item), "score": float(seed + item)} for item in items], 1

    return map_shards(StageRun(PARAMS, stage_facts(root)), range(6), lambda: work, SCORE, 2).to_pylist()


def rows_or_error(root: Path, done: list[int]) -> list[dict[str, Any]] | str:
    try:
        return run(root, done)
    except UserError as error:
        return str(error)


# ------------------------------------------------------------------------------------------------------------- shards


@each_hostile
def test_a_damaged_shard_is_computed_again_and_the_others_are_kept(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    first = run(tmp_path, [])
    path = shard_file(Journal.of(stage_facts(tmp_path)).folder, 1)
    path.write_bytes(content)
    done: list[int] = []
    assert run(tmp_path, done) == first
    assert done == [1]
    assert f"{path}: unreadable, the shard is computed again" in caplog.text
    assert run(tmp_path, done) == first
    assert done == [1], "it was repaired"


@pytest.mark.parametrize("byte", [4, 40, -60, -9, -2])
def test_a_shard_with_a_damaged_byte_gives_no_other_rows(tmp_path: Path, byte: int) -> None:
    first = run(tmp_path, [])
    path = shard_file(Journal.of(stage_facts(tmp_path)).folder, 1)
    data = bytearray(path.read_bytes())
    data[byte] ^= 0xFF
    path.write_bytes(bytes(data))
    found = rows_or_error(tmp_path, [])
    assert found == first or (isinstance(found, str) and str(path) in found)


@pytest.mark.parametrize("kind", ["broken_link", "unreadable"])
def test_a_shard_that_cannot_be_opened_is_computed_again(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(tmp_path, [])
    path = shard_file(Journal.of(stage_facts(tmp_path)).folder, 1)
    path.unlink()
    if kind == "broken_link":
        path.symlink_to(tmp_path / "nowhere")
    else:
        path.write_bytes(b"")
        path.chmod(0)
    done: list[int] = []
    assert rows_or_error(tmp_path, done) == first
    assert done == [1]


@each_hostile
def test_a_damaged_identity_loses_no_shard(tmp_path: Path, content: bytes) -> None:
    first = run(tmp_path, [])
    folder = Journal.of(stage_facts(tmp_path)).folder
    assert folder
    (folder / IDENTITY).write_bytes(content)
    done: list[int] = []
    found = rows_or_error(tmp_path, done)
    readable = isinstance(found, str)  # then it is another journal's
    assert f"{folder}: a journal of other inputs" in found if readable else found == first
    assert done == []


# -------------------------------------------------------------------------------------------------------------- locks


@each_hostile
def test_whatever_is_in_a_lock_file_the_lock_works(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "lock"
    path.write_bytes(content)
    with only_holder(path, "held by {}"):
        assert path.read_text() == str(os.getpid())
        with pytest.raises(UserError, match=f"held by {os.getpid()}"), only_holder(path, "held by {}"):
            pass
        path.write_bytes(content)
        with pytest.raises(UserError, match="held by "), only_holder(path, "held by {}"):
            pass
    with one_at_a_time(path):
        pass


@pytest.mark.parametrize("hold", [lambda path: only_holder(path, "{}"), one_at_a_time], ids=["only", "one_at_a_time"])
@pytest.mark.parametrize("kind", ["link", "folder"])
def test_a_lock_that_is_no_file_is_refused_and_left_alone(
    tmp_path: Path, kind: str, hold: Callable[[Path], Any]
) -> None:
    victim = tmp_path / "victim.txt"
    victim.write_text("precious")
    path = tmp_path / "lock"
    if kind == "link":
        path.symlink_to(victim)
    else:
        path.mkdir()
    with pytest.raises(UserError, match=f"{path}: the lock file cannot be opened"), hold(path):
        pass
    assert victim.read_text() == "precious"


def test_another_users_lock_of_a_stage_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Any, *_: Any, **__: Any) -> int:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(UserError, match="cannot be opened \\(Permission denied\\)"), only_writer(stage_facts(tmp_path)):
        pass


@pytest.mark.parametrize("finished", [True, False], ids=["marked_as_finished", "resumed"])
def test_a_starting_stage_leaves_the_journal_of_a_running_one_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, finished: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    run(tmp_path, [])
    mine = Journal.of(stage_facts(tmp_path))
    mine.finish()
    other = StageFacts("reward", tmp_path)
    with only_writer(stage_facts(tmp_path)):
        if not finished:
            mine = Journal.of(stage_facts(tmp_path))
        Journal.of(other)
        assert shard_file(mine.folder, 1).is_file()
        assert mine.folder
        assert (mine.folder / LOCK).is_file()
    done: list[int] = []
    run(tmp_path, done)
    assert done == []
    mine.finish()
    Journal.of(other)
    assert not mine.folder.exists(), "now nobody uses it"


def test_a_resumed_stage_that_is_killed_keeps_its_journal(tmp_path: Path) -> None:
    run(tmp_path, [])
    Journal.of(stage_facts(tmp_path)).finish()
    resumed = Journal.of(stage_facts(tmp_path))
    Journal.of(StageFacts("reward", tmp_path))
    assert shard_file(resumed.folder, 1).is_file()


def test_a_lock_that_its_holder_removed_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Opened while another process held it, and taken after that one had removed it with its folder."""
    path = tmp_path / "journal" / LOCK
    opened = io.open_lock

    def late(path: Path) -> Any:
        file = opened(path)
        monkeypatch.setattr(io, "open_lock", opened)
        path.unlink()
        path.parent.rmdir()
        return file

    monkeypatch.setattr(io, "open_lock", late)
    with only_holder(path, "held by {}"):
        assert path.read_text() == str(os.getpid())
        with pytest.raises(UserError, match="held by"), only_holder(path, "held by {}"):
            pass


# --------------------------------------------------------------------------------------------------------------- rows


def store(root: Path, keys: Sequence[str] = ("a", "b")) -> RowStore:
    return RowStore.open(root, "judge", {"seed": 17}, SCORED, keys)


def scored(*keys: str) -> Any:
    from scalequest.records import table

    return table([{"key": key, "score": 1.0} for key in keys], SCORED)


@each_hostile
def test_a_damaged_file_of_rows_costs_its_rows_alone(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    made = store(tmp_path)
    made.add(scored("a"))
    made.add(scored("b"))
    assert made.folder
    damaged, whole = sorted(made.folder.glob("rows-*.parquet"))
    damaged.write_bytes(content)
    (made.folder / IDENTITY).write_bytes(content)
    found = store(tmp_path)
    [kept] = found.keys[found.there].astype(str)
    assert f"{damaged}: unreadable, its rows are computed again" in caplog.text
    found.add(scored(*({"a", "b"} - {kept})))
    assert store(tmp_path).there.all()
    assert whole.is_file()


def test_a_forced_rerun_waits_for_a_stage_that_uses_the_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store(tmp_path).add(scored("a"))
    other = store(tmp_path)
    lock, waited = fcntl.flock, []

    def flock(file: Any, operation: int) -> None:
        if operation == fcntl.LOCK_EX:  # this waits: the other stage reads its rows, then ends
            waited.append(other.rows(other.places[:1]))
            assert other._held
            other._held.close()
        lock(file, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    forced = RowStore.open(tmp_path, "judge", {"seed": 17}, SCORED, ["a", "b"], afresh=True)
    assert waited == [[{"score": 1.0}]]
    assert "in use by another running stage" in caplog.text
    assert not forced.there.any()
    assert not list(tmp_path.rglob("rows-*.parquet"))
    # It is this one's now: others may share it, and none may remove it.
    forced.add(scored("b"))
    assert store(tmp_path).there.tolist() == [False, True]
    assert forced.folder
    assert not row_stores.remove(forced.folder)


def test_a_store_that_cannot_be_removed_ends_no_stage(tmp_path: Path) -> None:
    made = store(tmp_path)
    made.add(scored("a"))
    assert made.folder
    assert made._held
    made._held.close()
    (made.folder / LOCK).unlink()
    (made.folder / LOCK).mkdir()  # what this user may not open
    row_stores.make_room(tmp_path / ".work" / "rows", 0)
    assert made.folder.is_dir()


# -------------------------------------------------------------------------------------------------------------- facts


@each_hostile
def test_a_damaged_record_of_a_run_hides_no_other(tmp_path: Path, content: bytes) -> None:
    whole = {"given": "1", "deps": {}, "params": {}, "outs": {}, "environment": []}
    write_json(local_file(tmp_path, "judge", "1"), whole)
    local_file(tmp_path, "judge", "2").write_bytes(content)
    assert local_runs(tmp_path, "judge") == [whole]


@pytest.mark.parametrize(
    "content",
    [
        *HOSTILE.values(), b'{"environments": {}}', b'{"environments": [], "stages": {}}', b'{"environments": {"a": 5}, "stages": {}}',
        b'{"environments": {}, "stages": {"judge": 5}}', b'{"environments": {}, "stages": {"judge": {"given": "1"}}}',
    ],
)  # fmt: skip
def test_a_damaged_record_of_environments_is_named(content: bytes) -> None:
    with pytest.raises(UserError, match=r"reports/environment\.json: cannot be read"):
        Recorded.parse(content)


# ------------------------------------------------------------------------------------------------------ the command


def test_the_command_names_what_it_cannot_remove(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").touch()
    run(tmp_path, [])
    folder = Journal.of(stage_facts(tmp_path)).folder
    assert folder
    (folder / LOCK).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SystemExit) as caught:
        main(["journal", "--clean"])
    assert caught.value.code == 0
    assert "the lock file cannot be opened (it is a link)" in capsys.readouterr().out
    assert folder.is_dir()
    assert not (tmp_path / "elsewhere").exists()


def test_a_private_folder_is_closed_to_others_and_another_users_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    folder.chmod(0o755)
    with monkeypatch.context() as other:
        other.setattr(os, "geteuid", lambda: 4711)
        private_folder(folder)
    assert oct(folder.stat().st_mode)[-3:] == "755"
    assert oct(private_folder(folder).stat().st_mode)[-3:] == "700"
    assert oct(private_folder(tmp_path / "new").stat().st_mode)[-3:] == "700"


def test_a_shard_of_other_columns_is_refused(tmp_path: Path) -> None:
    run(tmp_path, [])
    path = shard_file(Journal.of(stage_facts(tmp_path)).folder, 1)
    write_table(path, scored("a"))
    with pytest.raises(UserError, match="it was written by other code"):
        run(tmp_path, [])
