import shutil
from pathlib import Path

import pytest

from scalequest.errors import UserError
from scalequest.io import file_hash, read_json, write_json
from scalequest.outcomes import NEXT_STEPS, REWRITE_OUTCOMES, SELECT_OUTCOMES, WARNINGS
from scalequest.params import JsonlSource
from scalequest.records import INSTRUCTION, LEDGER, write_rows
from tests.fakes import changed
from tests.report.finished import (
    BY_AIM,
    DATA,
    LEDGER_ROWS,
    SCORES,
    SEEDS,
    Folder,
    row,
    section,
)


def test_outcomes_sum_to_what_was_generated(folder: Folder) -> None:
    text = section(folder.run()[0], "The funnel")
    # columns: outcome, all, share, paper, sums, stories, meaning
    assert row(text, "`generated`")[1:-1] == ["10", "100.0", "", "6 (100.0 %)", "4 (100.0 %)"]
    assert row(text, "`kept`")[1:-1] == ["4", "40.0", "", "2 (33.3 %)", "2 (50.0 %)"]
    assert row(text, "`language`")[1:-1] == ["1", "10.0", "20.1", "1 (16.7 %)", "0 (0.0 %)"]
    assert row(text, "`no_verdict`")[1:-1] == ["1", "10.0", "in the line above", "0 (0.0 %)", "1 (25.0 %)"]
    table = text.split("Every generated question")[1].split("\n\n")[1].splitlines()[3:]
    columns = [[int(line.split(" | ")[column].split()[0]) for line in table] for column in (1, 4, 5)]
    assert list(map(sum, columns)) == [10, 6, 4]
    assert (
        "Of 10 generated questions the filters kept 4, 3 of them got a response that gives an answer, and the student was trained on 2."
        in text
    )


def test_a_run_without_rewards_has_a_report_that_says_so(folder: Folder) -> None:
    """What an earlier run's reward model has left is passed over, and so is a table of its rewards."""
    folder.params = changed(folder.params, reward_select={"by": "majority", "waits_for": "responses"})
    folder.change("reward_model", warnings={"coin_reward": 1})
    select = read_json(folder.args.metrics / "reward_select.json")
    del select["mean_reward"]
    write_json(folder.args.metrics / "reward_select.json", select)
    write_rows(folder.args.data, [row | {"reward": None} for row in DATA], INSTRUCTION)
    left, page = folder.run()
    assert row(section(left, "The funnel"), "`reward_select`")[-1].startswith(
        "1 questions without a response that gives an answer, chosen without rewards (`reward_select.waits_for`); on average 75.0 %"
    )
    assert "no reward · agreement 0.75" in left
    assert "Reward of the sampled answers" not in page
    for gone in ("coin_reward", "| `reward_model` |"):
        assert gone not in left
    assert "| `reward` |" not in section(left, "What this is")
    assert "reward" not in read_json(folder.args.summary)
    assert not (folder.args.distributions / "reward.csv").exists()
    # Nothing of the reward stages has to be there.
    for name in ("reward_model", "reward"):
        (folder.args.metrics / f"{name}.json").unlink()
    shutil.rmtree(folder.args.rewards)
    folder.args.rewards = folder.args.responses  # as dvc.yaml names it then
    assert folder.run() == (left, page)


def test_questions_dropped_by_a_demand_are_a_step_of_the_funnel(folder: Folder) -> None:
    assert "too_few_agree" not in folder.run()[0]
    folder.change(
        "reward_select", kept=1, dropped={"no_answer": 1, "low_reward": 0, "too_few_agree": 2, "wrong_arithmetic": 0}
    )
    markdown, page = folder.run()
    remarks = row(section(markdown, "The funnel"), "`reward_select`")[-1]
    assert f"2 questions dropped as `too_few_agree`: {SELECT_OUTCOMES['too_few_agree']}" in remarks
    # Four questions passed the filters: one got no answer, and of the others two do not agree.
    assert "no usable response: 3 left, 1 taken; too_few_agree: 1 left, 2 taken" in page


def test_several_answers_per_question_are_counted_as_pairs(folder: Folder) -> None:
    folder.change("reward_select", rows=7)
    text = section(folder.run()[0], "The funnel")
    assert row(text, "`reward_select`")[1:3] == ["4 questions", "7 pairs"]
    assert "3 questions have 7 answers (`reward_select.keep`)" in row(text, "`reward_select`")[-1]


def test_an_outcome_of_a_new_filter_is_counted_too(folder: Folder) -> None:
    write_rows(
        folder.args.ledger, [r | {"outcome": "rude"} if r["id"] == "sums/0/1" else r for r in LEDGER_ROWS], LEDGER
    )
    assert row(section(folder.run()[0], "The funnel"), "`rude`")[1:6] == ["1", "10.0", "", "1 (16.7 %)", "0 (0.0 %)"]


def test_a_ledger_that_lost_rows_stops_the_report(folder: Folder) -> None:
    write_rows(folder.args.ledger, LEDGER_ROWS[1:], LEDGER)
    with pytest.raises(UserError, match=r"'sums': 5.*'sums': 6.*dvc repro filter"):
        folder.run()


def test_flags_that_are_up_are_shown_with_their_sentence(folder: Folder) -> None:
    markdown, page = folder.run()
    text = section(markdown, "Warnings")
    for stage, flag in (
        ("judge", "one_verdict"),
        ("generate@stories", "no_end"),
        ("evaluate_student@student", "many_unparsed"),
    ):
        assert row(text, f"`{stage}`") == [f"`{stage}`", f"`{flag}`", WARNINGS[flag], NEXT_STEPS[flag]]
    assert markdown.index("## Warnings") < markdown.index("## Results")  # before any number that they are about
    assert len([line for line in text.splitlines() if line.startswith("| `")]) == 3
    assert WARNINGS["no_end"] in page
    assert "left_the_mix" not in markdown + page


def test_what_dvc_does_not_watch_is_a_warning(folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A local source and a package lock that changed since the stages ran."""
    assert "source_changed" not in folder.run()[0]
    file = tmp_path / "own.jsonl"
    file.write_text("{}\n")
    source = JsonlSource(kind="jsonl", path=str(file), n=None, sha256=file_hash(file))
    folder.params = folder.params.model_copy(update={"seeds": {**folder.params.seeds, "own": source}})
    assert "source_changed" not in folder.run()[0]
    file.write_text("{ }\n")
    assert row(folder.run()[0], "`seeds`", "`source_changed`")[2] == WARNINGS["source_changed"]
    monkeypatch.setattr("scalequest.report.run.other_versions", lambda made, locks: {"torch 1, x names 2": ["judge"]})
    assert row(folder.run()[0], "`judge`", "`lock_changed`")


def test_a_run_without_warnings_says_so(folder: Folder) -> None:
    folder.change("judge", warnings={"one_verdict": 0})
    folder.change("generate/stories", warnings={"no_end": 0})
    write_json(folder.args.scores / "student.json", SCORES["student"] | {"warnings": {}})
    assert section(folder.run()[0], "Warnings").strip().startswith("None")


def test_training_runs_have_losses_and_checks(folder: Folder) -> None:
    # Two passes over 1,200 tokens in 24 steps; a stage that counts no tokens; a generator's own three passes over 1,000.
    sums = folder.params.generators["sums"].model_copy(update={"qpo": {"epochs": 3}})
    folder.params = folder.params.model_copy(
        update={
            "qft": folder.params.qft.model_copy(update={"epochs": 2}),
            "generators": folder.params.generators | {"sums": sums},
        }
    )
    folder.change("qft/sums", tokens=1_200)
    folder.change("qpo/sums", tokens=1_000)
    text = section(folder.run()[0], "Training runs")
    assert row(text, "`solver`")[1:] == ["–"] * 7 + ["not trained: the model is taken as it was fetched"]
    assert row(text, "`qft@sums`")[1:] == ["2.500", "1.250", "24", "2,400", "100", "90", "3", ""]
    assert row(text, "`qft@stories`")[1:] == ["2.500", "1.250", "24", "–", "–", "90", "3", ""]
    assert row(text, "`qpo@sums`")[4] == "3,000"
    assert "They are in `cost.html`, which `make repro` or `scalequest cost --page` writes" in text
    assert "60.0 %" in row(text, "`qpo@sums`")[-1]
    assert row(text, "`qpo@stories`")[-1] == (
        "mean margin of chosen over rejected 0.4080 before saving, 0.0520 as saved; chosen preferred in 75.0 % of 8 pairs "
        "(held out)"
    )
    assert row(text, "`difficulty_model`")[-1] == (
        "rank correlation 0.35 ± 0.34 on 12 held-out seeds; squared error 0.080, 0.100 for always saying the mean"
    )
    assert row(text, "`reward_model`")[-1] == (
        "right sample above a wrong one of the same seed in 85.0 ± 9.0 % of 20 held-out pairs"
    )


def test_pairs_of_the_solver_are_explained_as_such(folder: Folder) -> None:
    assert "is rewritten for one aim" in section(folder.run()[0], "Preference data")
    feedback = folder.params.preferences.model_copy(update={"source": "solver"})
    folder.params = folder.params.model_copy(update={"preferences": feedback})
    folder.change("preferences/stories", rejected={"is_chosen": 8})
    text = section(folder.run()[0], "Preference data")
    assert "was answered by the solver" in text
    assert "is rewritten for one aim" not in text
    assert row(text, "`is_chosen`")[1] == REWRITE_OUTCOMES["is_chosen"]


def test_what_stages_measured_of_themselves_is_shown(folder: Folder) -> None:
    folder.change("judge", calibration={"problems": 25, "sound": {"share": 0.8}, "difference_p_value": None})
    text = section(folder.run()[0], "Quality of each step")
    assert row(text, "`judge`")[-1] == "difference p value –; problems 25; sound.share 0.800"
    assert "wrong 3" in text
    assert row(text, "`preference_check@difficulty`")[-1] == "chosen higher.frac 0.700; pairs 40"
    assert "margin trained 0.408" in row(text, "`qpo@stories`")[-1]


def test_choices_are_shown_by_difficulty(folder: Folder) -> None:
    assert "Right choices" not in section(folder.run()[0], "Quality of each step")
    rule = {"right_frac": 0.5, "standard_error": 0.1}
    few = {
        "problems": 9,
        "reward": rule,
        "majority": rule | {"right_frac": 0.25},
        "random": rule | {"standard_error": None},
    }
    folder.change("reward_model", by_difficulty={"all_right": {"problems": 4}, "few_right": few})
    text = section(folder.run()[0], "Quality of each step")
    assert row(text, "up to a third")[1:] == ["9", "50.0 ± 10.0", "25.0 ± 10.0", "50.0"]
    assert row(text, "all")[1:] == ["4", "–", "–", "–"]
    assert text.index("| up to a third") < text.index("| all ")


def test_both_sides_of_pairs_are_compared_by_aim_and_measure(folder: Folder) -> None:
    text = section(folder.run()[0], "Preference data")
    measured = row(text, "solvability", "called solvable by the judge, %")
    assert measured[2:] == ["20", "75.0 ± 9.0", "60.0 ± 10.0", "−15.0 ± 8.0", "p = 0.25"]
    # One pair has no standard error.
    by_aim = BY_AIM | {"pairs": 1, "difference_standard_error": None}
    folder.change("preference_check/difficulty", quality={"by_direction": {"difficulty": by_aim}})
    measured = row(section(folder.run()[0], "Preference data"), "difficulty", "difficulty by the scorer")
    assert measured[2:] == ["1", "0.750 ± 0.090", "0.600 ± 0.100", "−0.150", "p = 0.25"]
    folder.change("preference_check/solvability", quality={})
    assert "called solvable" not in section(folder.run()[0], "Preference data")


def test_overlap_and_diversity_are_shown_by_generator(folder: Folder) -> None:
    none = {"sums": 0, "stories": 0}
    folder.change(
        "screen",
        by_generator={"sums": {"kept": 4, "language": 2}, "stories": {"kept": 3, "near_duplicate": 1}},
        overlap={
            "exact": {"sums": none, "stories": none},
            "near": {"sums": none, "stories": {"sums": 0, "stories": 1}},
        },
        diversity={"sums": {"n": 4, "vendi": 3.5}, "stories": {"n": 4, "vendi": 1.2}},
        template_matches={"kept": 2, "items": 1},
        paraphrases={"kept": 3, "items": 2},
    )
    text = section(folder.run()[0], "Overlap and diversity")
    # One of the four of stories repeats another one of stories.
    no = "0 (0.0 %)"
    assert row(text, "`stories`")[1:] == ["4", no, no, no, "1 (25.0 %)", "1.2 of 4"]
    assert row(text, "`sums`")[1:] == ["6", no, no, no, no, "3.5 of 4"]
    assert "2 kept questions are one of 1 benchmark items" in text
    assert "3 kept questions may say what one of 2 benchmark items says" in text
    folder.change("screen", template_matches=None, paraphrases=None)
    text = section(folder.run()[0], "Overlap and diversity")
    assert "items with other numbers were not looked for" in text
    assert "items in other words were not looked for" in text
    assert "kept questions" not in text


def test_the_diversity_of_seeds_and_of_each_step_is_shown(folder: Folder) -> None:
    text = section(folder.run()[0], "Overlap and diversity")
    # As many of each as the smallest set has: two questions of each generator are kept.
    smallest = min(len(SEEDS), 3, 2)
    for name in ("seeds", "`sums`, after QFT", "`sums`, generated", "`stories`, kept"):
        n, by_words, by_meaning = row(text, name)[1:]
        assert n == str(smallest)
        assert 1 <= float(by_words) <= smallest
        assert 1 <= float(by_meaning) <= smallest


def test_a_screen_that_measured_no_overlap_is_named(folder: Folder) -> None:
    assert "did not measure" in section(folder.run()[0], "Overlap and diversity")


def test_preference_rejects_have_a_column_a_reason(folder: Folder) -> None:
    text = section(folder.run()[0], "Preference data")
    head = row(text, "generator")
    assert head == [
        "generator",
        "sampled",
        "usable",
        "pairs",
        "`cut`",
        "`identical`",
        "`over_long`",
        "for solvability",
        "for difficulty",
    ]
    assert row(text, "sums")[1:] == ["40", "30", "22", "3", "5", "0", "16", "14"]
    assert row(text, "stories")[1:] == ["40", "30", "22", "0", "0", "8", "10", "20"]
    assert row(text, "`identical`")[1] == REWRITE_OUTCOMES["identical"]
