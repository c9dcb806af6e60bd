import argparse
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from scalequest.errors import UserError
from scalequest.io import file_hash, read_json, write_json
from scalequest.outcomes import NEXT_STEPS, WARNINGS
from scalequest.params import JsonlSource, Params
from scalequest.records import INSTRUCTION, LEDGER, SAMPLE, write_rows
from scalequest.report.page import CLIP, fenced, markdown_line, scale
from scalequest.report.provenance import SETTINGS
from scalequest.report.results import Difference
from scalequest.runtime.stage import Declared, StageRun
from stages import report
from tests.fakes import changed

HOSTILE = "What is 1 | 2?\n```\n<script>alert('x')</script> & <b>bold</b>"


def score(
    n: int, flexible: float, flexible_se: float, strict: float, strict_se: float, unparsed: float
) -> dict[str, float]:
    return {
        "n": n, "flexible": flexible, "flexible_stderr": flexible_se, "strict": strict, "strict_stderr": strict_se,
        "unparsed": unparsed, "unparsed_stderr": 0.01, "cut": 0.05, "cut_stderr": 0.02, "timeouts": 0, "too_long": 0,
    }  # fmt: skip


# sqrt(p(1-p)/(n-1)): p .2, n 101: .04; p .5, n 101: .05; p .1, n 101: .03; p .16, n 85: .04.
SCORES: dict[str, dict[str, Any]] = {
    "student": {
        "embedded_sums": score(101, 0.5, 0.05, 0.2, 0.04, 0.02),
        "embedded_stories": score(101, 0.1, 0.03, 0.0, 0.0, 0.06),
        "warnings": {"score_zero": 0, "many_unparsed": 1},
    },
    "base": {
        "embedded_sums": score(101, 0.2, 0.04, 0.0, 0.0, 0.3),
        "embedded_stories": score(85, 0.16, 0.04, 0.0, 0.0, 0.3),
        "warnings": {"score_zero": 0, "many_unparsed": 0},
    },
    "alpha": {"embedded_sums": score(101, 0.5, 0.05, 0.2, 0.04, 0.02)},
    "solver": {
        "embedded_sums": score(101, 0.5, 0.05, 0.2, 0.04, 0.02),
        "embedded_stories": score(101, 0.2, 0.04, 0.2, 0.04, 0.02),
    },
}

TRAINED = {"examples": 90, "dropped_too_long": 3, "steps": 24, "first_loss": 2.5, "last_loss": 1.25, "mean_loss": 1.5}
PAIRS = {"questions": 40, "usable": 30, "pairs": 22, "kept_frac": 0.733333, "rejected": {"identical": 5, "cut": 3}}
HELD_OUT_REWARD = {
    "pairs": 20,
    "accuracy": 0.85,
    "accuracy_standard_error": 0.09,
}
METRICS: dict[str, dict[str, Any]] = {
    "seeds": {"problems": 270},
    "benchmarks": {"embedded_sums": 101},
    "solver": {"examples": 0},
    "difficulty_labels": {"problems": 64, "warnings": {"one_fail_rate": 0}},
    "difficulty_model": TRAINED
    | {"held_out": {"problems": 12, "spearman": 0.345678, "spearman_standard_error": 0.343, "mse": 0.08, "mse_of_the_mean": 0.1}}
    | {"warnings": {"no_correlation": 0}},
    "difficulty": {"questions": 7},
    "screen": {"questions": 10, "kept": 7},
    "judge": {"questions": 7, "warnings": {"one_verdict": 1, "no_verdicts": 0}},
    "filter": {"generated": 10, "kept": 4},
    "respond": {"questions": 4, "responses": 16, "cut_at_max_tokens": 2, "mean_tokens": 50.0, "mean_distinct": 3.25},
    "reward_model": TRAINED | {"held_out": HELD_OUT_REWARD, "warnings": {"coin_reward": 0}},
    "reward": {"responses": 16},
    "reward_select": {
        "questions": 4, "kept": 3, "dropped": {"no_answer": 1, "low_reward": 0},
        "mean_reward": {"kept": 1.5, "all": 0.25}, "mean_agreement": 0.75, "mean_candidates": 3.0,
        "checkable": {"n": 28, "right": 4, "right_frac": 0.1429}, "arithmetic": {"steps": 9, "wrong": 3, "wrong_frac": None},
    },
    "instruct_tune/student": TRAINED | {"examples": 2, "dropped_too_long": 1, "steps": 2},
    "qft/sums": TRAINED,
    "qft/stories": TRAINED,
    "qpo_questions/sums": {"questions": 40, "warnings": {"one_question": 0, "no_end": 0}},
    "qpo_questions/stories": {"questions": 40, "warnings": {"one_question": 0, "no_end": 0}},
    "preferences/sums": PAIRS | {"direction": {"solvability": 16, "difficulty": 14}},
    "preferences/stories": PAIRS | {"rejected": {"over_long": 8}, "direction": {"solvability": 10, "difficulty": 20}},
    "preference_check/solvability": {"measure": "solvability", "quality": {"difference": 0.123456}, "warnings": {"rewrites_no_better": 0}},
    "qpo/sums": TRAINED | {"reloaded": {"pairs": 20, "pairs_from": "held out", "margin_trained": 0.4, "margin": 0.3, "accuracy_trained": 0.7, "accuracy": 0.6}},
    "qpo/stories": TRAINED
    | {"reloaded": {"pairs": 8, "pairs_from": "held out", "margin_trained": 0.408, "margin": 0.052, "accuracy_trained": 0.9, "accuracy": 0.75}},
    "generate/sums": {"questions": 6, "warnings": {"one_question": 0, "no_end": 0}},
    "generate/stories": {"questions": 4, "warnings": {"one_question": 0, "no_end": 1}},
    "preference_check/difficulty": {
        "measure": "difficulty", "quality": {"pairs": 40, "chosen_higher": {"frac": 0.7}}, "warnings": {"rewrites_no_better": 0},
    },
    "instruct_tune/student_gone": TRAINED | {"warnings": {"no_end": 1}},
    "generate/left_the_mix": {"questions": 99, "warnings": {"one_question": 1}},
}  # fmt: skip

# id, outcome, matched, evidence: 6 of sums, 4 of stories, 4 kept.
FATES = [
    ("sums/0/0", "kept", "", ""),
    ("sums/0/1", "language", "", "U+4F60"),
    ("sums/0/2", "kept", "", ""),
    ("sums/0/3", "contaminated", "embedded_sums/7", HOSTILE),
    ("sums/0/4", "unsolvable", "", ""),
    ("sums/0/5", "too_easy", "", ""),
    ("stories/0/0", "kept", "", ""),
    ("stories/0/1", "near_duplicate", "stories/0/0", "jaccard 0.900"),
    ("stories/0/2", "no_verdict", "", ""),
    ("stories/0/3", "kept", "", ""),
]
LEDGER_ROWS = [
    {"id": i, "generator": i.split("/")[0], "question": f"{HOSTILE} ({i})", "outcome": outcome, "matched": matched,
     "evidence": evidence, "verdict": "solvable", "difficulty": 0.25, "min_difficulty": 0.5}
    for i, outcome, matched, evidence in FATES
]  # fmt: skip
DATA = [
    {"id": i, "generator": i.split("/")[0], "question": f"{HOSTILE} ({i})", "response": "So it is $\\boxed{3|4}$ ````",
     "final_answer": "3|4", "reward": 1.5, "agreement": 0.75, "n_candidates": 3}
    for i in ("sums/0/0", "stories/0/0", "stories/0/3")
]  # fmt: skip


def items(model: str) -> list[dict[str, Any]]:
    """On sums the base gets items 0-19 right, the student 15-64: 45 gained, 15 lost. On stories 4 lost. Strict: none."""
    right = {
        "base": {"embedded_sums": range(20), "embedded_stories": range(4)},
        "student": {"embedded_sums": range(15, 65)},
    }[model]
    return [
        {"task": task, "split": "test", "shots": 0, "id": f"{task}/{n}", "question": "q", "answer": "1", "completion": "1",
         "finish_reason": "stop", "strict": 0.0, "flexible": float(n in right.get(task, ())), "unparsed": 0.0, "timeout": 0.0}
        for task in ("embedded_sums", "embedded_stories")
        for n in range(101)
    ]  # fmt: skip


class Folder:
    """A finished run in ``tmp_path``."""

    def __init__(self, root: Path, params: Params) -> None:
        self.root, self.params = root, params
        self.args = argparse.Namespace(
            scores=root / "eval/scores", metrics=root / "reports/metrics", ledger=root / "ledger.parquet",
            data=root / "instruct.parquet", samples=root / "samples", markdown=root / "reports/report.md",
            page=root / "reports/index.html", scores_plot=root / "scores.csv", funnel_plot=root / "funnel.csv",
        )  # fmt: skip
        for name, metrics in METRICS.items():
            write_json(self.args.metrics / f"{name}.json", metrics)
        for model, scores in SCORES.items():
            write_json(self.args.scores / f"{model}.json", scores)
        for model in ("base", "student"):
            write_rows(self.args.samples / f"{model}.parquet", items(model), SAMPLE)
        write_rows(self.args.ledger, LEDGER_ROWS, LEDGER)
        write_rows(self.args.data, DATA, INSTRUCTION)

    def change(self, metrics: str, **values: Any) -> None:
        path = self.args.metrics / f"{metrics}.json"
        write_json(path, read_json(path) | values)

    def run(self) -> tuple[str, str]:
        """Markdown and page."""
        report.main(self.args, StageRun(Declared(self.params, SETTINGS)))
        return self.args.markdown.read_text(encoding="utf-8"), self.args.page.read_text(encoding="utf-8")


@pytest.fixture
def folder(tmp_path: Path, laptop: Params) -> Folder:
    return Folder(tmp_path, laptop)


def section(text: str, title: str) -> str:
    return text.split(f"\n## {title}\n")[1].split("\n## ")[0]


def row(text: str, *start: str) -> list[str]:
    """Cells of the one table row that starts so."""
    found = [line for line in text.splitlines() if line.startswith("| " + " | ".join(start) + " |")]
    assert len(found) == 1, f"{start}: {found}"
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", found[0])[1:-1]]


class Page(HTMLParser):
    """What a browser would see: tags with their attributes, and whether every tag is closed by its own end."""

    VOID = frozenset({"meta", "input", "link", "br"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


# ------------------------------------------------------------------------------------------------------------- results


def test_models_stand_in_the_order_of_the_method_then_by_name(folder: Folder) -> None:
    lines = [
        line.split(" | ")[1]
        for line in section(folder.run()[0], "Results").splitlines()
        if line.startswith("| `embedded_sums` | ")
    ]
    assert lines[:4] == ["base", "solver", "student", "alpha"]


def test_scores_stand_in_percent_with_their_standard_error(folder: Folder) -> None:
    text = section(folder.run()[0], "Results")
    assert row(text, "`embedded_sums`", "base")[2:] == ["101", "20.0 ± 4.0", "0.0 ± 0.0", "30.0", "5.0"]
    assert row(text, "`embedded_stories`", "base")[2:] == ["85", "16.0 ± 4.0", "0.0 ± 0.0", "30.0", "5.0"]
    # alpha was scored on one task only: the gap is shown.
    assert row(text, "`embedded_stories`", "alpha")[2:] == ["–"] * 5


def test_the_difference_is_taken_item_by_item(folder: Folder) -> None:
    text = section(folder.run()[0], "Results")
    # 45 of 101 items only the student, 15 only the base: 30 / 101 = 29.7 points; exact McNemar of 45 against 15: p = 0.00013.
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
    assert row(text, "`embedded_sums`", "student_2")[3] == "60.0 ± 5.0"
    assert "not measured" not in text
    assert row(section(markdown, "Training runs"), "`instruct_tune@student_2`")[1] == "2"


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
    assert row(text, "`embedded_sums`", "base_fewshot")[3] == "40.0 ± 5.0"
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


# -------------------------------------------------------------------------------------------------------------- funnel


def test_outcomes_sum_to_what_was_generated(folder: Folder) -> None:
    text = section(folder.run()[0], "The funnel")
    # columns: outcome, meaning, sums, stories, all, share, paper
    assert row(text, "`generated`")[2:] == ["6", "4", "10", "100.0", ""]
    assert row(text, "`kept`")[2:] == ["2", "2", "4", "40.0", ""]
    assert row(text, "`language`")[2:] == ["1", "0", "1", "10.0", "20.1"]
    assert row(text, "`no_verdict`")[2:] == ["0", "1", "1", "10.0", "in the line above"]
    table = text.split("Every generated question")[1].split("\n\n")[1].splitlines()[3:]
    columns = [[int(line.split(" | ")[column]) for line in table] for column in (2, 3, 4)]
    assert list(map(sum, columns)) == [6, 4, 10]
    assert (
        "Of 10 generated questions the filters kept 4, 3 of them got a response that gives an answer, and the student was trained on 2."
        in text
    )


def test_an_outcome_of_a_new_filter_is_counted_too(folder: Folder) -> None:
    write_rows(
        folder.args.ledger, [r | {"outcome": "rude"} if r["id"] == "sums/0/1" else r for r in LEDGER_ROWS], LEDGER
    )
    assert row(section(folder.run()[0], "The funnel"), "`rude`")[2:5] == ["1", "0", "1"]


def test_a_ledger_that_lost_rows_stops_the_report(folder: Folder) -> None:
    write_rows(folder.args.ledger, LEDGER_ROWS[1:], LEDGER)
    with pytest.raises(UserError, match=r"'sums': 5.*'sums': 6.*dvc repro filter"):
        folder.run()


# ------------------------------------------------------------------------------------------ warnings, training, preferences


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
    text = section(folder.run()[0], "Training runs")
    assert row(text, "`solver`")[1:] == ["–"] * 5 + ["not trained: the model is taken as it was fetched"]
    assert row(text, "`qft@sums`")[1:] == ["90", "3", "24", "2.500", "1.250", ""]
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


def test_what_stages_measured_of_themselves_is_shown(folder: Folder) -> None:
    folder.change("judge", calibration={"problems": 25, "sound": {"share": 0.8}, "difference_p_value": None})
    text = section(folder.run()[0], "Quality of each step")
    assert row(text, "`judge`")[-1] == "difference p value –; problems 25; sound.share 0.800"
    assert "wrong 3" in text
    assert row(text, "`preference_check@difficulty`")[-1] == "chosen higher.frac 0.700; pairs 40"
    assert "margin trained 0.408" in row(text, "`qpo@stories`")[-1]


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
    )
    text = section(folder.run()[0], "Overlap and diversity")
    # One of the four of stories repeats another one of stories.
    no = "0 (0.0 %)"
    assert row(text, "`stories`")[1:] == ["4", no, no, no, "1 (25.0 %)", "1.2 of 4"]
    assert row(text, "`sums`")[1:] == ["6", no, no, no, no, "3.5 of 4"]
    assert "2 kept questions are one of 1 benchmark items" in text


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


# ------------------------------------------------------------------------------------------------------------ the data


def test_model_text_cannot_leave_its_fence(folder: Folder) -> None:
    text = section(folder.run()[0], "A look at the data")
    # The response holds four backticks, so its fence has five; the question holds three, so four.
    assert "`````text\nSo it is $\\boxed{3|4}$ ````\n`````" in text
    assert "````text\nWhat is 1 | 2?\n```\n<script>" in text
    outside = re.sub(r"(`{3,})text\n.*?\n\1(?=\n|$)", "", text, flags=re.DOTALL)
    assert "<script>" not in re.sub(r"`[^`\n]*`", "", outside)


def test_model_text_is_escaped_in_the_page(folder: Folder) -> None:
    page = folder.run()[1]
    assert "<b>bold" not in page
    assert "&lt;script&gt;alert(&#x27;x&#x27;)&lt;/script&gt; &amp; &lt;b&gt;bold&lt;/b&gt;" in page
    assert page.count("<script>") == 1


def test_a_secret_in_the_data_stops_the_report(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "So it is")
    with pytest.raises(UserError, match=r"report\.md: holds the value of HF_TOKEN"):
        folder.run()
    assert not folder.args.markdown.exists()
    assert not folder.args.page.exists()


def test_each_outcome_has_an_example_with_its_evidence(folder: Folder) -> None:
    markdown, page = folder.run()
    for text in (section(markdown, "A look at the data"), page):
        for i, outcome, _, _ in FATES:
            assert outcome == "kept" or (i in text and outcome in text)
        assert "jaccard 0.900" in text
        assert "difficulty 0.250, lowest kept 0.500" in text
    assert "reward 1.500 · agreement 0.75 · candidates 3 · answer `3\\|4`" in markdown


def test_the_draw_does_not_depend_on_the_order_of_rows(folder: Folder) -> None:
    markdown, page = folder.run()
    write_rows(folder.args.ledger, LEDGER_ROWS[::-1], LEDGER)
    write_rows(folder.args.data, DATA[::-1], INSTRUCTION)
    assert folder.run() == (markdown, page)


def test_what_is_too_long_to_show_is_cut_and_counted(folder: Folder) -> None:
    write_rows(folder.args.data, [r | {"response": "x" * (CLIP + 1234)} for r in DATA], INSTRUCTION)
    markdown, page = folder.run()
    for text in (markdown, page):
        assert "x" * CLIP + "\n[1,234 more characters]" in text
        assert "x" * (CLIP + 1) not in text


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


# -------------------------------------------------------------------------------- contamination, settings, repeatability


def with_gsm8k(params: Params, tasks: list[str]) -> Params:
    files = {task: JsonlSource(kind="jsonl", path="gsm8k.jsonl", n=None, sha256=None) for task in tasks}
    return changed(params, benchmarks=files | params.benchmarks, evaluate={"tasks": tasks})


def test_gsm_symbolic_seeds_forbid_a_gsm8k_score(folder: Folder) -> None:
    markdown, page = folder.run()
    assert "this run must not quote a GSM8K score as clean" in section(markdown, "Contamination notice")
    assert "this run must not quote a GSM8K score as clean" in page


def test_a_contaminated_gsm8k_score_is_marked_wherever_it_stands(folder: Folder) -> None:
    folder.params = with_gsm8k(folder.params, ["gsm8k_flexible", "embedded_sums"])
    markdown, page = folder.run()
    for text in (section(markdown, "Contamination notice"), section(markdown, "Results"), page):
        assert "`gsm8k_flexible`" in text or "<code>gsm8k_flexible</code>" in text
        assert "must not be quoted as clean" in text


def test_clean_seeds_need_no_notice_on_gsm8k(folder: Folder) -> None:
    folder.params = with_gsm8k(folder.params, ["gsm8k"])
    clean = {name: source for name, source in folder.params.seeds.items() if name != "gsm_symbolic"}
    folder.params = changed(folder.params, seeds=clean)
    text = section(folder.run()[0], "Contamination notice")
    assert "GSM8K" not in text
    assert "1 shared a run of 13 words" in text


def test_what_seeds_share_with_a_benchmark_is_shown(folder: Folder) -> None:
    assert "share words with a seed" not in folder.run()[0]
    example = {"seed": "math/3", "item": "math500/9", "span": "a | b"}
    shared = {"items": 58, "items_frac": 0.116, "seeds": 70, "examples": [example]}
    folder.change("seeds", shared_with_benchmarks={"math500": shared, "gsm8k": shared | {"items": 0, "examples": []}})
    text = section(folder.run()[0], "Contamination notice")
    assert row(text, "`math500`")[1:] == ["58", "11.6", "70", "`math/3` and `math500/9`: `a \\| b`"]
    assert row(text, "`gsm8k`")[1:] == ["0", "11.6", "70", ""]


def test_tasks_of_the_seeds_kind_are_named(folder: Folder) -> None:
    # embedded_sums draws from chain_sum and embedded_stories from gsm_symbolic, as seeds do; a file is of no such kind.
    folder.params = with_gsm8k(folder.params, ["gsm8k", "embedded_stories"])
    text = section(folder.run()[0], "Contamination notice")
    assert "The items of `embedded_stories` come from the same generating programs as seeds do" in text


def test_decontamination_that_is_off_is_told(folder: Folder) -> None:
    folder.params = changed(folder.params, screen={"decontaminate_ngram": 0})
    assert "Decontamination is off" in section(folder.run()[0], "Contamination notice")


def test_settings_are_the_whole_file_but_runtime(folder: Folder) -> None:
    text = section(folder.run()[0], "Settings")
    assert row(text, "`qpo.beta`")[1] == "`0.1`"
    assert row(text, "`generate.from`")[1] == "`qpo`"
    assert row(text, "`reward_select.min_reward`")[1] == "`null`"
    assert row(text, "`seeds.gsm_symbolic.templates`")[1] == "`even`"
    assert "`runtime." not in text


# ---------------------------------------------------------------------------------------------------------- the whole


def test_a_second_run_writes_the_same_bytes_and_nothing_else(folder: Folder) -> None:
    before = {path for path in folder.root.rglob("*") if path.is_file()}
    first = folder.run()
    assert folder.run() == first
    assert str(folder.root) not in "".join(first)
    made = {path for path in folder.root.rglob("*") if path.is_file()} - before
    assert made == {folder.args.markdown, folder.args.page, folder.args.scores_plot, folder.args.funnel_plot}


def test_nothing_in_it_is_about_this_machine(folder: Folder) -> None:
    import platform

    text = "".join(folder.run())
    assert platform.python_version() not in text
    assert "scalequest audit" in text


@pytest.mark.parametrize(
    ("name", "command"),
    [("judge", "dvc repro judge"), ("qft/sums", "dvc repro qft@sums")],
)
def test_missing_metrics_name_the_stage_to_run(folder: Folder, name: str, command: str) -> None:
    (folder.args.metrics / f"{name}.json").unlink()
    with pytest.raises(UserError, match=re.escape(command)):
        folder.run()


def test_missing_scores_name_the_stage_to_run(folder: Folder) -> None:
    for path in folder.args.scores.iterdir():
        path.unlink()
    with pytest.raises(UserError, match="dvc repro evaluate evaluate_student"):
        folder.run()


def test_the_page_stands_alone_and_can_be_read_aloud(folder: Folder) -> None:
    text = folder.run()[1]
    tags = Page(text).tags
    assert not [a for _, a in tags if a.get("src") or (a.get("href") or "#")[0] != "#"]
    assert "url(" not in text
    assert "@import" not in text
    svgs = [a for tag, a in tags if tag == "svg"]
    assert len(svgs) == 2
    assert all(a["role"] == "img" and a["aria-label"] for a in svgs)
    assert "base 20.0 plus or minus 4.0 percent" in str(svgs[0]["aria-label"])
    assert all(a["scope"] in ("col", "row") for tag, a in tags if tag == "th")
    ids = [a["id"] for _, a in tags if "id" in a]
    assert len(ids) == len(set(ids))
    assert {str(a["href"])[1:] for tag, a in tags if tag == "a"} <= set(ids)


def test_bars_end_inside_the_chart(folder: Folder) -> None:
    text = folder.run()[1]
    # 50 ± 5 needs the scale up to 60: the student's bar on sums is 50/60 of the width, its whisker goes from 45/60 to 55/60.
    assert '<rect class="strong" x="0.00%" y="125" width="83.33%" height="12"/>' in text
    assert '<line x1="75.00%" x2="91.67%" y1="131" y2="131"/>' in text


@pytest.mark.parametrize(("value", "end"), [(0, 5), (5, 5), (5.1, 10), (55, 60), (100, 100), (104, 100)])
def test_scale_holds_the_value(value: float, end: int) -> None:
    assert scale(value) == end


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a | b", "a \\| b"),
        ("a\nb", "a b"),
        ("<script>", "\\<script\\>"),
        ("`x|y` *", "`x\\|y` \\*"),
        ("max_tokens", "max_tokens"),
    ],
)
def test_a_markdown_line_is_safe_in_a_table(text: str, line: str) -> None:
    assert markdown_line(text) == line


@pytest.mark.parametrize(
    ("text", "fence"), [("plain", "```"), ("``", "```"), ("```", "````"), ("a\n`````\nb", "``````")]
)
def test_a_fence_is_longer_than_any_run_of_backticks(text: str, fence: str) -> None:
    assert fenced(text) == f"{fence}text\n{text}\n{fence}"
