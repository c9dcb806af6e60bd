from pathlib import Path
from typing import Any

import pytest

from scalequest.errors import UserError
from scalequest.io import write_jsonl
from scalequest.problems.own import own_pairs, own_questions, pair_of, question_of
from tests.fakes import pinned_file

USER = {"role": "user", "content": "What is 2 + 2?"}


@pytest.mark.parametrize(
    "row",
    [
        {"question": " What is 2 + 2?\n"},
        {"problem": "What is 2 + 2?", "answer": "4"},
        {"query": "What is 2 + 2?"},
        {"prompt": "What is 2 + 2?", "completion": "4"},
        {"question": None, "prompt": [USER]},
        {"instruction": "What is 2 + 2?", "input": "", "output": "4"},
        {"messages": [{"role": "system", "content": "Be kind."}, USER, {"role": "assistant", "content": "4"}]},
        {"conversations": [{"from": "human", "value": "What is 2 + 2?"}, {"from": "gpt", "value": "4"}]},
    ],
    ids=lambda row: "+".join(row),
)
def test_a_question_is_found_under_the_names_of_published_sets(row: dict[str, Any]):
    assert question_of(row, "f:1") == "What is 2 + 2?"


def test_alpacas_input_is_part_of_the_question():
    assert question_of({"instruction": "Add these.", "input": "2 and 2"}, "f:1") == "Add these.\n\n2 and 2"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {"text": "What is 2 + 2?"},
            r"f:3: no question in the columns text\. Expected one of question, query, problem",
        ),
        ({"question": "  ", "answer": "4"}, "f:3: no question in the columns answer, question"),
        ({}, "f:3: no question in the columns of an empty row"),
        ({"messages": [USER, {"role": "assistant", "content": "4"}, USER]}, "f:3: 2 user turns in a conversation of 3"),
        ({"messages": [{"role": "assistant", "content": "4"}]}, "f:3: 0 user turns in a conversation of 1"),
    ],
    ids=["other_name", "blank", "empty", "two_questions", "no_question"],
)
def test_a_row_without_one_question_is_named_with_the_columns_that_would_do(row: dict[str, Any], message: str):
    with pytest.raises(UserError, match=message):
        question_of(row, "f:3")


@pytest.mark.parametrize(
    "row",
    [
        {"chosen": "Good?", "rejected": "Bad?"},
        {"prompt": "", "chosen": "Good?", "rejected": "Bad?"},
        {"chosen": [{"role": "user", "content": "Good?"}], "rejected": [{"role": "assistant", "content": " Bad? "}]},
    ],
    ids=["texts", "as_this_project_publishes_them", "turns"],
)
def test_a_pair_is_two_questions(row: dict[str, Any]):
    assert pair_of(row, "f:1") == ("Good?", "Bad?")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"chosen": "Good?", "reject": "Bad?"}, r"f:2: no text in the column rejected; found chosen, reject\."),
        ({"prompt": "2 + 2?", "chosen": "4", "rejected": "5"}, "f:2: chosen and rejected beside a prompt are two answers"),
        ({"chosen": [USER, {"role": "assistant", "content": "4"}], "rejected": [USER]}, "f:2: chosen is a conversation of 2 turns"),
    ],
    ids=["misspelt", "answers_to_a_prompt", "conversations"],
)  # fmt: skip
def test_what_is_no_pair_of_questions_is_refused(row: dict[str, Any], message: str):
    with pytest.raises(UserError, match=message):
        pair_of(row, "f:2")


def test_an_id_is_the_rows_place_in_the_file(tmp_path: Path):
    write_jsonl(
        file := tmp_path / "a.jsonl", [{"question": f"{n}?", "split": "train" if n % 2 else "test"} for n in range(6)]
    )
    rows = own_questions("mine", "own.questions.mine", pinned_file(file, where={"split": "train"}), 17)
    assert list(rows) == [("mine/0/1", "1?"), ("mine/0/3", "3?"), ("mine/0/5", "5?")]


def test_n_rows_are_drawn_by_their_text_and_draws_are_nested(tmp_path: Path):
    write_jsonl(file := tmp_path / "a.jsonl", [{"question": f"{n}?"} for n in range(40)])
    drawn = {n: {text for _, text in own_questions("m", "k", pinned_file(file, n), 17)} for n in (5, 20)}
    assert (len(drawn[5]), len(drawn[20])) == (5, 20)
    assert drawn[5] < drawn[20]
    write_jsonl(file, [{"question": f"{n}?"} for n in reversed(range(40))])  # the order in the file decides nothing
    assert {text for _, text in own_questions("m", "k", pinned_file(file, 5), 17)} == drawn[5]
    with pytest.raises(UserError, match="k: 40 rows, n is 41"):
        list(own_questions("m", "k", pinned_file(file, 41), 17))


def test_a_changed_missing_or_empty_file_is_named_by_its_key(tmp_path: Path):
    write_jsonl(file := tmp_path / "a.jsonl", [{"chosen": "A?", "rejected": "B?"}])
    source = pinned_file(file)
    assert list(own_pairs("sums", "own.preferences.sums", source, 17)) == [("sums/0/0", "A?", "B?")]
    file.write_text(file.read_text().replace("A?", "C?"))
    with pytest.raises(UserError, match=r"own\.preferences\.sums: .* params\.yaml pins"):
        list(own_pairs("sums", "own.preferences.sums", source, 17))
    file.write_text("")
    with pytest.raises(UserError, match=r"own\.preferences\.sums: .* has no row\. "):
        list(own_pairs("sums", "own.preferences.sums", pinned_file(file), 17))
    file.unlink()
    with pytest.raises(UserError, match=r"own\.preferences\.sums: .*a\.jsonl: no such file"):
        list(own_pairs("sums", "own.preferences.sums", source, 17))
