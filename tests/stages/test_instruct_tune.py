import gzip
import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scalequest.errors import UserError
from scalequest.io import write_jsonl
from scalequest.params import InstructTune, Params, parse_params, read_yaml
from scalequest.records import INSTRUCTION, PROBLEM, read_rows, write_rows
from stages.instruct_tune import external_pairs, training_pairs
from tests.fakes import LAPTOP, changed

N = 40


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """The pipeline's training set and the seeds."""
    rows = [
        {"id": f"sums/0/{n}", "generator": "sums", "question": f"q{n}", "response": f"r{n}", "final_answer": "1", "reward": 0.0,
         "agreement": 1.0, "n_candidates": 1}
        for n in range(N)
    ]  # fmt: skip
    write_rows(tmp_path / "instruct.parquet", rows, INSTRUCTION)
    seeds = [
        {
            "id": f"gsm8k/{n}",
            "source": "gsm8k",
            "stratum": "",
            "question": f"Q{n}",
            "solution": "" if n == 3 else f"S{n}",
            "answer": "1",
        }
        for n in range(5)
    ]
    write_rows(tmp_path / "seeds.parquet", seeds, PROBLEM)
    return tmp_path / "instruct.parquet", tmp_path / "seeds.parquet"


def section(laptop: Params, **values: Any) -> InstructTune:
    return changed(laptop, instruct_tune=values).instruct_tune


def test_the_pipelines_pairs_are_taken_in_their_order(files, laptop: Params):
    pairs = training_pairs(section(laptop), *files, run_seed=17)
    assert pairs == [(f"sums/0/{n}", f"q{n}", f"r{n}") for n in range(N)]


def test_seeds_with_their_own_solutions_are_a_control(files, laptop: Params):
    pairs = training_pairs(section(laptop, data="seeds"), *files, run_seed=17)
    assert pairs == [(f"gsm8k/{n}", f"Q{n}", f"S{n}") for n in (0, 1, 2, 4)]


def test_sizes_are_nested_and_no_first_rows(files, laptop: Params):
    drawn = {n: training_pairs(section(laptop, n_examples=n), *files, run_seed=17) for n in (5, 10, 20, N)}
    assert [len(pairs) for pairs in drawn.values()] == [5, 10, 20, N]
    assert set(drawn[5]) < set(drawn[10]) < set(drawn[20]) < set(drawn[N])
    assert drawn[20] != drawn[N][:20]


def test_each_size_keeps_the_generators_shares(files, laptop: Params):
    rows = read_rows(files[0], INSTRUCTION)
    for row in rows[:10]:
        row["generator"] = "legs"
    write_rows(files[0], rows, INSTRUCTION)
    drawn = {row_id for row_id, _, _ in training_pairs(section(laptop, n_examples=8), *files, run_seed=17)}
    # 10 of 40 are of one generator, so 2 of 8.
    assert len(drawn & {row["id"] for row in rows[:10]}) == 2


def test_too_few_pairs_are_refused(files, laptop: Params):
    with pytest.raises(UserError, match="n_examples: 5, but `seeds` has 4 pairs"):
        training_pairs(section(laptop, data="seeds", n_examples=5), *files, run_seed=17)


def turn(role: str, content: Any) -> dict[str, Any]:
    return {"role": role, "content": content}


ROWS = [
    pytest.param({"question": "Q", "response": "R"}, id="ours"),
    pytest.param({"query": "Q", "response": "R", "type": "MATH_Rephrased", "original_question": "no"}, id="metamath"),
    pytest.param({"problem": "Q", "solution": "R", "answer": "7"}, id="numinamath"),
    pytest.param({"problem": "Q", "generated_solution": "R", "expected_answer": "7"}, id="openmathinstruct"),
    pytest.param({"problem": "Q", "solution": "R", "answer": "7", "messages": [turn("user", "Q"), turn("assistant", "R")]}, id="numinamath_with_messages"),
    pytest.param({"instruction": "Q", "input": "", "output": "R"}, id="alpaca"),
    pytest.param({"instruction": "Q", "context": "", "response": "R", "category": "open_qa"}, id="dolly"),
    pytest.param({"prompt": "Q", "completion": "R"}, id="trl"),
    pytest.param({"prompt": [turn("user", "Q")], "completion": [turn("assistant", "R")]}, id="trl_turns"),
    pytest.param({"prompt": [turn("system", "S"), turn("user", "Q")], "completion": "R"}, id="trl_turns_and_text"),
    pytest.param({"question": "Q", "answer": "R"}, id="question_answer"),
    pytest.param({"messages": [turn("user", "Q"), turn("assistant", "R")]}, id="messages"),
    pytest.param({"messages": [turn("system", "S"), turn("user", "Q"), turn("assistant", "R")]}, id="a_system_turn"),
    pytest.param({"messages": [turn(role, [{"type": "text", "text": text}]) for role, text in (("user", "Q"), ("assistant", "R"))]}, id="text_parts"),
    pytest.param({"conversations": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "R"}]}, id="sharegpt"),
    pytest.param({"question": "Q", "response": "R", "instruction": None, "output": None}, id="null_columns"),
]  # fmt: skip


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".parquet"])
def test_an_external_set_is_read_in_the_forms_that_sets_have(tmp_path: Path, row: dict[str, Any], suffix: str):
    path = tmp_path / f"set{suffix}"
    if suffix == ".jsonl":
        write_jsonl(path, [row, row])
    elif suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist([row, row]), path)
    else:
        path.write_bytes(gzip.compress((json.dumps(row) + "\n").encode() * 2))
    digest = sha256(path.read_bytes()).hexdigest()
    assert external_pairs(str(path), digest) == [("0", "Q", "R"), ("1", "Q", "R")]


# GSM8K train, row 1, as published.
GSM8K = {
    "question": "Weng earns $12 an hour for babysitting. Yesterday, she just did 50 minutes. How much did she earn?",
    "answer": "Weng earns 12/60 = $<<12/60=0.2>>0.2 per minute.\nWorking 50 minutes, she earned 0.2 x 50 = $<<0.2*50=10>>10.\n#### 10",
}


@pytest.mark.parametrize(
    ("row", "question", "response"),
    [
        pytest.param(
            GSM8K, GSM8K["question"],
            "Weng earns 12/60 = $0.2 per minute.\nWorking 50 minutes, she earned 0.2 x 50 = $10.\nThe answer is \\boxed{10}.",
            id="gsm8k_as_the_seeds_have_it",
        ),
        pytest.param({"question": "Q", "answer": "#### Step 1\nAdd.\n\nSo 7."}, "Q", "#### Step 1\nAdd.\n\nSo 7.", id="a_markdown_heading_is_no_mark"),
        pytest.param({"instruction": "Add the numbers.", "input": "3, 4", "output": "7"}, "Add the numbers.\n\n3, 4", "7", id="alpaca_with_its_input"),
        pytest.param({"instruction": "Sum up.", "context": "Long.", "response": "R"}, "Sum up.\n\nLong.", "R", id="dolly_with_its_context"),
    ],
)  # fmt: skip
def test_each_form_has_its_own_question_and_response(tmp_path: Path, row: dict[str, Any], question: str, response: str):
    write_jsonl(tmp_path / "a.jsonl", [row])
    digest = sha256((tmp_path / "a.jsonl").read_bytes()).hexdigest()
    assert external_pairs(str(tmp_path / "a.jsonl"), digest) == [("0", question, response)]


def test_a_changed_file_is_refused(tmp_path: Path):
    write_jsonl(tmp_path / "a.jsonl", [{"question": "Q", "response": "R"}])
    with pytest.raises(UserError, match=r"data_sha256: .*a\.jsonl has [0-9a-f]{64}, params\.yaml pins 0000"):
        external_pairs(str(tmp_path / "a.jsonl"), "0" * 64)
    with pytest.raises(UserError, match="no such file"):
        external_pairs(str(tmp_path / "b.jsonl"), "0" * 64)


@pytest.mark.parametrize(
    "row",
    [
        pytest.param({"question": "Q"}, id="no_response"),
        pytest.param({"response": "R"}, id="no_question"),
        pytest.param({"question": 5, "response": "R"}, id="no_text"),
        pytest.param({"question": "", "response": "R"}, id="empty"),
        pytest.param({"messages": [{"role": "system", "content": "S"}]}, id="no_pair_of_turns"),
        pytest.param({"messages": [turn(r, "t") for r in ("user", "assistant") * 2]}, id="two_exchanges"),
        pytest.param({"prompt": "Q", "chosen": "R", "rejected": "S"}, id="preferences"),
        pytest.param({"instruction": "Q", "input": "I", "output": " "}, id="blank"),
        pytest.param({"text": "Q R"}, id="one_column"),
        pytest.param({}, id="empty_row"),
    ],
)
@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".parquet"])
def test_a_row_of_no_known_form_is_named_with_its_columns(tmp_path: Path, row: dict[str, Any], suffix: str):
    path = tmp_path / f"a{suffix}"
    if suffix == ".parquet":
        if not row:
            pytest.skip("a Parquet row has the columns of its file")
        pq.write_table(pa.Table.from_pylist([row]), path)
        where = "row 1"
    else:
        # The blank line counts, as in an editor.
        text = json.dumps({"question": "Q", "response": "R"}) + "\n\n" + json.dumps(row) + "\n"
        path.write_bytes(text.encode() if suffix == ".jsonl" else gzip.compress(text.encode()))
        where = "3"
    with pytest.raises(UserError) as refused:
        external_pairs(str(path), sha256(path.read_bytes()).hexdigest())
    message = str(refused.value)
    assert message.startswith(
        (f"{path}:{where}: no question and response in", f"{path}: {where}: no question and response in")
    )
    assert all(column in message for column in row)
    assert "GSM8K" in message
    assert "TRL" in message
    assert "Alpaca" in message


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"seeds": {"student_2": 1}}, "has no `student`"),
        ({"seeds": {"student": 1, "base": 2}}, "'base' becomes a file name"),
        ({"seeds": {"student": 1, "student_2": 1}}, "gives two students one seed"),
        ({"data": "metamath"}, "Expected instruct, seeds, or the path"),
        ({"data": "metamath.jsonl"}, "leaves metamath.jsonl unpinned"),
        ({"data_sha256": "0" * 64}, "pins a file, but data is `instruct`"),
    ],
)
def test_contradictions_are_named_before_anything_runs(values: dict[str, Any], message: str):
    data = read_yaml(LAPTOP)
    data["instruct_tune"] |= values
    with pytest.raises(UserError, match=message):
        parse_params(data)


def test_the_text_parts_of_a_column_are_one_text(tmp_path: Path):
    path = tmp_path / "pairs.jsonl"
    write_jsonl(path, [{"question": "2 + 2?", "answer": [{"type": "text", "text": "It is 4\n#### 4"}]}])
    [(_, question, response)] = external_pairs(str(path), sha256(path.read_bytes()).hexdigest())
    assert (question, "\\boxed{4}" in response) == ("2 + 2?", True)


def test_a_broken_parquet_file_is_named(tmp_path: Path):
    path = tmp_path / "pairs.parquet"
    path.write_bytes(b"PAR1 no such thing")
    with pytest.raises(UserError, match="not a Parquet file"):
        external_pairs(str(path), sha256(path.read_bytes()).hexdigest())
