import json
import time
from argparse import Namespace
from pathlib import Path

import pytest

from scalequest.domains.maths import judge_turns
from scalequest.models.chat import ChatFormat
from scalequest.params import Params
from scalequest.records import JUDGED, SCREENED, read_rows, write_rows
from scalequest.runtime.stage import StageRun
from scalequest.sampling import sample as sampling
from scalequest.sampling.completion import Completion
from stages import judge
from stages.judge import parse_verdict
from tests.fakes import QueueEngine, changed


@pytest.fixture
def stage(tmp_path: Path, laptop: Params, chatml: ChatFormat, monkeypatch: pytest.MonkeyPatch):
    """Judge these questions with these completions; give the engine, the rows and the metrics."""

    def run(verdicts: list[str], answers: list[str | Completion], style: str = "few_shot"):
        engine = QueueEngine(chatml, answers)
        monkeypatch.setattr(sampling, "Engine", engine)
        rows = [
            {"id": f"sums/0/{i}", "generator": "sums", "question": f"Question {i}?", "verdict": v, "matched": "", "evidence": ""}
            for i, v in enumerate(verdicts)
        ]  # fmt: skip
        write_rows(tmp_path / "screened", rows, SCREENED)
        args = Namespace(
            model=tmp_path, screened=tmp_path / "screened", out=tmp_path / "judged", metrics=tmp_path / "m.json"
        )
        judge.main(args, StageRun(changed(laptop, judge={"style": style, "shard_size": 2})))
        return engine, read_rows(tmp_path / "judged", JUDGED), json.loads((tmp_path / "m.json").read_text())

    return run


def test_only_what_screen_kept_is_judged(stage):
    engine, rows, _ = stage(["kept", "language", "kept"], ["Yes", "No"])
    assert [row["id"] for row in rows] == ["sums/0/0", "sums/0/2"]
    assert engine.prompts == [
        engine.chat.decode(engine.chat.conversation(judge_turns(f"Question {i}?", "few_shot"))) for i in (0, 2)
    ]


def test_no_verdict_is_an_outcome_of_its_own(stage):
    # "yesterday" holds a yes, the paper's rule would keep it; the last word decides where both occur.
    answers = ["Yes", "No.", "It was yesterday.", "Yes, but a condition is missing. No"]
    _, rows, metrics = stage(["kept"] * 4, answers, style="reasoned")
    assert [row["verdict"] for row in rows] == ["solvable", "unsolvable", "no_verdict", "unsolvable"]
    assert [row["completion"] for row in rows] == answers
    assert metrics == {
        "questions": 4, "solvable": 1, "unsolvable": 2, "no_verdict": 1, "solvable_frac": 0.25,
        "warnings": {"one_verdict": 0, "no_verdicts": 0},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("answers", "flags"),
    [
        pytest.param(["Yes", "Yes", "Yes"], {"one_verdict": 1, "no_verdicts": 0}, id="always_yes"),
        pytest.param(["?", "?", "No"], {"one_verdict": 0, "no_verdicts": 1}, id="mostly_unreadable"),
        pytest.param(["Yes", "?"], {"one_verdict": 0, "no_verdicts": 0}, id="half_unreadable"),
    ],
)
def test_a_judge_that_decides_nothing_is_told(stage, answers: list[str], flags: dict[str, int]):
    assert stage(["kept"] * len(answers), answers)[2]["warnings"] == flags


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
        # The price of the rule: what counts is the last standalone word, not what the sentence means.
        pytest.param("Yes, there is no missing condition.", False, id="a_no_inside_a_sentence_counts"),
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
def test_the_last_standalone_yes_or_no_is_the_verdict(completion: str, verdict: bool | None):
    assert parse_verdict(completion) is verdict


@pytest.mark.parametrize("read", [parse_verdict])
def test_a_runaway_of_blank_lines_is_read_at_once(read):
    # A model that repeats one token until max_tokens is common; a pattern that backtracks over it takes minutes a shard.
    text = "\n" * 4_000 + "- " * 1_000
    started = time.perf_counter()
    read(text)
    # Linear reading takes under 1 ms; quadratic backtracking took 0.4 to 1.1 s.
    assert time.perf_counter() - started < 0.2
