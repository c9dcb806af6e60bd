import json
from argparse import Namespace
from pathlib import Path

import pytest

from scalequest.io import write_jsonl
from scalequest.params import Params
from scalequest.records import SAMPLE, read_rows
from scalequest.runtime.stage import StageRun
from stages import evaluate
from tests.fakes import ROOT, changed
from tests.test_evaluation import result

TASKS = ROOT / "eval" / "tasks"


@pytest.mark.parametrize(
    ("items", "flags"),
    [
        pytest.param([(0.0, 0.0, 0.0)] * 20, {"score_zero": 1, "many_unparsed": 0}, id="zero"),
        pytest.param([(1.0, 1.0, 0.0)] * 19 + [(0.0, 0.0, 1.0)], {"score_zero": 0, "many_unparsed": 0}, id="one_of_twenty_unparsed"),
        pytest.param([(1.0, 1.0, 0.0)] * 18 + [(0.0, 0.0, 1.0)] * 2, {"score_zero": 0, "many_unparsed": 1}, id="two_of_twenty_unparsed"),
        pytest.param([(0.0, 1.0, 0.0)] * 20, {"score_zero": 0, "many_unparsed": 0}, id="strict_zero_is_a_matter_of_form"),
    ],
)  # fmt: skip
def test_a_doubtful_score_is_told(items, flags, tmp_path: Path, laptop: Params, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(evaluate, "run_tasks", lambda *_: result(embedded_sums=items))
    write_jsonl(tmp_path / "benchmarks" / "embedded_sums.jsonl", [{"id": "x"}])
    args = Namespace(
        model=tmp_path, benchmarks=tmp_path / "benchmarks", tasks=TASKS, samples=tmp_path / "s.parquet",
        scores=tmp_path / "scores.json",
    )  # fmt: skip
    evaluate.main(args, StageRun(changed(laptop, evaluate={"tasks": ["embedded_sums"]})))
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert scores["warnings"] == flags
    assert scores["embedded_sums"]["n"] == len(read_rows(tmp_path / "s.parquet", SAMPLE)) == 20
