import pytest

from scalequest.io import read_json, write_json
from scalequest.outcomes import WARNINGS
from scalequest.records import SAMPLE, write_rows
from scalequest.report.results import Difference
from tests.fakes import changed
from tests.report.finished import (
    METRICS,
    SCORES,
    Folder,
    items,
    row,
    score,
    section,
)


def test_models_stand_in_the_order_of_the_method_then_by_name(folder: Folder) -> None:
    lines = [
        line.split(" | ")[1]
        for line in section(folder.run()[0], "Results").splitlines()
        if line.startswith("| `embedded_sums` | ")
    ]
    assert lines[:4] == ["base", "solver", "student", "alpha"]


def test_scores_stand_in_percent_with_their_standard_error(folder: Folder) -> None:
    text = section(folder.run()[0], "Results")
    assert row(text, "`embedded_sums`", "base")[2:] == ["20.0 ± 4.0", "0.0 ± 0.0", "101", "30.0", "5.0"]
    assert row(text, "`embedded_stories`", "base")[2:] == ["16.0 ± 4.0", "0.0 ± 0.0", "85", "30.0", "5.0"]
    # alpha was scored on one task only: the gap is shown.
    assert row(text, "`embedded_stories`", "alpha")[2:] == ["–"] * 5


def test_the_difference_is_taken_item_by_item(folder: Folder) -> None:
    text = section(folder.run()[0], "Results")
    # 45 of 101 items only the student, 15 only the base: 30 / 101 = 29.7 points; exact McNemar of
    # 45 against 15: p = 0.00013.
    found = row(text, "`embedded_sums`", "flexible", "base")
    assert (found[3], *found[5:]) == ("+29.7", "45", "15", "the student is better (p = 0.00013)")
    # None against 4: p = 2 / 2^4. sqrt(se1^2 + se2^2) of the two shares would have called it 2 standard errors.
    found = row(text, "`embedded_stories`", "flexible", "base")
    assert (found[3], *found[5:]) == ("−4.0", "0", "4", "not significant (p = 0.12 on 101 items)")
    assert row(text, "`embedded_stories`", "strict", "base")[3:] == [
        "+0.0", "+0.0 to +0.0", "0", "0", "not significant (p = 1 on 101 items)",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("points", "p_value", "words"),
    [
        (9.9, 0.05, "not significant (p = 0.05 on 40 items)"),
        (9.9, 0.049, "the student is better (p = 0.049)"),
        (-9.9, 0.049, "the student is worse (p = 0.049)"),
        (50.0, 0.00001, "the student is better (p < 0.0001)"),
        (0.0, 1.0, "not significant (p = 1 on 40 items)"),
    ],
)
def test_a_difference_that_chance_gives_is_none(points: float, p_value: float, words: str) -> None:
    assert Difference("t", "strict", "base", 40, points, 0, 0, 0, 0, p_value).words == words


def test_without_both_models_no_difference_is_claimed(folder: Folder) -> None:
    (folder.args.scores / "student.json").unlink()
    markdown, page = folder.run()
    for text in (markdown, page):
        assert "Base and student were not both scored" in text
    assert "Student minus" not in markdown


def add_student(folder: Folder, name: str, seed: int, right: range) -> None:
    """Another student, right on these items of sums; 0.6 in its scores file."""
    folder.params = changed(folder.params, instruct_tune={"seeds": folder.params.instruct_tune.seeds | {name: seed}})
    write_json(folder.args.metrics / f"instruct_tune/{name}.json", METRICS["instruct_tune/student"])
    write_json(folder.args.scores / f"{name}.json", {"embedded_sums": score(101, 0.6, 0.05, 0.4, 0.04, 0.02)})
    rows = [r | {"flexible": float(n in right)} for n, r in enumerate(items("base")[:101])]
    write_rows(folder.args.samples / f"{name}.parquet", rows, SAMPLE)


def test_several_students_have_a_mean_and_a_deviation(folder: Folder) -> None:
    assert "another training seed would change is not measured" in folder.run()[0]
    add_student(folder, "student_2", 2, range(60))
    markdown = folder.run()[0]
    text = section(markdown, "Results")
    # .5 and .6: mean .55, deviation sqrt(2 * .05^2 / 1) = .0707; the base has .2.
    assert row(text, "`embedded_sums`", "flexible", "2")[3:] == ["55.0 ± 7.1", "+35.0", "50.0, 60.0"]
    assert row(text, "`embedded_sums`", "student_2")[2] == "60.0 ± 5.0"
    assert "not measured" not in text
    assert row(section(markdown, "Training runs"), "`instruct_tune@student_2`")[6] == "2"


def test_a_student_that_has_left_is_passed_over(folder: Folder) -> None:
    write_json(folder.args.scores / "student_gone.json", SCORES["student"])
    assert "student_gone" not in "".join(folder.run())


def test_a_few_shot_base_is_a_model_of_its_own(folder: Folder) -> None:
    scores = SCORES["base"] | {"few_shot": {"embedded_sums": score(101, 0.4, 0.05, 0.1, 0.03, 0.0)}}
    write_json(folder.args.scores / "base.json", scores)
    shown = [r | {"shots": 3, "flexible": float(n < 40)} for n, r in enumerate(items("base")[:101])]
    write_rows(folder.args.samples / "base.parquet", [*items("base"), *shown], SAMPLE)
    markdown = folder.run()[0]
    text = section(markdown, "Results")
    assert "`embedded_sums`: base after 3 solved examples 40.0 %, student 50.0 %" in markdown.split("\n## ")[0]
    assert row(text, "`embedded_sums`", "base_fewshot")[2] == "40.0 ± 5.0"
    # The student is right on items 15 to 64, the few-shot base on 0 to 39: 25 against 15.
    assert row(text, "`embedded_sums`", "flexible", "base_fewshot")[5:7] == ["25", "15"]
    assert row(text, "`embedded_sums`", "flexible", "base")[5:7] == ["45", "15"]


def test_development_items_are_apart(folder: Folder) -> None:
    scores = SCORES["student"] | {"dev": {"embedded_sums": score(25, 0.9, 0.05, 0.9, 0.03, 0.0)}}
    write_json(folder.args.scores / "student.json", scores)
    rows = [r | {"split": "dev", "id": f"dev/{n}", "flexible": 1.0} for n, r in enumerate(items("base")[:25])]
    for model in ("base", "student"):
        write_rows(folder.args.samples / f"{model}.parquet", [*items(model), *rows], SAMPLE)
    text = section(folder.run()[0], "Results")
    assert "Development items: choose settings by these" in text
    assert "| `embedded_sums` | student | 25 | 90.0 ± 5.0 | 90.0 ± 3.0 |" in text
    assert row(text, "`embedded_sums`", "flexible", "base")[5:7] == ["45", "15"]


def test_a_limit_is_stated(folder: Folder) -> None:
    folder.params = changed(folder.params, evaluate={"limit": 5})
    assert "5 items of each task were drawn by a hash of their ids" in folder.run()[0]


def test_the_headline_has_the_share_of_right_answers(folder: Folder) -> None:
    markdown, page = folder.run()
    # 4 of 28.
    words = "14.3 % of the 28 training answers that a program can check are right"
    assert words in markdown.splitlines()[0]
    assert words in page.split("</h1>")[0]
    folder.change("reward_select", checkable={"n": 0, "right": 0, "right_frac": None})
    assert "none of the training answers can be checked by a program" in folder.run()[0].splitlines()[0]


def test_plots_have_the_scores_and_the_funnel(folder: Folder) -> None:
    folder.run()
    scores = folder.args.scores_plot.read_text().splitlines()
    assert scores[0] == "name,task,model,items,flexible,flexible_stderr,strict,strict_stderr"
    assert scores[1] == "embedded_sums: base,embedded_sums,base,101,20.0,4.0,0.0,0.0"
    funnel = folder.args.funnel_plot.read_text().splitlines()
    assert funnel[:3] == ["step,left,removed", "01 generated,10,0", "02 language,9,1"]
    assert funnel[-1].split(",")[1:] == ["2", "1"]


def test_a_doubtful_score_is_marked_by_its_task_and_model(folder: Folder) -> None:
    scores = read_json(folder.args.scores / "student.json")
    scores["embedded_sums"] |= {"flexible": 0.0, "unparsed": 0.05, "timeouts": 3}
    write_json(folder.args.scores / "student.json", scores)
    markdown, page = folder.run()
    text = section(markdown, "Results")
    assert f"`embedded_sums`, student: {WARNINGS['score_zero']}." in text
    assert "`embedded_sums`, student: 3 checks ran into their time limit and count as wrong." in text
    assert "`embedded_stories`, student: 6.0 % of the answers could not be parsed." in text
    assert "`embedded_sums`, base: 30.0 % of the answers could not be parsed." in text
    assert "`embedded_sums`, student: 5.0 %" not in text  # 5% exactly is not more than 5%
    assert "`embedded_sums`, alpha" not in text
    assert "embedded_sums</code>, student" in page
