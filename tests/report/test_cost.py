import argparse
import html
import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from scalequest.audit.lock import Stage, read_lock
from scalequest.errors import UserError
from scalequest.io import write_json
from scalequest.report import cost
from scalequest.report.cost import (
    BEFORE,
    DAMAGED,
    ELSEWHERE,
    OTHERS,
    Ran,
    build,
    cost_of,
    costs,
    lines,
    parameters_in,
    records_of,
    share_of,
    table_rows,
    trainings,
)
from scalequest.report.page import html_page
from scalequest.runtime.environment import Spent, local_file
from tests.audit.pipeline import Pipeline
from tests.fakes import ROOT
from tests.report.finished import Page


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
    found = {one.stage: one for one in costs(records_of(pipeline.repository, lock))}
    # One epoch over the 40 tokens of its metrics.
    assert (found["instruct_tune"].wall_s, found["instruct_tune"].tokens_per_s) == (8.0, 5.0)
    assert (found["judge"].known, found["judge"].rows, found["reward"].known) == (0, 5, 0)
    monkeypatch.chdir(pipeline.root)
    assert cost.run(argparse.Namespace(json=False, page=None)) == 0
    assert "the time of 15 stages is not recorded in this checkout" in capsys.readouterr().out
    assert cost.run(argparse.Namespace(json=True, page=None)) == 0
    assert {one["stage"]: one["wall_s"] for one in json.loads(capsys.readouterr().out)}["instruct_tune"] == 8.0


# ---------------------------------------------------------------------------------------------------------- the page

GPU = "gpu: NVIDIA H100 80GB HBM3"
BF16 = {"engine.dtype": "bfloat16"}


def cells(text: str) -> list[list[str]]:
    """The tables of a page, row by row, as a reader sees them."""
    rows = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in re.findall(r"<tr>(.*?)</tr>", text)]
    return [[html.unescape(re.sub("<[^>]*>", "", cell)) for cell in row] for row in rows]


def test_the_page_has_the_numbers_of_the_printed_table() -> None:
    found = [
        cost_of("qft", [(stage("qft@a", engine=1), Spent(3661.4, gpus=1), {"tokens": 7_000}), (stage("qft@b"), None, {})]),
        cost_of("respond", [(stage("respond"), Spent(5, resumed=2), {})]),
        cost_of("judge", [(stage("judge"), None, {"questions": 5})]),
    ]  # fmt: skip
    text = html_page(build(found, []))
    rows = {row[0]: row for row in cells(text)}
    printed = table_rows(found)
    assert printed[0][:6] == ("qft (2)", "–", "7,000", "1:01:01+", "2", "1.02")
    for row in printed:
        assert tuple(rows[row[0]][:8]) == row
    assert "".join("".join(row) for row in printed) == "".join(
        "".join(re.split(r"  +", line)) for line in lines(found)[1:]
    )
    # Of the stage whose time is not known there is a dash and no bar.
    assert rows["judge"][3:6] == ["–", "–", "–"]
    assert "qft: 1:01:01+; respond: 0:00:05*</desc>" in text


def test_nothing_known_is_a_dash_and_never_a_zero() -> None:
    found = [cost_of("qft", [(stage("qft@a", engine=1), None, {})])]
    assert table_rows(found)[-1] == ("all", "", "", "–", "", "–", "", "522.9")
    text = html_page(build(found, []))
    assert "No time of this run is recorded in this checkout" in text
    assert "<h1>No time is recorded here</h1>" in text
    assert "0:00:00" not in text


def test_a_little_gpu_time_is_no_zero() -> None:
    few = cost_of("qft", [(stage("qft@a", engine=1), Spent(3.0, gpus=1), {})])
    assert [row[5] for row in table_rows([few])] == ["<0.01", "<0.01"]
    none = cost_of("qft", [(stage("qft@a", engine=1), Spent(3.0), {})])
    assert [row[5] for row in table_rows([none])] == ["–", "–"]


def test_the_page_stands_alone_and_shows_hostile_text_as_text() -> None:
    hostile = "x</style></title><script>alert(1)</script>`<b>"
    trained = cost.Trained(hostile, 5.0, 10, hostile, 3, None, hostile)
    text = html_page(build([cost_of(hostile, [(stage(hostile, engine=1), Spent(5), {})])], [trained]))
    tags = Page(text).tags
    assert [tag for tag, _ in tags].count("script") == 2  # KaTeX and our own
    assert "b" not in [tag for tag, _ in tags]
    assert not [a for _, a in tags if a.get("src") or (a.get("href") or "#")[0] != "#"]
    assert "url(" not in text
    assert "alert(1)" in text


@pytest.mark.parametrize(
    ("spent", "lines", "params", "tokens", "parameters", "share", "missing"),
    [
        # 6 x 1.5e9 x 5e6 = 4.5e16 operations in 100 s are 4.5e14 a second, of 9.89e14.
        pytest.param(Spent(100.0, 1), (GPU,), BF16, 5e6, 1_500_000_000, 0.45500, "", id="h100"),
        pytest.param(Spent(100.0, 2), (GPU,), BF16, 5e6, 1_500_000_000, 0.22750, "", id="two"),
        pytest.param(Spent(100.0, 1), ("gpu: NVIDIA A100-SXM4-80GB",), BF16, 1e6, 1_500_000_000, 0.28846, "", id="a100"),
        pytest.param(Spent(100.0), (GPU,), BF16, 5e6, 10, None, "no GPU", id="none_visible"),
        pytest.param(Spent(100.0), ("cpu: x",), BF16, 5e6, 10, None, "no GPU", id="cpu"),
        pytest.param(Spent(100.0, 1), (GPU,), {"engine.dtype": "float32"}, 5e6, 10, None, "HBM3 in float32", id="float32"),
        pytest.param(Spent(100.0, 1), (GPU,), {}, 5e6, 10, None, "in an unknown dtype", id="no_dtype"),
        pytest.param(Spent(100.0, 1), ("gpu: NVIDIA H100 PCIe",), BF16, 5e6, 10, None, "no peak is known", id="pcie"),
        pytest.param(Spent(100.0, 1), ("gpu: NVIDIA A100, NVIDIA L4",), BF16, 5e6, 10, None, "no peak is known", id="mixed"),
        pytest.param(Spent(100.0, 1), (GPU,), BF16, 0, 10, None, "counts no tokens", id="tokens"),
        pytest.param(Spent(100.0, 1), (GPU,), BF16, 5e6, None, None, "dvc pull", id="no_weights"),
        pytest.param(Spent(1.0, 1), (GPU,), BF16, 5e6, 1_500_000_000, None, "last attempt alone", id="over_one"),
        pytest.param(None, (), BF16, 5e6, 10, None, ELSEWHERE, id="cache"),
    ],
)  # fmt: skip
def test_the_share_of_peak_is_right_or_says_why_there_is_none(
    spent: Spent | None, lines: tuple[str, ...], params: dict[str, Any], tokens: float, parameters: int | None,
    share: float | None, missing: str,
) -> None:  # fmt: skip
    found, why = share_of(
        stage("qft@a", **params), Ran(spent, lines, "" if spent else ELSEWHERE), int(tokens), parameters
    )
    assert found == (None if share is None else pytest.approx(share, abs=1e-5))
    assert missing in why
    assert bool(why) is (share is None)


def test_parameters_are_counted_from_the_headers_of_all_files(tmp_path: Path) -> None:
    assert parameters_in(tmp_path) is None
    save_file({"a": np.zeros((3, 4), np.float16), "bias": np.zeros(5, np.float32)}, tmp_path / "model-1.safetensors")
    save_file({"b": np.zeros((2, 2, 2), np.float32), "one": np.array(1.0)}, tmp_path / "model-2.safetensors")
    assert parameters_in(tmp_path) == 12 + 5 + 8 + 1
    (tmp_path / "model-3.safetensors").write_text("no weights")
    assert parameters_in(tmp_path) is None


def test_the_page_is_written_from_the_facts_of_the_run_in_the_lock(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = read_lock(pipeline.repository, pipeline.repository.revision("workspace"))
    tune = lock.stages["instruct_tune"]
    facts = {"spent": asdict(Spent(8.0, gpus=1)), "environment": [GPU]}
    write_json(local_file(pipeline.root, tune.name, tune.given), facts)
    write_json(local_file(pipeline.root, "judge", "0" * 16), facts)
    write_json(local_file(pipeline.root, "reward", lock.stages["reward"].given), {"outs": {}})
    local_file(pipeline.root, "respond", "").parent.mkdir()
    local_file(pipeline.root, "respond", lock.stages["respond"].given).write_text('{"spent": [')
    found = {one.stage: one.unknown for one in costs(records_of(pipeline.repository, lock))}
    assert [found[name] for name in ("instruct_tune", "screen", "judge", "reward", "respond")] == [
        (), (ELSEWHERE,), (OTHERS,), (BEFORE,), (DAMAGED,)
    ]  # fmt: skip
    (one,) = trainings(pipeline.repository, records_of(pipeline.repository, lock))
    assert (one.stage, one.tokens_per_s, one.card, one.share) == ("instruct_tune", 5.0, GPU.removeprefix("gpu: "), None)
    monkeypatch.chdir(pipeline.root)
    (pipeline.root / "own" / "reports").mkdir(parents=True)
    for folder, given, path in (
        ("", Path(), pipeline.root / "reports/cost.html"),
        ("", Path("mine.html"), pipeline.root / "mine.html"),
        # A name that is given is taken from where the user is, the default's too.
        ("own", cost.PAGE, pipeline.root / "own/reports/cost.html"),
    ):
        monkeypatch.chdir(pipeline.root / folder)
        assert cost.run(argparse.Namespace(json=False, page=given)) == 0
        rows = {row[0]: row for row in cells(path.read_text())}
        assert rows["screen"][-1].startswith(f"time of 1 of 1: {ELSEWHERE}")
    with pytest.raises(UserError, match="a folder"):
        cost.run(argparse.Namespace(json=False, page=Path("reports")))


def test_make_repro_writes_the_page_and_git_ignores_it() -> None:
    recipe = (ROOT / "Makefile").read_text().split("\nrepro:")[1].split("\n\n")[0]
    assert recipe.index("scalequest track") < recipe.index("scalequest cost --page")
    assert f"/{cost.PAGE}" in (ROOT / ".gitignore").read_text().splitlines()
