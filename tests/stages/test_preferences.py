import json
from argparse import Namespace
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from scalequest.domains import DIFFICULTY, SOLVABILITY, wording
from scalequest.domains.maths import rewrite_turns
from scalequest.errors import UserError
from scalequest.models.chat import ChatFormat
from scalequest.params import Params
from scalequest.records import PREFERENCE, QUESTION, read_rows, write_rows
from scalequest.runtime.stage import StageRun
from scalequest.sampling import sample as sampling
from scalequest.sampling.completion import Completion
from stages import preferences
from stages.preferences import flip, main, pair_verdict, rewrite_row, usable
from tests.fakes import QueueEngine, changed, cut, stopped


def question(number: int, text: str, finish_reason: str = "stop") -> dict[str, Any]:
    return {
        "id": f"sums/0/{number}", "generator": "sums", "question": text, "completion": text,
        "finish_reason": finish_reason, "n_tokens": 3, "seed": 1,
    }  # fmt: skip


# ---------------------------------------------------------------------------------------------------------- the coin


def test_the_coin_is_fair_over_many_questions():
    directions = Counter(flip(f"sums/{i // 64}/{i % 64}", 17, 0.5) for i in range(10_000))
    # 5,000 expected, standard deviation sqrt(10,000 / 4) = 50; four of them.
    assert abs(directions[SOLVABILITY] - 5_000) < 200
    assert directions[SOLVABILITY] + directions[DIFFICULTY] == 10_000


@pytest.mark.parametrize(("frac", "only"), [(0.0, DIFFICULTY), (1.0, SOLVABILITY)])
def test_a_coin_with_one_side_never_shows_the_other(frac: float, only: str):
    assert {flip(f"sums/0/{i}", 17, frac) for i in range(1_000)} == {only}


def test_the_coin_is_the_questions_own():
    ids = [f"sums/0/{i}" for i in range(200)]
    flips = {i: flip(i, 17, 0.5) for i in ids}
    # Neither the order nor the company of a question changes its direction; the run's seed does.
    assert {i: flip(i, 17, 0.5) for i in reversed(ids)} == flips
    assert {i: flip(i, 18, 0.5) for i in ids} != flips


# ------------------------------------------------------------------------------------------------------ pair filters

ORIGINAL = "Tom has 3 apples."  # 17 characters; with max_growth 4.0 a rewrite may have 68


@pytest.mark.parametrize(
    ("rewrite", "finish_reason", "verdict"),
    [
        pytest.param("Tom has 3 apples and buys 2. How many?", "stop", "kept", id="kept"),
        pytest.param("Tom has 3 apples and buys 2. How many?", "length", "cut", id="cut"),
        pytest.param("", "stop", "unparsed", id="empty"),
        pytest.param("", "length", "cut", id="cut_before_unparsed"),
        pytest.param(ORIGINAL, "stop", "identical", id="identical"),
        pytest.param("TOM HAS  3 apples", "stop", "identical", id="identical_but_for_case_and_spaces"),
        pytest.param("x" * 67 + "?", "stop", "kept", id="as_long_as_allowed"),
        pytest.param("x" * 68 + "?", "stop", "over_long", id="over_long"),
        pytest.param("How many? The answer is 5.", "stop", "leaks_solution", id="leaks_solution"),
        pytest.param("The answer is 5." + "x" * 60, "stop", "over_long", id="over_long_before_leak"),
        pytest.param("Tom has 3 apples and 2 pears.", "stop", "asks_nothing", id="statement"),
        pytest.param("3 + 2 = 5", "stop", "asks_nothing", id="equation"),
        pytest.param("The answer is 5.", "stop", "leaks_solution", id="leak_before_asking"),
        pytest.param("Find α if α + 2 = 5.", "stop", "kept", id="greek_letters_are_mathematics"),
    ],
)
def test_why_a_rewrite_makes_no_pair(rewrite: str, finish_reason: str, verdict: str):
    assert pair_verdict(ORIGINAL, rewrite, finish_reason, max_growth=4.0, words=wording("maths")) == verdict


def test_a_rejected_rewrite_keeps_its_completion_and_its_reason(laptop: Params):
    params = laptop.preferences.model_copy(update={"style": "sections"})
    row = rewrite_row(question(3, ORIGINAL), SOLVABILITY, stopped("I made no sections."), params, wording("maths"))
    assert row == {
        "id": "sums/0/3", "generator": "sums", "direction": SOLVABILITY, "question": ORIGINAL, "rewrite": "",
        "completion": "I made no sections.", "finish_reason": "stop", "verdict": "unparsed",
    }  # fmt: skip


def test_a_question_is_rewritten_once_and_only_if_it_ended():
    rows = [
        question(0, "Tom has 3."), question(1, ""), question(2, "tom has 3"), question(3, "Ann has", "length"),
        question(4, "Ann has 4."),
    ]  # fmt: skip
    assert [row["id"] for row in usable(rows)] == ["sums/0/0", "sums/0/4"]


# ------------------------------------------------------------------------------------------------------- whole stage


@pytest.fixture
def stage(tmp_path: Path, laptop: Params, chatml: ChatFormat, monkeypatch: pytest.MonkeyPatch):
    """Run the stage over these questions with these answers of the optimizer."""

    def run(rows: list[dict[str, Any]], answers: list[str | Completion]) -> QueueEngine:
        engine = QueueEngine(chatml, answers)
        monkeypatch.setattr(sampling, "Engine", engine)
        write_rows(tmp_path / "questions", rows, QUESTION)
        args = Namespace(
            generator="sums", optimizer=tmp_path / "optimizer", questions=tmp_path / "questions",
            out=tmp_path / "out.parquet", metrics=tmp_path / "m.json",
        )  # fmt: skip
        params = changed(laptop, preferences={"style": "few_shot", "shard_size": 2, "max_growth": 4.0})
        main(args, StageRun(params))
        return engine

    return run


def test_each_question_is_asked_for_one_aim_and_every_rewrite_is_accounted_for(stage, tmp_path: Path, laptop: Params):
    rows = [
        question(0, "Tom has 3."),
        question(1, "Ann has 4."),
        question(2, "Tom has 3."),
        question(3, "Bob", "length"),
    ]
    engine = stage(rows, ["Tom has 3. How many?", "Ann has 4."])
    directions = [flip(f"sums/0/{i}", laptop.seed, laptop.preferences.solvability_frac) for i in (0, 1)]
    assert engine.prompts == [
        engine.chat.decode(engine.chat.conversation(rewrite_turns(text, direction, "few_shot")))
        for text, direction in zip(["Tom has 3.", "Ann has 4."], directions, strict=True)
    ]
    written = read_rows(tmp_path / "out.parquet", PREFERENCE)
    assert [(r["id"], r["verdict"], r["direction"]) for r in written] == [
        ("sums/0/0", "kept", directions[0]),
        ("sums/0/1", "identical", directions[1]),
    ]
    metrics = json.loads((tmp_path / "m.json").read_text())
    # Four sampled, of which one repeats and one was cut; of the two rewrites one is a pair.
    assert (metrics["questions"], metrics["usable"], metrics["pairs"]) == (4, 2, 1)
    assert metrics["kept_frac"] == 0.5
    assert metrics["rejected"] == {"identical": 1}
    assert sum(metrics["direction"].values()) == 2


def test_no_pair_at_all_is_an_error_that_says_why(stage, tmp_path: Path):
    with pytest.raises(UserError) as caught:
        stage([question(0, "Tom has 3."), question(1, "Ann has 4.")], ["Tom has 3.", cut("Ann")])
    message = str(caught.value)
    assert "2 questions sampled, 2 usable, all 2 rewrites rejected" in message
    assert "'identical': 1" in message
    assert "'cut': 1" in message
    assert not (tmp_path / "out.parquet").exists()


def test_no_usable_question_is_an_error_that_says_why(stage):
    with pytest.raises(UserError, match="1 questions sampled, 0 usable"):
        stage([question(0, "Tom", "length")], [])


def test_an_endpoint_is_asked_from_here_also_where_ray_samples(
    tmp_path: Path, laptop: Params, monkeypatch: pytest.MonkeyPatch
):
    """Actors would hold a GPU each while they wait, and what they paid would be counted in copies that end with them."""
    asked: list[int] = []

    class Endpoint:
        def __init__(self, **_: object) -> None: ...

        def complete(self, conversations: list[list[str]]) -> list[Completion]:
            asked.append(len(conversations))
            return [stopped("Tom has 3. How many?") for _ in conversations]

        def cost(self) -> dict[str, float]:
            return {"api_usd": float(sum(asked))}

    monkeypatch.setattr(preferences, "ApiOptimizer", Endpoint)
    (tmp_path / "optimizer").mkdir()
    (tmp_path / "optimizer" / "api.json").write_text("{}")
    write_rows(tmp_path / "questions", [question(i, f"Tom has {i}.") for i in range(3)], QUESTION)
    run = StageRun(changed(laptop, runtime={"engine": "ray", "workers": 2}, preferences={"shard_size": 2}))
    args = Namespace(
        generator="sums", optimizer=tmp_path / "optimizer", questions=tmp_path / "questions", out=tmp_path / "out.parquet",
        metrics=tmp_path / "m.json",
    )  # fmt: skip
    main(args, run)
    assert asked == [3], "one list: an endpoint has no use for shards"
    assert run.logged["api_usd"] == 3.0
