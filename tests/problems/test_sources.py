import json
import re
from collections import Counter
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from scalequest.answers.find import boxed
from scalequest.errors import UserError
from scalequest.io import read_jsonl
from scalequest.params import JsonlSource
from scalequest.problems.sources import load_problems, load_source
from scalequest.text import question_key
from tests.fakes import pinned_file, real_data


def jsonl(path: Path, n: int | None = None, sha256: str | None = None) -> JsonlSource:
    source = pinned_file(path, n=n)
    return source if sha256 is None else source.model_copy(update={"sha256": sha256})


@pytest.fixture
def write(tmp_path: Path):
    """Write lines (or rows as JSON) to a file and give its path."""

    def write(*lines: str | dict[str, Any]) -> Path:
        path = tmp_path / "problems.jsonl"
        path.write_text("".join((x if isinstance(x, str) else json.dumps(x)) + "\n" for x in lines))
        return path

    return write


def row(question: Any = "What is 1 + 1?", answer: Any = "2", **more: Any) -> dict[str, Any]:
    return {"question": question, "answer": answer, "solution": "1 + 1 = 2"} | more


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        pytest.param("What is 1 + 1?", "what is 1+1", True, id="case_spaces_final_mark"),
        pytest.param("What is 3 - 2?", "What is 3 + 2?", False, id="sign"),
        pytest.param("Find x.", "Find y.", False, id="name"),
        pytest.param("Find\n x .", "Find x", True, id="line_break"),
        pytest.param("Is 3! = 6?", "Is 3 = 6?", False, id="mark_inside"),
        pytest.param("What is -2?", "What is 2?", False, id="negative"),
    ],
)
def test_what_makes_two_questions_one(first: str, second: str, same: bool):
    assert (question_key(first) == question_key(second)) is same


def test_rows_keep_their_place_in_the_file(write):
    path = write(row("A?", "1"), row("B?", "2"), "", row("C?", "3"))
    problems = load_problems("f", jsonl(path), 17, True)
    assert [(p["id"], p["question"], p["answer"], p["source"]) for p in problems] == [
        ("f/0", "A?", "1", "f"),
        ("f/1", "B?", "2", "f"),
        ("f/2", "C?", "3", "f"),
    ]


def test_n_rows_are_drawn_by_the_runs_seed_and_kept_in_file_order(write):
    path = write(*(row(f"Question {i}?", str(i)) for i in range(100)))

    def draw(seed: int, name: str = "f") -> list[int]:
        return [int(p["id"].split("/")[1]) for p in load_problems(name, jsonl(path, n=20), seed, True)]

    assert len(set(draw(1))) == 20
    assert draw(1) == sorted(draw(1))
    assert draw(1) == draw(1)
    assert draw(1) != draw(2)
    assert draw(1) != draw(1, name="g")
    assert draw(1) != list(range(20))


def test_duplicate_questions_of_a_file_are_dropped_once(write):
    path = write(row("What is 1 + 1?"), row("what is 1+1"), row("What is 1 + 2?", "3"))
    assert [p["id"] for p in load_problems("f", jsonl(path), 17, True)] == ["f/0", "f/2"]


def test_rows_without_an_answer_are_left_out_and_counted(write, caplog: pytest.LogCaptureFixture):
    path = write(row("A?", "1"), row("B?", ""), row("C?", "  "), row("D?", None))
    with caplog.at_level("WARNING", logger="scalequest"):
        assert [p["id"] for p in load_problems("f", jsonl(path, sha256=digest(path)), 17, True)] == ["f/0"]
    assert caplog.messages == ["f: left out of 4 rows: no_answer 3"]


def digest(path: Path) -> str:
    return sha256(path.read_bytes()).hexdigest()


def test_benchmarks_need_no_solution(write):
    path = write({"question": "A?", "answer": "1"})
    assert load_problems("f", jsonl(path), 17, need_solution=False)[0]["answer"] == "1"


def test_a_file_with_another_hash_is_refused(write):
    path = write(row())
    load_problems("f", jsonl(path, sha256=digest(path)), 17, True)
    with pytest.raises(UserError, match=f"has sha256 {digest(path)}, params.yaml pins {'0' * 64}"):
        load_problems("f", jsonl(path, sha256="0" * 64), 17, True)


def test_an_unpinned_file_is_refused_with_the_hash_to_pin(write):
    path = write(row())
    with pytest.raises(UserError) as caught:
        load_problems("f", jsonl(path).model_copy(update={"sha256": None}), 17, True)
    assert f"Add it to params.yaml: sha256: {digest(path)}" in str(caught.value)


def test_a_file_is_hashed_before_it_is_parsed(write):
    # A wrong pin on a broken file must speak of the pin: the pin then protects from what the
    # content does to the parser.
    with pytest.raises(UserError, match=r"params\.yaml pins"):
        load_problems("f", jsonl(write('{"question": '), sha256="0" * 64), 17, True)


@pytest.mark.parametrize(
    ("solution", "answer"),
    [
        pytest.param("so $\\boxed 2$.", "2", id="no_braces"),
        pytest.param("so $\\boxed2$.", "2", id="no_braces_no_space"),
        pytest.param("so $\\boxed {2}$.", "2", id="space_before_the_brace"),
        pytest.param("so $\\fbox{2}$.", "2", id="fbox"),
        pytest.param("so $\\boxed{\\frac{1}{2}}$.", "\\frac{1}{2}", id="nested"),
    ],
)
def test_a_published_solution_gives_its_answer(write, solution: str, answer: str):
    [problem] = load_problems("f", jsonl(write({"problem": "Q?", "level": "Level 1", "type": "Algebra", "solution": solution})), 17, True)  # fmt: skip
    assert (problem["answer"], problem["stratum"]) == (answer, "Algebra")


@pytest.mark.parametrize(
    "solution", ["so $\\boxed{}$.", "so $\\boxed{ }$.", "so it is 2.", "so $\\boxed{2$.", "", None]
)
def test_a_published_row_without_an_answer_is_left_out_and_counted(write, solution: str | None):
    path = write({"problem": "Q?", "solution": solution}, {"problem": "R?", "solution": "\\boxed{1}"})
    loaded = load_source("f", jsonl(path), 17, True)
    assert ([p["id"] for p in loaded.problems], loaded.left_out) == (["f/1"], {"no_answer": 1})


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        pytest.param(["7"], "7", id="list_of_one"),
        pytest.param([7], "7", id="list_of_one_number"),
        pytest.param(7, "7", id="number"),
        pytest.param(7.5, "7.5", id="fraction"),
        pytest.param(True, "True", id="boolean"),
    ],
)
def test_an_answer_of_another_type_is_its_text(write, cell: Any, text: str):
    assert load_problems("f", jsonl(write(row("Q?", cell))), 17, True)[0]["answer"] == text


@pytest.mark.parametrize("cell", [[], None, float("nan"), [None], " "], ids=str)
def test_an_answer_that_says_nothing_is_no_answer(write, cell: Any):
    path = write(row("Q?", cell), row("R?", "1"))
    if cell == []:
        with pytest.raises(UserError, match=r"problems.jsonl:1: answer is a list of 0"):
            load_source("f", jsonl(path), 17, True)
    else:
        assert load_source("f", jsonl(path), 17, True).left_out == {"no_answer": 1}


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        pytest.param(["7", "8"], "answer is a list of 2: ['7', '8']. Expected text or a number", id="list"),
        pytest.param({"value": 7}, "answer is a dict: {'value': 7}", id="object"),
        pytest.param("\ud83d", "answer holds half a character ('\\ud83d')", id="half_a_character"),
    ],
)
def test_an_answer_that_is_no_text_is_named(write, cell: Any, expected: str):
    with pytest.raises(UserError) as caught:
        load_problems("f", jsonl(write(row(), row("R?", cell))), 17, True)
    assert "problems.jsonl:2: " + expected in str(caught.value)


def test_a_heading_is_not_gsm8ks_mark(write):
    steps = {"question": "A?", "answer": "#### Step 1\nAdd.\n#### Step 2\nSo it is 7."}
    path = write(steps, {"question": "B?", "answer": "#### Step 2"}, {"question": "C?", "answer": "2 + 5 = 7\n#### 7"})
    loaded = load_source("f", jsonl(path), 17, True)
    assert ([p["answer"] for p in loaded.problems], loaded.left_out) == (["7"], {"no_answer": 2})


def test_problems_without_a_solution_are_counted(write):
    path = write(row("A?"), row("B?", "2", solution=None), row("C?", "2", solution=" "))
    loaded = load_source("f", jsonl(path), 17, True)
    assert (len(loaded.problems), loaded.without_solution) == (3, 2)


@pytest.mark.parametrize("n", [None, 2])
def test_excluded_questions_are_passed_over_before_n_are_drawn(write, n: int | None):
    path = write(row("A?"), row("B?"), row("C?"))
    loaded = load_source("f", jsonl(path, n=n), 17, True, exclude={question_key("b")})
    assert [p["question"] for p in loaded.problems] == ["A?", "C?"]
    assert loaded.left_out == {"benchmark_item": 1}


def test_n_of_a_file_is_nested_stratified_and_free_of_the_files_order(write):
    # Sorted by subject, as MATH is: 60 + 30 + 10.
    rows = [row(f"Q{i}?", str(i), subject="abc"[(i >= 60) + (i >= 90)]) for i in range(100)]

    def drawn(n: int, lines: list[dict[str, Any]]) -> dict[str, str]:
        return {p["question"]: p["stratum"] for p in load_problems("f", jsonl(write(*lines), n=n), 17, True)}

    small, large = drawn(10, rows), drawn(20, rows)
    assert set(small) < set(large)
    assert Counter(small.values()) == {"a": 6, "b": 3, "c": 1}
    assert drawn(10, rows[::-1]) == small


def test_math_as_it_is_published_loads_nearly_whole(tmp_path: Path):
    rows = [
        {"problem": r["question"], "level": r["level"], "type": r["subject"], "solution": r["solution"]}
        for r in read_jsonl(real_data("math/train.jsonl"))
    ]
    path = tmp_path / "train.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    loaded = load_source("math", jsonl(path), 17, True)
    assert len(loaded.problems) + sum(loaded.left_out.values()) == len(rows) == 7500
    assert len(loaded.problems) >= 7490
    assert loaded.left_out["no_answer"] == 2  # two boxes are empty in the original
    assert len({p["stratum"] for p in loaded.problems}) == 7


@pytest.mark.parametrize(
    ("lines", "n", "expected"),
    [
        pytest.param([row(), {"question": "B?", "answer": "1"}], None, "problems.jsonl:2: no column ['solution'], found ['answer', 'question']", id="no_solution"),
        pytest.param([{"query": "B?", "answer": "1", "solution": ""}], None, "problems.jsonl:1: no column ['question']", id="no_question"),
        pytest.param([row(), {"text": "B?", "test_list": ["assert f()"]}], None, "problems.jsonl:2: the columns test_list, text are those of a known data set", id="mbpp_without_code"),
        pytest.param([row(), row("  ", id="q7")], None, "problems.jsonl:2: the question is empty (id 'q7')", id="empty_question"),
        pytest.param([row(None)], None, "problems.jsonl:1: the question is empty", id="null_question"),
        pytest.param([row(), '{"question": '], None, "problems.jsonl:2: not JSON", id="not_json"),
        pytest.param(["[1]"], None, "problems.jsonl:1: a list; expected a JSON object", id="not_an_object"),
        # Three rows, of which one repeats and one has no answer: one problem.
        pytest.param([row(), row(), row("B?", "")], 2, "has 1 distinct problems with an answer, n is 2. Left out of 3 rows: duplicate 1, no_answer 1. Lower n.", id="n_too_large"),
        pytest.param([row("A?", "")], None, "f: no problems came from this source", id="nothing_left"),
        pytest.param([], None, "f: no problems came from this source", id="empty_file"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_file_is_named(write, lines: list[Any], n: int | None, expected: str):
    with pytest.raises(UserError) as caught:
        load_problems("f", jsonl(write(*lines), n=n), 17, True)
    assert expected in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(UserError, match=r"gone\.jsonl: no such file"):
        load_problems("f", jsonl(tmp_path / "gone.jsonl"), 17, True)


def test_gsm8k_train_is_read_whole():
    path = real_data("gsm8k/train.jsonl")
    problems = load_problems("gsm8k", jsonl(path), 17, True)
    # 7,473 rows (its README); what is gone repeats an earlier question.
    distinct = len({question_key(r["question"]) for r in read_jsonl(path)})
    assert len(problems) == distinct
    assert distinct > 7_400
    for problem in problems:
        assert "<<" not in problem["solution"]
        assert "####" not in problem["solution"]
        assert boxed(problem["solution"]) == problem["answer"]
        assert re.fullmatch(r"-?\d+", problem["answer"])


def test_math_train_keeps_its_boxes_and_loses_the_two_empty_ones(caplog: pytest.LogCaptureFixture):
    path = real_data("math/train.jsonl")
    with caplog.at_level("WARNING", logger="scalequest"):
        problems = load_problems("math", jsonl(path), 17, True)
    # Its README: the box is empty in two of the 7,500 rows.
    assert "math: left out of 7500 rows: duplicate 1, no_answer 2" in caplog.messages
    solutions = [r["solution"] for r in read_jsonl(path)]
    for problem in problems:
        original = solutions[int(problem["id"].split("/")[1])]
        if boxed(original):
            assert problem["solution"] == original.strip()
        assert boxed(problem["solution"])


@pytest.mark.parametrize(
    ("original", "expected"),
    [
        pytest.param(
            {"question": "Q?", "answer": "He has 48/2 = <<48/2=24>>24.\n#### 1,024"},
            ("Q?", "He has 48/2 = 24.\nThe answer is \\boxed{1,024}.", "1,024"),
            id="gsm8k",
        ),
        pytest.param(
            {"problem": "P?", "level": "Level 5", "solution": "So $x = \\boxed{\\frac{1}{2}}$."},
            ("P?", "So $x = \\boxed{\\frac{1}{2}}$.", "\\frac{1}{2}"),
            id="math",
        ),
    ],
)
def test_original_files_are_read_in_their_own_form(write, original: dict[str, str], expected: tuple[str, str, str]):
    [problem] = load_problems("x", jsonl(write(original)), 17, need_solution=True)
    assert (problem["question"], problem["solution"], problem["answer"]) == expected


def test_a_source_can_keep_the_calculator_marks_of_gsm8k(write):
    path = write({"question": "Q?", "answer": "He has 48/2 = <<48/2=24>>24.\n#### 24"})
    source = jsonl(path).model_copy(update={"calculator_marks": True})
    [problem] = load_problems("x", source, 17, need_solution=True)
    assert problem["solution"] == "He has 48/2 = <<48/2=24>>24.\nThe answer is \\boxed{24}."
