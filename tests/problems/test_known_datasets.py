from collections import Counter
from collections.abc import Callable, Sequence

import pytest

from scalequest.answers import sandbox
from scalequest.answers.code import fenced_code, is_test_program, parts_of
from scalequest.answers.compare import compare
from scalequest.answers.sandbox import PASSED, TIMEOUT, Program, Verdict, run_program, run_programs
from scalequest.errors import UserError
from scalequest.io import read_jsonl
from scalequest.problems.known_datasets import canonical, stratum
from tests.answers.sandbox_many import run_many
from tests.fakes import real_data


def test_gsm8k_and_math_come_under_one_name():
    assert canonical({"question": "Q?", "answer": "2 + 2 = 4\n#### 4"}) == {
        "question": "Q?", "solution": "2 + 2 = 4\n#### 4", "answer": "4",
    }  # fmt: skip
    assert canonical({"problem": "Q?", "solution": "So \\boxed{4}."})["answer"] == "4"


@pytest.mark.parametrize(
    ("row", "subject"),
    [
        pytest.param({"problem": "Q?", "level": "Level 5", "type": "Algebra"}, "Algebra", id="math"),
        pytest.param({"question": "Q?", "subject": "Geometry ", "level": 3}, "Geometry", id="math500"),
        pytest.param({"question": "Q?", "stratum": "a", "subject": "b"}, "a", id="our_own_column_first"),
        pytest.param({"question": "Q?", "type": "open"}, "", id="a_type_without_a_level_is_no_subject"),
        pytest.param({"question": "Q?", "subject": None}, "", id="null"),
        pytest.param({"question": "Q?", "subject": 7}, "", id="a_number"),
        pytest.param({"question": "Q?"}, "", id="none"),
    ],
)
def test_the_subject_of_a_row_is_its_stratum(row: dict, subject: str):
    assert stratum(row) == subject


@pytest.mark.parametrize(
    "row",
    [
        pytest.param({"id": 60, "problem": "Q?", "solution": "So \\boxed{033}.", "answer": "033", "url": "u", "year": "2024"}, id="HuggingFaceH4/aime_2024"),
        pytest.param({"ID": "2024-II-4", "Problem": "Q?", "Solution": "m+n = \\boxed{33}.", "Answer": 33}, id="Maxwell-Jia/AIME_2024"),
        pytest.param({"problem": "Q?", "answer": "33", "id": "0"}, id="math-ai/aime25"),
        pytest.param({"question": "Q?", "answer": "It is 3 * 11 = <<3*11=33>>33.\n#### 33", "cleaning_status": "consensus"}, id="madrylab/gsm8k-platinum"),
    ],
)  # fmt: skip
def test_copies_of_one_test_set_have_one_answer(row: dict):
    found = canonical(row)
    assert found["question"] == "Q?"
    assert compare([str(found["answer"])] * 3, ["33", "033", "330"]) == ["right", "right", "wrong"]


def test_several_answers_are_one_list():
    assert canonical({"question": "Q?", "answer": "$69$,$84$", "is_multiple_answer": True})["answer"] == "69,84"


@pytest.mark.parametrize(
    ("row", "named"),
    [
        pytest.param({"test_list": ["assert f() == 1"], "text": "q"}, r"test_list, text are .*KeyError: 'code'", id="mbpp_without_code"),
        pytest.param({"prompt": "q", "test": "t", "entry_point": "f"}, "KeyError: 'canonical_solution'", id="humaneval_without_solution"),
        pytest.param({"prompt": None, "test": "t", "entry_point": "f"}, "AttributeError: 'NoneType'", id="null"),
        pytest.param({"question": "q", "is_multiple_answer": True}, "KeyError: 'answer'", id="olympiadbench_without_answer"),
        pytest.param({"test_list": 1, "code": 2, 3: "a"}, "3, code, test_list are", id="names_that_are_no_text"),
    ],
)  # fmt: skip
def test_a_row_without_its_sets_columns_is_named(row: dict, named: str):
    with pytest.raises(UserError, match=named):
        canonical(row)
    with pytest.raises(UserError, match=r"^mine\.jsonl, row 3: the columns .* Expected every column of that set"):
        canonical(row, "mine.jsonl, row 3")


def test_codefeedback_has_no_tests():
    row = canonical({"query": "Write f.", "answer": "```python\nx = 1\n```", "lang": "python", "resource": "x"})
    assert row == {"question": "Write f.", "solution": "```python\nx = 1\n```", "answer": ""}


def test_a_stub_is_asked_for_and_its_helpers_stay_for_the_tests():
    row = canonical({
        "task_id": "HumanEval/0", "prompt": "def helper(): return 1\n\ndef f(x):\n    \"\"\"Add.\"\"\"\n", "entry_point": "f",
        "canonical_solution": "    return x + helper()\n", "test": "def check(candidate):\n    assert candidate(1) == helper() + 1\n",
    })  # fmt: skip
    assert row["question"].startswith("Complete this Python function:\n```python\ndef helper()")
    right, wrong = "def f(x): return x + 1", "def g(x): return x"
    outcomes = [v.outcome for v in run_programs([Program(code, *parts_of(row["answer"])) for code in (right, wrong)])]
    assert outcomes[0] == PASSED != outcomes[1]


def test_mbpp_shows_its_tests_and_keeps_its_setup_after_the_solution():
    row = canonical({
        "task_id": 7, "text": "Write f.", "code": "def f(x):\r\n\treturn root(x)", "test_setup_code": "root = lambda x: x",
        "test_list": ["assert f(1) == 1", "assert f(2) == 2"], "challenge_test_list": [],
    })  # fmt: skip
    assert row["question"] == "Write f.\nYour code should pass these tests:\nassert f(1) == 1\nassert f(2) == 2"
    assert row["answer"].split("\n", 1)[1].startswith("root = lambda x: x\n")
    assert run_programs([Program(fenced_code(row["solution"]) or "", *parts_of(row["answer"]))])[0].outcome == PASSED


@pytest.fixture(scope="module")
def passed() -> set[Program]:
    """Reference solutions that passed: of MBPP's 427 sanitized rows, 279 have the program and tests of the full set."""
    return set()


@pytest.fixture
def many(monkeypatch: pytest.MonkeyPatch) -> Callable[[Sequence[Program]], list[Verdict]]:
    """Runs programs in a sandbox that is started for many of them."""

    def run(programs: Sequence[Program]) -> list[Verdict]:
        start = sandbox.START.replace("scalequest.answers.sandbox_child", "tests.answers.sandbox_many")
        with monkeypatch.context() as patch:
            patch.setattr(sandbox, "PYTHON", tuple(start if word == sandbox.START else word for word in sandbox.PYTHON))
            return run_many(programs)

    return run


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "rows"), [("humaneval/test.jsonl", 164), ("mbpp/mbpp.jsonl", 974), ("mbpp/sanitized-mbpp.jsonl", 427)]
)
def test_every_reference_solution_passes_and_an_empty_one_does_not(name: str, rows: int, passed: set[Program], many):
    problems = [canonical(row) for row in read_jsonl(real_data(name))]
    assert len(problems) == rows
    assert all(is_test_program(p["answer"]) for p in problems)
    sources = [Program(fenced_code(p["solution"]) or "raise ValueError", *parts_of(p["answer"])) for p in problems]
    new = [source for source in sources if source not in passed]
    verdicts = many(new)
    late = [at for at, v in enumerate(verdicts) if v.outcome == TIMEOUT]
    for at in late[:2]:  # one needs 3 of its 5 s of CPU on an idle core
        verdicts[at] = run_program(new[at])
    assert Counter(v.outcome for v in verdicts) == {PASSED: len(new)}, [v for v in verdicts if v.outcome != PASSED]
    passed |= set(new)
    assert all(v.separated for v in verdicts)
    # 20 of each in sandboxes of their own, as the stages run them: many in one must come to the same verdicts. Without a
    # solution, too, since a test that passes then would score every model.
    some = [*sources[:20], *(Program("pass", *parts_of(p["answer"])) for p in problems[:20])]
    alone = run_programs(some)
    assert alone == many(some)
    assert [v.outcome == PASSED for v in alone] == [True] * 20 + [False] * 20
