import json
from argparse import Namespace
from pathlib import Path

import pytest

from scalequest.domains.maths import judge_turns
from scalequest.models.chat import ChatFormat
from scalequest.params import Params
from scalequest.records import JUDGED, PROBLEM, SCREENED, read_rows, write_rows
from scalequest.runtime.stage import StageRun
from scalequest.sampling import sample as sampling
from scalequest.sampling.completion import Completion
from stages import judge
from tests.fakes import QueueEngine, changed, cut

SEEDS = [
    {"id": f"shop/{i}", "source": "shop", "stratum": "", "question": f"Tom buys {i + 2} pens at {i + 30} cents each. What is the sum?",
     "solution": f"{i + 2} * {i + 30} = {(i + 2) * (i + 30)}", "answer": str((i + 2) * (i + 30))}
    for i in range(40)
]  # fmt: skip


@pytest.fixture
def stage(tmp_path: Path, laptop: Params, chatml: ChatFormat, monkeypatch: pytest.MonkeyPatch):
    """Judge these questions with these completions; give the engine, the rows and the metrics."""

    def run(verdicts: list[str], answers: list[str | Completion], style="few_shot", calibration=("Yes", "No"), **more):
        engine = QueueEngine(chatml, [*answers, *calibration])
        monkeypatch.setattr(sampling, "Engine", engine)
        rows = [
            {"id": f"sums/0/{i}", "generator": more.get("generators", ["sums"] * 99)[i], "question": f"Question {i}?", "verdict": v, "matched": "", "evidence": ""}
            for i, v in enumerate(verdicts)
        ]  # fmt: skip
        write_rows(tmp_path / "screened", rows, SCREENED)
        write_rows(tmp_path / "seeds.parquet", SEEDS, PROBLEM)
        args = Namespace(
            model=tmp_path, screened=tmp_path / "screened", seeds=tmp_path / "seeds.parquet", out=tmp_path / "judged",
            metrics=tmp_path / "m.json",
        )  # fmt: skip
        settings = {"style": style, "shard_size": 2, "n_calibration": len(calibration) // 2}
        judge.main(args, StageRun(changed(laptop, judge=settings)))
        return engine, read_rows(tmp_path / "judged", JUDGED), json.loads((tmp_path / "m.json").read_text())

    return run


def test_only_what_screen_kept_is_judged(stage):
    engine, rows, _ = stage(["kept", "language", "kept"], ["Yes", "No"])
    assert [row["id"] for row in rows] == ["sums/0/0", "sums/0/2"]
    assert engine.prompts[:2] == [
        engine.chat.decode(engine.chat.conversation(judge_turns(f"Question {i}?", "few_shot"))) for i in (0, 2)
    ]


def test_no_verdict_is_an_outcome_of_its_own(stage):
    # "yesterday" holds a yes, the paper's rule would keep it.
    answers = ["Yes", "No.", "It was yesterday.", "Yes, but a condition is missing. No"]
    _, rows, metrics = stage(["kept"] * 4, answers, style="reasoned")
    assert [row["verdict"] for row in rows] == ["solvable", "unsolvable", "no_verdict", "unsolvable"]
    assert [row["completion"] for row in rows] == answers
    calibration, warnings = metrics.pop("calibration"), metrics.pop("warnings")
    # 1 of 4, plus two of each: 3 of 8.
    counts = {
        "questions": 4, "solvable": 1, "unsolvable": 2, "no_verdict": 1, "solvable_frac": 0.25,
        "solvable_frac_standard_error": round((3 / 8 * 5 / 8 / 8) ** 0.5, 6),
    }  # fmt: skip
    more = {"both_words": 1, "cut_at_max_tokens": 0, "unreasoned": 2}
    assert metrics == counts | more | {"by_generator": {"sums": counts}}
    assert calibration["problems"] == 1
    assert warnings == {"one_verdict": 0, "no_verdicts": 0, "judge_decides_nothing": 1, "unreasoned": 1}


def test_a_judge_that_gives_its_reasons_is_not_warned_of(stage):
    answers = ["All is given. Yes"] * 19 + ["Yes"]
    assert stage(["kept"] * 20, answers, style="reasoned")[2]["warnings"]["unreasoned"] == 0
    assert stage(["kept"] * 20, [*answers[1:], "Yes"], style="reasoned")[2]["warnings"]["unreasoned"] == 1
    assert "unreasoned" not in stage(["kept"], ["Yes"])[2]["warnings"]  # one word is what few_shot asks for


def test_verdicts_are_counted_by_generator(stage):
    _, _, metrics = stage(["kept"] * 4, ["Yes", "No", "No", "?"], generators=["sums", "stories", "stories", "sums"])
    found = metrics["by_generator"]
    assert (found["sums"]["questions"], found["sums"]["solvable_frac"], found["sums"]["no_verdict"]) == (2, 0.5, 1)
    assert (found["stories"]["solvable"], found["stories"]["unsolvable"]) == (0, 2)


@pytest.mark.parametrize(
    ("answers", "flags"),
    [
        pytest.param(["Yes"] * 30, {"one_verdict": 1, "no_verdicts": 0}, id="always_yes"),
        pytest.param(
            ["Yes"] * 49 + ["No"], {"one_verdict": 1, "no_verdicts": 0}, id="one_other_verdict_is_an_accident"
        ),
        pytest.param(["?"] * 20 + ["No"] * 10, {"one_verdict": 0, "no_verdicts": 1}, id="mostly_unreadable"),
        pytest.param(["Yes", "?"] * 15, {"one_verdict": 0, "no_verdicts": 0}, id="half_unreadable"),
    ],
)
def test_a_judge_of_one_verdict_is_warned_of(stage, answers: list[str], flags: dict[str, int]):
    found = stage(["kept"] * len(answers), answers)[2]["warnings"]
    assert {name: found[name] for name in flags} == flags


# -------------------------------------------------------------------------------------------------------- calibration


@pytest.mark.parametrize(
    ("sound", "bad", "flag"),
    [
        pytest.param(["Yes"] * 20, ["No"] * 20, 0, id="tells_them_apart"),
        pytest.param(["Yes"] * 20, ["Yes"] * 20, 1, id="accepts_everything"),
        # The published run: 80% of sound and 83% of broken problems.
        pytest.param(["Yes"] * 16 + ["No"] * 4, ["No"] * 3 + ["Yes"] * 17, 1, id="a_coin"),
        pytest.param(["No"] * 20, ["Yes"] * 20, 1, id="upside_down"),
        pytest.param(["Yes"] * 11 + ["No"] * 9, ["Yes"] * 9 + ["No"] * 11, 1, id="less_than_two_standard_errors"),
        pytest.param(["?"] * 20, ["?"] * 20, 1, id="no_verdicts"),
    ],
)
def test_a_judge_that_accepts_broken_problems_decides_nothing(stage, sound: list[str], bad: list[str], flag: int):
    engine, rows, metrics = stage(["kept"], ["Yes"], calibration=[*sound, *bad])
    assert len(rows) == 1  # the calibration's problems are no questions of the run
    assert metrics["questions"] == 1
    assert len(engine.prompts) == 41
    found = metrics["calibration"]
    assert found["problems"] == found["sound"]["n"] == found["broken"]["n"] == 20
    assert found["sound"]["solvable_frac"] == sound.count("Yes") / 20
    assert found["broken"]["solvable_frac"] == bad.count("Yes") / 20
    assert found["difference"] == pytest.approx((sound.count("Yes") - bad.count("Yes")) / 20)
    assert sum(way["n"] for way in found["broken_by"].values()) == 20
    assert metrics["warnings"]["judge_decides_nothing"] == flag


def test_sound_problems_are_asked_as_they_are_and_broken_ones_are_not(stage):
    engine, _, _ = stage(["kept"], ["Yes"], calibration=["Yes"] * 20 + ["No"] * 20)
    asked = [engine.chat.decode(engine.chat.conversation(judge_turns(row["question"], "few_shot"))) for row in SEEDS]
    assert len(set(asked) & set(engine.prompts[1:21])) == 20
    assert not set(asked) & set(engine.prompts[21:])


@pytest.mark.parametrize("style", ["few_shot", "reasoned"])
@pytest.mark.parametrize(
    "text", ["Yes", "Is a number missing? No. Then", "The problem has no real solutions, so I keep"]
)
def test_an_answer_that_was_cut_is_no_verdict(style: str, text: str):
    assert judge.judged_row({"id": "a"}, cut(text), style)["verdict"] == "no_verdict"
