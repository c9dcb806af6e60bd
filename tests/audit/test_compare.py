"""Two runs: how far each output is apart, where they part, and why."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scalequest.audit.compare import Outcome, Side, compare, reasons, tensors, verdict
from scalequest.cli import main
from scalequest.errors import UserError
from tests.audit.pipeline import M, Pipeline


def against(pipeline: Pipeline, first: str, second: str = "workspace") -> tuple[dict[str, Outcome], str]:
    sides = [Side.of(name, pipeline.repository) for name in (first, second)]
    outcomes = list(compare(*sides))
    return {found.path: found for found in outcomes if found.level != "same bytes"}, verdict(*sides, outcomes)


def weights(pipeline: Pipeline, values: list[float], name: str = "w") -> None:
    """A model with one tensor, as safetensors lays it out."""
    data = np.asarray(values, "<f4").tobytes()
    head = json.dumps({name: {"dtype": "F32", "shape": [len(values)], "data_offsets": [0, len(data)]}}).encode()
    path = pipeline.root / "models" / "student" / "model.safetensors"
    path.unlink(missing_ok=True)
    path.write_bytes(len(head).to_bytes(8, "little") + head + data)


def scores(pipeline: Pipeline, strict: float) -> None:
    pipeline.write(
        "eval/scores/student.json", json.dumps({"sums": {"n": 100, "strict": strict, "strict_stderr": 0.04}})
    )


@pytest.fixture
def run(pipeline: Pipeline) -> Pipeline:
    """A run with real weights and scores, committed as ``main``."""
    weights(pipeline, [3.0, 4.0])
    scores(pipeline, 0.5)
    pipeline.lock()
    pipeline.commit()
    return pipeline


def test_an_equal_run_has_the_same_bytes(run: Pipeline) -> None:
    found, sentence = against(run, "main")
    assert found == {}
    assert sentence == "Same bytes in all 29 outputs."  # those of STAGES in tests/audit/pipeline.py


def test_a_file_that_is_not_the_locks_is_named(
    run: Pipeline, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(run.root)
    (run.root / "eval/scores/student.json").write_text("{")
    with pytest.raises(SystemExit) as done:
        main(["compare", "main"])
    assert done.value.code == 0
    said = capsys.readouterr().out
    assert "workspace: compared is what dvc.lock names. Other bytes now: eval/scores/student.json. `dvc status`" in said
    assert "main: compared" not in said


def test_rounding_alone_is_equal_and_its_size_is_named(run: Pipeline) -> None:
    weights(run, [3.0, 4.0 + 5e-6])  # norm of the difference 5e-6 (4.77e-6 in float32), of the weights 5: about 1e-6
    run.change("data/rewards", lambda rows: [row | {"reward": row["reward"] + 1e-5} for row in rows])
    run.lock()
    found, sentence = against(run, "main")
    assert set(found) == {"models/student", "data/rewards"}
    assert found["models/student"].says == "weights differ by at most 1e-06 (relative norm, w)"
    assert found["data/rewards"].says == "same text in 6 rows, numbers differ by at most 1e-05"
    assert sentence == (
        "Equal in every question, answer and score; weights differ in rounding (at most 1e-06), other numbers by at most 1e-05."
    )


def test_a_parameter_is_named_as_the_reason_at_the_first_output_that_differs(run: Pipeline) -> None:
    run.params["respond"]["n_samples"] = 3
    run.change("data/responses", lambda rows: [rows[0] | {"response": "The answer is 5."}, *rows[1:]])
    scores(run, 0.6)  # 0.1 apart; the error of the difference is 0.04 * sqrt(2) = 0.0566: 1.8
    run.lock()
    found, sentence = against(run, "main")
    assert found["data/responses"].says == "text of 1 of 6 rows differs, the first is sums/0/0#0"
    assert found["eval/scores/student.json"].says == "scores within 1.8 standard errors (sums.strict: 0.5 and 0.6)"
    assert sentence == (
        "The runs part at data/responses (stage respond): parameter respond.n_samples is 2 and 3. "
        "2 of 29 outputs differ; scores differ by at most 1.8 standard errors."
    )


def change_code(run: Pipeline) -> None:
    run.write("stages/filter.py", "other")
    run.lock()


def change_machine(run: Pipeline) -> None:
    run.lock()
    run.record("filter", environment=["torch==2.0", "cpu: test"])


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (change_code, "other code in stages/filter.py"),
        (change_machine, "it ran with torch==1.0 and with torch==2.0"),
        (lambda run: run.lock(), "nothing that is recorded differs, so the stage does not repeat itself"),
    ],
    ids=["code", "machine", "nothing"],
)
def test_code_machine_or_nothing_is_named(run: Pipeline, change: Any, why: str) -> None:
    run.change("data/filtered.parquet", lambda rows: [rows[0] | {"question": "What?"}, *rows[1:]])
    change(run)
    assert against(run, "main")[1].startswith(f"The runs part at data/filtered.parquet (stage filter): {why}. ")


def test_lost_rows_are_counted_on_both_sides(run: Pipeline) -> None:
    run.change("data/judged", lambda rows: [*rows[1:], rows[0] | {"id": "sums/9/9"}, rows[0] | {"id": "sums/9/8"}])
    run.lock()
    # 5 judged: one is gone, two are new.
    assert (
        against(run, "main")[0]["data/judged"].says == "text of 0 of 4 rows differs; 1 and 2 rows are on one side only"
    )


def test_the_order_and_the_file_layout_of_rows_are_no_difference(run: Pipeline) -> None:
    run.change("data/judged", lambda rows: rows[::-1])
    run.lock()
    found, sentence = against(run, "main")
    assert found["data/judged"].says == "same 5 rows, in another order"
    assert sentence == "Equal in every question, answer and score."


def kept(run: Pipeline, name: str) -> Path:
    """What Git keeps of a run: its lock and its facts, and no output."""
    folder = run.root.parent / name
    folder.mkdir()
    shutil.copy(run.root / "dvc.lock", folder)
    shutil.copy(run.root / "reports" / "environment.json", folder)
    return folder


def test_kept_runs_of_other_parameters_are_not_called_equal(run: Pipeline) -> None:
    first = kept(run, "first")
    run.params["respond"]["n_samples"] = 3
    run.change("data/responses", lambda rows: [rows[0] | {"response": "The answer is 5."}, *rows[1:]])
    run.lock()
    second = kept(run, "second")
    for file in (run.root / "reports" / "environment.json", *(run.root / ".work" / "facts").rglob("*.json")):
        file.unlink()
    shutil.rmtree(run.root / ".dvc" / "cache")
    shutil.rmtree(run.root / "data")
    found, sentence = against(run, str(first), str(second))
    assert found["data/responses"].level == "not compared"
    assert sentence == (
        "The runs part at data/responses (stage respond): parameter respond.n_samples is 2 and 3. "
        "1 of 29 outputs have other bytes that are not here, and could not be compared. Run: dvc pull."
    )
    sides = [Side.of(str(folder), run.repository) for folder in (first, second)]
    assert reasons(*sides, "respond") == ["parameter respond.n_samples is 2 and 3"], "both sides kept their facts"


def test_pages_aside_all_outputs_are_counted_once(run: Pipeline) -> None:
    sides = [Side.of(name, run.repository) for name in ("main", "workspace")]
    outcomes = list(compare(*sides))
    page = Outcome("report", "reports/index.html", "same bytes", "same bytes")
    assert verdict(*sides, [*outcomes, page]) == "Same bytes in all 30 outputs."
    page = Outcome("report", "reports/index.html", "different", "other bytes")
    assert verdict(*sides, [*outcomes, page]) == "Same bytes in all 29 outputs but the report's pages."


@pytest.mark.parametrize(
    ("one", "two", "level"),
    [({"steps": 1, "loss": 0.5}, {"steps": 1, "loss": 0.5001}, "numbers"), ({"by": "x"}, {"by": "y"}, "different"),
     ({"a": 1}, {"a": 1, "b": 2}, "different"), ({"a": None}, {"a": 0.1}, "different")],
)  # fmt: skip
def test_metrics_are_compared_number_by_number(run: Pipeline, one: dict, two: dict, level: str) -> None:
    run.write(f"{M}/instruct_tune.json", json.dumps(one))
    run.lock()
    run.commit("one")
    run.write(f"{M}/instruct_tune.json", json.dumps(two))
    run.lock()
    assert against(run, "main")[0][f"{M}/instruct_tune.json"].level == level


def test_other_tensors_and_other_files_of_a_model_are_different(run: Pipeline) -> None:
    weights(run, [3.0, 4.0], name="v")
    run.lock()
    assert against(run, "main")[0]["models/student"].says == "other tensors"
    weights(run, [3.0, 4.0])
    run.write("models/student/config.json", '{"a": 1}')
    run.lock()
    assert against(run, "main")[0]["models/student"].says.endswith("config.json differs")


def test_bytes_that_are_not_here_are_named_and_not_called_equal(run: Pipeline) -> None:
    value = run.md5("data/judged/part-00000.parquet")
    run.change("data/judged", lambda rows: rows[1:])
    run.lock()
    run.object(value).unlink()
    found, sentence = against(run, "main")
    assert found["data/judged"].says == "other bytes; those of main are not here"
    assert sentence == (
        "Equal in what could be compared; 1 of 29 outputs have other bytes that are not here, the first is data/judged. "
        "Run: dvc pull."
    )


def test_a_folder_and_a_lock_file_are_runs_too(run: Pipeline, tmp_path: Path) -> None:
    clone = Path(shutil.copytree(run.root, tmp_path / "clone"))
    shutil.copy(run.root / "dvc.lock", tmp_path / "dvc.lock")
    run.change("data/judged", lambda rows: rows[1:])
    run.lock()
    for name in (str(clone), str(tmp_path / "dvc.lock")):
        assert set(against(run, name)[0]) == {"data/judged"}


def test_a_name_that_is_no_run_is_refused(run: Pipeline) -> None:
    with pytest.raises(UserError, match="revision 'nowhere'"):
        Side.of("nowhere", run.repository)


def test_bfloat16_is_read_as_the_numbers_it_holds(tmp_path: Path) -> None:
    file = tmp_path / "m.safetensors"
    data = np.asarray([0x3F80, 0xC000, 0x7FC0], "<u2").tobytes()  # 1.0, -2.0, not a number
    head = json.dumps({"__metadata__": {"format": "pt"}, "w": {"dtype": "BF16", "shape": [3], "data_offsets": [0, 6]}})
    file.write_bytes(len(head).to_bytes(8, "little") + head.encode() + data)
    found = tensors(file)["w"]
    assert found[:2].tolist() == [1.0, -2.0]
    assert math.isnan(found[2])


def test_the_command_ends_with_the_sentence_and_the_exit_code(
    run: Pipeline, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(run.root)
    with pytest.raises(SystemExit) as same:
        main(["compare", "main"])
    assert same.value.code == 0
    assert capsys.readouterr().out.splitlines()[-1] == "Same bytes in all 29 outputs."
    run.change("data/judged", lambda rows: [rows[0] | {"verdict": "no_verdict"}, *rows[1:]])
    run.lock()
    with pytest.raises(SystemExit) as other:
        main(["compare", "main", "--json"])
    assert other.value.code == 1
    facts = json.loads(capsys.readouterr().out)
    assert facts["first"] == {"path": "data/judged", "stage": "judge", "why": []}
    assert [found["level"] for found in facts["outputs"] if found["path"] == "data/judged"] == ["different"]
