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
from stages.reward_model import answer_pairs, choosing, main, ranking
from tests.fakes import changed

PROBLEM_ROW = {"id": "a/0", "source": "a", "stratum": "", "question": "Q?", "solution": "seed's own", "answer": "1"}


def attempt(response: str, outcome: str, finish_reason: str = "stop", problem: str = "a/0") -> dict[str, Any]:
    return {
        "problem_id": problem, "sample": 0, "response": response, "finish_reason": finish_reason, "final_answer": "",
        "outcome": outcome,
    }  # fmt: skip


def texts(chat: ChatFormat, attempts: list[dict[str, Any]], most: int = 9, gold: bool = False) -> list[tuple[str, str]]:
    pairs = answer_pairs(chat, solve_prompt("Q?"), PROBLEM_ROW, attempts, most, gold)
    return [(chat.decode(p.chosen), chat.decode(p.rejected)) for p in pairs]


@pytest.mark.parametrize(
    ("attempts", "most", "pairs"),
    [
        pytest.param([("r", "right"), ("w", "wrong")], 9, [("r", "w")], id="both_sides_are_samples"),
        pytest.param([("w", "wrong")], 9, [], id="nothing_right_no_pair"),
        # Two right ones take turns over three wrong ones.
        pytest.param(
            [("r", "right"), ("s", "right"), ("w", "wrong"), ("x", "wrong"), ("y", "wrong")], 9,
            [("r", "w"), ("s", "x"), ("r", "y")], id="right_ones_take_turns",
        ),
        pytest.param([("r", "right"), ("w", "wrong"), ("x", "wrong"), ("y", "wrong")], 2, [("r", "w"), ("r", "x")], id="at_most_that_many"),
        pytest.param([("r", "right"), ("w", "wrong"), ("w", "wrong"), ("r", "right")], 9, [("r", "w")], id="equal_samples_once"),
        pytest.param([("r", "right")], 9, [], id="nothing_wrong_no_pair"),
        pytest.param([("r", "right"), ("n", "no_answer")], 9, [("r", "n")], id="no_answer_is_wrong"),
        pytest.param([("r", "right"), ("t", "timeout")], 9, [], id="undecided_is_not_wrong"),
        pytest.param([], 9, [], id="no_attempt"),
    ],
)  # fmt: skip
def test_right_samples_are_set_against_wrong_ones_of_the_same_model(chatml: ChatFormat, attempts, most: int, pairs):
    assert texts(chatml, [attempt(*a) for a in attempts], most) == pairs


def test_the_seeds_own_solution_is_an_option_where_no_sample_is_right(chatml: ChatFormat):
    wrong = [attempt("w", "wrong"), attempt("x", "wrong")]
    assert texts(chatml, wrong, gold=True) == [("seed's own", "w"), ("seed's own", "x")]
    # With a right sample it takes no part: of 73 pairs of the laptop run 69 had it as the chosen side.
    assert texts(chatml, [attempt("r", "right"), *wrong], gold=True) == [("r", "w"), ("r", "x")]


def test_cut_samples_take_no_part(chatml: ChatFormat):
    attempts = [
        attempt("r", "right", "length"),
        attempt("s", "right"),
        attempt("w", "wrong", "length"),
        attempt("x", "wrong"),
    ]
    assert texts(chatml, attempts) == [("s", "x")]


def test_a_pair_is_read_as_the_scorer_will_read_it(chatml: ChatFormat):
    [pair] = answer_pairs(chatml, solve_prompt("Q?"), PROBLEM_ROW, [attempt("r", "right"), attempt("w", "wrong")], 1)
    # With the asking for a boxed answer, and without an end token: what stages.reward hands to the model.
    assert pair.prompt == chatml.user_turn(solve_prompt("Q?"))
    assert pair.prompt + pair.chosen == chatml.solution(solve_prompt("Q?"), "r")
    assert pair.prompt + pair.rejected == chatml.solution(solve_prompt("Q?"), "w")


@pytest.fixture
def stage(tmp_path: Path, laptop: Params, chatml: ChatFormat, monkeypatch: pytest.MonkeyPatch):
    """Run the stage with n problems of one right and one wrong answer, and a model that gives these scores."""

    def run(n: int, score=lambda text: 0.0, outcomes=("right", "wrong"), **settings: Any):
        seen = {}

        def train(run, kind, base, out, pairs, params, probe):
            seen.update(train=pairs, probe=[chatml.decode(ids) for ids in probe])
            return Trained({"examples": len(pairs)}, [], [score(text) for text in seen["probe"]])

        def engine_scores(run, model, rows, *, sequences, form, shard_size):
            seen.update(model=model, form=form, probe=["\n".join(sequences(row)) for row in rows])
            return [score(text) for text in seen["probe"]]

        monkeypatch.setattr(reward_model, "load_chat", lambda base: chatml)
        monkeypatch.setattr(reward_model, "score", engine_scores)
        monkeypatch.setattr(reward_model, "train", train)
        problems = [PROBLEM_ROW | {"id": f"a/{i}", "question": f"Q{i}?"} for i in range(n)]
        attempts = [
            attempt(o, o, problem=f"a/{i}") | {"sample": k, "final_answer": o}
            for i in range(n) for k, o in enumerate(outcomes)
        ]  # fmt: skip
        write_rows(tmp_path / "seeds.parquet", problems, PROBLEM)
        write_rows(tmp_path / "attempts", attempts, ATTEMPT)
        base = tmp_path / "base"
        base.mkdir(exist_ok=True)
        (base / "config.json").write_text("{}")
        args = Namespace(
            base=base, seeds=tmp_path / "seeds.parquet", attempts=tmp_path / "attempts", out=tmp_path / "out",
            metrics=tmp_path / "m.json", plot=tmp_path / "p.csv",
        )  # fmt: skip
        main(args, StageRun(changed(laptop, reward_model={"method": "full", "holdout_frac": 0.3} | settings)))
        return seen, json.loads((tmp_path / "m.json").read_text())

    return run


def test_problems_are_held_out_whole(stage, chatml: ChatFormat):
    seen, metrics = stage(30)
    trained = {chatml.decode(p.prompt) for p in seen["train"]}
    held = metrics["held_out"]
    assert len(trained) + held["problems"] == 30
    assert held["problems_with_pairs"] == held["problems"]
    # Every sample of a held-out seed is scored, with its prompt.
    assert len(seen["probe"]) == 2 * held["problems"]
    assert not [text for text in seen["probe"] if any(text.startswith(prompt) for prompt in trained)]


def good(text: str) -> float:
    return float(text.endswith("right"))


@pytest.mark.parametrize(
    ("score", "accuracy", "flag"),
    [
        pytest.param(good, 1.0, 0, id="good"),
        pytest.param(lambda text: -good(text), 0.0, 1, id="upside_down"),
        pytest.param(lambda text: 0.0, 0.0, 1, id="a_tie_is_not_right"),
    ],
)
def test_right_samples_of_held_out_seeds_should_rank_above_wrong_ones(stage, score, accuracy: float, flag: int):
    _, metrics = stage(60, score, ("wrong", "right", "wrong"))
    held = metrics["held_out"]
    assert held["accuracy"] == accuracy
    assert held["pairs"] == 2 * held["problems"]
    assert held["accuracy_standard_error"] > 0
    assert metrics["warnings"] == {"coin_reward": flag, "best_of_n_is_random": flag}
    best = metrics["best_of_n"]
    assert best["problems"] == held["problems"]
    # Of three samples one is right; the first is wrong, and two agree on the wrong answer.
    assert best["random"]["right_frac"] == pytest.approx(1 / 3, abs=1e-6)
    assert best["first"]["right_frac"] == best["majority"]["right_frac"] == 0.0
    assert best["any"]["right_frac"] == 1.0
    assert best["reward"]["right_frac"] == accuracy
    assert best["reward_minus_random"]["value"] == pytest.approx(accuracy - 1 / 3, abs=1e-6)
    assert list(metrics["by_difficulty"]) == ["few_right"]
    few = metrics["by_difficulty"]["few_right"]
    assert few["problems"] == best["problems"]
    assert few["reward"]["right_frac"] == accuracy
    assert few["reward"]["standard_error"] > 0, "no choice of few seeds is certain"
    assert few["majority"]["right_frac"] == 0.0


def test_where_no_choice_is_better_seeds_are_counted_alone():
    attempts = {"a": samples(("right", 1.0), ("right", 0.0)), "b": samples(("wrong", 1.0), ("wrong", 0.0))}
    found = choosing("maths", attempts, 0)[0]["by_difficulty"]
    assert found == {"none_right": {"problems": 1}, "all_right": {"problems": 1}}


def samples(*rewards: tuple[str, float]) -> list[dict[str, Any]]:
    return [
        {"outcome": o, "reward": r, "sample": k, "final_answer": o, "finish_reason": "stop"}
        for k, (o, r) in enumerate(rewards)
    ]


def test_a_coin_is_warned_of_whatever_side_it_falls_on():
    # The laptop run: 20 of 45 right above wrong; 10 of 11 pairs of one seed are one seed's opinion.
    coin = {str(i): samples(("right", float(i < 20)), ("wrong", 0.5)) for i in range(45)}
    metrics, flags = ranking(coin)
    assert (metrics["pairs"], metrics["accuracy"]) == (45, round(20 / 45, 6))
    assert flags == {"coin_reward": True}
    assert ranking({str(i): samples(("right", float(i < 28)), ("wrong", 0.5)) for i in range(45)})[1] == {
        "coin_reward": True
    }
    assert ranking({str(i): samples(("right", float(i < 35)), ("wrong", 0.5)) for i in range(45)})[1] == {
        "coin_reward": False
    }
    one = {"a": samples(*[("right", 1.0)] * 11, ("wrong", 0.0))}
    assert ranking(one) == (
        {
            "pairs": 11,
            "problems_with_pairs": 1,
            "accuracy": 1.0,
            "accuracy_standard_error": pytest.approx(0.219, abs=1e-3),
        },
        {"coin_reward": True},
    )


def test_without_a_pair_nothing_is_known():
    metrics, flags = ranking({"a": samples(("right", 1.0)), "b": samples(("wrong", 1.0), ("timeout", 0.0))})
    assert (metrics["problems_with_pairs"], metrics["accuracy"]) == (0, None)
    assert flags == {"coin_reward": True}
    nothing = {"best_of_n": {"problems": 0}, "by_difficulty": {}}
    assert choosing("maths", {}, 0) == (nothing, {"best_of_n_is_random": True})


def test_best_of_n_that_is_right_by_luck_is_warned_of():
    # Half of 40 seeds: reward chooses the right one of two; random is right in half of the cases, too.
    coin = {str(i): samples(("right", float(i % 2)), ("wrong", 0.5)) for i in range(40)}
    metrics, flags = choosing("maths", coin, 0)
    best = metrics["best_of_n"]
    assert best["reward"]["right_frac"] == best["random"]["right_frac"] == 0.5
    assert flags == {"best_of_n_is_random": True}
    sure = {str(i): samples(("right", float(i % 10 > 0)), ("wrong", 0.5)) for i in range(40)}
    assert choosing("maths", sure, 0)[1] == {"best_of_n_is_random": False}


def test_too_few_pairs_to_train_are_refused(stage):
    with pytest.raises(UserError, match=r"0 right/wrong pairs from .* set reward_model\.gold"):
        stage(30, outcomes=("wrong", "wrong"))


def test_the_seeds_own_solutions_make_pairs_where_asked_for(stage):
    seen, metrics = stage(30, outcomes=("wrong", "wrong"), gold=True)
    assert len(seen["train"]) > 0
    # The test stays one of samples: no sample is right, so nothing is known.
    assert metrics["held_out"]["accuracy"] is None
    assert metrics["warnings"] == {"coin_reward": 1, "best_of_n_is_random": 1}


@pytest.mark.parametrize(
    ("score", "accuracy", "flag"),
    [pytest.param(good, 1.0, 0, id="good"), pytest.param(lambda text: 0.0, 0.0, 1, id="no_better_than_random")],
)
def test_method_none_takes_the_fetched_model_as_it_is_and_measures_it(
    stage, tmp_path: Path, score, accuracy: float, flag: int
):
    seen, metrics = stage(40, score, ("wrong", "right", "wrong"), method="none")
    assert (tmp_path / "out" / "config.json").read_text() == "{}"
    # Read in the form that stages.reward uses for a released model; no seed was trained on, so all are tested.
    assert (seen["model"], seen["form"]) == (tmp_path / "base", "answered")
    assert seen["probe"][1] == f"{solve_prompt('Q0?')}\nright"
    assert "train" not in seen
    assert metrics["examples"] == 0
    assert metrics["held_out"]["problems"] == 40
    assert metrics["held_out"]["accuracy"] == accuracy
    assert metrics["best_of_n"]["reward"]["right_frac"] == accuracy
    assert metrics["best_of_n"]["random"]["right_frac"] == pytest.approx(1 / 3, abs=1e-6)
    assert metrics["warnings"] == {"coin_reward": flag, "best_of_n_is_random": flag}


def test_a_released_model_with_nothing_to_be_measured_on_is_flagged(stage):
    _, metrics = stage(5, good, ("timeout",), method="none")
    assert metrics["held_out"]["accuracy"] is None
    assert metrics["warnings"] == {"coin_reward": 1, "best_of_n_is_random": 1}
