import json
import time
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
from stages.judge import parse_verdict
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
    assert metrics == counts | {"both_words": 1, "cut_at_max_tokens": 0, "by_generator": {"sums": counts}}
    assert calibration["problems"] == 1
    assert warnings == {"one_verdict": 0, "no_verdicts": 0, "judge_decides_nothing": 1}


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


# ------------------------------------------------------------------------------------------------------------ verdicts


@pytest.mark.parametrize(
    ("completion", "verdict"),
    [
        pytest.param("Yes", True, id="yes"),
        pytest.param("No", False, id="no"),
        pytest.param("yes.", True, id="full_stop"),
        pytest.param(" NO!", False, id="shouted"),
        pytest.param("**Yes**", True, id="bold"),
        pytest.param("`No`", False, id="code"),
        pytest.param('"Yes"', True, id="quoted"),
        pytest.param("_Yes_", True, id="italic"),
        pytest.param("\\boxed{No}", False, id="boxed"),
        pytest.param("\\text{Yes}", True, id="latex_text"),
        pytest.param("Verdict:Yes", True, id="after_a_colon"),
        pytest.param("Yes, it can be solved.\nNo", False, id="last_one_wins_no"),
        pytest.param("No condition is missing, and there is no contradiction.\n\nYes", True, id="last_one_wins_yes"),
        pytest.param("Yes or No? I say: Yes", True, id="repeats_the_asking"),
        pytest.param("Yes.\nYes.\nNo.\n\n\n", False, id="blank_lines_at_the_end"),
        # "No" as a determiner is no verdict.
        pytest.param("Yes, there is no missing condition.", True, id="no_inside_a_sentence"),
        pytest.param("Yes. All conditions are given and there is no contradiction.", True, id="no_contradiction"),
        pytest.param("The problem has no real solutions, so I keep", None, id="no_real_solutions"),
        pytest.param("No solution exists.", None, id="a_sentence_that_begins_with_the_determiner"),
        pytest.param("We conclude: no such number exists.", None, id="determiner_after_a_colon"),
        pytest.param("No, because a number is missing.", False, id="no_and_its_reason"),
        pytest.param("No it cannot be solved", False, id="no_without_a_comma"),
        pytest.param("Answer: No (missing data)", False, id="reason_in_brackets"),
        pytest.param("So the answer is no, since the price is missing.", False, id="answer_is_no_since"),
        pytest.param("Thus, yes, the problem is solvable.", True, id="thus_yes"),
        pytest.param("It can be solved, so yes.", True, id="at_the_end_of_a_sentence"),
        pytest.param("I must answer yes or no.", None, id="repeats_the_choice_alone"),
        # A line that is nothing but the verdict wins over a later note, and the last such line over an earlier one.
        pytest.param("Yes\n\nNote: no further data are needed.", True, id="note_after_the_verdict"),
        pytest.param("Yes\nNote: no, one could also guess.", True, id="note_with_a_verdict_of_its_own"),
        pytest.param(
            "No\nOn reflection it is solvable.\nThe answer is yes.", True, id="labelled_line_is_a_verdict_line"
        ),
        pytest.param("1. Yes, it is.\n2. No contradiction.\n\n\\boxed{\\text{Yes}}", True, id="numbered_points"),
        pytest.param("<think>No, it lacks a price. Yes?</think>\nYes", True, id="thinking_does_not_count"),
        pytest.param("<think>Yes", None, id="unfinished_thinking"),
        pytest.param("yesterday", None, id="yesterday_is_no_yes"),
        pytest.param("Tom bought them yesterday. Nothing is known, not even now.", None, id="no_inside_words"),
        pytest.param("Noon. Nobody knows. Eyes.", None, id="only_inside_words"),
        pytest.param("nº 5", None, id="number_sign_is_no_no"),
        pytest.param("", None, id="empty"),
        pytest.param("42", None, id="number"),
        pytest.param("It can be solved.", None, id="sentence_without_a_verdict"),
        pytest.param("Yesno", None, id="run_together"),
        pytest.param("Sí", None, id="other_language"),
    ],
)
def test_the_verdict_is_that_of_the_last_line_that_gives_one(completion: str, verdict: bool | None):
    assert parse_verdict(completion, "reasoned") is verdict


@pytest.mark.parametrize(
    ("completion", "verdict"),
    [
        ("Yes", True),
        (" no", False),
        ("**Yes**", True),
        ("Yes, 3 + 4 is 7. No", True),
        ("No\nYes", False),
        ("Answer: Yes", True),
        ("No problem here", None),
        ("The story begins. Yes", None),
        ("Is a number missing? No. Then", None),
        ("", None),
    ],
)
def test_the_first_word_is_the_verdict_where_one_word_was_asked_for(completion: str, verdict: bool | None):
    assert parse_verdict(completion, "few_shot") is verdict


@pytest.mark.parametrize("style", ["few_shot", "reasoned"])
@pytest.mark.parametrize(
    "text", ["Yes", "Is a number missing? No. Then", "The problem has no real solutions, so I keep"]
)
def test_an_answer_that_was_cut_is_no_verdict(style: str, text: str):
    assert judge.judged_row({"id": "a"}, cut(text), style)["verdict"] == "no_verdict"


@pytest.mark.parametrize(
    "text",
    ["\n" * 4_000 + "- " * 1_000, "so " * 3_000, "the answer " * 2_000, "no " * 4_000, "<think>" * 2_000, "(" * 5_000],
)
@pytest.mark.parametrize("style", ["few_shot", "reasoned"])
def test_a_runaway_is_read_at_once(text: str, style: str):
    # A model that repeats one token until max_tokens is common; a pattern that backtracks over it takes minutes per shard.
    started = time.perf_counter()
    parse_verdict(text, style)
    # Linear reading takes under 1 ms; quadratic backtracking took 0.4 to 1.1 s.
    assert time.perf_counter() - started < 0.2
