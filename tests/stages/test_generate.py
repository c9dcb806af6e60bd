import json
from argparse import Namespace
from pathlib import Path

import pyarrow as pa
import pytest

from scalequest.errors import UserError
from scalequest.models.chat import ChatFormat
from scalequest.params import Params
from scalequest.records import QUESTION, read_rows, table
from scalequest.runtime.stage import StageRun
from scalequest.sampling import questions
from scalequest.sampling.questions import question_metrics, question_rows
from scalequest.seeding import shard_seed
from stages import generate, qpo_questions
from tests.fakes import QueueEngine, changed, cut, stopped


def sampled(*completions) -> pa.Table:
    engine = QueueEngine(None, completions)
    engine.chat = type("Chat", (), {"decode": staticmethod(str)})
    return table(question_rows("sums", len(completions), 0, 1, [1], engine.complete(None)), QUESTION)


def test_a_row_keeps_the_raw_completion_and_says_how_it_ended():
    rows = sampled(" Tom has 3.\n", cut("Ann has")).to_pylist()
    assert rows[0] == {
        "id": "sums/0/0", "generator": "sums", "question": "Tom has 3.", "completion": " Tom has 3.\n",
        "finish_reason": "stop", "n_tokens": 13, "seed": 1,
    }  # fmt: skip
    # Cut at max_tokens: marked, so that no later stage uses it (docs/paper-differences.md, 5).
    assert (rows[1]["id"], rows[1]["finish_reason"]) == ("sums/0/1", "length")


def test_equal_questions_stay_rows_of_their_own():
    assert sampled("Same?", "Same?", "Same?")["id"].to_pylist() == ["sums/0/0", "sums/0/1", "sums/0/2"]


@pytest.mark.parametrize(
    ("stage", "section"), [(generate, "generate"), (qpo_questions, "qpo_questions")], ids=["generate", "qpo_questions"]
)
def test_the_open_users_turn_alone_is_asked_in_seeded_shards(
    stage, section: str, tmp_path: Path, laptop: Params, chatml: ChatFormat, monkeypatch: pytest.MonkeyPatch
):
    engine = QueueEngine(chatml, ["A?", "B?", "C?", cut("D"), "A?"])
    monkeypatch.setattr(questions, "Engine", engine)
    params = changed(laptop, generate={"shard_size": 3}, qpo_questions={"shard_size": 3, "n_questions": 5})
    sums = params.generators["sums"].model_copy(update={"n_questions": 5})
    params = params.model_copy(update={"generators": {"sums": sums}})
    args = Namespace(
        generator="sums", model=tmp_path / "model", out=tmp_path / "questions", metrics=tmp_path / "m.json"
    )
    stage.main(args, StageRun(params))
    # Nothing but the template up to the user's words, no two shards with one seed.
    assert set(engine.prompts) == {chatml.decode(chatml.question_prefix)}
    assert [(len(prompts), seed) for prompts, seed in engine.calls] == [
        (3, shard_seed(laptop.seed, "by-hand", 0)),
        (2, shard_seed(laptop.seed, "by-hand", 1)),
    ]
    rows = read_rows(tmp_path / "questions", QUESTION)
    assert [r["id"] for r in rows] == ["sums/0/0", "sums/0/1", "sums/0/2", "sums/1/0", "sums/1/1"]
    assert [r["seed"] for r in rows] == [engine.calls[0][1]] * 3 + [engine.calls[1][1]] * 2
    metrics = json.loads((tmp_path / "m.json").read_text())
    assert metrics["questions"] == 5
    assert metrics["cut_at_max_tokens"] == 1
    # A, B, C and A again ended by themselves: 3 distinct of 4.
    assert metrics["distinct_frac"] == 0.75


def test_counts_of_what_is_unusable():
    metrics, warnings = question_metrics(sampled("A?", "", stopped(" \n"), cut("B"), "A?", "C?"))
    assert metrics == {
        "questions": 6,
        "cut_at_max_tokens": 1,
        "empty": 2,
        "distinct_frac": round(2 / 3, 6),  # A, C of A, A, C
        # One token a character and the end token, none where cut: 3 + 1 + 3 + 1 + 3 + 3.
        "mean_tokens": round(14 / 6, 2),
    }
    assert warnings == {"one_question": False, "no_end": False}


@pytest.mark.parametrize(
    ("completions", "warnings"),
    [
        pytest.param(["A?", "A?", "A?"], {"one_question": True, "no_end": False}, id="one_and_the_same"),
        pytest.param(["A?"] * 19 + ["B?"], {"one_question": True, "no_end": False}, id="one_other_question_is_no_variety"),
        pytest.param(["A?", "B?", cut("C"), cut("D"), cut("E")], {"one_question": False, "no_end": True}, id="most_are_cut"),
        pytest.param(["A?", "B?", cut("C"), cut("D")], {"one_question": False, "no_end": False}, id="half_are_cut"),
    ],
)  # fmt: skip
def test_a_useless_generator_is_warned_of(completions: list, warnings: dict[str, bool]):
    assert question_metrics(sampled(*completions))[1] == warnings


def test_no_usable_question_is_an_error_that_says_why():
    with pytest.raises(UserError, match=r"0 of 3 sampled questions are usable \(2 cut at max_tokens, 1 empty\)"):
        question_metrics(sampled(cut("A"), cut("B"), ""))
