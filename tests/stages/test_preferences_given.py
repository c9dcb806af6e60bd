"""A user's own pairs in place of rewrites: what `qpo_questions`, `preferences` and `preference_check` make of them."""

import json
from argparse import Namespace
from pathlib import Path

import pytest

from scalequest.domains import DIFFICULTY, GIVEN, SOLVABILITY
from scalequest.errors import UserError
from scalequest.io import write_jsonl
from scalequest.params import Own, Params
from scalequest.records import JUDGED, PREFERENCE, QUESTION, read_rows
from scalequest.runtime.stage import StageRun
from stages import preference_check, preferences, qpo_questions
from stages.preference_check import quality
from stages.preferences import given_rows
from tests.fakes import pinned_file


def with_pairs(laptop: Params, path: Path, rows: list[dict[str, str]]) -> StageRun:
    write_jsonl(path, rows)
    own = Own(questions={}, filtered={}, preferences={"sums": pinned_file(path)})
    return StageRun(laptop.model_copy(update={"own": own}))


def test_a_users_pairs_are_taken_without_a_model(laptop: Params, tmp_path: Path):
    rows = [{"chosen": "What is 2 + 2?", "rejected": "What is it?"}, {"chosen": "Same?", "rejected": "same?"}]
    run = with_pairs(laptop, tmp_path / "pairs.jsonl", rows)
    sampled = Namespace(
        generator="sums", model=tmp_path / "absent", out=tmp_path / "questions", metrics=tmp_path / "q.json"
    )
    qpo_questions.main(sampled, run)
    assert read_rows(sampled.out, QUESTION) == []
    args = Namespace(generator="sums", optimizer=tmp_path / "absent", questions=sampled.out, out=tmp_path / "p.parquet", metrics=tmp_path / "m.json")  # fmt: skip
    preferences.main(args, run)
    found = read_rows(args.out, PREFERENCE)
    assert [(row["id"], row["rewrite"], row["question"], row["direction"], row["verdict"]) for row in found] == [
        ("sums/0/0", "What is 2 + 2?", "What is it?", GIVEN, "kept"),
        ("sums/0/1", "Same?", "same?", GIVEN, "identical"),
    ]
    metrics = json.loads(args.metrics.read_text())
    assert (metrics["questions"], metrics["pairs"], metrics["rejected"]) == (2, 1, {"identical": 1})


def test_pairs_of_equal_sides_alone_are_refused(laptop: Params, tmp_path: Path):
    run = with_pairs(laptop, tmp_path / "pairs.jsonl", [{"chosen": "Same?", "rejected": "Same?"}])
    args = Namespace(
        generator="sums", optimizer=tmp_path, questions=tmp_path, out=tmp_path / "p.parquet", metrics=tmp_path / "m"
    )
    with pytest.raises(UserError, match=r"own\.preferences\.sums: 1 pairs, each of two equal questions"):
        preferences.main(args, run)
    assert not args.out.exists()


@pytest.mark.parametrize(("chosen", "flag"), [(1.0, 0), (0.0, 1)], ids=["better", "no_better"])
@pytest.mark.parametrize("by", [SOLVABILITY, DIFFICULTY])
def test_a_users_pairs_have_no_aim_so_all_of_them_count(chosen: float, flag: int, by: str):
    pairs = given_rows("sums", [(f"sums/0/{n}", f"New {n}?", f"Old {n}?") for n in range(20)])
    metrics, flags = quality(pairs, [chosen, 0.0] * 20, by, 0)
    assert flags == {"rewrites_no_better": bool(flag)}
    assert metrics["quality"]["by_direction"][GIVEN]["pairs"] == 20


def test_without_a_generator_there_is_nothing_to_measure(laptop: Params, tmp_path: Path):
    args = Namespace(by=SOLVABILITY, model=tmp_path / "absent", preferences=tmp_path, out=tmp_path / "c.parquet", metrics=tmp_path / "m.json")  # fmt: skip
    preference_check.main(args, StageRun(laptop.model_copy(update={"mix": []})))
    assert read_rows(args.out, JUDGED) == []
    assert json.loads(args.metrics.read_text()) == {"measure": SOLVABILITY, "quality": {"pairs": 0}}
