"""Rows that stay keep their answers: what a row is answered depends on the row, and only missing rows are paid for."""

from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar

import pytest

from scalequest.errors import UserError
from scalequest.models.chat import ChatFormat
from scalequest.params import Params
from scalequest.runtime import rows as row_stores
from scalequest.runtime.facts import StageFacts
from scalequest.runtime.stage import StageRun
from scalequest.sampling import sample as sampling
from scalequest.sampling import score as scoring
from scalequest.sampling.completion import Completion
from scalequest.sampling.sample import sample
from scalequest.sampling.score import score
from scalequest.seeding import row_seed
from tests.fakes import changed

Ask = Callable[..., list[list[Completion]]]


class Engine:
    """Answers a prompt by its words and its own seed; notes each row that is paid for, and can be killed before one."""

    chat: ChatFormat
    paid: ClassVar[list[int]] = []
    starts: ClassVar[list[Path]] = []
    kill_before: ClassVar[int | None] = None

    def __init__(self, model: Path, _engine: Any, _runtime: Any, row_seeds: bool = False) -> None:
        assert row_seeds
        self.starts.append(model)

    def complete_rows(self, _: Any) -> Any:
        def complete(prompts: Sequence[list[int]], seeds: Sequence[int]) -> list[Completion]:
            if self.kill_before is not None and len(self.paid) >= self.kill_before:
                raise KeyboardInterrupt
            self.paid.extend(seeds)
            words = [sha256(f"{p} {s}".encode()).hexdigest() for p, s in zip(prompts, seeds, strict=True)]
            return [Completion(w, "stop", 7) for w in words]

        return complete


@pytest.fixture
def ask(tmp_path: Path, laptop: Params, chatml: ChatFormat, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """Ask about the questions with these numbers, as the stage `respond`; ``changes`` are of its surroundings."""
    monkeypatch.setattr(Engine, "chat", chatml, raising=False)
    monkeypatch.setattr(sampling, "Engine", Engine)
    monkeypatch.setattr(Engine, "paid", [])
    monkeypatch.setattr(Engine, "starts", [])
    monkeypatch.setattr(Engine, "kill_before", None)

    def run(
        numbers: Sequence[int],
        n_samples: int = 2,
        words: str = "Question",
        deps: dict[str, str] | None = None,
        recorded: bool = False,
        finish: bool = False,
        without: str = "",
        **sections: Any,
    ) -> list[list[Completion]]:
        found = {"models/solver": "a", "scalequest/sampling/engine.py": "b", "stages/respond.py": "c"} | (deps or {})
        found.pop(without, None)
        made = changed(laptop, **({"respond": {"shard_size": 4}} | sections))
        # What is being resumed is what DVC calls the same run: its inputs and parameters are the journal's name.
        facts = StageFacts("respond", tmp_path, found | {"rows": str(numbers)}, {"x": str(sections)}, recorded=recorded)
        stage = StageRun(made, facts)
        rows = [{"id": f"sums/0/{i}", "question": f"{words} {i}?"} for i in numbers]
        Engine.paid.clear()
        answers = sample(
            stage, Path("models/solver"), rows, prompts=lambda row: [row["question"]], sampling=made.respond, n_samples=n_samples
        )  # fmt: skip
        if finish:
            stage.journal.finish()
        return answers

    return run


def test_each_sample_has_the_seed_of_its_row_and_number(ask: Ask, laptop: Params) -> None:
    answers = ask([5, 2], n_samples=3)
    assert Engine.paid == [row_seed(laptop.seed, "respond", f"sums/0/{i}#{k}") for i in (5, 2) for k in range(3)]
    assert [len(n) for n in answers] == [3, 3]
    assert len({c.text for n in answers for c in n}) == 6, "equal prompts, different draws"


def test_rows_that_stay_keep_their_answers_and_only_new_ones_are_paid_for(ask: Ask) -> None:
    before = dict(zip(range(20), ask(range(20)), strict=True))
    numbers = [i for i in range(26) if i % 5]  # a changed threshold: every fifth leaves, six come
    after = dict(zip(numbers, ask(numbers), strict=True))
    new = [i for i in numbers if i >= 20]
    assert len(Engine.paid) == 2 * len(new)
    assert {i: after[i] for i in numbers if i < 20} == {i: before[i] for i in numbers if i < 20}
    # And they are what a run that never saw the first threshold gets.
    for file in row_files(ask):
        file.unlink()
    assert dict(zip(numbers, ask(numbers), strict=True)) == after
    assert len(Engine.paid) == 2 * len(numbers)


def row_files(_: Ask) -> list[Path]:
    return sorted(ROOT[0].glob(".work/rows/*/*/rows-*.parquet"))


ROOT: list[Path] = []


@pytest.fixture(autouse=True)
def _root(tmp_path: Path) -> None:
    ROOT[:] = [tmp_path]


def test_a_smaller_set_costs_nothing_not_even_the_engine(ask: Ask) -> None:
    ask(range(10))
    Engine.starts.clear()
    ask([7, 3])
    assert (Engine.paid, Engine.starts) == ([], [])


def test_more_samples_pay_for_the_new_ones_only(ask: Ask) -> None:
    two = ask(range(6), n_samples=2)
    four = ask(range(6), n_samples=4)
    assert [n[:2] for n in four] == two
    assert len(Engine.paid) == 12


@pytest.mark.parametrize("shard_size", [1, 3, 100])
def test_the_shards_size_changes_no_answer_and_finds_what_is_there(ask: Ask, shard_size: int) -> None:
    before = ask(range(10))
    assert ask(range(10), respond={"shard_size": shard_size}) == before
    assert Engine.paid == []


def test_the_order_of_the_rows_changes_no_answer(ask: Ask) -> None:
    assert ask([3, 1, 2], n_samples=1) == ask([1, 2, 3], n_samples=1)[2:] + ask([1, 2, 3], n_samples=1)[:2]


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"words": "Other question"}, id="the_rows_words"),
        pytest.param({"deps": {"models/solver": "other"}}, id="model"),
        pytest.param({"deps": {"scalequest/sampling/engine.py": "other"}}, id="sampling_code"),
        pytest.param({"respond": {"shard_size": 4, "temperature": 0.1}}, id="temperature"),
        pytest.param({"respond": {"shard_size": 4, "top_p": 0.1}}, id="top_p"),
        pytest.param({"respond": {"shard_size": 4, "max_tokens": 5}}, id="max_tokens"),
        pytest.param({"engine": {"dtype": "bfloat16"}}, id="engine"),
        pytest.param({"seed": 18}, id="seed"),
        pytest.param({"runtime": {"threads": 7}}, id="threads"),
    ],
)
def test_what_decides_an_answer_asks_anew(ask: Ask, changes: dict[str, Any]) -> None:
    ask(range(3))
    ask(range(3), **changes)
    assert len(Engine.paid) == 6


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"deps": {"stages/respond.py": "other"}}, id="how_the_row_is_made_of_the_answer"),
        pytest.param({"filter": {"n_questions": 3}}, id="a_filters_parameter"),
    ],
)
def test_what_does_not_decide_an_answer_asks_nothing(ask: Ask, changes: dict[str, Any]) -> None:
    ask(range(3))
    ask(range(3), **changes)
    assert Engine.paid == []


@pytest.mark.parametrize("kill_before", [0, 1, 8, 9, 16])
def test_killed_and_run_again_it_pays_for_what_is_missing(ask: Ask, kill_before: int, tmp_path: Path) -> None:
    whole = ask(range(10))
    for file in row_files(ask):
        file.unlink()
    Engine.kill_before = kill_before
    with pytest.raises(KeyboardInterrupt):
        ask(range(10))
    paid = len(Engine.paid)
    Engine.kill_before = None
    assert ask(range(10)) == whole
    assert paid + len(Engine.paid) == 20
    # Shards of 4 rows, 2 samples each: what is paid is whole shards.
    assert paid == min(20, -(-kill_before // 8) * 8)


@pytest.mark.parametrize("damage", [b"", b"PAR1 and no more", None], ids=["empty", "half", "cut"])
def test_a_damaged_file_is_named_ignored_and_made_again(
    ask: Ask, damage: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    whole = ask(range(10))
    file = row_files(ask)[1]
    file.write_bytes(file.read_bytes()[:-9] if damage is None else damage)
    assert ask(range(10)) == whole
    assert str(file) in caplog.text
    assert 0 < len(Engine.paid) <= 8
    caplog.clear()
    assert ask(range(10)) == whole
    assert Engine.paid == []
    assert "unreadable" not in caplog.text


def test_rows_of_another_schema_are_ignored(ask: Ask, caplog: pytest.LogCaptureFixture) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    whole = ask(range(3))
    file = row_files(ask)[0]
    pq.write_table(pa.table({"key": ["x"]}), file)
    assert ask(range(3)) == whole
    assert "unreadable, its rows are computed again" in caplog.text


def test_a_forced_rerun_computes_again_and_resumes_after_a_kill(ask: Ask) -> None:
    """`dvc repro --force` of what dvc.lock holds: the first start takes nothing, the one after a kill goes on."""
    whole = ask(range(10), finish=True)
    Engine.kill_before = 8
    with pytest.raises(KeyboardInterrupt):
        ask(range(10), recorded=True)
    assert len(Engine.paid) == 8
    Engine.kill_before = None
    assert ask(range(10), recorded=True) == whole
    assert len(Engine.paid) == 12


def test_prompts_that_all_leave_no_room_stop_the_stage(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    def complete_rows(self: Engine, _: Any) -> Any:
        return lambda prompts, seeds: [Completion("", "too_long", 0) for _ in prompts]

    monkeypatch.setattr(Engine, "complete_rows", complete_rows)
    with pytest.raises(UserError, match=r"none of 3 prompts leaves room for max_tokens \d+ in engine.max_model_len"):
        ask(range(3))


def test_no_rows_need_no_engine(ask: Ask) -> None:
    assert ask([]) == []
    assert Engine.starts == []


def test_a_model_that_is_no_dependency_is_our_own_bug(ask: Ask) -> None:
    with pytest.raises(AssertionError, match="models/solver is no dependency of respond"):
        ask([1], without="models/solver")


# ---------------------------------------------------------------------------------------------------------- the store


def test_rows_made_while_inputs_changed_are_discarded_and_older_ones_stay(ask: Ask) -> None:
    import time

    from scalequest.records import COMPLETION

    whole = ask(range(8))
    [folder] = {file.parent for file in row_files(ask)}
    moment = time.time()
    ask(range(12))
    assert len(row_files(ask)) == 3
    row_stores.RowStore(folder, COMPLETION, ()).discard_since(moment)
    assert len(row_files(ask)) == 2
    assert ask(range(8)) == whole
    assert Engine.paid == []


def test_the_least_recently_used_store_goes_first(ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ask(range(10))
    [store] = {file.parent for file in row_files(ask)}
    size = sum(file.stat().st_size for file in row_files(ask))
    monkeypatch.setattr(row_stores, "MOST_BYTES", size)
    ask(range(10), seed=18)  # over the limit once it is written; looked at by the next to start
    assert store.exists()
    ask(range(1), seed=18)
    assert not store.exists()
    assert len({file.parent for file in row_files(ask)}) == 1


def test_a_store_in_use_is_not_removed(ask: Ask, tmp_path: Path) -> None:
    import fcntl

    ask(range(10))
    [store] = {file.parent for file in row_files(ask)}
    with (store / row_stores.LOCK).open("a") as held:
        fcntl.flock(held, fcntl.LOCK_SH)
        assert not row_stores.remove(store)
        row_stores.make_room(tmp_path / ".work" / "rows", 0)
        assert store.exists()
    assert row_stores.remove(store)
    assert not store.exists()


# ------------------------------------------------------------------------------------------------------------- scores


def test_what_was_scored_is_found_by_its_text(
    tmp_path: Path, laptop: Params, chatml: ChatFormat, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[list[int]] = []

    class Scorer:
        chat = chatml
        end: ClassVar[list[int]] = []

        def score(self, prompts: list[list[int]]) -> list[float]:
            read.extend(prompts)
            return [len(prompt) / 3 for prompt in prompts]

    monkeypatch.setattr(scoring, "Scorer", lambda *_: Scorer())

    def scores(texts: Sequence[str], form: str = "user_turns") -> list[float]:
        read.clear()
        stage = StageRun(laptop, StageFacts("difficulty", tmp_path, {"models/d": "a"}, {"rows": str(texts)}))
        rows = [{"id": str(i), "question": text} for i, text in enumerate(texts)]
        return score(
            stage, Path("models/d"), rows, sequences=lambda row: row["question"], form=form, shard_size=2
        )  # fmt: skip

    first = scores(["a", "bb", "a", "ccc"])
    assert len(read) == 3, "equal texts are read once"
    assert first[0] == first[2]
    assert scores(["ccc", "dddd", "a"])[::2] == [first[3], first[0]]
    assert [chatml.decode(ids).count("dddd") for ids in read] == [1]


def test_the_command_lists_and_removes_the_stores(
    ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from argparse import Namespace

    from scalequest.runtime import journal

    ask(range(10))
    monkeypatch.chdir(tmp_path)
    journal.run(Namespace(clean=False))
    listed = capsys.readouterr().out
    assert "finished rows, 3 files" in listed
    assert "of at most 20,000" in listed
    journal.run(Namespace(clean=True))
    assert row_files(ask) == []
