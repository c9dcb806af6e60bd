"""A forgery that is consistent in every hash and count is found by running a part again, as often as it should be."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from scalequest.audit import replay
from scalequest.audit import rerun as rerun_module
from scalequest.audit.links import CHECKS, verify
from scalequest.audit.replay import Plan, Unit, draw_units, wanted_units
from scalequest.cli import main
from scalequest.errors import UserError
from scalequest.sampling import questions, sample, score
from tests.audit.replayed import M, Recorded, SeededEngine, here


@pytest.fixture(autouse=True)
def _engine(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name in ((questions, "Engine"), (sample, "Engine"), (score, "Scorer")):
        monkeypatch.setattr(module, name, SeededEngine)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    with pytest.MonkeyPatch.context() as patch:
        for module, name in ((questions, "Engine"), (sample, "Engine"), (score, "Scorer")):
            patch.setattr(module, name, SeededEngine)
        return Recorded.make(tmp_path_factory.mktemp("replay") / "repository")


@pytest.fixture
def run(sound: Recorded, tmp_path: Path) -> Recorded:
    copy = Recorded.__new__(Recorded)
    copy.root, copy.params = Path(shutil.copytree(sound.root, tmp_path / "repository")), sound.params
    return copy


def test_a_sound_run_is_equal_in_every_unit(run: Recorded, tmp_path: Path) -> None:
    job, plan = run.replay(tmp_path / "again", "100%")
    found = list(job.compare(plan))
    assert [one for one in found if one.differs] == []
    assert {one.stage for one in found} == {
        "generate@sums",
        "screen",
        "judge",
        "difficulty",
        "filter",
        "respond",
        "reward",
    }
    # 24 questions in shards of 8; judged with 4 calibration problems: 28 in 4; 12 kept, two samples each, 8 per shard.
    counts = {
        stage: [unit.rows for unit in plan.units if unit.stage == stage] for stage in {u.stage for u in plan.units}
    }
    assert counts["generate@sums"] == [8, 8, 8]
    assert sum(counts["judge"]) == 4 + sum(row["verdict"] == "kept" for row in run.rows("data/screened"))
    assert counts["respond"] == [8, 8, 8]


def test_a_stage_whose_bytes_are_not_here_is_named_and_the_others_are_replayed(run: Recorded, tmp_path: Path) -> None:
    value = run.md5("data/responses/part-00000.parquet")
    run.object(value).unlink()
    (run.root / "data" / "responses" / "part-00000.parquet").unlink()
    _, plan = run.replay(tmp_path / "again", "100%")
    assert (
        plan.skipped["respond"]
        == plan.skipped["reward"]
        == "data/responses of this lock is not here; run: dvc pull data/responses"
    )
    assert {unit.stage for unit in plan.drawn} == {"generate@sums", "judge", "difficulty"}


# --------------------------------------------------------------------------------------------------- ten forgeries


def changed(path: str, place: int, **values: object) -> Callable[[Recorded], None]:
    def change(run: Recorded) -> None:
        rows = run.rows(path)
        rows[place] |= {key: value(rows[place][key]) if callable(value) else value for key, value in values.items()}
        run.put(path, rows)

    return change


def then(*stages: str) -> Callable[[Recorded], None]:
    """The stages after the edit, run honestly on forged input: so all counts and hashes agree."""
    return lambda run: [run.redo(stage) for stage in stages][-1]


def edit_question(run: Recorded) -> None:
    text = "Ann has 12 pens and gives 5 to Bob. How many are left?"
    changed("data/questions/sums", 9, question=text, completion=text)(run)
    run.recount("generate@sums")
    then("screen", "judge", "difficulty", "filter", "respond", "reward")(run)


def delete_and_renumber(run: Recorded) -> None:
    rows = run.rows("data/questions/sums")
    del rows[5]
    for number, row in enumerate(rows):
        row |= {"id": f"sums/{number // 8}/{number % 8}", "seed": rows[number // 8 * 8]["seed"]}
    run.put("data/questions/sums", rows)
    run.count(f"{M}/generate/sums.json", questions=len(rows))
    then("screen", "judge", "difficulty", "filter", "respond", "reward")(run)


def add_a_question(run: Recorded) -> None:
    rows = run.rows("data/questions/sums")
    run.put("data/questions/sums", [*rows, rows[-1] | {"id": "sums/2/8", "question": "Is 7 prime or not?", "completion": "Is 7 prime or not?"}])  # fmt: skip
    run.count(f"{M}/generate/sums.json", questions=len(rows) + 1)
    then("screen", "judge", "difficulty", "filter", "respond", "reward")(run)


def other(verdict: str) -> str:
    return "unsolvable" if verdict == "solvable" else "solvable"


def flip_verdict(run: Recorded) -> None:
    changed("data/judged", 3, verdict=other)(run)
    run.count(f"{M}/judge.json", solvable=sum(row["verdict"] == "solvable" for row in run.rows("data/judged")))
    then("filter", "respond", "reward")(run)


def flip_verdict_and_completion(run: Recorded) -> None:
    changed("data/judged", 3, completion=lambda text: "No" if text == "Yes" else "Yes")(run)
    run.recount("judge")
    then("filter", "respond", "reward")(run)


def keep_a_duplicate(run: Recorded) -> None:
    changed("data/screened", 2, verdict="min_words")(run)
    rows = run.rows("data/screened")
    run.count(f"{M}/screen.json", kept=sum(row["verdict"] == "kept" for row in rows))
    then("judge", "difficulty", "filter", "respond", "reward")(run)


def raise_difficulty(run: Recorded) -> None:
    changed("data/difficulty", 1, score=lambda value: value + 0.4)(run)
    then("filter", "respond", "reward")(run)


def swap_answer(run: Recorded) -> None:
    changed("data/responses", 10, response="The answer is 1234.")(run)
    run.recount("respond")
    then("reward")(run)


def move_answers(run: Recorded) -> None:
    """Two questions' answers change places: every text was truly sampled."""
    rows = run.rows("data/responses")
    rows[0]["response"], rows[17]["response"] = rows[17]["response"], rows[0]["response"]
    run.put("data/responses", rows)
    run.recount("respond")
    then("reward")(run)


def raise_reward(run: Recorded) -> None:
    changed("data/rewards", 12, reward=lambda value: value + 0.5)(run)


def drop_from_the_set(run: Recorded) -> None:
    rows = run.rows("data/filtered.parquet")
    lost = rows.pop()["id"]
    run.put("data/filtered.parquet", rows)
    run.put("data/ledger.parquet", [row | ({"outcome": "mix_quota"} if row["id"] == lost else {}) for row in run.rows("data/ledger.parquet")])  # fmt: skip
    run.count(f"{M}/filter.json", kept=len(rows))
    then("respond", "reward")(run)


# Forgery: the units that find it, or none where every replay does, and what is said.
FORGERIES = [
    (edit_question, ["generate@sums, shard 1"], "generate@sums", r"question of 1 rows, the first is sums/1/1: recorded 'Ann has 12 pens"),
    (delete_and_renumber, [], "generate@sums", r"23 rows are recorded, 24 are made here; sums/2/7 is not recorded"),
    (add_a_question, [], "generate@sums", r"25 rows are recorded, 24 are made here; sums/2/8 is not made"),
    (flip_verdict, [], "judge", r"verdict of 1 rows, the first is sums/0/3"),
    (flip_verdict_and_completion, ["judge, shard 0"], "judge", r"verdict of 1 rows, the first is sums/0/3"),
    (keep_a_duplicate, [], "screen", r"verdict of 1 rows, the first is sums/0/2: recorded 'min_words', here 'kept'"),
    (raise_difficulty, ["difficulty, shard 0"], "difficulty", r"score of 1 rows, the first is sums/0/1"),
    (swap_answer, ["respond, shard 1"], "respond", r"response of 1 rows, the first is .*: recorded 'The answer is 1234\.'"),
    (move_answers, ["respond, shard 0", "respond, shard 2"], "respond", r"response of 1 rows"),
    (raise_reward, ["reward, shard 1"], "reward", r"reward of 1 rows"),
    (drop_from_the_set, [], "filter", r"11 rows are recorded, 12 are made here"),
]  # fmt: skip


@pytest.mark.parametrize(("forge", "units", "stage", "says"), FORGERIES, ids=[forgery[0].__name__ for forgery in FORGERIES])  # fmt: skip
def test_a_consistent_forgery_is_found_by_the_units_that_hold_it_and_by_no_other(
    run: Recorded, tmp_path: Path, forge: Callable[[Recorded], None], units: list[str], stage: str, says: str
) -> None:
    forge(run)
    run.relock()
    lock = run.tables().lock
    checks = list(verify(run.repository, lock, [name for name in CHECKS if name != "rows"]))  # no training rows here
    assert [link for check in checks for link in check.broken] == []  # nothing else sees it

    every = [str(unit) for unit in run.replay(tmp_path / "plan")[1].units]
    for number, unit in enumerate([*units, *[u for u in every if u not in units][::5]]):
        found = run.differing(tmp_path / str(number), unit)
        expected = not units or unit in units
        assert bool(found) == expected, (unit, found)
        if expected:
            assert found[0].stage == stage
            assert re.search(says, " ".join(found[0].differs)), found[0].differs


def test_a_unit_is_drawn_as_often_as_the_plan_says() -> None:
    units = [Unit("judge", number, 64, 500) for number in range(40)]
    plan = Plan(units, draw_units(units, "10%", 1), 1)
    assert len(plan.drawn) == 4
    assert plan.chance() == pytest.approx(0.1)
    # Two of 40 changed: 1 - C(38,4)/C(40,4) = 1 - (36 * 35) / (40 * 39).
    assert plan.chance(2) == pytest.approx(1 - 36 * 35 / (40 * 39))
    hits = sum(units[7] in draw_units(units, "10%", seed) for seed in range(2000))
    assert abs(hits - 200) < 4 * (2000 * 0.1 * 0.9) ** 0.5  # four standard errors
    assert draw_units(units, "10%", 5) == draw_units(units, "10%", 5) != draw_units(units, "10%", 6)


@pytest.mark.parametrize(
    ("amount", "total", "wanted"), [("1%", 40, 1), ("1%", 1000, 10), ("2.5%", 100, 3), ("3", 40, 3), ("99", 4, 4), ("100%", 7, 7), ("9" * 400, 5, 5)]
)  # fmt: skip
def test_an_amount_is_a_share_rounded_up_or_a_number(amount: str, total: int, wanted: int) -> None:
    assert wanted_units(amount, total) == wanted


@pytest.mark.parametrize("amount", ["0", "0%", "-1", "101%", "1.5", "all", "nan%", ""])
def test_another_amount_is_refused(amount: str) -> None:
    with pytest.raises(UserError, match="expected a share above 0%"):
        wanted_units(amount, 10)


def test_a_rerun_leaves_the_stage_runner_as_it_was(run: Recorded) -> None:
    from scalequest.runtime import stage

    before = stage.run_stage
    run.redo("screen")
    assert stage.run_stage is before
    assert rerun_module.NOT_KNOWN not in {row["finish_reason"] for row in run.rows("data/questions/sums")}


def test_the_command_prints_the_price_first_and_ends_with_1_at_a_difference(
    run: Recorded, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(replay, "start_process", here)
    monkeypatch.chdir(run.root)
    with pytest.raises(SystemExit) as sound:
        main(["verify", "hashes", "--replay", "2", "--seed", "5"])
    said = capsys.readouterr().out
    assert sound.value.code == 0, said
    assert re.match(r"replay: 2 of \d+ shards and trainings, drawn by --seed 5\n  \S+, shard \d: \d+ rows, about", said)
    assert said.index("price: ") < said.index(" equal")
    assert "is found with a probability of" in said
    assert re.search(r"^replay: \d+ links, all hold$", said, re.MULTILINE)
    drop_from_the_set(run)
    run.relock()
    with pytest.raises(SystemExit) as forged:
        main(["verify", "hashes", "--replay", "1%"])
    said = capsys.readouterr().out
    assert forged.value.code == 1
    assert "stage filter, run again: data/filtered.parquet: 11 rows are recorded, 12 are made here" in said
    assert "run: dvc repro -f -s filter" in said


@pytest.mark.parametrize(
    ("arguments", "says"),
    [(["--seed", "3"], "--seed: goes with --replay"), (["--replay", "1%", "--rev", "main"], "the code that runs is the workspace's"),
     (["--replay", "half"], "expected a share above 0%")],
)  # fmt: skip
def test_what_cannot_be_replayed_is_refused(
    run: Recorded, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    monkeypatch.setattr(replay, "start_process", here)
    monkeypatch.chdir(run.root)
    with pytest.raises(SystemExit) as ended:
        main(["verify", "hashes", *arguments])
    assert ended.value.code == 2
    assert says in capsys.readouterr().err
