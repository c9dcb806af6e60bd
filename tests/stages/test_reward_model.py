import json
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

from scalequest.domains.maths import solve_prompt
from scalequest.errors import UserError
from scalequest.models.chat import ChatFormat
from scalequest.params import Params
from scalequest.records import ATTEMPT, PROBLEM, write_rows
from scalequest.runtime.stage import StageRun
from scalequest.training.job import Trained
from stages import reward_model
from stages.reward_model import answer_pairs, main
from tests.fakes import changed

PROBLEM_ROW = {"id": "a/0", "source": "a", "stratum": "", "question": "Q?", "solution": "seed's own", "answer": "1"}


def attempt(response: str, outcome: str, finish_reason: str = "stop", problem: str = "a/0") -> dict[str, Any]:
    return {
        "problem_id": problem, "sample": 0, "response": response, "finish_reason": finish_reason, "final_answer": "",
        "outcome": outcome,
    }  # fmt: skip


def texts(chat: ChatFormat, attempts: list[dict[str, Any]], most: int = 9) -> list[tuple[str, str]]:
    pairs = answer_pairs(chat, solve_prompt("Q?"), PROBLEM_ROW, attempts, most)
    return [(chat.decode(p.chosen), chat.decode(p.rejected)) for p in pairs]


@pytest.mark.parametrize(
    ("attempts", "most", "pairs"),
    [
        pytest.param([("r", "right"), ("w", "wrong")], 9, [("r", "w")], id="sampled_right_before_the_seeds_own"),
        pytest.param([("w", "wrong")], 9, [("seed's own", "w")], id="seeds_own_where_no_sample_is_right"),
        # Two right ones (one sampled, one the seed's own) take turns over three wrong ones.
        pytest.param(
            [("r", "right"), ("w", "wrong"), ("x", "wrong"), ("y", "wrong")], 9, [("r", "w"), ("seed's own", "x"), ("r", "y")],
            id="right_ones_take_turns",
        ),
        pytest.param([("w", "wrong"), ("x", "wrong"), ("y", "wrong")], 2, [("seed's own", "w"), ("seed's own", "x")], id="at_most_so_many"),
        pytest.param([("w", "wrong"), ("w", "wrong")], 9, [("seed's own", "w")], id="equal_samples_once"),
        pytest.param([("r", "right")], 9, [], id="nothing_wrong_no_pair"),
        pytest.param([("n", "no_answer")], 9, [("seed's own", "n")], id="no_answer_is_wrong"),
        pytest.param([("t", "timeout")], 9, [], id="undecided_is_not_wrong"),
        pytest.param([], 9, [], id="no_attempt"),
    ],
)  # fmt: skip
def test_right_solutions_are_set_against_wrong_ones(chatml: ChatFormat, attempts, most: int, pairs):
    assert texts(chatml, [attempt(*a) for a in attempts], most) == pairs


def test_cut_samples_take_no_part(chatml: ChatFormat):
    attempts = [attempt("r", "right", "length"), attempt("w", "wrong", "length"), attempt("x", "wrong")]
    assert texts(chatml, attempts) == [("seed's own", "x")]


def test_a_pair_is_read_as_the_scorer_will_read_it(chatml: ChatFormat):
    [pair] = answer_pairs(chatml, solve_prompt("Q?"), PROBLEM_ROW, [attempt("r", "right"), attempt("w", "wrong")], 1)
    # With the asking for a boxed answer, and without an end token: what stages.reward hands to the model.
    assert pair.prompt == chatml.user_turn(solve_prompt("Q?"))
    assert pair.prompt + pair.chosen == chatml.solution(solve_prompt("Q?"), "r")
    assert pair.prompt + pair.rejected == chatml.solution(solve_prompt("Q?"), "w")


@pytest.fixture
def stage(tmp_path: Path, laptop: Params, chatml: ChatFormat, monkeypatch: pytest.MonkeyPatch):
    """Run the stage with n problems of one right and one wrong answer, and a model that gives these scores."""

    def run(n: int, score=lambda text: 0.0, **settings: Any):
        seen = {}

        def train(run, kind, base, out, pairs, params, probe):
            seen.update(train=pairs, probe=[chatml.decode(ids) for ids in probe])
            return Trained({"examples": len(pairs)}, [], [score(text) for text in seen["probe"]])

        monkeypatch.setattr(reward_model, "load_chat", lambda base: chatml)
        monkeypatch.setattr(reward_model, "train", train)
        problems = [PROBLEM_ROW | {"id": f"a/{i}", "question": f"Q{i}?"} for i in range(n)]
        attempts = [attempt(o, o, problem=f"a/{i}") for i in range(n) for o in ("right", "wrong")]
        write_rows(tmp_path / "seeds.parquet", problems, PROBLEM)
        write_rows(tmp_path / "attempts", attempts, ATTEMPT)
        base = tmp_path / "base"
        base.mkdir(exist_ok=True)
        (base / "config.json").write_text("{}")
        args = Namespace(
            base=base, seeds=tmp_path / "seeds.parquet", attempts=tmp_path / "attempts", out=tmp_path / "out",
            metrics=tmp_path / "m.json",
        )  # fmt: skip
        main(args, StageRun(changed(laptop, reward_model={"method": "full", "holdout_frac": 0.3} | settings)))
        return seen, json.loads((tmp_path / "m.json").read_text())

    return run


def test_problems_are_held_out_whole(stage, chatml: ChatFormat):
    seen, metrics = stage(30)
    trained = {chatml.decode(p.prompt) for p in seen["train"]}
    assert len(trained) + metrics["held_out"]["pairs"] == 30
    # Right and wrong alternate, each with its prompt.
    assert len(seen["probe"]) == 2 * metrics["held_out"]["pairs"]
    assert all(text.endswith("right") for text in seen["probe"][::2])
    assert not [text for text in seen["probe"] if any(text.startswith(prompt) for prompt in trained)]


@pytest.mark.parametrize(
    ("score", "accuracy", "coin"),
    [
        pytest.param(lambda text: float(text.endswith("right")), 1.0, 0, id="good"),
        pytest.param(lambda text: float(text.endswith("wrong")), 0.0, 1, id="upside_down"),
        pytest.param(lambda text: 0.0, 0.0, 1, id="a_tie_is_not_right"),
    ],
)
def test_accuracy_on_held_out_seeds_is_reported(stage, score, accuracy: float, coin: int):
    _, metrics = stage(30, score)
    assert metrics["held_out"]["accuracy"] == accuracy
    assert metrics["warnings"] == {"coin_reward": coin}


def test_too_few_pairs_to_split_are_refused(stage):
    with pytest.raises(UserError, match="1 of 1 labelled seeds have a wrong answer to set against a right one"):
        stage(1)


def test_method_none_takes_the_fetched_model_as_it_is(stage, tmp_path: Path):
    seen, metrics = stage(3, method="none")
    assert seen == {}
    assert metrics == {"examples": 0}
    assert (tmp_path / "out" / "config.json").read_text() == "{}"
