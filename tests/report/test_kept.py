import argparse
import json
import re
import shutil
from pathlib import Path

import pytest

from scalequest.errors import UserError
from scalequest.report import kept
from scalequest.report.blocks import Table
from tests.fakes import ROOT
from tests.report.test_browse import browsers

GPU = ROOT / "reports" / "results" / "gpu-135m"


def rendered(folder: Path, out: Path) -> str:
    assert kept.run(argparse.Namespace(folder=folder, out=out)) == 0
    return out.read_text(encoding="utf-8")


def body(text: str) -> str:
    """What a reader sees: without style and scripts, which other changes of the report touch."""
    return text.split("</head>")[1].split("</main>")[0]


def test_the_committed_page_of_the_gpu_run_shows_its_committed_numbers(tmp_path: Path) -> None:
    text = rendered(GPU, tmp_path / "index.html")
    assert len(text.encode()) < 5_000_000
    assert body((GPU / "index.html").read_text(encoding="utf-8")) == body(text), (
        "run: scalequest report reports/results/gpu-135m"
    )
    words = re.sub(r"<[^>]+>", " ", body(text))
    # README.md of the run: GSM8K 1.4 and 6.1, 24,662 judged unsolvable, 10,239 pairs.
    for part in (
        "base 1.4 ± 0.4 %, solver 7.1 ± 0.8 %, student 6.1 ± 0.7 %",
        "73,097 (−24,662)",
        "10,239",
        "86.8% is about authorship",
    ):
        assert part in words
    found = browsers(text)["questions"]
    assert len(found["rows"]) == 200
    # What was not kept is said where it would be.
    assert words.count("Not kept: ") == 3


def test_a_run_without_seconds_and_sample_says_so(tmp_path: Path) -> None:
    words = body(rendered(ROOT / "reports" / "results" / "laptop-code", tmp_path / "index.html"))
    assert "Not kept: how long each stage took." in words
    assert "Not kept: all generated questions" in words
    assert 'class="browser"' not in words


def test_tokens_per_second_are_of_whole_stages_and_count_epochs(tmp_path: Path) -> None:
    text = body(rendered(GPU, tmp_path / "index.html"))
    cells = re.search(r"<code>instruct_tune</code>.*?</tr>", text.split('id="cost"')[1], re.DOTALL)
    assert cells
    # Three epochs of 2,070,869 tokens in 159 s.
    assert [re.sub(r"<[^>]+>", "", cell) for cell in re.findall(r"<td.*?</td>", cells[0])][:4] == [
        "0:02:39", "10,239", "6,212,607", "39,073",
    ]  # fmt: skip


def test_tokens_count_each_generators_own_epochs(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(GPU, tmp_path / "run"))
    run = kept.Kept(folder)
    first, second = run.mix
    [table] = [block for block in kept.cost(run).blocks if isinstance(block, Table)]
    [before] = [row[3] for row in table.rows if row[0].startswith("`qft`")]
    tokens = {g: run.metrics[f"qft/{g}"]["tokens"] for g in run.mix}
    assert before == f"{sum(tokens.values()) * run.params['qft']['epochs']:,}"
    run.params["generators"][first]["qft"] = {"epochs": 5}
    [table] = [block for block in kept.cost(run).blocks if isinstance(block, Table)]
    [after] = [row[3] for row in table.rows if row[0].startswith("`qft`")]
    assert after == f"{tokens[first] * 5 + tokens[second] * run.params['qft']['epochs']:,}"


def test_a_folder_that_is_no_kept_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no dvc\.lock, params\.yaml, metrics\.json, scores\. Expected a kept run"):
        kept.Kept(tmp_path)
    folder = Path(shutil.copytree(GPU, tmp_path / "run"))
    metrics = json.loads((folder / "metrics.json").read_text())
    del metrics["metrics"]["reward_select"]
    (folder / "metrics.json").write_text(json.dumps(metrics))
    with pytest.raises(UserError, match=r"metrics\.json: no metrics of reward_select\. Expected those of"):
        kept.Kept(folder)
