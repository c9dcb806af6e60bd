import json
from argparse import Namespace
from pathlib import Path

from scalequest.io import read_jsonl
from scalequest.params import Params
from scalequest.runtime.stage import StageRun
from stages.benchmarks import main
from tests.fakes import pinned_file


def test_a_test_set_is_written_whole_and_what_its_file_leaves_out_is_counted(tmp_path: Path, laptop: Params):
    file = tmp_path / "test.jsonl"
    rows = [{"question": "What is 1 + 1?", "answer": "2"}, {"question": "what is 1+1", "answer": "2"}, {"question": "B?", "answer": None}]  # fmt: skip
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    stage = StageRun(laptop.model_copy(update={"benchmarks": {"exam": pinned_file(file)}}))
    main(Namespace(out=tmp_path / "out", metrics=tmp_path / "m.json"), stage)
    assert list(read_jsonl(tmp_path / "out" / "exam.jsonl")) == [
        {"id": "exam/0", "question": "What is 1 + 1?", "answer": "2"}
    ]
    assert json.loads((tmp_path / "m.json").read_text()) == {
        "exam": {"items": 1, "left_out": {"duplicate": 1, "no_answer": 1}}
    }
