import json
from argparse import Namespace
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from scalequest.domains import DIFFICULTY, SOLVABILITY, wording
from scalequest.domains.maths import rewrite_turns, solve_prompt
from scalequest.errors import UserError
from scalequest.models.chat import ChatFormat
from scalequest.params import Params, SolverFeedback
from scalequest.records import PREFERENCE, QUESTION, read_rows, write_rows
from scalequest.runtime.stage import StageRun
from scalequest.sampling import remote
from scalequest.sampling import sample as sampling
from scalequest.sampling.completion import Completion
from stages.preferences import (
    flip,
    main,
    pair_verdict,
    parse_rewrite,
    partners,
    rewrite_row,
    side_of,
    solver_rates,
    usable,
)
from tests.fakes import QueueEngine, changed, cut, stopped


def question(number: int, text: str, finish_reason: str = "stop") -> dict[str, Any]:
    return {
        "id": f"sums/0/{number}", "generator": "sums", "question": text, "completion": text,
        "finish_reason": finish_reason, "n_tokens": 3, "seed": 1,
    }  # fmt: skip


# ---------------------------------------------------------------------------------------------------------- the coin


def test_the_coin_is_fair_over_many_questions():
    directions = Counter(flip(f"sums/{i // 64}/{i % 64}", 17, 0.5) for i in range(10_000))
    # 5,000 expected, standard deviation sqrt(10,000 / 4) = 50; four of them.
    assert abs(directions[SOLVABILITY] - 5_000) < 200
    assert directions[SOLVABILITY] + directions[DIFFICULTY] == 10_000


@pytest.mark.parametrize(("frac", "only"), [(0.0, DIFFICULTY), (1.0, SOLVABILITY)])
def test_a_coin_with_one_side_never_shows_the_other(frac: float, only: str):
    assert {flip(f"sums/0/{i}", 17, frac) for i in range(1_000)} == {only}


def test_the_coin_is_the_questions_own():
    ids = [f"sums/0/{i}" for i in range(200)]
    flips = {i: flip(i, 17, 0.5) for i in ids}
    # Neither the order nor the company of a question changes its direction; the run's seed does.
    assert {i: flip(i, 17, 0.5) for i in reversed(ids)} == flips
    assert {i: flip(i, 18, 0.5) for i in ids} != flips


# ------------------------------------------------------------------------------------------------------ pair filters

ORIGINAL = "How many is 3 + 2"  # 17 characters; with max_growth 4.0 a rewrite may have 68


@pytest.mark.parametrize(
    ("rewrite", "finish_reason", "verdict"),
    [
        pytest.param("Tom has 3 apples and buys 2. How many?", "stop", "kept", id="kept"),
        pytest.param("Tom has 3 apples and buys 2. How many?", "length", "cut", id="cut"),
        pytest.param("", "stop", "unparsed", id="empty"),
        pytest.param("", "length", "cut", id="cut_before_unparsed"),
        pytest.param(ORIGINAL, "stop", "identical", id="identical"),
        pytest.param("HOW  many is 3+2?", "stop", "identical", id="identical_but_for_case_and_spaces"),
        pytest.param("x" * 67 + "?", "stop", "kept", id="as_long_as_allowed"),
        pytest.param("x" * 68 + "?", "stop", "over_long", id="over_long"),
        pytest.param("How many? The answer is 5.", "stop", "leaks_solution", id="leaks_solution"),
        pytest.param("The answer is 5." + "x" * 60, "stop", "over_long", id="over_long_before_leak"),
        pytest.param("Tom has 3 apples and 2 pears.", "stop", "asks_nothing", id="statement"),
        pytest.param("3 + 2 = 5", "stop", "asks_nothing", id="equation"),
        pytest.param("The answer is 5.", "stop", "leaks_solution", id="leak_before_asking"),
        pytest.param("Find α if α + 2 = 5.", "stop", "kept", id="greek_letters_are_mathematics"),
    ],
)
def test_why_a_rewrite_makes_no_pair(rewrite: str, finish_reason: str, verdict: str):
    assert (
        pair_verdict(ORIGINAL, rewrite, finish_reason, max_growth=4.0, min_numbers=0.0, words=wording("maths"))
        == verdict
    )


@pytest.mark.parametrize(
    ("original", "rewrite", "verdict"),
    [
        # From a run of a 1.5B optimizer: half of the questions that it was to make solvable lost all their numbers.
        pytest.param("Of 20 students 6 have glasses. How many do not?", "How many do not have glasses?", "drops_numbers", id="last_sentence"),
        pytest.param("Christina is 24, half as old as Robert. How old is he?", "What is Robert's age?", "drops_numbers", id="the_only_number"),
        pytest.param("Dan has 8 eggs, 4 pens, 2 cups and 1 hat. How many?", "Dan has 3 eggs and 5 pens. How many?", "kept", id="half_of_them"),
        pytest.param("Dan has 8 eggs, 4 pens and 2 cups. How many?", "Dan has 3 eggs. How many?", "drops_numbers", id="fewer_than_half"),
        pytest.param("Tom has twelve apples. How many?", "Tom has 5 apples. How many?", "kept", id="a_word_is_a_number"),
        pytest.param("Twelve apples are red. How many?", "How many are red?", "drops_numbers", id="a_capital_letter"),
        pytest.param("What is the sum of two primes?", "What is the sum of two odd primes?", "kept", id="words_stay"),
        pytest.param("How many sides has a square?", "How many sides has a cube?", "kept", id="no_number_to_lose"),
    ],
)  # fmt: skip
def test_a_rewrite_keeps_half_of_the_numbers(original: str, rewrite: str, verdict: str):
    for least, expected in ((0.5, verdict), (0.0, "kept")):
        assert (
            pair_verdict(original, rewrite, "stop", max_growth=9.0, min_numbers=least, words=wording("maths"))
            == expected
        )


def test_what_the_rewrite_must_ask_the_original_must_ask_too():
    # Else a question mark alone tells chosen from rejected, and DPO learns to write one.
    verdict = partial(pair_verdict, finish_reason="stop", max_growth=9.0, min_numbers=0.0, words=wording("maths"))
    assert verdict("Tom has 3 apples.", "Tom has 3 apples. How many?") == "original_asks_nothing"
    assert verdict("Tom has 3 apples and?", "Tom has 3 apples. How many?") == "kept"
    assert verdict("Tom has 3 apples.", "Tom has 4 apples.") == "asks_nothing"
    words = wording("code")
    code = partial(pair_verdict, finish_reason="stop", max_growth=9.0, min_numbers=0.0, words=words)
    assert code("A list of numbers.", "Write a function that sums a list.") == "original_asks_nothing"


def test_what_the_rewrite_must_not_leak_the_original_must_not_leak_either():
    # Else DPO learns from the leak: rejected is the side that holds an answer.
    verdict = partial(pair_verdict, finish_reason="stop", max_growth=9.0, min_numbers=0.0, words=wording("maths"))
    assert verdict("What is 3 + 2? It is 5.", "What is 3 + 4?") == "original_leaks_solution"
    assert verdict("What is 3 + 2? 5", "What is 3 + 4?") == "original_leaks_solution"
    assert verdict("What is 3 + 2? It is 5.", "What is 3 + 4? It is 7.") == "leaks_solution"
    assert verdict("What is 3 + 2?", "What is 3 + 4?") == "kept"
    code = partial(pair_verdict, finish_reason="stop", max_growth=9.0, min_numbers=0.0, words=wording("code"))
    solved = "Write a function that adds.\n```python\ndef add(a, b):\n    return a + b\n```"
    assert code(solved, "Write a function that adds three numbers.") == "original_leaks_solution"


@pytest.mark.parametrize("style", ["few_shot", "sections"])
@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("<think>make it harder</think>\n", ""),
        ("Let me see.\n</think>\n\n", ""),  # a template may have opened the block
        ("<think>FINAL QUESTION: a draft?</think>\n", ""),
        ("", "\n\nLet's solve it: 5 + 3 = 8."),
        ("", "\nLet us first add them."),
        ("", "\n\n**Solution:** 5 + 3 = 8"),
        ("", "\n\n### Answer\n8"),
        ("", "\n\nStep 1: add 5 and 3."),
        ("", "\n\nTo solve this problem, add 5 and 3."),
        ("", "\n\nFirst, we add 5 and 3."),
        ("", "\n\nExplanation: I added a condition."),
        ("", "\n\nThis question is harder because it has two steps."),
        ("", "\n\nI added a second condition."),
    ],
)
def test_thoughts_and_solutions_are_no_part_of_a_rewrite(before: str, after: str, style: str):
    asked = "Tom has 5 apples and buys 3. How many apples does he have?"
    header = "FINAL QUESTION: " if style == "sections" else ""
    assert parse_rewrite(f"{before}{header}{asked}{after}", style) == asked


def test_an_unfinished_thought_is_no_rewrite():
    assert parse_rewrite("<think>Tom has 5 apples. How many?", "few_shot") == ""


@pytest.mark.parametrize(
    "question",
    [
        "Tom has 5 apples. How many?\n\n(A) 3\n(B) 5",
        "Find x.\nExpress your answer as a fraction.",
        "We are given x = 3.\nLet y = 2x.\nWhat is y?",
        "To find a treasure Tom walks 3 miles.\nFirst, he walks north. How far does he walk?",
        "A recipe:\nStep 1: take 3 eggs.\nStep 2: take 4 more.\nHow many eggs?",
    ],
)
def test_a_question_of_several_lines_stays_whole(question: str):
    assert parse_rewrite(question, "few_shot", wording("maths").asks) == question


@pytest.mark.parametrize(
    ("tail", "leaks"),
    [
        (" Let's solve it: add them.", True),
        (" 5 + 3 = 8", True),
        (" He has 5 + 3 = 8 apples.", True),
        (" $5 \\times 3 = 15$", True),
        (" 8", True),
        ("\n\n8 apples.", True),
        (" (The price is $4.)", False),
        (" Given: 2x + 3 = 7.", False),
        ("\n(A) 3 (B) 8", False),
        ("", False),
    ],
)
def test_a_rewrite_that_goes_on_with_its_solution_leaks_it(tail: str, leaks: bool):
    verdict = pair_verdict(
        "How many apples?", f"Tom has 5 apples and buys 3. How many?{tail}", "stop", 9.0, 0.0, wording("maths")
    )
    assert verdict == ("leaks_solution" if leaks else "kept")


def test_a_rejected_rewrite_keeps_its_completion_and_its_reason(laptop: Params):
    params = laptop.preferences.model_copy(update={"style": "sections"})
    row = rewrite_row(question(3, ORIGINAL), SOLVABILITY, stopped("I made no sections."), params, wording("maths"))
    assert row == {
        "id": "sums/0/3", "generator": "sums", "direction": SOLVABILITY, "question": ORIGINAL, "rewrite": "",
        "completion": "I made no sections.", "finish_reason": "stop", "verdict": "unparsed",
    }  # fmt: skip


def test_a_question_is_rewritten_once_and_only_if_it_ended():
    rows = [
        question(0, "Tom has 3."), question(1, ""), question(2, "tom has 3"), question(3, "Ann has", "length"),
        question(4, "Ann has 4."),
    ]  # fmt: skip
    assert [row["id"] for row in usable(rows)] == ["sums/0/0", "sums/0/4"]


# ------------------------------------------------------------------------------------------------------- whole stage


@pytest.fixture
def stage(tmp_path: Path, laptop: Params, chatml: ChatFormat, monkeypatch: pytest.MonkeyPatch):
    """Run the stage over these questions with these answers of the optimizer."""

    def run(rows: list[dict[str, Any]], answers: list[str | Completion], **section: Any) -> QueueEngine:
        engine = QueueEngine(chatml, answers)
        monkeypatch.setattr(sampling, "Engine", engine)
        write_rows(tmp_path / "questions", rows, QUESTION)
        args = Namespace(
            generator="sums", optimizer=tmp_path / "optimizer", questions=tmp_path / "questions",
            out=tmp_path / "out.parquet", metrics=tmp_path / "m.json",
        )  # fmt: skip
        params = changed(
            laptop, preferences={"style": "few_shot", "shard_size": 2, "max_growth": 4.0, "min_numbers": 0.0, **section}
        )
        main(args, StageRun(params))
        return engine

    return run


def test_the_stage_drops_rewrites_that_lost_their_numbers(stage, tmp_path: Path):
    rows = [question(0, "Of 20 students 6 sing. How many do not?"), question(1, "Ann has 4 pens. How many?")]
    stage(rows, ["How many do not sing?", "Ann has 5 pens. How many?"], min_numbers=0.5)
    assert [row["verdict"] for row in read_rows(tmp_path / "out.parquet", PREFERENCE)] == ["drops_numbers", "kept"]


def test_each_question_is_asked_for_one_aim_and_every_rewrite_is_accounted_for(stage, tmp_path: Path, laptop: Params):
    rows = [
        question(0, "Tom has?"),
        question(1, "Ann has 4?"),
        question(2, "Tom has?"),
        question(3, "Bob", "length"),
    ]
    engine = stage(rows, ["Tom has 3. How many?", "Ann has 4?"])
    directions = [flip(f"sums/0/{i}", laptop.seed, laptop.preferences.solvability_frac) for i in (0, 1)]
    assert engine.prompts == [
        engine.chat.decode(engine.chat.conversation(rewrite_turns(text, direction, "few_shot")))
        for text, direction in zip(["Tom has?", "Ann has 4?"], directions, strict=True)
    ]
    written = read_rows(tmp_path / "out.parquet", PREFERENCE)
    assert [(r["id"], r["verdict"], r["direction"]) for r in written] == [
        ("sums/0/0", "kept", directions[0]),
        ("sums/0/1", "identical", directions[1]),
    ]
    metrics = json.loads((tmp_path / "m.json").read_text())
    # Four sampled, of which one repeats and one was cut; of the two rewrites one is a pair.
    assert (metrics["questions"], metrics["usable"], metrics["pairs"]) == (4, 2, 1)
    assert metrics["kept_frac"] == 0.5
    assert metrics["rejected"] == {"identical": 1}
    assert sum(metrics["direction"].values()) == 2


def test_no_pair_at_all_is_an_error_that_says_why(stage, tmp_path: Path):
    with pytest.raises(UserError) as caught:
        stage([question(0, "Tom has 3."), question(1, "Ann has 4.")], ["Tom has 3.", cut("Ann")])
    message = str(caught.value)
    assert "2 questions sampled, 2 usable, all 2 rewrites rejected" in message
    assert "'identical': 1" in message
    assert "'cut': 1" in message
    assert not (tmp_path / "out.parquet").exists()


# ------------------------------------------------------------------------------------------------- solver's feedback

LIMITS = SolverFeedback(n_samples=4, min_pass_rate=0.5, max_pass_rate=0.75)
BY_SOLVER = {"source": "solver", "solver": LIMITS, "solvability_frac": 1.0}


def boxes(*values: int) -> list[str | Completion]:
    return [f"So \\boxed{{{value}}}" for value in values]


@pytest.mark.parametrize(
    ("rate", "side"),
    [(0.0, SOLVABILITY), (0.25, SOLVABILITY), (0.5, "chosen"), (0.75, "chosen"), (1.0, DIFFICULTY)],
)
def test_a_questions_side_is_that_of_its_pass_rate(rate: float, side: str):
    assert side_of(rate, LIMITS) == side


def test_a_cut_answer_agrees_with_none():
    rows = [question(0, "How many?")]
    answers = [stopped("\\boxed{1}"), stopped("\\boxed{1.0}"), cut("\\boxed{1}"), stopped("no idea")]
    assert solver_rates(rows, [answers]) == [0.5]


def test_answers_in_words_agree_by_their_words():
    answers = [stopped("\\boxed{Ann}"), stopped("The answer is ann."), stopped("\\boxed{Bob}"), stopped("no idea")]
    assert solver_rates([question(0, "Who lies?")], [answers], "puzzle") == [0.5]


@pytest.mark.parametrize(
    ("frac", "answers", "pair"),
    [
        # Question 1 agrees on 3 of 4 and is chosen. Question 0 agrees on nothing, 2 on everything.
        (1.0, (boxes(1, 2, 3, 4), boxes(5, 5, 5, 6), boxes(7, 7, 7, 7)), (0, SOLVABILITY)),
        (0.0, (boxes(1, 2, 3, 4), boxes(5, 5, 5, 6), boxes(7, 7, 7, 7)), (2, DIFFICULTY)),
    ],
)
def test_the_solvers_answers_make_the_pairs(stage, tmp_path: Path, frac: float, answers: Any, pair: tuple[int, str]):
    texts = ["How many is it?", "How many has Ann?", "How many has Tom?"]
    engine = stage([question(i, text) for i, text in enumerate(texts)], [x for a in answers for x in a],
                   **BY_SOLVER | {"solvability_frac": frac})  # fmt: skip
    # The solver is asked for a solution, four times each; nothing is asked to be rewritten.
    assert engine.prompts == [
        engine.chat.decode(engine.chat.user_turn(solve_prompt(text))) for text in texts for _ in range(4)
    ]
    rejected, direction = pair
    rows = read_rows(tmp_path / "out.parquet", PREFERENCE)
    assert [row["verdict"] for row in rows] == [
        {1: "is_chosen", rejected: "kept"}.get(number, "no_partner") for number in range(3)
    ]
    assert (rows[rejected]["question"], rows[rejected]["rewrite"]) == (texts[rejected], texts[1])
    assert rows[rejected]["direction"] == direction
    assert [row["completion"] for row in rows] == ["pass rate 0.250", "pass rate 0.750", "pass rate 1.000"]
    metrics = json.loads((tmp_path / "m.json").read_text())
    assert (metrics["usable"], metrics["pairs"], metrics["rejected"]) == (3, 1, {"is_chosen": 1, "no_partner": 1})
    assert sum(metrics["direction"].values()) == 3


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("Tom has 3 apples.", "original_asks_nothing"),
        ("What is 2 + 2? The answer is 4.", "original_leaks_solution"),
    ],
)
@pytest.mark.parametrize("side", ["chosen", "rejected"])
def test_what_leaks_or_asks_nothing_is_on_no_side(stage, tmp_path: Path, text: str, verdict: str, side: str):
    good, bad = boxes(5, 5, 5, 6), boxes(1, 2, 3, 4)
    texts = [text, "How many has Ann?", "How many is it?", "How many are there?"]
    # The unfit question would be the first of its side.
    rates = [good if side == "chosen" else bad, good, bad, bad]
    stage([question(i, t) for i, t in enumerate(texts)], [x for a in rates for x in a], **BY_SOLVER)
    rows = read_rows(tmp_path / "out.parquet", PREFERENCE)
    assert rows[0]["verdict"] == verdict
    assert all(text not in (row["question"], row["rewrite"]) for row in rows if row["verdict"] == "kept")
    assert sum(row["verdict"] == "kept" for row in rows) == 1


def test_each_question_is_in_one_pair_at_most_and_the_order_of_the_rows_does_not_matter():
    sides = {f"q{k}": ("chosen", SOLVABILITY, DIFFICULTY)[k % 3] for k in range(90)}
    lengths = dict.fromkeys(sides, 40)
    found = partners(sides, lengths, 17, 0.5, 4.0)
    assert len(found) == len(set(found.values())) == 30
    assert all(sides[chosen] == "chosen" and sides[rejected] != "chosen" for rejected, chosen in found.items())
    # The coin of the chosen question decides, as for rewrites.
    assert all(sides[rejected] == flip(chosen, 17, 0.5) for rejected, chosen in found.items())
    assert partners(dict(reversed(sides.items())), lengths, 17, 0.5, 4.0) == found
    assert partners(sides, lengths, 18, 0.5, 4.0) != found


def test_a_chosen_question_is_no_longer_than_a_rewrite_may_be():
    sides = {"a": "chosen", "b": SOLVABILITY, "c": SOLVABILITY}
    assert partners(sides, {"a": 41, "b": 10, "c": 10}, 17, 1.0, 4.0) == {}
    assert partners(sides, {"a": 41, "b": 10, "c": 11}, 17, 1.0, 4.0) == {"c": "a"}


def test_no_pair_of_the_solvers_is_an_error_that_says_why(stage):
    with pytest.raises(UserError, match=r"1 usable, \{'no_partner': 1\}.*Move min_pass_rate"):
        stage([question(0, "How many?")], boxes(1, 1, 1, 1), **BY_SOLVER)


def test_no_usable_question_is_an_error_that_says_why(stage):
    with pytest.raises(UserError, match="1 questions sampled, 0 usable"):
        stage([question(0, "Tom", "length")], [])


def test_an_endpoint_is_asked_from_here_also_where_ray_samples(
    tmp_path: Path, laptop: Params, monkeypatch: pytest.MonkeyPatch
):
    """Actors would hold a GPU each while they wait, and what they paid would be counted in copies that end with them."""
    asked: list[int] = []

    class Endpoint:
        def complete(self, conversations: list[list[str]], *_: object) -> list[Completion]:
            asked.append(len(conversations))
            return [stopped("Tom has 3. How many?") for _ in conversations]

        def cost(self) -> dict[str, float]:
            return {"api_usd": float(sum(asked))}

    monkeypatch.setattr(remote, "ApiModel", lambda *_: Endpoint())
    write_rows(tmp_path / "questions", [question(i, f"Tom has {i}?") for i in range(3)], QUESTION)
    run = StageRun(
        changed(
            laptop,
            runtime={"engine": "ray", "workers": 2},
            preferences={"shard_size": 2},
            models={"optimizer": "api:https://host/v1#m"},
        )
    )
    args = Namespace(
        generator="sums", optimizer=tmp_path / "optimizer", questions=tmp_path / "questions", out=tmp_path / "out.parquet",
        metrics=tmp_path / "m.json",
    )  # fmt: skip
    main(args, run)
    assert asked == [3], "one list: an endpoint has no use for shards"
    assert run.logged["api_usd"] == 3.0
