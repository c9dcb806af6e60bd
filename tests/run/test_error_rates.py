"""`scalequest errors`: rates whose counts can be derived by hand, and a judge that is measured with them."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from scalequest.cli import main
from scalequest.domains.maths import judge_turns
from scalequest.errors import UserError
from scalequest.params import Params
from scalequest.run.error_rates import error_rates, in_words, judge_model, program_rate, rate_of
from tests.audit.pipeline import Pipeline
from tests.fakes import LAPTOP
from tests.scripted import Endpoint, Reply, completion


def row(name: str, question: str, response: str, answer: str, agreement: float = 1.0) -> dict[str, Any]:
    return {"id": name, "generator": "sums", "question": question, "response": response, "final_answer": answer,
            "reward": 1.0, "agreement": agreement, "n_candidates": 4}  # fmt: skip


ROWS = [
    row("sums/0/0", "What is 3 + 4?", "3 + 4 = 7. The answer is 7.", "7"),
    row("sums/0/1", "What is 3 + 5?", "3 + 5 = 9. The answer is 9.", "9", agreement=0.25),
    row("sums/0/2", "Tom has 2 apples and buys 5. How many?", "So 2 + 5 = 7. The answer is 7.", "7"),
    row("sums/0/3", "Tom has 3 apples and buys 6. How many?", "He has them all. The answer is 8.", "8", agreement=0.5),
    row("sums/0/4", "Tom has 2 apples and 4 more.", "The answer is 6.", "6", agreement=0.25),
]
SEEDS = [
    {"id": f"a/{i}", "source": "a", "stratum": "", "question": f"Tom has {i} apples and buys {i + 3}. How many?",
     "solution": f"{i} + {i + 3} = {2 * i + 3}", "answer": str(2 * i + 3)} for i in range(3, 15)
]  # fmt: skip
# Question and answer of the fourth row: i = 3, so its answer is 9.


def by_rule(rates: list[Any]) -> dict[str, tuple[int, int]]:
    return {rate.rule: (rate.decided, rate.wrong) for rate in rates}


def test_rules_count_what_they_decide(laptop: Params):
    found = error_rates(ROWS, SEEDS, laptop, n=200, seed=17)
    assert (found["rows"], found["drawn"]) == (5, 5)
    assert by_rule(found["rules"]) == {
        "asks for nothing": (5, 1),
        "holds its own answer": (5, 0),
        "not in the language wanted (lingua)": (5, 0),
        "fewer words than screen.min_words": (5, 0),
        "writes a wrong calculation": (3, 1),  # the last two write none
        "wrong, where the question is plain arithmetic": (2, 1),
        "wrong, where the question is a seed's": (1, 1),
        "agrees with no other sample (a sign, no proof)": (5, 2),  # 0.25 of four samples is the answer itself
    }
    # Plus-four: (1 + 2) / (3 + 4) = 3/7, and sqrt(3/7 * 4/7 / 7) = 0.187044.
    assert next(r for r in found["rules"] if r.decided == 3).standard_error == pytest.approx(0.187044, abs=1e-6)


def test_a_draw_is_repeatable_and_smaller_ones_are_parts_of_larger(laptop: Params):
    rows = [row(f"sums/0/{i}", f"What is {i} + 1?", "", str(i + 1 + (i % 3 == 0))) for i in range(60)]
    rule = "wrong, where the question is plain arithmetic"
    counts = [by_rule(error_rates(rows, [], laptop, n, seed)["rules"])[rule] for n, seed in ((30, 1), (30, 1), (60, 1))]
    assert counts[0] == counts[1]
    assert counts[0][0] == 30
    assert counts[2] == (60, 20)
    assert any(by_rule(error_rates(rows, [], laptop, 30, seed)["rules"])[rule] != counts[0] for seed in (2, 3, 4))


def test_rows_of_one_question_do_not_make_more_questions():
    apart = rate_of("answer", "x", {str(i): [i % 2 == 0] for i in range(40)})
    together = rate_of("answer", "x", {str(i): [i % 2 == 0] * 4 for i in range(10)})
    assert (apart.decided, together.decided, apart.rate, together.rate) == (40, 40, 0.5, 0.5)
    assert apart.standard_error is not None
    assert together.standard_error is not None
    assert together.standard_error > 2 * apart.standard_error  # of 10 questions, not of 40
    nothing = rate_of("answer", "x", {})
    assert (nothing.decided, nothing.rate, nothing.standard_error) == (0, None, None)


BEFORE, AFTER = judge_turns("@", "reasoned")[0].split("@")


def good_judge(body: dict[str, Any]) -> Reply:
    """Says Yes to a question with two numbers, and solves it by adding them."""
    text = body["messages"][-1]["content"]
    judging = text.startswith(BEFORE)
    question = text.removeprefix(BEFORE).removesuffix(AFTER) if judging else text.split("\n")[0]
    numbers = [int(found) for found in re.findall(r"\d+", question)]
    sound = len(numbers) == 2 and "?" in question
    if judging:
        return completion("Yes" if sound else "No")
    return completion(f"\\boxed{{{sum(numbers)}}}" if sound else "I cannot solve it.")


def test_a_judge_is_measured_on_sound_and_broken_seeds(laptop: Params, endpoint: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):  # fmt: skip
    monkeypatch.chdir(tmp_path)
    endpoint.answer = good_judge
    ask = judge_model(f"api:{endpoint.url}#big", laptop, 512, 17)
    found = error_rates(ROWS, SEEDS, laptop, 200, 17, ask, n_calibration=12)["judge"]
    assert by_rule(found["rates"]) == {"cannot be solved": (5, 1), "the judge answers otherwise": (4, 2)}
    assert found["undecided"] == {"question": 0, "answer": 1}
    assert {name: (share["n"], share["frac"]) for name, share in found["accuracy"].items()} == {
        "sound questions accepted": (12, 1.0),
        "broken questions rejected": (12, 1.0),
        "right answers accepted": (12, 1.0),
        "wrong answers rejected": (12, 1.0),
    }
    assert found["decides"] == {"question": True, "answer": True}
    paid = len(endpoint.bodies)
    assert paid == 5 + 2 * 12 + 5 + 12 - 2  # one row is a seed's question, asked once
    error_rates(ROWS, SEEDS, laptop, 200, 17, judge_model(f"api:{endpoint.url}#big", laptop, 512, 17), 12)
    assert len(endpoint.bodies) == paid


def test_a_judge_that_knows_nothing_is_named(laptop: Params, endpoint: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):  # fmt: skip
    monkeypatch.chdir(tmp_path)
    endpoint.answer = lambda body: completion(
        "Yes" if body["messages"][-1]["content"].startswith(BEFORE) else "\\boxed{0}"
    )
    found = error_rates(ROWS, SEEDS, laptop, 200, 17, judge_model(f"api:{endpoint.url}#m", laptop, 512, 17), 12)
    assert found["judge"]["accuracy"]["broken questions rejected"]["frac"] == 0.0
    assert found["judge"]["decides"] == {"question": False, "answer": False}
    text = in_words(found)
    assert "it does not tell sound questions from broken ones (two standard errors): its rate means nothing" in text
    assert "it does not tell sound answers from broken ones" in text


def test_programs_run_under_their_questions_assertions():
    question = "Write a function f that adds one.\n\nassert f(1) == 2"
    rows = [
        row("a", question, "```python\ndef f(x):\n    return x + 1\n```", ""),
        row("b", question, "```python\ndef f(x):\n    return x\n```", ""),
        row("c", "Write a function f that adds one.", "```python\ndef f(x):\n    return x\n```", ""),
    ]
    rate = program_rate(rows)
    assert (rate.decided, rate.wrong) == (2, 1)


@pytest.fixture
def finished(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hand-written run, with all parameters; both its training rows are wrong: 01 for 1 + 1 and 11 for 2 + 2."""
    (pipeline.root / "params.yaml").write_text(LAPTOP.read_text())
    monkeypatch.chdir(pipeline.root)
    return pipeline.root


def test_the_command_prints_a_table_or_json(finished: Path, capsys: pytest.CaptureFixture[str]):
    files = sorted(path for path in finished.rglob("*") if path.is_file())
    marks = [{"id": f"sums/0/{n}", "mark": mark, "question": question}
             for n, mark, question in ((0, "good", "What is 1 + 1?"), (1, "bad", "What is 2 + 2?"), (3, "bad", "Why"))]  # fmt: skip
    main_ok("errors", "--seed", "5")
    out = capsys.readouterr().out
    assert out.startswith("2 of 2 training rows, drawn by seed 5\n")
    assert re.search(r"answer: wrong, where the question is plain arithmetic +2 +2 +100\.0 ± ", out)
    assert sorted(path for path in finished.rglob("*") if path.is_file()) == files
    (finished / "marks.jsonl").write_text("".join(json.dumps(mark) + "\n" for mark in marks))
    main_ok("errors", "--json", "--marks", "marks.jsonl", "--rows", "1")
    found = json.loads(capsys.readouterr().out)
    assert (found["rows"], found["drawn"], found["seed"]) == (2, 1, 17)
    [rate] = found["reader"]["rates"]
    assert (rate["decided"], rate["wrong"], found["reader"]["marks_of_other_questions"]) == (2, 1, 1)


def main_ok(*argv: str) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(list(argv))
    assert not stopped.value.code


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--judge", "https://host/v1"], "--judge: 'https://host/v1'. Expected api:https://HOST/v1#MODEL"),
        (["--rows", "0"], "errors: --rows 0. Expected at least 1."),
        (["--marks", "no.jsonl"], "no.jsonl: no such file"),
    ],
)
def test_what_is_wrong_is_named(finished: Path, capsys: pytest.CaptureFixture[str], argv: list[str], message: str):
    with pytest.raises(SystemExit) as stopped:
        main(["errors", *argv])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_a_run_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], laptop: Params):  # fmt: skip
    (tmp_path / "params.yaml").write_text(LAPTOP.read_text())
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        main(["errors"])
    assert "errors: data/instruct.parquet is not there. Expected a finished run. Run: dvc repro reward_select" in capsys.readouterr().err  # fmt: skip
    with pytest.raises(UserError, match="0 seeds have an answer that can be compared"):
        error_rates(ROWS, [], laptop, 5, 17, ask=lambda turns: [], n_calibration=2)
