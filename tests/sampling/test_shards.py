import json
import os
import pickle
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from scalequest.errors import UserError
from scalequest.params import load_all
from scalequest.records import SCORE, SCORED, write_table
from scalequest.runtime import progress
from scalequest.runtime import stage as stages
from scalequest.runtime.facts import StageFacts
from scalequest.runtime.journal import Journal
from scalequest.runtime.progress import Progress
from scalequest.runtime.stage import StageRun
from scalequest.runtime.workers import _Actor
from scalequest.sampling.rows import map_rows
from scalequest.sampling.shards import map_shards
from scalequest.sampling.vllm import worker_environment
from scalequest.seeding import shard_seed
from tests.fakes import LAPTOP, changed, shard_file

PARAMS = load_all(LAPTOP)


def facts(root: Path, name: str = "generate@sums", **changes: Any) -> StageFacts:
    known = {"deps": {"models/x": "abc"}, "params": {"generate.top_p": 0.99}} | changes
    return StageFacts(name, root, **known)


class Work:
    """One row an item, its score drawn from the shard's seed; remembers which shards were worked on."""

    def __init__(self, stop_before: int | None = None) -> None:
        self.shards: list[int] = []
        self.stop_before = stop_before

    def __call__(self, items: Sequence[int], seed: int, shard: int) -> tuple[list[dict[str, Any]], int]:
        if shard == self.stop_before:
            raise KeyboardInterrupt
        self.shards.append(shard)
        rows = [
            {"id": f"{item}", "score": sha256(f"{seed}/{row}".encode()).digest()[0] / 256}
            for row, item in enumerate(items)
        ]
        return rows, 10 * len(items)


def stage_run(journal: Journal, stage: str, seed: int) -> StageRun:
    made = StageRun(PARAMS.model_copy(update={"seed": seed}), StageFacts(stage, Path()))
    made.__dict__["journal"] = journal  # instead of the one that the facts lead to
    return made


def run(work: Any, journal: Journal, n: int = 10, shard_size: int = 4, stage: str = "generate@sums", seed: int = 17):
    return map_shards(stage_run(journal, stage, seed), range(n), lambda: work, SCORE, shard_size)


def as_bytes(table: Any, path: Path) -> bytes:
    write_table(path, table)
    return path.read_bytes()


# --------------------------------------------------------------------------------------------------------------- seeds


def test_seeds_differ_by_run_stage_and_shard():
    draws = [
        (r, s, k) for r in (0, 1, 17, 170) for s in ("generate@sums", "generate@stories", "judge") for k in range(200)
    ]
    # 2,400 draws of 2**31 numbers: a chance collision has p = 2400**2 / 2**32 = 0.1%, and the draw is fixed.
    assert len({shard_seed(*draw) for draw in draws}) == len(draws)
    assert all(0 <= shard_seed(*draw) < 2**31 for draw in draws)


def test_a_seed_depends_on_nothing_else():
    # The first four bytes of sha256("17/judge/3"), without the lowest bit. Changing this changes every result.
    assert shard_seed(17, "judge", 3) == int(sha256(b"17/judge/3").hexdigest()[:8], 16) // 2


def test_run_and_shard_are_kept_apart():
    assert shard_seed(1, "a", 11) != shard_seed(11, "a", 1)


# ---------------------------------------------------------------------------------------------------------------- maps


def test_rows_come_in_the_items_order_and_shards_get_their_part(tmp_path: Path):
    work = Work()
    table = run(work, Journal(None))
    assert table["id"].to_pylist() == [str(i) for i in range(10)]
    # 10 items in shards of 4: 0..3, 4..7, 8..9.
    assert work.shards == [0, 1, 2]


def test_no_items_give_an_empty_table_of_the_schema(tmp_path: Path):
    work = Work()
    table = run(work, Journal.of(facts(tmp_path)), n=0)
    assert table.num_rows == 0
    assert table.schema == SCORE
    assert work.shards == []


def test_a_shard_may_give_more_or_fewer_rows_than_items():
    def work(items: Sequence[int], seed: int, shard: int) -> tuple[list[dict[str, Any]], int]:
        return [{"id": f"{i}#{k}", "score": 0.0} for i in items for k in range(i)], 0

    table = run(work, Journal(None), n=4, shard_size=2)
    assert table["id"].to_pylist() == ["1#0", "2#0", "2#1", "3#0", "3#1", "3#2"]


def test_without_dvc_nothing_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    journal = Journal.of(None)
    run(Work(), journal)
    journal.finish()
    assert list(tmp_path.iterdir()) == []


# -------------------------------------------------------------------------------------------------------------- resume


@pytest.mark.parametrize("stop_before", [0, 1, 2])
def test_the_result_is_the_same_bytes_resumed_or_not(tmp_path: Path, stop_before: int):
    whole = as_bytes(run(Work(), Journal(None)), tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(Work(stop_before), Journal.of(facts(tmp_path)))
    rest = Work()
    resumed = as_bytes(run(rest, Journal.of(facts(tmp_path))), tmp_path / "resumed")
    assert rest.shards == list(range(stop_before, 3))
    assert resumed == whole


def test_only_a_missing_shard_is_worked_on_again(tmp_path: Path):
    first = as_bytes(run(Work(), Journal.of(facts(tmp_path))), tmp_path / "first")
    journal = Journal.of(facts(tmp_path))
    shard_file(journal.folder, 1).unlink()
    again = Work()
    assert as_bytes(run(again, journal), tmp_path / "again") == first
    assert again.shards == [1]


def test_a_half_written_shard_is_no_shard(tmp_path: Path):
    journal = Journal.of(facts(tmp_path))
    shard = journal.shard_path(0, {"OMP_NUM_THREADS": "1"})
    # What a kill leaves behind: the temporary name of scalequest.io, with rubbish in it.
    shard.with_name(f".{shard.name}.4711.tmp").write_bytes(b"PAR1 and no more")
    work = Work()
    run(work, journal)
    assert work.shards == [0, 1, 2]


def test_a_run_with_a_journal_is_a_run_without(tmp_path: Path):
    with_journal = as_bytes(run(Work(), Journal.of(facts(tmp_path))), tmp_path / "a")
    assert with_journal == as_bytes(run(Work(), Journal(None)), tmp_path / "b")


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"deps": {"models/x": "other"}}, id="input"),
        pytest.param({"params": {"generate.top_p": 0.95}}, id="parameter"),
        pytest.param({"name": "generate@stories"}, id="stage"),
    ],
)
def test_shards_of_other_inputs_are_not_taken(tmp_path: Path, changes: dict[str, Any]):
    run(Work(), Journal.of(facts(tmp_path)))
    work = Work()
    run(work, Journal.of(facts(tmp_path, **changes)))
    assert work.shards == [0, 1, 2]


def test_a_parameter_that_is_set_back_finds_its_shards(tmp_path: Path):
    run(Work(), Journal.of(facts(tmp_path)))
    run(Work(), Journal.of(facts(tmp_path, params={"generate.top_p": 0.5})))
    work = Work()
    run(work, Journal.of(facts(tmp_path)))
    assert work.shards == []


def test_rows_and_shards_that_an_engine_rounded_otherwise_are_not_mixed_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Only on a GPU, where `engine_start` and `tensor_parallel` choose other kernels and another order of sums."""
    machine = {"cpu": "x"}
    monkeypatch.setattr(stages, "hardware", lambda: machine)
    known = StageFacts("respond", tmp_path, {"models/solver": "x"})

    def finished(**runtime: Any) -> tuple[int, int]:
        """How many of 8 items were there already, as shards and as rows."""
        made = StageRun(changed(PARAMS, runtime=runtime), known)
        work, row_work = Work(), Mock(side_effect=lambda items, *_: ([{"key": i, "score": 1.0} for i in items], 0))
        map_shards(made, range(8), lambda: work, SCORE, 4)
        map_rows(made, list("abcdefgh"), str, lambda: row_work, SCORED, 4, Path("models/solver"), {})
        return 8 - 4 * len(work.shards), 8 - 4 * row_work.call_count

    quick, split = {"engine_start": "quick"}, {"tensor_parallel": {"solver": 2}}
    assert finished() == (0, 0)
    assert finished(**quick) == finished(**split) == (8, 8), "both are ignored without a GPU"
    assert finished(threads=3) == (0, 0)

    machine["gpu"] = "NVIDIA H100"
    assert finished() == (0, 0)
    assert finished(gpu_memory_utilization=0.5, gpu_kv_cache_gib=3.0) == (8, 8), "they change the batch alone"
    assert finished(**quick) == (0, 0)
    assert finished(**split) == (8, 0), "an engine of shards is a generator's, which is never split"
    assert finished(**split, **quick) == (8, 0)
    assert finished() == finished(**quick) == (8, 8), "each is found again"


def test_a_foreign_journal_is_refused(tmp_path: Path):
    folder = Journal.of(facts(tmp_path)).folder
    identity = json.loads((folder / "identity.json").read_text())
    (folder / "identity.json").write_text(json.dumps(identity | {"deps": {"models/x": "another hash"}}))
    with pytest.raises(
        UserError, match="a journal of other inputs under this fingerprint; remove the folder and rerun"
    ):
        Journal.of(facts(tmp_path))


def test_a_shard_of_another_shape_is_refused(tmp_path: Path):
    journal = Journal.of(facts(tmp_path))
    run(Work(), journal)
    import pyarrow as pa

    write_table(shard_file(journal.folder, 1), pa.table({"id": ["x"]}))
    with pytest.raises(UserError, match=r"shard-000001-.*\.parquet: columns"):
        run(Work(), journal)


def test_a_published_journal_stays_until_another_stage_starts(tmp_path: Path):
    mine = Journal.of(facts(tmp_path, "judge"))
    run(Work(), mine)
    mine.finish()
    # DVC may be killed between the stage's exit and its own commit: the same stage finds its shards.
    again = Work()
    mine = Journal.of(facts(tmp_path, "judge"))
    run(again, mine)
    assert again.shards == []
    mine.finish()
    Journal.of(facts(tmp_path, "respond"))
    assert not mine.folder.exists()


def test_another_stage_leaves_an_unfinished_journal_alone(tmp_path: Path):
    mine = Journal.of(facts(tmp_path, "judge"))
    with pytest.raises(KeyboardInterrupt):
        run(Work(stop_before=2), mine)
    Journal.of(facts(tmp_path, "respond"))
    assert shard_file(mine.folder, 1).exists()


# ------------------------------------------------------------------------------------------------------------ progress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch):
    """A clock that is set by hand."""

    class Clock:
        now = 1_000.0

        def monotonic(self) -> float:
            return self.now

    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def test_progress_counts_rows_tokens_and_time_left(clock, caplog: pytest.LogCaptureFixture):
    with caplog.at_level("INFO", logger="scalequest"):
        progress = Progress("judge", total=1_000, resumed=200)
        clock.now += 50
        progress.add(rows=400, tokens=20_000)
    assert caplog.messages == [
        "judge: 200 of 1000 rows are there from an earlier run",
        # 20,000 tokens in 50 s; 400 rows took 50 s, so the 400 left take 50 s: rows of the earlier run cost nothing.
        "judge: 600/1,000 rows, 400 tokens/s, 0:00:50 left",
    ]


def test_where_there_is_no_terminal_a_line_comes_now_and_then_and_at_the_end(clock, caplog: pytest.LogCaptureFixture):
    with caplog.at_level("INFO", logger="scalequest"):
        progress = Progress("judge", total=5, resumed=0)
        for _ in range(5):
            clock.now += 6
            progress.add(rows=1, tokens=10)
    # Shards end at 6, 12, 18, 24, 30 s; the first line comes at once, then at least 10 s apart, and one at the end.
    assert [line.split(",")[0] for line in caplog.messages] == [
        "judge: 1/5 rows",
        "judge: 3/5 rows",
        "judge: 5/5 rows",
    ]


def test_on_a_terminal_one_line_is_written_over(
    clock, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    progress = Progress("judge", total=2, resumed=0)
    for _ in range(2):
        clock.now += 1
        progress.add(rows=1, tokens=10)
    assert (
        capsys.readouterr().err
        == "\rjudge: 1/2 rows, 10 tokens/s, 0:00:01 left \rjudge: 2/2 rows, 10 tokens/s, 0:00:00 left \n"
    )


def test_the_tokens_of_the_work_are_counted(tmp_path: Path, clock, caplog: pytest.LogCaptureFixture):
    class Slow(Work):
        def __call__(self, items: Sequence[int], seed: int, shard: int) -> tuple[list[dict[str, Any]], int]:
            clock.now += 20
            return super().__call__(items, seed, shard)

    with caplog.at_level("INFO", logger="scalequest"):
        run(Slow(), Journal(None))
    # 10 tokens a row: 40, 80, 100 tokens after 20, 40, 60 s.
    assert caplog.messages == [
        "generate@sums: 4/10 rows, 2 tokens/s, 0:00:30 left",
        "generate@sums: 8/10 rows, 2 tokens/s, 0:00:10 left",
        "generate@sums: 10/10 rows, 2 tokens/s, 0:00:00 left",
    ]


def test_a_forced_rerun_of_a_recorded_result_starts_afresh(tmp_path: Path):
    """`dvc repro --force` of what dvc.lock already holds is meant to compute again, not to hand out its own journal."""
    run(Work(), Journal.of(facts(tmp_path)))
    Journal.of(facts(tmp_path)).finish()
    again = Work()
    run(again, Journal.of(facts(tmp_path, recorded=True)))
    assert again.shards == [0, 1, 2]  # 10 items in shards of 4


# ------------------------------------------------------------------------------------------------------------- workers


@pytest.mark.parametrize(
    ("threads", "variable", "expected"), [(3, "5", "3"), (None, "5", "5"), (None, None, str(os.cpu_count()))]
)
def test_workers_take_this_process_number_of_threads(
    threads: int | None, variable: str | None, expected: str, monkeypatch: pytest.MonkeyPatch
):
    """Another number of threads sums floats in another order, so sampling decides it and the runtime carries it."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if variable:
        monkeypatch.setenv("OMP_NUM_THREADS", variable)
    assert worker_environment(PARAMS.runtime.model_copy(update={"threads": threads})) == {"OMP_NUM_THREADS": expected}


def test_an_actor_sets_what_it_is_given_before_it_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # Ray's own choice
    monkeypatch.chdir(tmp_path)
    seen: list[str] = []

    def start() -> Any:
        seen.append(os.environ["OMP_NUM_THREADS"])
        return lambda items, seed, shard: ([], 0)

    actor = _Actor(start, SCORE, str(tmp_path), {"OMP_NUM_THREADS": "7"})
    actor({"items": pickle.dumps([]), "seed": 1, "shard": 0})
    assert seen == ["7"]


def test_both_maps_give_the_workers_their_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    given: list[dict[str, str]] = []

    def work(self: StageRun, start: Any, shards: Any, schema: Any, environment: dict[str, str], *_: int) -> Any:
        given.append(environment)
        return iter([(0, schema.empty_table(), 0)])

    monkeypatch.setattr(StageRun, "work", work)
    made = StageRun(changed(PARAMS, runtime={"threads": 3}), StageFacts("s", tmp_path, {"m": "x"}))
    map_shards(made, range(2), lambda: None, SCORE, 4)
    map_rows(made, [1], str, lambda: None, SCORED, 4, Path("m"), {})
    assert given == [{"OMP_NUM_THREADS": "3"}] * 2
