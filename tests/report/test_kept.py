import argparse
import json
import re
import shutil
from pathlib import Path

import pytest

from scalequest.errors import UserError
from scalequest.report import kept
from scalequest.report.blocks import Bars, Browser, Funnel, Section, Table, Text
from tests.fakes import ROOT
from tests.report.test_browse import browsers

GPU = ROOT / "reports" / "results" / "gpu-135m"
TWO_GPUS = ROOT / "reports" / "results" / "gpu-1.5b"


def rendered(folder: Path, out: Path) -> str:
    assert kept.run(argparse.Namespace(folder=folder, out=out)) == 0
    return out.read_text(encoding="utf-8")


def body(text: str) -> str:
    """What a reader sees: without style and scripts, which other changes of the report touch."""
    return text.split("</head>")[1].split("</main>")[0]


def test_the_committed_page_of_the_gpu_run_shows_its_committed_numbers(tmp_path: Path) -> None:
    text = rendered(GPU, tmp_path / "index.html")
    assert len(text.encode()) < 5_000_000
    assert body((GPU / "index.html").read_text(encoding="utf-8")) == body(text), (
        "run: scalequest report reports/results/gpu-135m"
    )
    words = re.sub(r"<[^>]+>", " ", body(text))
    # README.md of the run: GSM8K 1.4 and 6.1, 24,662 judged unsolvable, 10,239 pairs.
    for part in (
        "base 1.4 ± 0.4 %, solver 7.1 ± 0.8 %, student 6.1 ± 0.7 %",
        "73,097 (−24,662)",
        "10,239",
        "86.8% is about authorship",
    ):
        assert part in words
    found = browsers(text)["questions"]
    assert len(found["rows"]) == 200
    # What was not kept is said where it would be.
    assert words.count("Not kept: ") == 2
    assert words.count("Not on this page: ") == 1
    assert words.count("The files themselves were not kept.") == 2


def test_a_run_without_seconds_and_sample_says_so(tmp_path: Path) -> None:
    words = body(rendered(ROOT / "reports" / "results" / "laptop-code", tmp_path / "index.html"))
    assert "Not kept: how long each stage took." in words
    assert "Not on this page: all generated questions" in words
    assert 'class="browser"' not in words


def test_tokens_per_second_are_of_whole_stages_and_count_epochs(tmp_path: Path) -> None:
    text = body(rendered(GPU, tmp_path / "index.html"))
    cells = re.search(r"<code>instruct_tune</code>.*?</tr>", text.split('id="cost"')[1], re.DOTALL)
    assert cells
    # Three epochs of 2,070,869 tokens in 159 s.
    assert [re.sub(r"<[^>]+>", "", cell) for cell in re.findall(r"<td.*?</td>", cells[0])][:4] == [
        "0:02:39", "10,239", "6,212,607", "39,073",
    ]  # fmt: skip


def test_tokens_count_each_generators_own_epochs(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(GPU, tmp_path / "run"))
    run = kept.Kept(folder)
    first, second = run.mix
    [table] = [block for block in kept.cost(run).blocks if isinstance(block, Table)]
    [before] = [row[3] for row in table.rows if row[0].startswith("`qft`")]
    tokens = {g: run.metrics[f"qft/{g}"]["tokens"] for g in run.mix}
    assert before == f"{sum(tokens.values()) * run.params['qft']['epochs']:,}"
    run.params["generators"][first]["qft"] = {"epochs": 5}
    [table] = [block for block in kept.cost(run).blocks if isinstance(block, Table)]
    [after] = [row[3] for row in table.rows if row[0].startswith("`qft`")]
    assert after == f"{tokens[first] * 5 + tokens[second] * run.params['qft']['epochs']:,}"


def test_a_folder_that_is_no_kept_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no dvc\.lock, params\.yaml, metrics\.json, scores\. Expected a kept run"):
        kept.Kept(tmp_path)
    folder = Path(shutil.copytree(GPU, tmp_path / "run"))
    metrics = json.loads((folder / "metrics.json").read_text())
    del metrics["metrics"]["reward_select"]
    (folder / "metrics.json").write_text(json.dumps(metrics))
    with pytest.raises(UserError, match=r"metrics\.json: no metrics of reward_select\. Expected those of"):
        kept.Kept(folder)
    (folder / "metrics.json").write_text(json.dumps({"stages": metrics["metrics"]}))
    with pytest.raises(UserError, match=r"metrics\.json: no `metrics` in it\. Expected the metrics of each stage"):
        kept.Kept(folder)
    for file in (folder / "scores").iterdir():
        file.unlink()
    with pytest.raises(UserError, match=r"no scores\. Expected a kept run"):
        kept.Kept(folder)


# ------------------------------------------------------------- several students, no base and solver, no QPO: gpu-1.5b


@pytest.fixture(scope="module")
def three() -> kept.Kept:
    return kept.Kept(TWO_GPUS)


def words_of(section: Section) -> str:
    return " ".join(block.text for block in section.blocks if isinstance(block, Text))


def table_of(section: Section, title: str) -> Table:
    [found] = [block for block in section.blocks if isinstance(block, Table) and block.title.startswith(title)]
    return found


def test_the_committed_page_of_the_1_5b_run_shows_its_committed_numbers(tmp_path: Path) -> None:
    text = rendered(TWO_GPUS, tmp_path / "index.html")
    assert body((TWO_GPUS / "index.html").read_text(encoding="utf-8")) == body(text), (
        "run: scalequest report reports/results/gpu-1.5b"
    )
    assert len(text.encode()) < 600_000
    words = re.sub(r"<[^>]+>", " ", body(text))
    assert "52,224 questions generated, 11,376 trained on" in words
    assert "gpu: NVIDIA H200" in words
    assert not re.search(r"(?<![\w/.])/(?:work|home|root|tmp|mnt)/", words), "no path of a machine"


def test_several_students_are_shown_with_their_mean(three: kept.Kept) -> None:
    assert three.students == ["student", "student_2", "student_3"]
    # README.md of the run: 9.7, 8.6 and 8.8.
    sentence, _, absent = kept.in_words(three)
    assert sentence == (
        "`gsm8k`: student 9.7 ± 1.0 %, student_2 8.6 ± 1.0 %, student_3 8.8 ± 1.0 %, mean of 3 students 9.0 ± 0.6 % "
        "(standard deviation over training seeds)."
    )
    assert absent == "No scores were kept of: base, solver."
    section = kept.results(three)
    assert table_of(section, "Students that differ").rows[0] == [
        "`gsm8k`", "flexible", "3", "9.0 ± 0.6", "–", "9.7, 8.6, 8.8",
    ]  # fmt: skip
    assert table_of(section, "Development items").rows[0][:4] == ["`gsm8k`", "student", "197", "10.2 ± 2.2"]
    assert absent in words_of(section)
    assert "`math500`, student_2: 21.1 % of the answers were cut" in words_of(section)
    [bars] = [block for block in section.blocks if isinstance(block, Bars)]
    assert [(bar.label, bar.strong) for bar in bars.groups[0][1]] == [(name, True) for name in three.students]
    assert kept.build(three).figures[3] == ("9.0 ± 0.6 %", "mean of 3 students on `gsm8k`, ± standard deviation")
    trained = [row[0] for row in table_of(kept.training(three), "Losses").rows]
    assert trained[-3:] == [f"`instruct_tune@{name}`" for name in three.students]


def test_a_funnel_of_questions_with_several_rows_only_shrinks(three: kept.Kept) -> None:
    section = kept.funnel(three)
    [steps] = [block.steps for block in section.blocks if isinstance(block, Funnel)]
    left = [n for _, n, _ in steps]
    assert left == sorted(left, reverse=True)
    assert steps[-3:] == [
        ("no usable response", 8168, 24), ("too_few_agree", 4572, 3596), ("wrong_arithmetic", 4295, 277),
    ]  # fmt: skip
    select = table_of(section, "After the filters").rows[1]
    assert select[1:3] == ["8,192 questions", "11,376 pairs"]
    [browser] = [block for block in kept.rows_kept(three).blocks if isinstance(block, Browser)]
    assert browser.title == "Training rows: 200 of 4,295 questions with 11,376 rows"


def test_stages_that_the_run_did_without_are_named_and_kept_files_are_not_called_lost(three: kept.Kept) -> None:
    assert kept.untuned(three) == [
        "Not in this run: `qpo_questions`, `preferences`, `qpo`. Its questions were asked by the `qft` models (`generate.from`)."
    ]
    for section in (kept.lineage(three), kept.rows_kept(three)):
        assert "Git keeps `data/attempts`, `data/filtered.parquet`" in words_of(section)
    assert "rewrites beside their originals" not in words_of(kept.rows_kept(three))


@pytest.mark.parametrize(
    ("asked_by", "lost", "said"),
    [
        ("qpo", ("qpo",), ["Not kept: the metrics of `qpo`."]),
        ("qft", ("qft",), ["Not kept: the metrics of `qft`."]),
        ("base", ("qft", "qpo_questions", "preferences", "qpo"), [
            "Not in this run: `qft`, `qpo_questions`, `preferences`, `qpo`. Its questions were asked by the `base` models (`generate.from`)."
        ]),
        ("qpo", (), []),
    ],
)  # fmt: skip
def test_metrics_that_are_lost_are_not_called_unneeded(asked_by: str, lost: tuple[str, ...], said: list[str]) -> None:
    run = kept.Kept(GPU)
    run.params["generate"]["from"] = asked_by
    run.metrics = {name: values for name, values in run.metrics.items() if name.split("/")[0] not in lost}
    assert kept.untuned(run) == said


@pytest.mark.parametrize("n", [1, 2, 11])
def test_any_number_of_students_makes_a_page(tmp_path: Path, n: int) -> None:
    folder = Path(shutil.copytree(TWO_GPUS, tmp_path / "run", ignore=shutil.ignore_patterns("tables", "more")))
    for file in (folder / "scores").glob("student_*"):
        file.unlink()
    for seed in range(2, n + 1):
        shutil.copy(folder / "scores" / "student.json", folder / "scores" / f"student_{seed}.json")
    run = kept.Kept(folder)
    assert len(run.students) == n
    assert run.students[0] == "student"
    report = kept.build(run)
    assert report.figures[3] == (
        ("9.7 %", "student on `gsm8k`")
        if n == 1
        else ("9.7 ± 0.0 %", f"mean of {n} students on `gsm8k`, ± standard deviation")
    )
    assert "The files themselves were not kept." in words_of(kept.lineage(run))


def test_without_the_published_students_scores_the_others_are_shown(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(TWO_GPUS, tmp_path / "run", ignore=shutil.ignore_patterns("tables", "more")))
    for name in ("student", "student_2"):
        (folder / "scores" / f"{name}.json").unlink()
    report = kept.build(kept.Kept(folder))
    assert report.lead[0] == "`gsm8k`: student_3 8.8 ± 1.0 %."
    assert report.lead[-1] == "No scores were kept of: base, solver, student."
    assert report.figures[3] == ("8.8 %", "student_3 on `gsm8k`")
