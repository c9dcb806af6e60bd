import random
from argparse import Namespace
from pathlib import Path

import pytest

from scalequest.errors import UserError
from scalequest.models.chat import ChatFormat
from scalequest.params import Params
from scalequest.records import ATTEMPT, PROBLEM, write_rows
from scalequest.runtime.stage import StageRun
from scalequest.training.examples import hold_out
from scalequest.training.job import Trained
from stages import difficulty_model
from stages.difficulty_model import held_out_metrics, labelled, main
from tests.fakes import changed


def noise(n: int, seed: int) -> list[float]:
    generator = random.Random(seed)
    return [generator.random() for _ in range(n)]


def test_a_good_scorer_is_not_warned_of():
    labels = noise(50, 1)
    metrics, warnings = held_out_metrics([0.9 * y + 0.05 for y in labels], labels, 0.5)
    assert warnings == {"no_correlation": False}
    assert metrics["spearman"] == 1.0
    assert metrics["spearman_standard_error"] == pytest.approx((1.06 / 47) ** 0.5, abs=1e-6)
    assert metrics["mse"] < metrics["mse_of_the_mean"]
    assert metrics["mse_below_the_mean_by"] == pytest.approx(metrics["mse_of_the_mean"] - metrics["mse"], abs=1e-6)


@pytest.mark.parametrize(
    ("scores", "labels"),
    [
        pytest.param(noise(203, 2), noise(203, 3), id="noise"),
        pytest.param([0.5] * 30, noise(30, 1), id="constant"),
        pytest.param([1 - y for y in noise(30, 1)], noise(30, 1), id="upside_down"),
        # Ranks 7 items by luck: rank correlation 0.71 is 1.7 standard errors.
        pytest.param([1, 2, 3, 4, 5, 6, 7], [2, 4, 1, 3, 7, 5, 6], id="few_items"),
        pytest.param([2.0, 3.0], [2.0, 3.0], id="two_items"),
        # Perfect ranks, but always 3 too high.
        pytest.param([y + 3 for y in noise(30, 1)], noise(30, 1), id="worse_than_the_mean"),
    ],
)
def test_a_scorer_that_a_coin_could_be_is_warned_of(scores: list[float], labels: list[float]):
    mean = sum(labels) / len(labels)
    assert held_out_metrics(scores, labels, mean)[1] == {"no_correlation": True}


def test_the_published_scorer_is_warned_of():
    # Rank correlation 0.094 on 203 seeds, squared error 0.0233 against 0.0217 for the mean: no flag was up.
    labels = noise(203, 5)
    mixed = [0.15 * y + 0.85 * x for x, y in zip(noise(203, 6), labels, strict=True)]
    metrics, warnings = held_out_metrics(mixed, labels, sum(labels) / 203)
    assert 0 < metrics["spearman"] < 2 * metrics["spearman_standard_error"]
    assert warnings == {"no_correlation": True}


def test_the_input_is_the_question_alone_and_only_labelled_seeds_take_part(chatml: ChatFormat):
    seeds = [
        {"id": "a/0", "question": "A?", "solution": "secret"},
        {"id": "a/1", "question": "B?", "solution": "secret"},
    ]
    texts = labelled(chatml, seeds, {"a/1": 0.25})
    assert list(texts) == ["a/1"]
    assert texts["a/1"].ids == chatml.user_turn("B?")
    assert texts["a/1"].label == 0.25


def test_the_held_out_share_moves_no_id_across_when_data_grow():
    ids = [f"a/{i}" for i in range(1_000)]
    train, held_out = hold_out(ids, 0.2, 17)
    assert sorted(train + held_out) == sorted(ids)
    # 200 expected, standard deviation sqrt(1,000 * 0.2 * 0.8) = 12.6; four of them.
    assert abs(len(held_out) - 200) < 51
    more_train, more_held_out = hold_out([f"a/{i}" for i in range(2_000)], 0.2, 17)
    assert set(train) <= set(more_train)
    assert set(held_out) <= set(more_held_out)
    assert hold_out(ids, 0.2, 18)[1] != held_out


@pytest.fixture
def stage(tmp_path: Path, laptop: Params, chatml: ChatFormat, monkeypatch: pytest.MonkeyPatch):
    """Run the stage with a trainer that remembers its examples and gives these scores to the held-out ones."""

    def run(n: int, score=lambda text: text.label, frac: float = 0.3):
        seen = {}

        def train(run, kind, base, out, texts, params, probe):
            by_ids = {tuple(t.ids): t for t in all_texts.values()}
            seen.update(train=texts, probe=probe)
            return Trained({"examples": len(texts)}, [], [score(by_ids[tuple(ids)]) for ids in probe])

        problems = [
            {"id": f"a/{i}", "source": "a", "stratum": "", "question": f"Q{i}?", "solution": "", "answer": "1"}
            for i in range(n)
        ]
        # Seed i fails i of n samples: all rates differ.
        attempts = [
            {"problem_id": f"a/{i}", "sample": k, "response": "", "finish_reason": "stop", "final_answer": "",
             "outcome": "wrong" if k < i else "right"}
            for i in range(n) for k in range(n)
        ]  # fmt: skip
        all_texts = labelled(chatml, problems, {f"a/{i}": i / n for i in range(n)})
        monkeypatch.setattr(difficulty_model, "load_chat", lambda base: chatml)
        monkeypatch.setattr(difficulty_model, "train", train)
        write_rows(tmp_path / "seeds.parquet", problems, PROBLEM)
        write_rows(tmp_path / "attempts", attempts, ATTEMPT)
        args = Namespace(
            base=tmp_path, seeds=tmp_path / "seeds.parquet", attempts=tmp_path / "attempts", out=tmp_path / "out",
            metrics=tmp_path / "m.json", plot=tmp_path / "p.csv",
        )  # fmt: skip
        stage_run = StageRun(changed(laptop, difficulty_model={"holdout_frac": frac}))
        main(args, stage_run)
        return seen, stage_run.logged

    return run


def test_held_out_seeds_are_not_trained_on_and_are_what_is_scored(stage):
    seen, metrics = stage(20)
    trained = {tuple(t.ids) for t in seen["train"]}
    probed = {tuple(ids) for ids in seen["probe"]}
    assert len(trained) + len(probed) == 20
    assert not trained & probed
    assert metrics["held_out.problems"] == len(probed) > 1


def test_the_correlation_on_held_out_seeds_is_reported(stage):
    _, right = stage(20)
    assert (right["held_out.spearman"], right["held_out.mse"], right["warnings.no_correlation"]) == (1.0, 0.0, 0.0)
    _, wrong = stage(20, score=lambda text: 1 - text.label)
    assert (wrong["held_out.spearman"], wrong["warnings.no_correlation"]) == (-1.0, 1.0)
    _, constant = stage(20, score=lambda text: 0.5)
    assert (constant["held_out.spearman"], constant["warnings.no_correlation"]) == (0.0, 1.0)


def test_a_split_without_enough_on_both_sides_is_refused(stage):
    with pytest.raises(UserError, match=r"3 labelled seeds give .* Raise difficulty_labels\.n_seeds"):
        stage(3, frac=0.001)
