import json
from argparse import Namespace
from pathlib import Path

import pytest

from scalequest.errors import UserError
from scalequest.io import write_jsonl
from scalequest.params import Own, Params, parse_params, read_yaml
from scalequest.records import PROBLEM, QUESTION, SCREENED, read_rows, write_rows
from scalequest.runtime.stage import StageRun
from stages import filter as filters
from stages import own_questions, screen
from tests.fakes import LAPTOP, changed, pinned_file

ASKED = [
    "Ann has 12 apples and gives 5 of them to Ben. How many apples does Ann have now?",
    "A train of 8 coaches has 40 seats in each coach. How many seats does it have?",
    "Ann has 12 apples and gives 5 of them to Ben. How many apples does Ann have now?",
]


@pytest.fixture
def alone(laptop: Params, tmp_path: Path) -> Params:
    """A run whose only questions are a file's."""
    write_jsonl(tmp_path / "book.jsonl", [{"problem": text} for text in ASKED])
    own = Own(questions={"book": pinned_file(tmp_path / "book.jsonl")}, filtered={}, preferences={})
    return laptop.model_copy(update={"own": own, "mix": [], "benchmarks": {}})


def test_own_questions_are_screened_under_their_files_name(alone: Params, tmp_path: Path):
    args = Namespace(generator="book", out=tmp_path / "questions" / "book", metrics=tmp_path / "m.json")
    own_questions.main(args, StageRun(alone))
    rows = read_rows(args.out, QUESTION)
    assert [(row["id"], row["generator"], row["finish_reason"]) for row in rows] == [
        (f"book/0/{n}", "book", "stop") for n in range(3)
    ]
    assert [row["question"] for row in rows] == ASKED
    assert json.loads(args.metrics.read_text()) == {"questions": 3}

    # No generator is in the mix, and the screen sees the file's questions all the same.
    (tmp_path / "tests").mkdir()
    write_rows(tmp_path / "seeds.parquet", [], PROBLEM)
    screened = Namespace(questions=tmp_path / "questions", benchmarks=tmp_path / "tests", seeds=tmp_path / "seeds.parquet", out=tmp_path / "screened", metrics=tmp_path / "s.json")  # fmt: skip
    screen.main(screened, StageRun(alone))
    verdicts = [(row["verdict"], row["matched"]) for row in read_rows(screened.out, SCREENED)]
    assert verdicts == [("kept", ""), ("kept", ""), ("exact_duplicate", "book/0/0")]
    assert list(json.loads(screened.metrics.read_text())["by_generator"]) == ["book"]


def test_the_screen_names_the_stage_that_brings_a_missing_file(alone: Params, tmp_path: Path):
    with pytest.raises(UserError, match=r"no questions of \['book'\].*dvc repro own_questions@book"):
        screen.pieces(tmp_path, ["book"], alone.own.questions)


def test_a_file_has_a_share_like_a_generator(laptop: Params):
    row = {"matched": "", "evidence": "", "verdict": "kept"}
    rows = [
        row | {"id": f"{name}/0/{n}", "generator": name, "question": f"{name} {n}?"}
        for name in ("sums", "book")
        for n in range(8)
    ]
    params = changed(laptop, filter={"shares": {"sums": 0.5, "book": 0.5}, "drop_easiest_frac": {"sums": 0.0, "book": 0.0}, "n_questions": 6}).filter  # fmt: skip
    ids = [row["id"] for row in rows]
    ledger = filters.apply_filters(
        rows, dict.fromkeys(ids, "solvable"), dict.fromkeys(ids, 0.5), params, ["sums", "book"], 17
    )
    kept = [row["generator"] for row in ledger if row["outcome"] == "kept"]
    assert (kept.count("sums"), kept.count("book")) == (3, 3)


SOURCE = {"kind": "jsonl", "path": "sources/book.jsonl", "n": None, "sha256": "0" * 64}


@pytest.mark.parametrize(
    ("own", "other", "message"),
    [
        ({"questions": {"book": SOURCE}}, {}, r"filter\.shares: no value for \['book'\] of own\.questions"),
        ({"questions": {"sums": SOURCE}}, {}, r"own\.questions: 'sums' becomes part of ids"),
        ({"questions": {"My-Book": SOURCE}}, {}, r"own\.questions: 'My-Book' becomes part of ids"),
        ({"filtered": {"judge": SOURCE}}, {}, r"own\.filtered: 'judge' becomes part of ids"),
        ({"questions": {"book": SOURCE}, "filtered": {"book": SOURCE}}, {}, r"own\.filtered: 'book' is in own\.questions, too"),
        ({"preferences": {"books": SOURCE}}, {}, r"own\.preferences: 'books' is no generator of the mix, which is \['sums', 'stories'\]"),
        ({"filtered": {"book": SOURCE | {"path": "book.csv"}}}, {}, r"own\.filtered\.book\.path: 'book\.csv'. Expected a file that ends in \.parquet"),
        ({"question": {"book": SOURCE}}, {}, r"own\.question: unknown parameter; did you mean 'questions'"),
        ({}, {"respond": {"questions": "own/book"}}, r"respond\.questions: 'own/book'\. Expected filtered; own\.filtered declares"),
        ({"filtered": {"book": SOURCE}}, {"respond": {"questions": "book"}}, r"Expected filtered or own/book;"),
        ({}, {"instruct_tune": {"waits_for": "seeds"}}, r"instruct_tune\.waits_for: seeds leaves out the stages"),
        ({}, {"mix": []}, r"mix: got \[\]; expected generators, of \['stories', 'sums'\], or files in own\.questions"),
        ({}, {"mix": ["sums", "stories", "extra"]}, r"mix: generator 'extra' is not defined; `generators` has \['stories', 'sums'\]"),
        ({}, {"generate": {"from": "sft"}}, r"generate\.from: got 'sft'; input should be 'base', 'qft' or 'qpo'"),
    ],
    ids=lambda value: "" if isinstance(value, dict) else value[:40],
)  # fmt: skip
def test_what_contradicts_itself_is_named_with_the_legal_values(own: dict, other: dict, message: str):
    data = read_yaml(LAPTOP) | {"mix": ["sums", "stories"]}
    data["own"] |= own
    for section, values in other.items():
        data[section] = data[section] | values if isinstance(values, dict) else values
    with pytest.raises(UserError, match=message):
        parse_params(data)
