import json
from argparse import Namespace
from pathlib import Path

import pytest

from scalequest.domains.maths import solve_prompt
from scalequest.models.chat import ChatFormat
from scalequest.params import Params
from scalequest.records import FILTERED, RESPONSE, read_rows, write_rows
from scalequest.runtime.stage import StageRun
from scalequest.sampling import sample as sampling
from scalequest.seeding import row_seed
from stages import respond
from stages.respond import distinct_responses
from tests.fakes import QueueEngine, changed, cut


@pytest.fixture
def stage(tmp_path: Path, laptop: Params, chatml: ChatFormat, monkeypatch: pytest.MonkeyPatch):
    def run(n_questions: int, answers: list, n_samples: int = 2, form: str = "worked"):
        engine = QueueEngine(chatml, answers)
        monkeypatch.setattr(sampling, "Engine", engine)
        rows = [
            {"id": f"sums/0/{i}", "generator": "sums", "question": f"Q{i}?", "difficulty": 0.5} for i in range(n_questions)
        ]  # fmt: skip
        write_rows(tmp_path / "filtered.parquet", rows, FILTERED)
        args = Namespace(
            model=tmp_path, questions=tmp_path / "filtered.parquet", out=tmp_path / "responses", metrics=tmp_path / "m.json"
        )  # fmt: skip
        respond.main(args, StageRun(changed(laptop, respond={"n_samples": n_samples, "shard_size": 2, "form": form})))
        return engine, read_rows(tmp_path / "responses", RESPONSE), json.loads((tmp_path / "m.json").read_text())

    return run


def test_the_solver_is_asked_in_the_form_of_the_run(stage):
    engine, _, _ = stage(1, ["one"], n_samples=1, form="short")
    [prompt] = engine.prompts
    assert prompt == engine.chat.decode(engine.chat.user_turn(solve_prompt("Q0?", "short")))
    assert prompt != engine.chat.decode(engine.chat.user_turn(solve_prompt("Q0?")))


def test_each_question_is_asked_n_times_and_every_response_is_kept(stage, laptop: Params):
    engine, rows, metrics = stage(3, [" one\n", cut("tw"), "three", "three", "four", ""])
    asked = [engine.chat.decode(engine.chat.user_turn(solve_prompt(f"Q{i}?"))) for i in range(3)]
    assert engine.prompts == [asked[0], asked[0], asked[1], asked[1], asked[2], asked[2]]
    # Two questions per shard, all their samples in one call, each with the seed of its row and number.
    seeds = [row_seed(laptop.seed, "by-hand", f"sums/0/{i}#{k}") for i in range(3) for k in range(2)]
    assert [seed for _, seed in engine.calls] == [seeds[:4], seeds[4:]]
    assert [(r["id"], r["question_id"], r["sample"], r["response"], r["finish_reason"]) for r in rows] == [
        ("sums/0/0#0", "sums/0/0", 0, "one", "stop"),
        ("sums/0/0#1", "sums/0/0", 1, "tw", "length"),
        ("sums/0/1#0", "sums/0/1", 0, "three", "stop"),
        ("sums/0/1#1", "sums/0/1", 1, "three", "stop"),
        ("sums/0/2#0", "sums/0/2", 0, "four", "stop"),
        ("sums/0/2#1", "sums/0/2", 1, "", "stop"),
    ]
    assert metrics == {
        "questions": 3, "responses": 6, "cut_at_max_tokens": 1, "prompt_too_long": 0,
        # One token a character and the end token, none where cut: 6 + 2 + 6 + 6 + 5 + 1.
        "mean_tokens": round(26 / 6, 2),
        # 2, 1 and 2 distinct ones.
        "mean_distinct": round(5 / 3, 4),
        "warnings": {"one_response": 0},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("answers", "n_samples", "flag"),
    [
        pytest.param(["a", "a", "b", "b", "c", "d"], 2, 1, id="most_got_one"),
        pytest.param(["a", "a", "b", "c", "d", "e"], 2, 0, id="some_got_one"),
        pytest.param(["a", "b", "c"], 1, 0, id="one_was_asked_for"),
    ],
)
def test_samples_that_are_all_the_same_are_told(stage, answers: list[str], n_samples: int, flag: int):
    assert stage(3, answers, n_samples)[2]["warnings"] == {"one_response": flag}


def test_distinct_responses_are_counted_by_question():
    rows = [{"question_id": q, "response": r} for q, r in [("a", "x"), ("a", "x"), ("a", "y"), ("b", "x")]]
    assert distinct_responses(rows) == {"a": 2, "b": 1}
