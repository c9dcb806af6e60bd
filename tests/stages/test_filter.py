import json
import random
import tracemalloc
from argparse import Namespace
from collections import Counter
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from scalequest import records
from scalequest.errors import UserError
from scalequest.params import Filter, Marks, Params
from scalequest.problems.marks import BAD, GOOD, Mark
from scalequest.records import FILTERED, JUDGED, LEDGER, SCORE, SCREENED, read_rows, write_rows
from scalequest.runtime.stage import StageRun
from scalequest.training.examples import hold_out
from stages.filter import apply_filters, easiness_cut, main, marked, require_some, share_quotas, supply


def settings(**changes: Any) -> Filter:
    defaults = {"require_solvable": True, "drop_easiest_frac": {"a": 0.0, "b": 0.0}, "shares": {"a": 0.5, "b": 0.5}, "n_questions": 1_000, "marks": None}  # fmt: skip
    return Filter(**defaults | changes)


def screened(generator: str, *verdicts: str) -> list[dict[str, Any]]:
    return [
        {"id": f"{generator}/0/{i}", "generator": generator, "question": f"{generator} {i}?", "verdict": v,
         "matched": "twin" if v != "kept" else "", "evidence": v if v != "kept" else ""}
        for i, v in enumerate(verdicts)
    ]  # fmt: skip


def counted(ledger: list[dict[str, Any]]) -> Counter[tuple[str, str]]:
    return Counter((row["generator"], row["outcome"]) for row in ledger)


def outcomes(ledger: list[dict[str, Any]]) -> dict[str, str]:
    return {row["id"]: row["outcome"] for row in ledger}


# -------------------------------------------------------------------------------------------------------- arithmetic


@pytest.mark.parametrize(
    ("frac", "dropped"),
    [
        pytest.param(0.0, 0, id="none"),
        pytest.param(0.3, 3, id="exact"),  # 0.3 * 10 = 3
        pytest.param(0.35, 3, id="rounded_down"),  # 3.5: never more than the share asked for
        pytest.param(0.99, 9, id="one_stays"),
    ],
)
def test_the_easiest_share_goes(frac: float, dropped: int):
    scores = [0.9, 0.1, 0.5, 0.3, 0.7, 0.0, 0.8, 0.2, 0.6, 0.4]
    cut = easiness_cut(scores, frac)
    assert sum(score < cut for score in scores) == dropped
    assert cut == sorted(scores)[dropped]


def test_a_share_that_a_float_puts_just_under_a_whole_number_is_that_number():
    # 0.29 * 100 is 28.999999999999996.
    assert easiness_cut(range(100), 0.29) == 29
    # Less than 1 never drops all: the largest float below 1 leaves the hardest.
    assert easiness_cut(range(100), 1 - 2**-53) == 99


def test_scores_equal_to_the_cut_stay():
    # The fourth of ten is 0.5, like all the others: a cut through equals drops none of them.
    assert easiness_cut([0.5] * 10, 0.3) == 0.5


def test_no_scores_have_a_cut_that_drops_nothing():
    assert easiness_cut([], 0.3) == 0.0


@pytest.mark.parametrize(
    ("available", "shares", "n", "quotas"),
    [
        # The laptop's shape: 100 wanted, enough of both.
        pytest.param({"a": 200, "b": 300}, {"a": 0.4, "b": 0.6}, 100, {"a": 40, "b": 60}, id="enough"),
        # 30 of a are 40%: 75 in all, so 45 of b.
        pytest.param({"a": 30, "b": 300}, {"a": 0.4, "b": 0.6}, 100, {"a": 30, "b": 45}, id="short_generator_sets_the_size"),
        pytest.param({"a": 30, "b": 30}, {"a": 0.4, "b": 0.6}, 1_000, {"a": 20, "b": 30}, id="fewer_than_wanted"),
        pytest.param({"a": 200, "b": 300}, {"a": 2, "b": 3}, 100, {"a": 40, "b": 60}, id="shares_need_not_sum_to_one"),
        pytest.param({"a": 50}, {"a": 0.4, "b": 0.6}, 100, {"a": 50}, id="only_the_mix_counts"),
        pytest.param({"a": 0, "b": 30}, {"a": 0.5, "b": 0.5}, 100, {"a": 0, "b": 0}, id="none_of_one_is_none_of_all"),
    ],
)  # fmt: skip
def test_quotas_keep_the_shares(available: dict[str, int], shares: dict[str, float], n: int, quotas: dict[str, int]):
    assert share_quotas(available, shares, n) == quotas


@pytest.mark.parametrize(
    "shares", [{"a": 0.5, "b": 0.5}, {"a": 0.4, "b": 0.6}, {"a": 1, "b": 1, "c": 1}], ids=["half", "paper", "thirds"]
)
def test_quotas_never_exceed_what_was_asked_for_and_are_off_by_less_than_one(shares: dict[str, float]):
    for n in range(1, 60):
        quotas = share_quotas(dict.fromkeys(shares, 1_000), shares, n)
        assert n - len(shares) < sum(quotas.values()) <= n, f"{quotas} for n_questions {n}"
        for name, quota in quotas.items():
            assert abs(quota - n * shares[name] / sum(shares.values())) < 1


# ----------------------------------------------------------------------------------------------------------- ledger


def test_every_generated_question_has_one_row_with_its_first_reason():
    rows = screened("a", "kept", "language", "kept", "kept") + screened("b", "kept", "cut")
    ledger = apply_filters(
        rows,
        verdicts={"a/0/0": "solvable", "a/0/2": "unsolvable", "a/0/3": "no_verdict", "b/0/0": "solvable"},
        scores={"a/0/0": 0.1, "a/0/2": 0.2, "a/0/3": 0.3, "b/0/0": 0.4},
        params=settings(), mix=["a", "b"], seed=17,
    )  # fmt: skip
    assert outcomes(ledger) == {
        "a/0/0": "kept", "a/0/1": "language", "a/0/2": "unsolvable", "a/0/3": "no_verdict",
        "b/0/0": "kept", "b/0/1": "cut",
    }  # fmt: skip
    assert [row["id"] for row in ledger] == [row["id"] for row in rows]
    # What the verdict was based on stays readable, also of a dropped row.
    assert (ledger[1]["matched"], ledger[1]["evidence"], ledger[1]["verdict"], ledger[1]["difficulty"]) == ("twin", "language", None, None)  # fmt: skip
    assert (ledger[2]["verdict"], ledger[2]["difficulty"]) == ("unsolvable", 0.2)


def test_solvability_can_be_left_unasked():
    rows = screened("a", "kept", "kept", "kept")
    ledger = apply_filters(
        rows, {"a/0/0": "solvable", "a/0/1": "unsolvable", "a/0/2": "no_verdict"}, {f"a/0/{i}": 0.5 for i in range(3)},
        settings(require_solvable=False), ["a"], 17,
    )  # fmt: skip
    assert set(outcomes(ledger).values()) == {"kept"}


def all_kept(n: int, generators: str = "ab") -> tuple[list[dict[str, Any]], dict[str, str], dict[str, float]]:
    """n questions of each generator, solvable, question i with difficulty i / n."""
    rows = [row for g in generators for row in screened(g, *["kept"] * n)]
    return rows, {r["id"]: "solvable" for r in rows}, {f"{g}/0/{i}": i / n for g in generators for i in range(n)}


def test_the_easiness_cut_is_each_generators_own():
    rows, verdicts, scores = all_kept(10)
    ledger = apply_filters(rows, verdicts, scores, settings(drop_easiest_frac={"a": 0.3, "b": 0.0}), ["a", "b"], 17)
    # The three easiest of a: difficulties 0.0, 0.1, 0.2; its lowest that stays is 0.3.
    assert {i for i, o in outcomes(ledger).items() if o == "too_easy"} == {"a/0/0", "a/0/1", "a/0/2"}
    assert {row["min_difficulty"] for row in ledger if row["generator"] == "a"} == {0.3}
    assert {row["min_difficulty"] for row in ledger if row["generator"] == "b"} == {0.0}


def test_a_smaller_set_is_a_part_of_a_larger_one_and_no_held_out_corner():
    rows, verdicts, scores = all_kept(1_000, "a")

    def kept(n: int) -> set[str]:
        ledger = apply_filters(rows, verdicts, scores, settings(n_questions=n), ["a"], 17)
        return {i for i, o in outcomes(ledger).items() if o == "kept"}

    assert kept(100) < kept(200) < kept(500)
    # A later draw by the same seed and ids holds out a fifth of the 500, not all of its fifth: 100 expected, deviation 8.9.
    _, held_out = hold_out(sorted(kept(500)), 0.2, 17, "held out/reward")
    assert abs(len(held_out) - 100) < 36
    assert (
        apply_filters(rows[::-1], verdicts, scores, settings(n_questions=100), ["a"], 17)
        == apply_filters(rows, verdicts, scores, settings(n_questions=100), ["a"], 17)[::-1]
    )


def test_the_easiest_share_is_taken_of_what_the_earlier_filters_left():
    rows, verdicts, scores = all_kept(10, "a")
    verdicts |= {f"a/0/{i}": "unsolvable" for i in range(6)}
    ledger = apply_filters(rows, verdicts, scores, settings(drop_easiest_frac={"a": 0.5}), ["a"], 17)
    # Questions 6 to 9 are left; half of four is two.
    assert {i for i, o in outcomes(ledger).items() if o == "too_easy"} == {"a/0/6", "a/0/7"}


def test_what_a_full_share_gives_up_does_not_depend_on_the_order_of_rows():
    rows, verdicts, scores = all_kept(40)
    params = settings(shares={"a": 0.25, "b": 0.75}, n_questions=40)

    def given_up(rows: list[dict[str, Any]], seed: int = 17) -> set[str]:
        ledger = apply_filters(rows, verdicts, scores, params, ["a", "b"], seed)
        return {i for i, o in outcomes(ledger).items() if o == "over_share"}

    expected = given_up(rows)
    # Shares of 40: 10 of a, 30 of b stay.
    assert Counter(i[0] for i in expected) == {"a": 30, "b": 10}
    shuffled = random.Random(1).sample(rows, len(rows))
    assert given_up(shuffled) == expected
    assert given_up(rows, seed=18) != expected
    # Neither the first nor the last generated are favoured.
    assert (
        {f"a/0/{i}" for i in range(30)} != {i for i in expected if i[0] == "a"} != {f"a/0/{i}" for i in range(10, 40)}
    )


def test_a_question_marked_bad_is_dropped_first_and_a_good_one_is_not_forced_in():
    rows, verdicts, scores = all_kept(10, "a")
    rows[9]["verdict"], verdicts["a/0/8"] = "language", "unsolvable"
    marks = {f"a/0/{i}": Mark("m:1", BAD if i < 8 else GOOD, "") for i in (0, 1, 8)}
    marks["a/0/9"] = Mark("m:4", BAD, "")
    ledger = apply_filters(rows, verdicts, scores, settings(drop_easiest_frac={"a": 0.5}), ["a"], 17, marks)
    found = outcomes(ledger)
    assert {i for i, o in found.items() if o == "marked_bad"} == {"a/0/0", "a/0/1"}
    # What the screen took keeps its outcome, and the threshold is half of the six that are left: 2 to 7.
    assert (found["a/0/8"], found["a/0/9"]) == ("unsolvable", "language")
    assert {i for i, o in found.items() if o == "too_easy"} == {"a/0/2", "a/0/3", "a/0/4"}
    assert marked(outcomes(ledger).items(), marks) == {
        "good": {"unsolvable": 1},
        "bad": {"marked_bad": 2, "language": 1},
    }


def test_more_questions_than_wanted_move_no_kept_one_out():
    rows, verdicts, scores = all_kept(40, "a")

    def kept(n: int) -> set[str]:
        ledger = apply_filters(rows, verdicts, scores, settings(n_questions=n), ["a"], 17)
        return {i for i, o in outcomes(ledger).items() if o == "kept"}

    assert kept(10) < kept(20)
    assert len(kept(20)) == 20


# --------------------------------------------------------------------------------------------------------- none left


@pytest.mark.parametrize(
    ("left", "shares", "n", "kept", "scarcest", "flag"),
    [
        pytest.param({"a": 50, "b": 50}, {"a": 0.5, "b": 0.5}, 40, {"a": 20, "b": 20}, "a", False, id="enough"),
        # 10 of b are a fifth of 50: a gives 40 only, though it has 90.
        pytest.param({"a": 90, "b": 10}, {"a": 0.8, "b": 0.2}, 100, {"a": 40, "b": 10}, "b", True, id="b_is_scarce"),
        pytest.param({"a": 3, "b": 90}, {"a": 0.5, "b": 0.5}, 40, {"a": 3, "b": 3}, "a", True, id="a_is_scarce"),
        # A third of 10 is 3.3: rounding down is no shortage.
        pytest.param({"a": 50, "b": 50}, {"a": 1.0, "b": 2.0}, 10, {"a": 3, "b": 6}, "b", False, id="rounding"),
    ],
)
def test_a_scarce_generator_is_named_when_it_shrinks_the_set(left, shares, n: int, kept, scarcest: str, flag: bool):
    rows = [row for g, count in left.items() for row in screened(g, *["kept"] * count)]
    params = settings(require_solvable=False, shares=shares, n_questions=n)
    ledger = apply_filters(rows, {}, {row["id"]: 0.5 for row in rows}, params, ["a", "b"], 17)
    metrics, warnings = supply(counted(ledger), params, ["a", "b"])
    assert {name: found["kept"] for name, found in metrics["by_generator"].items()} == kept
    assert {name: found["left"] for name, found in metrics["by_generator"].items()} == left
    assert metrics["asked"] == n
    assert warnings == {"fewer_than_asked": flag}
    assert metrics["scarcest"] == scarcest


def test_nothing_left_names_the_filter_that_took_most():
    rows = screened("a", "kept", "kept", "language") + screened("b", "kept")
    verdicts = dict.fromkeys(["a/0/0", "a/0/1", "b/0/0"], "unsolvable")
    ledger = apply_filters(rows, verdicts, dict.fromkeys(verdicts, 0.5), settings(), ["a", "b"], 17)
    with pytest.raises(UserError) as caught:
        require_some(counted(ledger))
    assert "of 4 generated, 'unsolvable' took 3 (a: 1 language, a: 2 unsolvable, b: 1 unsolvable)" in str(caught.value)


def test_a_generator_with_nothing_left_is_named_where_the_shares_take_the_rest():
    rows, verdicts, scores = all_kept(3)
    verdicts |= {f"a/0/{i}": "no_verdict" for i in range(3)}
    ledger = apply_filters(rows, verdicts, scores, settings(), ["a", "b"], 17)
    with pytest.raises(UserError, match=r"a: 3 no_verdict.*the generator that has none left"):
        require_some(counted(ledger))


def test_one_question_is_enough():
    ledger = [{"outcome": "kept", "generator": "a"}, {"outcome": "cut", "generator": "a"}]
    require_some(counted(ledger))
    with pytest.raises(UserError, match="'cut' took 1"):  # without the one it would be refused
        require_some(counted(ledger[1:]))


# -------------------------------------------------------------------------------------------------------- whole stage


def test_the_ledger_and_the_counts_sum_to_what_was_generated(
    tmp_path: Path, laptop: Params, caplog: pytest.LogCaptureFixture
):
    rows, verdicts, scores = all_kept(10)
    rows += [screened("a", "cut")[0] | {"id": "a/1/0"}]
    verdicts["b/0/9"] = "unsolvable"
    write_rows(tmp_path / "screened", rows, SCREENED)
    write_rows(
        tmp_path / "judged",
        [{"id": i, "verdict": v, "completion": "", "finish_reason": "stop"} for i, v in verdicts.items()],
        JUDGED,
    )
    write_rows(tmp_path / "difficulty", [{"id": i, "score": s} for i, s in scores.items()], SCORE)
    params = settings(drop_easiest_frac={"a": 0.2, "b": 0.0}, n_questions=10)
    args = Namespace(
        screened=tmp_path / "screened", judged=tmp_path / "judged", difficulty=tmp_path / "difficulty",
        out=tmp_path / "filtered.parquet", ledger=tmp_path / "ledger.parquet", metrics=tmp_path / "m.json",
    )  # fmt: skip
    main(args, StageRun(laptop.model_copy(update={"mix": ["a", "b"], "filter": params})))
    ledger = read_rows(tmp_path / "ledger.parquet", LEDGER)
    kept = read_rows(tmp_path / "filtered.parquet", FILTERED)
    metrics = json.loads((tmp_path / "m.json").read_text())
    assert len(ledger) == metrics["generated"] == 21
    assert sum(metrics["outcomes"].values()) == 21
    # a: 10 and a cut one, two too easy, 8 left, 5 kept; b: 10, one unsolvable, 9 left, 5 kept.
    assert metrics["outcomes"] == {"kept": 10, "cut": 1, "too_easy": 2, "unsolvable": 1, "over_share": 7}
    assert metrics["kept_by_generator"] == {"a": 5, "b": 5}
    assert metrics["removed_frac"]["over_share"] == round(7 / 21, 6)
    assert [row["id"] for row in kept] == [row["id"] for row in ledger if row["outcome"] == "kept"]
    assert (metrics["asked"], metrics["warnings"]) == (10, {"fewer_than_asked": 0})
    assert "marked" not in metrics
    line = '{"id": "b/0/8", "mark": "bad", "question": "b 8?"}\n'
    (tmp_path / "marks.jsonl").write_text(line)
    given = Marks(path=str(tmp_path / "marks.jsonl"), sha256=sha256(line.encode()).hexdigest())
    main(
        args,
        StageRun(laptop.model_copy(update={"mix": ["a", "b"], "filter": params.model_copy(update={"marks": given})})),
    )
    read = {row["id"]: row["outcome"] for row in read_rows(tmp_path / "ledger.parquet", LEDGER)}
    assert [name for name, outcome in read.items() if outcome == "marked_bad"] == ["b/0/8"]
    metrics = json.loads((tmp_path / "m.json").read_text())
    assert metrics["marked"] == {"good": {}, "bad": {"marked_bad": 1}}
    assert metrics["outcomes"]["marked_bad"] == 1
    (tmp_path / "marks.jsonl").write_text(line.replace("b 8?", "b 7?"))
    other = given.model_copy(update={"sha256": sha256(line.replace("b 8?", "b 7?").encode()).hexdigest()})
    with pytest.raises(UserError, match=r"marks\.jsonl:1: 'b/0/8' was marked with the question 'b 7\?'"):
        main(
            args,
            StageRun(
                laptop.model_copy(update={"mix": ["a", "b"], "filter": params.model_copy(update={"marks": other})})
            ),
        )
    more = params.model_copy(update={"n_questions": 40})
    main(args, StageRun(laptop.model_copy(update={"mix": ["a", "b"], "filter": more})))
    # a has 8 left, so b gives 8 of its 9.
    assert json.loads((tmp_path / "m.json").read_text())["warnings"] == {"fewer_than_asked": 1}
    assert "16 kept of 40 asked for. Generator 'a' has 8 questions left and would need 20" in caplog.text


# ------------------------------------------------------------------------------------------------------- by row group


def write_inputs(folder: Path, rows: list[dict[str, Any]], verdicts: dict[str, str], scores: dict[str, float]) -> None:
    judged = [{"id": i, "verdict": v, "completion": "", "finish_reason": "stop"} for i, v in verdicts.items()]
    write_rows(folder / "screened", rows, SCREENED)
    write_rows(folder / "judged", judged, JUDGED)
    write_rows(folder / "difficulty", [{"id": i, "score": s} for i, s in scores.items()], SCORE)


def write_outputs(folder: Path, laptop: Params, params: Filter) -> None:
    names = ("screened", "judged", "difficulty", "out.parquet", "ledger.parquet", "metrics.json")
    args = Namespace(**{name.split(".")[0]: folder / name for name in names})
    main(args, StageRun(laptop.model_copy(update={"mix": ["a", "b"], "filter": params})))


def filtered(folder: Path, laptop: Params, params: Filter) -> list[dict[str, Any]]:
    """The ledger that the stage writes."""
    write_outputs(folder, laptop, params)
    return read_rows(folder / "ledger.parquet", LEDGER)


def some_of_all(n: int) -> tuple[list[dict[str, Any]], dict[str, str], dict[str, float]]:
    """N questions of each generator; every third is no question of the screen's, every seventh cannot be solved."""
    rows = [row for g in "ab" for row in screened(g, *("language" if k % 3 == 1 else "kept" for k in range(n)))]
    kept = [row["id"] for row in rows if row["verdict"] == "kept"]
    verdicts = {name: "unsolvable" if k % 7 == 0 else "solvable" for k, name in enumerate(kept)}
    return rows, verdicts, {name: k * 5 % 16 / 16 for k, name in enumerate(kept)}


def test_the_stage_writes_the_ledger_of_its_rows_whatever_the_order_of_shards(
    tmp_path: Path, laptop: Params, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(records, "ROWS_PER_PART", 8)
    rows, verdicts, scores = some_of_all(30)
    params = settings(drop_easiest_frac={"a": 0.3, "b": 0.0}, n_questions=20)
    write_inputs(tmp_path, rows, verdicts, scores)
    expected = apply_filters(rows, verdicts, scores, params, ["a", "b"], laptop.seed)
    assert {row["outcome"] for row in expected} == {"kept", "language", "unsolvable", "too_easy", "over_share"}
    assert filtered(tmp_path, laptop, params) == expected
    whole = {name: (tmp_path / name).read_bytes() for name in ("out.parquet", "ledger.parquet", "metrics.json")}
    for folder in ("judged", "difficulty"):
        (tmp_path / folder / "part-00000.parquet").rename(tmp_path / folder / "part-9.parquet")
    filtered(tmp_path, laptop, params)
    assert {name: (tmp_path / name).read_bytes() for name in whole} == whole
    # Judged and scored before the screen dropped them: the ledger still says how.
    more = verdicts | {"a/0/1": "solvable"}
    write_inputs(tmp_path, rows, more, scores | {"a/0/1": 0.5})
    ledger = filtered(tmp_path, laptop, params)
    assert ledger[1] == expected[1] | {"verdict": "solvable", "difficulty": 0.5}
    assert ledger[2:] == expected[2:]


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("verdict", r"judgement of 1 questions that passed the screen: none.*dvc repro judge"),
        ("score", r"score of 1 questions that passed the screen: none.*dvc repro difficulty"),
    ],
)
def test_a_question_that_a_stage_left_out_is_an_error(tmp_path: Path, laptop: Params, missing: str, message: str):
    rows, verdicts, scores = some_of_all(5)
    del (verdicts if missing == "verdict" else scores)["b/0/3"]
    write_inputs(tmp_path, rows, verdicts, scores)
    with pytest.raises(UserError, match=message):
        filtered(tmp_path, laptop, settings())


def test_memory_grows_by_bytes_and_not_by_rows(tmp_path: Path, laptop: Params, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(records, "ROWS_PER_PART", 250)
    peaks = []
    for n in (250, 2_500):
        rows, verdicts, scores = some_of_all(n)
        write_inputs(tmp_path, [row | {"question": "word " * 200} for row in rows], verdicts, scores)
        tracemalloc.start()
        write_outputs(tmp_path, laptop, settings(n_questions=200))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # 4,500 questions more: 1 kB of text and some 500 bytes of objects each would be 6 MB.
    assert peaks[1] < peaks[0] + 4_500 * 150
