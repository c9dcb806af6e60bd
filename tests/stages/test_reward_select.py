import json
import subprocess
import sys
import tracemalloc
from argparse import Namespace
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scalequest import records
from scalequest.answers.best_of import RULES
from scalequest.errors import UserError
from scalequest.outcomes import SELECT_OUTCOMES
from scalequest.params import Params
from scalequest.records import FILTERED, INSTRUCTION, RESPONSE, REWARD, read_rows, write_rows, write_table
from scalequest.runtime.stage import StageRun
from scalequest.sampling.scorer import check_finite
from stages import reward_select
from stages.reward_select import (
    arithmetic_of,
    checkable_of,
    checkable_outcomes,
    main,
    same_choices,
    steps_of,
)
from tests.answers.test_selection import BAD, GOOD, QUESTION, block
from tests.fakes import ROOT, changed

# ------------------------------------------------------------------------------------------------------------- the rules


def test_how_often_two_rules_choose_alike():
    equal = Counter({("reward", "majority"): 2, ("reward", "first"): 1, ("first", "majority"): 1})
    assert same_choices(equal, 2) == {
        "reward_first": 0.5, "reward_random": 0.0, "reward_majority": 1.0, "first_random": 0.0, "first_majority": 0.5, "random_majority": 0.0,
    }  # fmt: skip
    assert not any(same_choices(Counter(), 0).values())


# ----------------------------------------------------------------------------------------------- what the answers are worth


def rows_of(*pairs: tuple[str, str]) -> list[dict[str, Any]]:
    return [
        {"id": f"r{k}", "question": q, "response": t, "final_answer": t.split()[-1]} for k, (q, t) in enumerate(pairs)
    ]


def test_written_arithmetic_is_counted_with_the_error_of_the_responses():
    # 2 steps in each of 10 responses, 4 of 20 wrong: 20% against 5% tolerated. Both wrong ones of a response count as one.
    rows = rows_of(*[("Q?", "1 + 1 = 3 and 2 + 2 = 5")] * 2, *[("Q?", "1 + 1 = 2 and 2 + 2 = 4")] * 8)
    values, warned = arithmetic_of(steps_of(rows))
    # Mean 0.2; residuals of the ten responses: 2 of 1.6 and 8 of -0.4, so the error is sqrt(6.4 * 10 / 9) / 20 = 0.1333.
    assert values == {"steps": 20, "wrong": 4, "wrong_frac": 0.2, "standard_error": 0.133333}
    assert not warned  # 0.15 above is less than twice 0.1333
    _, warned = arithmetic_of(steps_of(rows_of(*[("Q?", "1 + 1 = 3")] * 20, *[("Q?", "1 + 1 = 2")] * 20)))
    assert warned
    assert arithmetic_of(steps_of(rows_of(("Q?", "nothing")))) == (
        {"steps": 0, "wrong": 0, "wrong_frac": None, "standard_error": None}, False,
    )  # fmt: skip


def test_plain_arithmetic_is_checked_by_calculating():
    rows = rows_of(("What is 12 - 5 + 3?", "It is 10"), ("What is 3 * 4?", "It is 13"), ("How many?", "It is 3"))
    assert checkable_of(checkable_outcomes(rows)) == ({"n": 2, "right": 1, "right_frac": 0.5}, True)
    assert checkable_of(checkable_outcomes(rows[:1])) == ({"n": 1, "right": 1, "right_frac": 1.0}, False)
    assert checkable_of(checkable_outcomes([])) == ({"n": 0, "right": 0, "right_frac": None}, False)


def test_the_warnings_are_up_where_the_answers_are_bad(stage, tmp_path: Path):
    bad = {f"q{k}": [f"{k} + 1 = {k + 3}, \\boxed{{{k}}}", "\\boxed{99}"] for k in range(20)}
    stage(bad, {q: [1.0, 0.0] for q in bad}, question="What is 40 + 1?")
    metrics = json.loads((tmp_path / "m.json").read_text())
    assert metrics["warnings"] == {"no_agreement": 1, "wrong_arithmetic": 1, "wrong_checkable": 1}
    assert metrics["agrees_with_none"] == {"n": 20, "frac": 1.0}
    assert (metrics["arithmetic"]["steps"], metrics["arithmetic"]["wrong"]) == (20, 20)
    assert metrics["checkable"] == {"n": 20, "right": 0, "right_frac": 0.0}
    good = {f"q{k}": ["40 + 1 = 41, \\boxed{41}"] * 2 for k in range(20)}
    stage(good, {q: [1.0, 0.0] for q in good}, question="What is 40 + 1?")
    metrics = json.loads((tmp_path / "m.json").read_text())
    assert not any(metrics["warnings"].values())
    assert metrics["same_choice"]["reward_first"] == 1.0


@pytest.mark.parametrize("by", RULES)
def test_the_stage_takes_its_rule_from_the_parameters(stage, by: str):
    folder = stage({"a": ["\\boxed{1}", "\\boxed{2}", "so \\boxed{1.0}"]}, {"a": [0.0, 1.0, 0.5]}, by=by)
    (row,) = read_rows(folder / "instruct.parquet", INSTRUCTION)
    expected = {"reward": "\\boxed{2}", "first": "\\boxed{1}", "majority": "so \\boxed{1.0}"}
    assert row["response"] == expected.get(by, row["response"])


# --------------------------------------------------------------------------------------------------- scores are finite


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")], ids=["nan", "inf", "minus_inf"])
def test_a_reward_that_is_no_number_never_gets_here(bad: float):
    # A NaN loses or wins every comparison by its place in the list; the scorer refuses it where it arises.
    with pytest.raises(UserError, match=f"score 2 of the shard is {bad}, expected a finite number"):
        check_finite([0.0, -1e30, bad, 1.0])
    check_finite([0.0, -1e30, 1e30])


def test_the_check_needs_no_engine():
    code = "import sys; from scalequest.sampling.scorer import check_finite; print('vllm' in sys.modules, 'torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["False", "False"]


# --------------------------------------------------------------------------------------------------------- whole stage


def again(folder: Path, laptop: Params) -> None:
    """Run the stage on the tables that are there."""
    paths = {"questions": "filtered.parquet", "responses": "responses", "rewards": "rewards", "out": "instruct.parquet", "metrics": "m.json"}  # fmt: skip
    main(Namespace(**{name: folder / path for name, path in paths.items()}), StageRun(laptop))


@pytest.fixture
def stage(tmp_path: Path, laptop: Params):
    def run(
        answers: dict[str, list[str]], values: dict[str, list[float]], min_reward: float | None = None, domain: str = "maths",
        execute: bool = False, question: str = "Q?", by: str = "reward", form: str = "worked",
        **demands: Any,
    ) -> Path:  # fmt: skip
        write_rows(
            tmp_path / "filtered.parquet", [QUESTION | {"id": q, "question": question} for q in answers], FILTERED
        )
        rows = [
            {"id": f"{q}#{k}", "question_id": q, "sample": k, "response": t, "finish_reason": "stop", "n_tokens": 1}
            for q, texts in answers.items() for k, t in enumerate(texts)
        ]  # fmt: skip
        write_rows(tmp_path / "responses", rows, RESPONSE)
        scores = [
            {"id": f"{q}#{k}", "question_id": q, "sample": k, "reward": r} for q, rs in values.items() for k, r in enumerate(rs)
        ]  # fmt: skip
        write_rows(tmp_path / "rewards", scores, REWARD)
        args = Namespace(
            questions=tmp_path / "filtered.parquet", responses=tmp_path / "responses", rewards=tmp_path / "rewards",
            out=tmp_path / "instruct.parquet", metrics=tmp_path / "m.json",
        )  # fmt: skip
        section = {"min_reward": min_reward, "execute": execute, "by": by, **demands}
        main(args, StageRun(changed(laptop, reward_select=section, domain=domain, respond={"form": form})))
        return tmp_path

    return run


def test_every_question_is_kept_or_counted(stage):
    folder = stage(
        {"a": ["\\boxed{1}", "\\boxed{2}"], "b": ["no", "no"], "c": ["\\boxed{3}", "\\boxed{3}"]},
        {"a": [-1.0, -2.0], "b": [5.0, 5.0], "c": [1.0, 2.0]},
        min_reward=0.0,
    )
    rows = read_rows(folder / "instruct.parquet", INSTRUCTION)
    assert [(r["id"], r["final_answer"], r["reward"], r["agreement"]) for r in rows] == [("c", "3", 2.0, 1.0)]
    metrics = json.loads((folder / "m.json").read_text())
    assert metrics == {
        "questions": 3, "kept": 1, "dropped": {"no_answer": 1, "crashed": 0, "low_reward": 1}, "crashed_responses": 0,
        "mean_reward": {"kept": 2.0, "all": round(10 / 6, 4)},  # -1 - 2 + 5 + 5 + 1 + 2 = 10
        "mean_agreement": 1.0, "agrees_with_none": {"n": 0, "frac": 0.0}, "mean_candidates": 2.0,
        # Of `a` and `c`, which have candidates, two rules may differ. `a`: reward, majority and
        # first take sample 0; `c`: first takes 0.
        "same_choice": metrics["same_choice"] | {"reward_majority": 1.0, "reward_first": 0.5},
        "arithmetic": {"steps": 0, "wrong": 0, "wrong_frac": None, "standard_error": None},
        "checkable": {"n": 0, "right": 0, "right_frac": None},
        "warnings": {"no_agreement": 0, "wrong_arithmetic": 0, "wrong_checkable": 0},
    }  # fmt: skip


# `two`: two of four agree, and the chosen one of the highest reward is the odd one. `all`: four agree, one after a wrong step.
# `none`: no two agree.
SAMPLES = {
    "two": ["\\boxed{1}", "so \\boxed{1}", "\\boxed{2}", "\\boxed{3}"],
    "all": ["1 + 1 = 3, \\boxed{2}", "\\boxed{2}", "\\boxed{2}", "two: \\boxed{2}"],
    "none": ["\\boxed{1}", "\\boxed{2}", "\\boxed{3}", "4 + 4 = 9, \\boxed{4}"],
}
SCORES = {"two": [0.0, 0.5, 9.0, 1.0], "all": [9.0, 1.0, 0.5, 0.2], "none": [1.0, 2.0, 3.0, 9.0]}


@pytest.mark.parametrize(
    ("demands", "kept", "dropped"),
    [
        ({}, {"two": 9.0, "all": 9.0, "none": 9.0}, {}),
        ({"min_agreement": 2}, {"two": 0.5, "all": 9.0}, {"too_few_agree": 1}),
        ({"min_agreement": 3}, {"all": 9.0}, {"too_few_agree": 2}),
        ({"check_arithmetic": True}, {"two": 9.0, "all": 1.0, "none": 3.0}, {"wrong_arithmetic": 0}),
        ({"min_pass_rate": 0.5}, {"two": 9.0, "all": 9.0}, {"below_pass_rate": 1}),
        ({"max_pass_rate": 0.5}, {"two": 9.0, "none": 9.0}, {"above_pass_rate": 1}),
        ({"min_pass_rate": 0.5, "max_pass_rate": 0.5}, {"two": 9.0}, {"below_pass_rate": 1, "above_pass_rate": 1}),
        ({"min_agreement": 4, "check_arithmetic": True, "min_reward": 1.5}, {}, None),
    ],
)  # fmt: skip
def test_each_demand_changes_what_is_kept_and_is_counted(stage, demands, kept, dropped):
    if dropped is None:
        with pytest.raises(
            UserError, match=r"'too_few_agree': 2, 'low_reward': 1.*relax what gives wrong_arithmetic, too_few"
        ):
            stage(SAMPLES, SCORES, **demands)
        return
    folder = stage(SAMPLES, SCORES, **demands)
    assert {r["id"]: r["reward"] for r in read_rows(folder / "instruct.parquet", INSTRUCTION)} == kept
    metrics = json.loads((folder / "m.json").read_text())
    assert metrics["dropped"] == {"no_answer": 0, "crashed": 0, "low_reward": 0} | dropped
    assert metrics["kept"] + sum(metrics["dropped"].values()) == metrics["questions"] == 3
    assert metrics["dropped"].keys() <= SELECT_OUTCOMES.keys()


def test_every_response_that_agrees_with_the_choice_can_be_kept(stage):
    folder = stage(SAMPLES, SCORES, keep="all_agreeing", by="majority")
    rows = read_rows(folder / "instruct.parquet", INSTRUCTION)
    assert [(r["id"], r["response"], r["reward"], r["agreement"]) for r in rows] == [
        ("two", "so \\boxed{1}", 0.5, 0.5), ("two", "\\boxed{1}", 0.0, 0.5),
        ("all", "1 + 1 = 3, \\boxed{2}", 9.0, 1.0), ("all", "\\boxed{2}", 1.0, 1.0), ("all", "two: \\boxed{2}", pytest.approx(0.2), 1.0),
        ("none", "4 + 4 = 9, \\boxed{4}", 9.0, 0.25),
    ]  # fmt: skip
    metrics = json.loads((folder / "m.json").read_text())
    assert (metrics["questions"], metrics["kept"], metrics["rows"]) == (3, 3, 6)


def test_a_threshold_holds_for_each_response_that_is_kept(stage):
    folder = stage(SAMPLES, SCORES, keep="all_agreeing", min_reward=1.0)
    rewards_of = [r["reward"] for r in read_rows(folder / "instruct.parquet", INSTRUCTION) if r["id"] == "all"]
    assert rewards_of == [9.0, 1.0]


@pytest.mark.parametrize("by", ["first", "random", "majority"])
@pytest.mark.parametrize("keep", ["best", "all_agreeing"])
def test_without_rewards_the_choice_is_that_of_equal_ones(stage, by: str, keep: str):
    folder = stage(SAMPLES, {q: [0.0] * 4 for q in SAMPLES}, by=by, keep=keep)
    rows, metrics = read_rows(folder / "instruct.parquet", INSTRUCTION), json.loads((folder / "m.json").read_text())
    stage(SAMPLES, {}, by=by, keep=keep, waits_for="responses")
    # `rewards` now has no row, so a stage that read it would stop at the first response.
    assert read_rows(folder / "instruct.parquet", INSTRUCTION) == [row | {"reward": None} for row in rows]
    without = json.loads((folder / "m.json").read_text())
    assert metrics.pop("mean_reward") == {"kept": 0.0, "all": 0.0}
    metrics["same_choice"] = {k: v for k, v in metrics["same_choice"].items() if "reward" not in k}
    assert without == metrics
    assert set(without["same_choice"]) == {"first_random", "first_majority", "random_majority"}


def test_without_rewards_the_majority_gives_the_same_answers_but_for_ties(stage):
    folder = stage(SAMPLES, SCORES, by="majority")
    rewarded = {row["id"]: row for row in read_rows(folder / "instruct.parquet", INSTRUCTION)}
    stage(SAMPLES, {}, by="majority", waits_for="responses")
    rows = {row["id"]: row for row in read_rows(folder / "instruct.parquet", INSTRUCTION)}
    for name in ("two", "all"):
        assert [rows[name][k] for k in ("final_answer", "agreement")] == [rewarded[name][k] for k in ("final_answer", "agreement")]  # fmt: skip
    # Of the two responses that say 1 the reward takes the second, and the lowest sample is the first. `none` is a tie.
    assert (rewarded["two"]["response"], rows["two"]["response"]) == ("so \\boxed{1}", "\\boxed{1}")
    assert (rewarded["none"]["final_answer"], rows["none"]["final_answer"]) == ("4", "1")


def test_without_rewards_a_dropped_question_is_counted_all_the_same(stage):
    folder = stage(SAMPLES, {}, by="majority", waits_for="responses", min_agreement=2)
    assert [row["id"] for row in read_rows(folder / "instruct.parquet", INSTRUCTION)] == ["two", "all"]
    assert json.loads((folder / "m.json").read_text())["dropped"]["too_few_agree"] == 1


def test_nothing_left_is_an_error_that_says_why(stage, tmp_path: Path):
    with pytest.raises(UserError, match=r"of 2, \{'no_answer': 2\}. Expected at least one. Raise respond.max_tokens"):
        stage({"a": ["no"], "b": ["no"]}, {"a": [1.0], "b": [1.0]})
    assert not (tmp_path / "instruct.parquet").exists()


# ------------------------------------------------------------------------------------------------------- by row group


def made_up(n: int) -> tuple[dict[str, list[str]], dict[str, list[float]]]:
    """Answers and rewards of N questions: right and wrong sums, fractions in two spellings, some without an answer."""
    answers = {
        f"q{k}": [f"{k} + 1 = {k + 1}, \\boxed{{{k + 1}}}", f"The answer is {k + 1}.0.", f"{k} + 1 = {k}, \\boxed{{1/2}}", "\\boxed{0.5}"]
        if k % 7 else ["none"] * 4
        for k in range(n)
    }  # fmt: skip
    return answers, {q: [(7 * at + 3 * k) % 5 / 4 for k in range(4)] for at, q in enumerate(answers)}


def outputs(folder: Path) -> tuple[bytes, str]:
    return (folder / "instruct.parquet").read_bytes(), (folder / "m.json").read_text()


@pytest.fixture
def in_small_pieces(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Row groups of 16 rows, and pieces of 5 questions."""
    monkeypatch.setattr(records, "ROWS_PER_PART", 16)
    monkeypatch.setattr(reward_select, "QUESTIONS_READ", 5)
    monkeypatch.setattr(reward_select, "QUESTIONS_HELD", 2)
    return monkeypatch


def test_pieces_shards_and_processes_change_nothing(
    stage, in_small_pieces: pytest.MonkeyPatch, tmp_path: Path, laptop: Params
):
    whole = outputs(stage(*made_up(40)))
    in_small_pieces.setattr(reward_select, "LEAST_FOR_PROCESSES", 0)
    in_small_pieces.setattr(reward_select, "cores", lambda: 2)
    assert outputs(stage(*made_up(40))) == whole
    # The shards in another order: what was part 0 is now the last one.
    for folder in ("responses", "rewards"):
        (tmp_path / folder / "part-00000.parquet").rename(tmp_path / folder / "part-9.parquet")
    in_small_pieces.setattr(reward_select, "cores", lambda: 1)
    again(tmp_path, laptop)
    assert outputs(tmp_path) == whole


@pytest.mark.parametrize(
    ("file", "column", "message"),
    [
        ("responses", "question_id", "question_id 'q8x' is not among the 9 rows"),
        ("rewards", "question_id", "question_id 'q8x' is not among the 9 rows"),
        ("rewards", "id", r"reward of response 'q8#3': none \(1 of \d+ have none\)"),
    ],
)
def test_rows_of_other_questions_are_refused(
    stage, tmp_path: Path, laptop: Params, file: str, column: str, message: str
):
    stage(*made_up(9))
    part = tmp_path / file / "part-00000.parquet"
    data = pq.read_table(part)
    names = data[column].to_pylist()
    changed_names = [*names[:-1], names[-1].replace("q8", "q8x")]
    write_table(part, data.set_column(data.schema.get_field_index(column), column, pa.array(changed_names)))
    with pytest.raises(UserError, match=message):
        again(tmp_path, laptop)


def test_memory_does_not_grow_with_the_questions(
    stage, in_small_pieces: pytest.MonkeyPatch, tmp_path: Path, laptop: Params
):
    peaks = []
    for n in (40, 240):
        # 10 kB of text per question, which a piece of 5 holds as Python's.
        stage({f"q{k}": [f"{'word ' * 2_000}\\boxed{{{k}}}"] for k in range(n)}, {f"q{k}": [0.0] for k in range(n)})
        tracemalloc.start()
        again(tmp_path, laptop)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # Six times the questions. All of them at once would be 2 MB more.
    assert peaks[1] < peaks[0] + 200_000


# --------------------------------------------------------------------------------------------------------------- code


def test_with_execution_the_pass_rate_is_the_share_that_passes(stage):
    other = block("def f(x): return x * 1")
    samples = {"half": [GOOD, other, BAD, "no"], "one": [GOOD, BAD, BAD, BAD]}
    scores = {"half": [1.0, 2.0, 9.0, 9.0], "one": [1.0, 2.0, 3.0, 4.0]}
    code = {"domain": "code", "execute": True, "question": "Write f.\nassert f(1) == 1"}
    folder = stage(samples, scores, min_pass_rate=0.5, keep="all_agreeing", **code)
    rows = read_rows(folder / "instruct.parquet", INSTRUCTION)
    assert [(r["id"], r["response"]) for r in rows] == [("half", other), ("half", GOOD)]
    assert json.loads((folder / "m.json").read_text())["dropped"]["below_pass_rate"] == 1


@pytest.mark.parametrize(
    ("execute", "kept", "metrics"),
    [
        # `a`: the best fails its question's example. `b`: all crash at once. `c`: has no program.
        pytest.param(True, [("a", GOOD)], ({"no_answer": 1, "crashed": 1, "low_reward": 0}, 3), id="on"),
        pytest.param(False, [("a", BAD), ("b", block("1 / 0"))], ({"no_answer": 1, "crashed": 0, "low_reward": 0}, 0), id="off"),
    ],
)  # fmt: skip
def test_the_execution_filter_drops_what_crashes_on_its_own_examples(stage, execute: bool, kept, metrics):
    folder = stage(
        {"a": [BAD, GOOD], "b": [block("1 / 0"), block("while True: pass")], "c": ["no", "no"]},
        {"a": [2.0, 1.0], "b": [2.0, 1.0], "c": [1.0, 1.0]},
        domain="code", execute=execute, question="Write f.\nassert f(1) == 1",
    )  # fmt: skip
    assert [(r["id"], r["response"]) for r in read_rows(folder / "instruct.parquet", INSTRUCTION)] == kept
    found = json.loads((folder / "m.json").read_text())
    assert (found["dropped"], found["crashed_responses"]) == metrics
