"""Marks of a reader: what a file must hold, and that they are of this run."""

from hashlib import sha256
from pathlib import Path

import pytest

from scalequest.errors import UserError
from scalequest.problems.marks import BAD, GOOD, check_marks, read_marks

GOOD_LINE = '{"id": "a/0/0", "mark": "good", "question": "a 0?"}\n'
BAD_LINE = '{"id": "a/0/1", "mark": "bad", "question": "a 1?"}\n'


def saved(folder: Path, text: str) -> tuple[Path, str]:
    path = folder / "marks.jsonl"
    path.write_text(text)
    return path, sha256(text.encode()).hexdigest()


def test_marks_are_read_by_id_and_one_made_twice_counts_once(tmp_path: Path):
    marks = read_marks(*saved(tmp_path, GOOD_LINE + "\n" + BAD_LINE + GOOD_LINE))
    assert {name: mark.mark for name, mark in marks.items()} == {"a/0/0": GOOD, "a/0/1": BAD}
    # The empty line is a line of the file.
    assert marks["a/0/1"].where == f"{tmp_path}/marks.jsonl:3"
    check_marks(marks, [("a/0/1", "a 1? And more."), ("a/0/0", "a 0?"), ("b/0/0", "not marked")])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("", r"marks\.jsonl: no mark\. Expected one JSON object per line", id="empty"),
        pytest.param(GOOD_LINE + "no\n", r"marks\.jsonl:2: not JSON", id="not_json"),
        pytest.param(GOOD_LINE + '{"id": "a/0/1", "mark": "bad"}', r":2: columns 'id, mark'\. Expected exactly id, mark, question", id="no_question"),
        pytest.param('{"id": "x", "mark": "bad", "question": "", "note": ""}', r":1: columns 'id, mark, question, note'", id="more_columns"),
        pytest.param('{"id": 7, "mark": "bad", "question": ""}', r":1: id is 7\. Expected text", id="number"),
        pytest.param('{"id": "x", "mark": ["bad"], "question": ""}', r":1: mark is \['bad'\]\. Expected text", id="list"),
        pytest.param('{"id": "x", "mark": "Bad", "question": ""}', r":1: mark is 'Bad'\. Expected 'good' or 'bad'", id="case"),
        pytest.param(
            GOOD_LINE + "\n" + GOOD_LINE.replace("good", "bad"),
            r":3: 'a/0/0' has mark 'bad', and 'good' at .*marks\.jsonl:1\. Expected one mark per question\. Delete", id="contradiction",
        ),
        pytest.param(
            GOOD_LINE + GOOD_LINE.replace("0?", "7?"), r":2: 'a/0/0' has question 'a 7\?', and 'a 0\?' at .*:1\.", id="two_runs"
        ),
    ],
)  # fmt: skip
def test_a_broken_file_is_named_by_line_and_value(text: str, message: str, tmp_path: Path):
    with pytest.raises(UserError, match=message):
        read_marks(*saved(tmp_path, text))


def test_a_file_that_is_absent_or_changed_is_refused(tmp_path: Path):
    with pytest.raises(UserError, match=r"filter\.marks\.path: .*marks\.jsonl: no such file"):
        read_marks(tmp_path / "marks.jsonl", "0" * 64)
    path, digest = saved(tmp_path, GOOD_LINE)
    with pytest.raises(UserError, match=rf"filter\.marks\.sha256: .* has {digest}\. Expected 0000"):
        read_marks(path, "0" * 64)


@pytest.mark.parametrize(
    ("questions", "message"),
    [
        pytest.param([("a/0/0", "a 0?")], r":2: 'a/0/1' is no question of this run, as are 0 other ids", id="unknown"),
        pytest.param([("b", "")], r":1: 'a/0/0' is no question of this run, as are 1 other ids", id="all_unknown"),
        pytest.param(
            [("a/0/0", "a 0?"), ("a/0/1", "another?")],
            r":2: 'a/0/1' was marked with the question 'a 1\?'\. Expected the question of this run, 'another\?'", id="other_text",
        ),
    ],
)  # fmt: skip
def test_marks_of_another_run_are_refused(questions: list[tuple[str, str]], message: str, tmp_path: Path):
    marks = read_marks(*saved(tmp_path, GOOD_LINE + BAD_LINE))
    with pytest.raises(UserError, match=message):
        check_marks(marks, questions)
