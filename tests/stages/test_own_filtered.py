import json
from argparse import Namespace
from pathlib import Path

from scalequest.io import write_jsonl
from scalequest.params import Own, Params
from scalequest.records import FILTERED, read_rows
from scalequest.runtime.stage import StageRun
from stages.own_filtered import main
from tests.fakes import pinned_file


def test_respond_can_read_a_file_of_questions_each_once(laptop: Params, tmp_path: Path):
    write_jsonl(
        tmp_path / "book.jsonl",
        [{"prompt": "What is 2 + 2?"}, {"prompt": "What is 3 + 3?"}, {"prompt": "what is 2 + 2 ?"}],
    )
    own = Own(questions={}, filtered={"book": pinned_file(tmp_path / "book.jsonl")}, preferences={})
    args = Namespace(generator="book", out=tmp_path / "book.parquet", metrics=tmp_path / "m.json")
    main(args, StageRun(laptop.model_copy(update={"own": own})))
    assert read_rows(args.out, FILTERED) == [
        {"id": f"book/0/{n}", "generator": "book", "question": f"What is {text}?", "difficulty": None}
        for n, text in enumerate(("2 + 2", "3 + 3"))
    ]
    assert json.loads(args.metrics.read_text()) == {"kept": 2, "duplicates": 1}
