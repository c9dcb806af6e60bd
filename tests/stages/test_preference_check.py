import json
from argparse import Namespace
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from scalequest.domains import DIFFICULTY, SOLVABILITY
from scalequest.domains.maths import judge_turns
from scalequest.errors import UserError
from scalequest.models.chat import ChatFormat
from scalequest.params import Params
from scalequest.records import JUDGED, PREFERENCE, SCORE, read_rows, write_rows
from scalequest.runtime.stage import StageRun
from scalequest.sampling import sample as sampling
from stages import preference_check
from stages.preference_check import draw_pairs, main, quality
from tests.fakes import QueueEngine, changed


def pair(number: int, direction: str = SOLVABILITY, generator: str = "sums", verdict: str = "kept") -> dict[str, Any]:
    return {
        "id": f"{generator}/0/{number}", "generator": generator, "direction": direction, "question": f"Old {number}?",
        "rewrite": f"New {number}?", "completion": "", "finish_reason": "stop", "verdict": verdict,
    }  # fmt: skip


def test_pairs_are_drawn_evenly_over_the_directions_and_none_is_a_reject():
    pairs = [pair(i, SOLVABILITY if i % 4 else DIFFICULTY, verdict="cut" if i % 5 == 0 else "kept") for i in range(200)]
    drawn = draw_pairs(pairs, 40, 17)
    assert Counter(row["direction"] for row in drawn) == {SOLVABILITY: 20, DIFFICULTY: 20}
    assert {row["verdict"] for row in drawn} == {"kept"}
    assert drawn != [row for row in pairs if row["verdict"] == "kept"][:40]
    assert {row["id"] for row in drawn} < {row["id"] for row in draw_pairs(pairs, 60, 17)}


@pytest.mark.parametrize(
    ("kept", "n", "drawn"),
    [
        pytest.param({SOLVABILITY: 5, DIFFICULTY: 100}, 32, {SOLVABILITY: 5, DIFFICULTY: 27}, id="a_rare_direction"),
        pytest.param({SOLVABILITY: 50, DIFFICULTY: 100}, 32, {SOLVABILITY: 16, DIFFICULTY: 16}, id="enough_of_both"),
        pytest.param({DIFFICULTY: 100}, 32, {DIFFICULTY: 32}, id="one_direction"),
        pytest.param({}, 32, {}, id="none"),
    ],
)
def test_a_rare_direction_is_drawn_whole_and_the_other_fills_up(kept: dict[str, int], n: int, drawn: dict[str, int]):
    directions = [name for name, size in kept.items() for _ in range(size)]
    pairs = [pair(i, direction) for i, direction in enumerate(directions)]
    assert Counter(row["direction"] for row in draw_pairs(pairs, n, 17)) == drawn


def sides(*pairs: tuple[float, float]) -> list[float]:
    """Values of pairs (chosen, rejected) in turn."""
    return [value for both in pairs for value in both]


@pytest.mark.parametrize(
    ("values", "flag"),
    [
        pytest.param(sides(*[(1, 0)] * 10, *[(1, 1)] * 10), False, id="better"),
        pytest.param(sides(*[(1, 1)] * 20), True, id="equal"),
        pytest.param(sides(*[(1, 0)] * 6, *[(0, 1)] * 5, *[(1, 1)] * 9), True, id="luck"),
        pytest.param(sides(*[(0, 1)] * 20), True, id="worse"),
        pytest.param(sides(*[(1, 0)] * 3), True, id="too_few"),
    ],
)
def test_rewrites_must_be_better_by_two_standard_errors(values: list[float], flag: bool):
    pairs = [pair(i) for i in range(len(values) // 2)]
    assert quality(pairs, values, SOLVABILITY, 0)[1] == {"rewrites_no_better": flag}


def test_only_pairs_rewritten_for_the_measure_decide():
    # Those made harder are better at being solvable, those made solvable are not.
    pairs = [pair(i, SOLVABILITY) for i in range(20)] + [pair(i + 20, DIFFICULTY, "stories") for i in range(20)]
    values = sides(*[(0, 0)] * 20, *[(1, 0)] * 20)
    metrics, flags = quality(pairs, values, SOLVABILITY, 0)
    assert flags == {"rewrites_no_better": True}
    found = metrics["quality"]
    assert found["pairs"] == 40
    assert (found["chosen"]["mean"], found["rejected"]["mean"], found["difference"]) == (0.5, 0.0, 0.5)
    assert found["by_direction"][DIFFICULTY]["difference"] == 1.0
    assert found["by_generator"]["sums"]["chosen"]["mean"] == 0.0
    assert found["rejected"]["standard_error"] > 0  # none of 40 is not "certainly none"
    assert quality(pairs, values, DIFFICULTY, 0)[1] == {"rewrites_no_better": False}


def test_difficulties_are_means_of_scores():
    metrics, flags = quality(
        [pair(i, DIFFICULTY) for i in range(6)], sides(*[(0.6 + i / 100, 0.2) for i in range(6)]), DIFFICULTY, 0
    )
    assert metrics["quality"]["chosen"]["mean"] == pytest.approx(0.625)
    assert flags == {"rewrites_no_better": False}


@pytest.fixture
def stage(tmp_path: Path, laptop: Params, chatml: ChatFormat, monkeypatch: pytest.MonkeyPatch):
    def run(by: str, answers: list[str] | None = None, scores: list[float] | None = None):
        engine = QueueEngine(chatml, answers or [])
        monkeypatch.setattr(sampling, "Engine", engine)
        monkeypatch.setattr(preference_check, "score", lambda run, model, rows, **_: (scores or [])[: len(rows)])
        for generator in ("sums", "stories", "left_the_mix"):
            write_rows(
                tmp_path / "preferences" / f"{generator}.parquet",
                [pair(i, by, generator) for i in range(3)],
                PREFERENCE,
            )
        args = Namespace(
            by=by, model=tmp_path, preferences=tmp_path / "preferences", out=tmp_path / "out.parquet",
            metrics=tmp_path / "m.json",
        )  # fmt: skip
        params = changed(laptop, preference_check={"n_pairs": 2}, judge={"style": "few_shot", "shard_size": 4})
        main(args, StageRun(params.model_copy(update={"mix": ["sums", "stories"]})))
        return engine, json.loads((tmp_path / "m.json").read_text())

    return run


def test_the_judge_is_asked_about_both_sides_of_each_generators_pairs(stage, tmp_path: Path):
    engine, metrics = stage(SOLVABILITY, ["Yes", "No"] * 4)
    assert len(engine.prompts) == 8
    texts = {
        engine.chat.decode(engine.chat.conversation(judge_turns(f"{side} {i}?", "few_shot")))
        for side in ("New", "Old")
        for i in range(3)
    }
    assert set(engine.prompts) <= texts
    found = metrics["quality"]
    assert (found["pairs"], found["chosen"]["mean"], found["rejected"]["mean"]) == (4, 1.0, 0.0)
    assert set(found["by_generator"]) == {"sums", "stories"}
    assert metrics["warnings"] == {"rewrites_no_better": 1}  # four pairs prove nothing
    rows = read_rows(tmp_path / "out.parquet", JUDGED)
    assert [(row["id"].rpartition("/")[2], row["verdict"], row["completion"]) for row in rows] == [
        ("chosen", "solvable", "Yes"), ("rejected", "unsolvable", "No"),
    ] * 4  # fmt: skip


def test_the_scorer_scores_both_sides(stage, tmp_path: Path):
    _, metrics = stage(DIFFICULTY, scores=[0.9, 0.1] * 4)
    assert metrics["quality"]["difference"] == pytest.approx(0.8)
    assert metrics["measure"] == DIFFICULTY
    rows = read_rows(tmp_path / "out.parquet", SCORE)
    assert len({row["id"] for row in rows}) == 8
    assert [row["score"] for row in rows] == pytest.approx([0.9, 0.1] * 4)


def test_another_measure_is_refused(stage):
    with pytest.raises(UserError, match=r"--by beauty\. Expected solvability or difficulty"):
        stage("beauty")
