"""`scalequest errors`: rates whose counts can be derived by hand, and a judge that is measured with them."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from scalequest.answers.code import SOLUTION_LINE
from scalequest.answers.sandbox import Verdict
from scalequest.cli import main
from scalequest.domains import wording
from scalequest.domains.maths import judge_turns
from scalequest.errors import UserError
from scalequest.params import Marks, Params, load_all
from scalequest.problems.puzzles import encoded, known_answer
from scalequest.run import error_rates as module
from scalequest.run.error_rates import (
    Ask,
    by_question,
    error_rates,
    failed_programs,
    in_words,
    judge_model,
    rate_of,
    wrong_answers,
)
from scalequest.sampling.completion import Completion
from tests.audit.pipeline import Pipeline
from tests.fakes import LAPTOP, changed, parameter_file, stopped
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
    ask = judge_model(f"api:{endpoint.url}#big", laptop, 512, 17).complete
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
    again = judge_model(f"api:{endpoint.url}#big", laptop, 512, 17)
    error_rates(ROWS, SEEDS, laptop, 200, 17, again.complete, 12)
    assert len(endpoint.bodies) == paid
    assert again.cost()["api_requests_paid"] == 0


def test_a_judge_that_knows_nothing_is_named(laptop: Params, endpoint: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):  # fmt: skip
    monkeypatch.chdir(tmp_path)
    endpoint.answer = lambda body: completion(
        "Yes" if body["messages"][-1]["content"].startswith(BEFORE) else "\\boxed{0}"
    )
    found = error_rates(
        ROWS, SEEDS, laptop, 200, 17, judge_model(f"api:{endpoint.url}#m", laptop, 512, 17).complete, 12
    )
    assert found["judge"]["accuracy"]["broken questions rejected"]["frac"] == 0.0
    assert found["judge"]["decides"] == {"question": False, "answer": False}
    text = in_words(found)
    assert "it does not tell sound questions from broken ones (two standard errors): its rate means nothing" in text
    assert "it does not tell sound answers from broken ones" in text


def oracle(params: Params, solutions: dict[str, str]) -> tuple[Ask, list[int]]:
    """A judge that accepts the questions of ``solutions`` and solves these alone, and how much each call asked."""
    domain, asked = wording(params.domain), []
    said = {domain.judge_turns(question, "reasoned")[-1]: "Yes" for question in solutions}
    said |= {domain.solve_prompt(question): f"\\boxed{{{answer}}}" for question, answer in solutions.items()}

    def ask(conversations: Sequence[list[str]]) -> list[Completion]:
        asked.append(len(conversations))
        # To any other question "No", which solves nothing.
        return [stopped(said.get(turns[-1], "No")) for turns in conversations]

    return ask, asked


def test_a_judge_in_a_code_run_is_measured_on_all_seeds():
    code = load_all(parameter_file("laptop-code"))
    tasks = [f"Write a function f{i} that adds {i} to a number.\n\nassert f{i}(1) == {i + 1}" for i in range(10)]
    seeds = [
        {"id": f"m/{i}", "source": "m", "stratum": "", "question": task,
         "solution": f"```python\ndef f{i}(x):\n    return x + {i}\n```",
         "answer": f"{SOLUTION_LINE}\nassert f{i}(1) == {i + 1}\n" if i < 8 else ""}  # code seeds may have no tests
        for i, task in enumerate(tasks)
    ]  # fmt: skip
    rows = [
        row("a", tasks[0], "```python\ndef f0(x):\n    return x\n```", "def f0(x):\n    return x"),
        row("b", "Write a function.", "```python\ndef f(x):\n    return x\n```", "def f(x):\n    return x"),
    ]
    ask, asked = oracle(code, dict.fromkeys(tasks, ""))
    found = error_rates(rows, seeds, code, 200, 17, ask, n_calibration=64)["judge"]
    assert by_rule(found["rates"]) == {"cannot be solved": (2, 1)}
    assert {name: (share["n"], share["frac"]) for name, share in found["accuracy"].items()} == {
        "sound questions accepted": (10, 1.0),
        "broken questions rejected": (10, 1.0),
    }
    assert found["decides"] == {"question": True}
    assert found["left_out"].startswith("answers: two programs are not compared")
    assert asked == [2 + 2 * 10]  # no question is solved


def test_a_judge_in_a_logic_run_is_measured_on_puzzles_and_plain_answers():
    logic = load_all(parameter_file("laptop-logic"))
    names = ["Ann", "Bob", "Eve", "Tom", "Mia", "Joe", "Sam", "Zoe"]
    seeds = [
        {"id": f"family/{i}", "source": "family", "stratum": "", "question": f"{name} is younger than {older}. Who is younger of the two?",
         "solution": "", "answer": encoded("family_relationships", {"answer": name, "metadata": {}})}
        for i, (name, older) in enumerate(zip(names, names[1:] + names[:1], strict=True))
    ]  # fmt: skip
    # Two puzzles that differ in what their verifier reads, with one answer: neither's is a wrong one of the other.
    for i in range(2):
        read = {"buttons": [i], "initial_state": "red", "initial_value": i, "target_value": 9}
        lock = {
            "question": f"Lock {i} opens at 9 and is at {i}. Which buttons open it?",
            "answer": encoded("quantum_lock", {"answer": "A → B", "metadata": read}),
        }
        seeds.append(seeds[0] | {"id": f"lock/{i}", "source": "lock"} | lock)
    plain = seeds[0] | {"id": "own/0", "question": "Ann is older than Bob. Who is younger?", "answer": "Bob"}
    others = [plain | {"id": "own/1", "answer": ""}, plain | {"id": "own/2", "answer": f"{SOLUTION_LINE}\nassert 1"}]
    solutions = {seed["question"]: known_answer(seed["answer"]) for seed in [*seeds, plain]}
    rows = [
        row("a", plain["question"], "The answer is \\boxed{Bob}.", "bob."),
        row("b", plain["question"], "The answer is \\boxed{nobody}.", "nobody"),
        row("c", "Who?", "The answer is \\boxed{Ann}.", "Ann"),
    ]
    ask, _ = oracle(logic, solutions)
    found = error_rates(rows, [*seeds, plain, *others], logic, 200, 17, ask, n_calibration=64)["judge"]
    assert by_rule(found["rates"]) == {"cannot be solved": (3, 1), "the judge answers otherwise": (2, 1)}
    assert {name: (share["n"], share["frac"]) for name, share in found["accuracy"].items()} == {
        "sound questions accepted": (11, 1.0),
        "broken questions rejected": (11, 1.0),
        "right answers accepted": (11, 1.0),
        "wrong answers rejected": (11, 1.0),
    }
    assert found["decides"] == {"question": True, "answer": True}


def test_a_wrong_answer_is_another_text_than_the_right_one():
    # The fourth is the third in another notation; alone among equals an answer gets another formula.
    assert wrong_answers("maths", ["1", "2", "0.5", "1/2"]) == ["2", "0.5", "1", "1"]
    assert wrong_answers("puzzle", ["Ann", "ann."]) == ["-1 - (Ann)", "-1 - (ann.)"]


def test_programs_fail_under_their_questions_assertions(monkeypatch: pytest.MonkeyPatch):
    question = "Write a function f that adds one.\n\nassert f(1) == 2"
    rows = [
        row("a", question, "```python\ndef f(x):\n    return x + 1\n```", ""),
        row("b", question, "```python\ndef f(x):\n    return x\n```", ""),
        row("c", "Write a function f that adds one.", "```python\ndef f(x):\n    return x\n```", ""),
    ]
    assert failed_programs(rows) == [False, True, None]
    monkeypatch.setattr(module, "run_programs", lambda programs: [Verdict("timeout", "") for _ in programs])
    assert failed_programs(rows) == [None, None, None]


def test_a_comparison_out_of_time_is_no_verdict(laptop: Params, monkeypatch: pytest.MonkeyPatch):
    late = "9"  # of the second row, and of the first seed as the judge solves it
    outcome = {True: "timeout", False: "right"}

    def check(kind: str, answers: Sequence[str], found: Sequence[str | None]) -> list[str]:
        return [
            "timeout" if late in (a, f) else real_check(kind, [a], [f])[0] for a, f in zip(answers, found, strict=True)
        ]

    real_check = module.check
    monkeypatch.setattr(module, "check", check)
    monkeypatch.setattr(module, "compare", lambda first, second: [outcome[late in pair] for pair in zip(first, second, strict=True)])  # fmt: skip
    rows = [*ROWS[:4], row("sums/0/5", SEEDS[0]["question"], "The answer is 9.", "9")]
    ask, _ = oracle(laptop, {seed["question"]: seed["answer"] for seed in SEEDS})
    found = error_rates(rows, SEEDS, laptop, 200, 17, ask, n_calibration=12)
    counts = by_rule(found["rules"])
    assert counts["wrong, where the question is plain arithmetic"] == (1, 0)  # the other's answer is 9
    assert counts["wrong, where the question is a seed's"] == (0, 0)  # both are compared with 9
    assert by_rule(found["judge"]["rates"])["the judge answers otherwise"] == (0, 0)
    assert found["judge"]["undecided"]["answer"] == 5
    accuracy = found["judge"]["accuracy"]
    # Twelve seeds with the answers 9, 11, 13, ...: the first is late. The last one's wrong answer is 11, because 9 is late.
    assert (accuracy["right answers accepted"]["n"], accuracy["wrong answers rejected"]["n"]) == (11, 11)
    assert accuracy["right answers accepted"]["frac"] == accuracy["wrong answers rejected"]["frac"] == 1.0


def test_a_judge_that_solves_nothing_decides_nothing(laptop: Params):
    ask, _ = oracle(laptop, {})
    found = error_rates(ROWS, SEEDS, laptop, 200, 17, ask, n_calibration=12)
    accuracy = found["judge"]["accuracy"]["right answers accepted"]
    assert accuracy == {"n": 0, "frac": None, "standard_error": None}
    assert found["judge"]["decides"] == {"question": False, "answer": False}
    assert "right answers accepted" in in_words(found)


def test_what_was_dropped_before_gets_a_line_and_no_rate(laptop: Params):
    strict = {"check_arithmetic": True, "min_agreement": 2}
    marks = Marks(path="sources/marks.jsonl", sha256="0" * 64)
    found = error_rates(ROWS, SEEDS, changed(laptop, reward_select=strict, filter={"marks": marks}), 200, 17)
    assert list(by_rule(found["rules"])) == [
        "asks for nothing",
        "holds its own answer",
        "wrong, where the question is plain arithmetic",
        "wrong, where the question is a seed's",
    ]
    assert found["dropped_before"] == [
        "questions in another language, or shorter than screen.min_words (screen)",
        "questions that sources/marks.jsonl calls bad (filter.marks)",
        "answers with a wrong calculation (reward_select.check_arithmetic)",
        "answers that agree with no other sample (reward_select.min_agreement)",
    ]
    assert "reader" not in found
    line = "not estimated, because dropped before: questions that sources/marks.jsonl calls bad (filter.marks)"
    assert line in in_words(found)
    code = load_all(parameter_file("laptop-code"))
    found = error_rates([], [], changed(code, reward_select={"execute": True}), 200, 17)
    assert "fails on its question's assertions" not in by_rule(found["rules"])
    assert "programs that fail on their question's assertions (reward_select.execute)" in found["dropped_before"]


def test_own_questions_that_pass_no_screen_are_checked_for_language_and_length(laptop: Params):
    german = "Anna hat drei Äpfel und kauft noch vier. Wie viele Äpfel hat sie jetzt insgesamt?"
    rows = [*ROWS, row("mine/0", german, "", "7"), row("mine/1", "How many?", "", "1")]
    marks = Marks(path="m.jsonl", sha256="0" * 64)
    own = changed(laptop, respond={"questions": "own/mine"}, screen={"language": "ascii"}, filter={"marks": marks})
    found = error_rates(rows, [], own, 200, 17)
    counts = by_rule(found["rules"])
    assert counts["not in the language wanted (ascii)"] == (7, 1)
    assert counts["fewer words than screen.min_words"] == (7, 1)
    assert found["dropped_before"] == []  # neither screen nor filter saw them


def test_verdicts_belong_to_rows_by_place():
    rows = [{"id": "a"}, {"id": "b"}, {"id": "a"}, {"id": "c"}]
    assert by_question(rows, [True, False, False, None]) == {"a": [True, False], "b": [False]}
    with pytest.raises(ValueError, match="shorter"):
        by_question(rows, [True])


@pytest.fixture
def finished(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hand-written run, with all parameters; both its training rows are wrong: 01 for 1 + 1 and 11 for 2 + 2."""
    (pipeline.root / "params.yaml").write_text(LAPTOP.read_text())
    monkeypatch.chdir(pipeline.root)
    return pipeline.root


def test_the_command_prints_a_table_or_json(
    finished: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    files = sorted(path for path in finished.rglob("*") if path.is_file())
    marks = [{"id": f"sums/0/{n}", "mark": mark, "question": question}
             for n, mark, question in ((0, "good", "What is 1 + 1?"), (1, "bad", "What is 2 + 2?"), (3, "bad", "Why"))]  # fmt: skip
    main_ok("errors", "--seed", "5")
    out = capsys.readouterr().out
    assert out.startswith("2 of 2 training rows, drawn by seed 5\n")
    assert re.search(r"answer: wrong, where the question is plain arithmetic +2 +2 +100\.0 ± ", out)
    assert sorted(path for path in finished.rglob("*") if path.is_file()) == files
    (finished / "marks.jsonl").write_text("".join(json.dumps(mark) + "\n" for mark in marks))
    monkeypatch.setenv("HOME", str(finished))
    # Marks of the run's own filter, of which none is left among the rows, are no reader's word on them.
    text = LAPTOP.read_text()
    assert "  marks: null" in text
    pinned = f"  marks: {{path: gone.jsonl, sha256: {'ab' * 32}}}"
    (finished / "params.yaml").write_text(text.replace("  marks: null", pinned))
    main_ok("errors")
    out = capsys.readouterr().out
    assert "not estimated, because dropped before: questions that gone.jsonl calls bad (filter.marks)" in out
    assert "reader" not in out
    main_ok("errors", "--json", "--marks", "~/marks.jsonl", "--rows", "1")
    found = json.loads(capsys.readouterr().out)
    assert (found["rows"], found["drawn"], found["seed"]) == (2, 1, 17)
    [rate] = found["reader"]["rates"]
    assert (rate["decided"], rate["wrong"], found["reader"]["marks_of_other_questions"]) == (2, 1, 1)


def test_the_judges_cost_is_printed_and_no_output_changes(finished: Path, endpoint: Endpoint, capsys: pytest.CaptureFixture[str]):  # fmt: skip
    text = (finished / "params.yaml").read_text()
    for side, usd in (("input", 2.0), ("output", 100.0)):
        text, n = re.subn(rf"(usd_per_million_{side}: )\S+", rf"\g<1>{usd}", text, count=1)
        assert n == 1
    (finished / "params.yaml").write_text(text)
    before = {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}
    endpoint.answer = good_judge
    command = ("errors", "--judge", f"api:{endpoint.url}#big", "--calibration", "2")
    main_ok(*command)
    n = len(endpoint.bodies)
    # Two rows and two seeds as they are and broken are judged, and the four sound ones are solved.
    assert n == 2 + 2 + 2 + 4
    # Each of 10 tokens in and 4 out: 10 * $2 + 4 * $100 per million.
    paid = f"paid now: {n} requests, {10 * n} + {4 * n} tokens, ${n * 420e-6:.4f}"
    assert paid in capsys.readouterr().out
    after = {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}
    assert {path: after[path] for path in before} == before
    assert [path.relative_to(finished) for path in after.keys() - before.keys()] == [Path(".work/api/errors.jsonl")]
    main_ok(*command, "--json")
    cost = json.loads(capsys.readouterr().out)["judge"]["cost"]
    assert (cost["api_requests_paid"], cost["api_usd"]) == (0, 0.0)


def main_ok(*argv: str) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(list(argv))
    assert not stopped.value.code


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--judge", "https://host/v1"], "--judge: 'https://host/v1'. Expected api:https://HOST/v1#MODEL"),
        (["--rows", "0"], "errors: --rows 0. Expected at least 1."),
        (["--marks", "no.jsonl"], "--marks: no.jsonl: no such file. Expected marks, saved from the report."),
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
    said = capsys.readouterr().err
    assert "errors: data/instruct.parquet is not there. Expected a finished run. Run `dvc pull" in said
    assert "--allow-missing` for a recorded one's tables, or `dvc repro reward_select`" in said
    with pytest.raises(UserError, match="0 seeds have an answer that can be compared"):
        error_rates(ROWS, [], laptop, 5, 17, ask=lambda turns: [], n_calibration=2)
