import argparse
import json
from dataclasses import asdict
from typing import Any

import pytest

from scalequest.audit.lock import Stage, read_lock
from scalequest.io import write_json
from scalequest.report import cost
from scalequest.report.cost import cost_of, costs, lines
from scalequest.runtime.environment import Spent, local_file
from tests.audit.pipeline import Pipeline


def stage(name: str, **params: Any) -> Stage:
    return Stage(name, "", (), params, ())


def test_instances_are_summed_and_gpu_hours_are_of_stages_that_run_a_model() -> None:
    half_an_hour = Spent(wall_s=1800.0, gpus=2)
    found = cost_of(
        "qft",
        [
            # Two epochs over 1,000 tokens, and three over 400.
            (stage("qft@a", **{"engine.dtype": "bfloat16", "qft.epochs": 2}), half_an_hour, {"examples": 10, "tokens": 1_000}),
            (stage("qft@b", **{"engine.dtype": "bfloat16", "qft.epochs": 3}), half_an_hour, {"examples": 5, "tokens": 400}),
        ],
    )  # fmt: skip
    assert (found.rows, found.tokens, found.wall_s, found.gpu_hours) == (15, 3_200, 3600.0, 2.0)
    # 3,200 tokens in an hour of stages.
    assert found.tokens_per_s == 0.9
    # A filter sees the GPUs, too, and uses none.
    assert cost_of("screen", [(stage("screen", seed=17), half_an_hour, {"questions": 9})]).gpu_hours == 0


def test_a_generators_own_epochs_count() -> None:
    found = cost_of(
        "qpo",
        [
            (stage("qpo@a", **{"qpo.epochs": 2, "generators.a.qpo.epochs": 3}), None, {"tokens": 1_000}),
            (stage("qpo@b", **{"qpo.epochs": 2, "generators.b.qpo": {}, "generators.a.qpo.epochs": 3}), None, {"tokens": 100}),
            (stage("qpo@c", **{"qpo.epochs": 2, "generators.c.qft.epochs": 9}), None, {"tokens": 10}),
        ],
    )  # fmt: skip
    assert found.tokens == 3_000 + 200 + 20


@pytest.mark.parametrize(
    ("spent", "metrics", "rows", "tokens", "rate"),
    [
        pytest.param(Spent(10, rows=5, tokens=500), {"questions": 5}, 5, 500, 50.0, id="counted_while_it_worked"),
        pytest.param(Spent(10), {"responses": 4, "mean_tokens": 25.0}, 4, 100, None, id="all_was_there"),
        # Three of five rows were there: the whole is known from the metrics, the rate from the two.
        pytest.param(Spent(10, rows=2, resumed=3, tokens=60), {"responses": 5, "mean_tokens": 30.0}, 5, 150, 6.0, id="resumed"),
        pytest.param(None, {"responses": 5, "mean_tokens": 30.0}, 5, 150, None, id="ran_elsewhere"),
        pytest.param(Spent(10, rows=7, tokens=70), {}, 7, 70, 7.0, id="no_count_in_its_metrics"),
    ],
)  # fmt: skip
def test_the_rate_is_of_what_the_time_was_spent_on(
    spent: Spent | None, metrics: dict[str, Any], rows: int, tokens: int, rate: float | None
) -> None:
    found = cost_of("respond", [(stage("respond"), spent, metrics)])
    assert (found.rows, found.tokens, found.tokens_per_s) == (rows, tokens, rate)
    assert (found.known, found.resumed) == (int(spent is not None), bool(spent and spent.resumed))


def test_the_table_has_the_papers_cost_and_says_what_is_not_known() -> None:
    half = cost_of("qft", [(stage("qft@a", engine=1), Spent(3661.4, gpus=1), {}), (stage("qft@b"), None, {})])
    text = lines([half, cost_of("respond", [(stage("respond"), Spent(5, resumed=2), {})])])
    assert text[1].split() == ["qft", "(2)", "–", "–", "1:01:01+", "–", "1.02", "15K", "×", "2", "3.9"]
    assert text[2].split()[:4] == ["respond", "2", "–", "0:00:05*"]
    # Table 4: 3.9 + 0.4 + 6.6 + 38.4 + 110.6 + 251.0 + 112.0.
    assert text[-1].split() == ["all", "1:01:06", "1.02", "522.9"]


def test_only_the_run_that_the_lock_records_counts(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lock = read_lock(pipeline.repository, pipeline.repository.revision("workspace"))
    mine = lock.stages["instruct_tune"]
    write_json(local_file(pipeline.root, mine.name, mine.given), {"spent": asdict(Spent(8.0))})
    write_json(local_file(pipeline.root, "judge", "0" * 16), {"spent": asdict(Spent(99.0))})  # of other inputs
    write_json(local_file(pipeline.root, "reward", lock.stages["reward"].given), {"outs": {}})  # before times were kept
    found = {one.stage: one for one in costs(pipeline.repository, lock)}
    # One epoch over the 40 tokens of its metrics.
    assert (found["instruct_tune"].wall_s, found["instruct_tune"].tokens_per_s) == (8.0, 5.0)
    assert (found["judge"].known, found["judge"].rows, found["reward"].known) == (0, 5, 0)
    monkeypatch.chdir(pipeline.root)
    assert cost.run(argparse.Namespace(json=False)) == 0
    assert "the time of 15 stages is not recorded in this checkout" in capsys.readouterr().out
    assert cost.run(argparse.Namespace(json=True)) == 0
    assert {one["stage"]: one["wall_s"] for one in json.loads(capsys.readouterr().out)}["instruct_tune"] == 8.0
