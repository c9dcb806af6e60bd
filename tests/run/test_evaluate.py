"""The command `scalequest evaluate`: any model, any benchmark."""

import argparse
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from scalequest.cli import run as command_line
from scalequest.domains import wording
from scalequest.errors import UserError
from scalequest.params import HubSource, JsonlSource, Params
from scalequest.run import evaluate
from scalequest.run.evaluate import (
    available,
    find_root,
    first_source,
    known_benchmarks,
    source_files,
    write_benchmarks,
)
from tests.fakes import LAPTOP, ROOT

CATALOGUE = ROOT / "eval" / "benchmarks.yaml"


def test_the_catalogue_has_the_usual_benchmarks():
    known = known_benchmarks({}, CATALOGUE)
    usual = {"gsm8k", "math", "math500", "college_math", "olympiadbench", "humaneval", "mbpp", "mbpp_sanitized"}
    of_2026 = {"gsm8k_platinum", "aime24", "aime25", "humaneval_plus", "mbpp_plus"}
    assert usual | of_2026 <= known.keys()
    for sources in known.values():
        for source in sources:  # pinned, each by what it can be pinned by
            assert source.kind in ("hub", "package") or source.sha256


def test_params_own_benchmarks_go_before_the_catalogue(laptop: Params):
    known = known_benchmarks({"gsm8k": laptop.benchmarks["embedded_sums"]}, CATALOGUE)
    assert known["gsm8k"] == [laptop.benchmarks["embedded_sums"]]


def test_a_local_file_is_taken_before_the_hub(tmp_path: Path):
    file = JsonlSource(kind="jsonl", path=str(tmp_path / "x.jsonl"), n=None, sha256=None)
    hub = HubSource(kind="hub", repo="a/b", commit="0" * 40, file="x.jsonl", n=None, sha256=None)
    assert first_source("x", [file, hub]) is hub
    (tmp_path / "x.jsonl").write_text("")
    assert first_source("x", [file, hub]) is file
    (tmp_path / "x.jsonl").unlink()
    with pytest.raises(UserError, match=r"x: none of its files is there: .*x\.jsonl"):
        first_source("x", [file])


def test_an_unknown_benchmark_is_named_with_its_neighbour(tmp_path: Path):
    with pytest.raises(UserError, match=r"no benchmark 'gsm8'\. Did you mean 'gsm8k'\?"):
        write_benchmarks(["gsm8"], known_benchmarks({}, CATALOGUE), 17, tmp_path)


def test_a_catalogue_with_a_misspelt_key_is_refused(tmp_path: Path):
    (tmp_path / "c.yaml").write_text("x:\n  - {kind: jsonl, path: a, n: null, sha: null}\n")
    with pytest.raises(UserError, match=r"c\.yaml: x\.0\.jsonl\.sha256: Field required"):
        known_benchmarks({}, tmp_path / "c.yaml")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(["m", "--tasks", ","], "--tasks: no name given. Expected some of aime24, aime25, ", id="no_task"),
        pytest.param(["m"], "--tasks: no name given. Expected some of aime24, aime25, ", id="no_tasks_at_all"),
        pytest.param(["--tasks", "humaneval"], "model: none given", id="no_model_at_all"),
        pytest.param(["m", "--tasks", "aime24", "--answers", "0"], "expected at least one answer", id="no_answer"),
        pytest.param(["m", "--tasks", "aime24", "--temperature", "nan"], "a finite temperature of at least 0", id="no_temperature"),
        pytest.param(["m", "--tasks", "aime24", "--answers", "4", "--temperature", "0"], "above 0 for several answers", id="equal_answers"),
        pytest.param(["m", "--tasks", "humaneval", "--limit", "0"], "--limit 0", id="no_item"),
        pytest.param(["m", "--tasks", "humaneval", "--max-tokens", "4096"], "room for a prompt", id="no_room"),
        pytest.param(["m", "--tasks", "humaneval", "--scores", "docs"], "--scores docs: a folder. Expected a file", id="scores_in_a_folder"),
        pytest.param(["m", "--tasks", "humaneval", "--samples", "README.md/x"], "README.md is no folder", id="samples_below_a_file"),
        pytest.param(["m", "--tasks", "humaneval", "--scores", "/proc/scores.json"], "--scores /proc/scores.json: cannot be written (", id="scores_where_no_file_can_be"),
        pytest.param(["m", "--tasks", "mbpp, humaneval,mbpp"], "--tasks: mbpp twice. Expected each benchmark once", id="twice"),
        pytest.param(["m", "--tasks", "aime24, humanevil"], "no benchmark 'humanevil'. Did you mean", id="misspelt_after_a_space"),
        pytest.param(["m", "--tasks", "humanevil"], "Did you mean 'humaneval'", id="misspelt"),
        pytest.param(["models/studnt", "--tasks", "humaneval"], "models/studnt: no such folder. Expected a model. Run `dvc repro` or `dvc pull`", id="not_made"),
        pytest.param(["no-such-folder", "--tasks", "humaneval"], "no-such-folder: no such folder, and no repository", id="no_model"),
    ],
)  # fmt: skip
def test_what_is_wrong_on_the_command_line_is_named(
    arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("SCALEQUEST_PARAMS", str(LAPTOP))  # whatever profile params.yaml holds at the moment
    with pytest.raises(UserError) as caught:
        command_line(["evaluate", *arguments])
    assert message in str(caught.value)


def test_scores_are_printed_before_a_file_that_cannot_be_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """Hours of answers, and then the disk is full."""

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("SCALEQUEST_PARAMS", str(LAPTOP))
    monkeypatch.setattr(evaluate, "write_benchmarks", lambda *_: None)
    monkeypatch.setattr(evaluate, "find_model", lambda *_: tmp_path)
    monkeypatch.setattr(evaluate, "run_exam", lambda *_: ["rows"])
    monkeypatch.setattr(evaluate, "summarize", lambda _: {"aime24": {}})
    monkeypatch.setattr(evaluate, "scores_in_words", lambda scores: f"scores of {', '.join(scores)}")
    monkeypatch.setattr(evaluate, "write_rows", full)
    parser = argparse.ArgumentParser()
    evaluate.configure(parser)
    with pytest.raises(OSError, match="No space"):
        evaluate.evaluate(parser.parse_args(["m", "--tasks", " aime24", "--samples", str(tmp_path / "new" / "s")]))
    assert capsys.readouterr().out == "scores of aime24\n"
    assert list(tmp_path.iterdir()) == [], "the place was tried, and nothing is left of that"


# ------------------------------------------------------------------------------------------------------- any folder


def listed(folder: Path, **environment: str) -> list[str]:
    command = [sys.executable, "-m", "scalequest.cli", "evaluate", "--list"]
    inherited = {key: value for key, value in os.environ.items() if key != "SCALEQUEST_PARAMS"}
    done = subprocess.run(command, cwd=folder, env=inherited | {"PYTHONPATH": str(ROOT)} | environment, capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_benchmarks_are_listed_from_any_folder(tmp_path: Path):
    inside, outside = (listed(folder) for folder in (ROOT / "docs", tmp_path))
    assert inside == outside
    found = {line.split()[0]: line.split()[1] for line in inside[1:-1]}
    assert found["humaneval"] == "package"
    assert found["aime25"] in ("file", "hub")
    assert any("math-ai/aime25@563bb84" in line for line in inside)


def test_a_copy_of_the_repository_is_found_above(tmp_path: Path):
    for name in ("params.yaml", "eval/tasks/x"):
        (tmp_path / "copy" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "copy" / name).touch()
    (tmp_path / "copy" / "docs").mkdir()
    assert find_root(tmp_path / "copy" / "docs") == tmp_path / "copy"
    assert find_root(tmp_path) == ROOT
    source = JsonlSource(kind="jsonl", path="sources/x.jsonl", n=None, sha256=None)
    assert source_files(source, ROOT).path == str(ROOT / "sources" / "x.jsonl")
    assert source_files(source.model_copy(update={"path": "/data/x.jsonl"}), ROOT).path == "/data/x.jsonl"


def test_a_benchmark_is_missing_where_all_its_files_are(tmp_path: Path):
    file = JsonlSource(kind="jsonl", path=str(tmp_path / "x.jsonl"), n=None, sha256=None)
    hub = HubSource(kind="hub", repo="a/b", commit="0" * 40, file="x.jsonl", n=None, sha256=None)
    assert (available([file]), available([file, hub])) == ("missing", "hub")
    (tmp_path / "x.jsonl").touch()
    assert available([file, hub]) == "file"


@pytest.mark.parametrize(
    ("host", "proxies", "offline"),
    [("localhost", {}, False), ("no-such-host.invalid", {}, True), ("no-such-host.invalid", {"https": "p"}, False)],
    ids=["there", "no_address", "a_proxy_may_know_it"],
)
def test_a_hub_without_an_address_is_not_waited_for(host: str, proxies: dict[str, str], offline: bool, monkeypatch: pytest.MonkeyPatch):  # fmt: skip
    monkeypatch.setattr(evaluate, "getproxies", lambda: proxies)
    environment = {"HF_ENDPOINT": f"http://{host}:80"}
    evaluate.work_without_hub(environment)
    assert ("HF_HUB_OFFLINE" in environment) is offline


def test_a_file_that_would_do_is_named_where_the_hub_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def no_hub(*_: Any, **__: Any) -> None:
        raise UserError("aime25: could not be fetched")

    monkeypatch.setattr(evaluate, "load_problems", no_hub)
    known = {name: [source_files(source, tmp_path) for source in sources] for name, sources in known_benchmarks({}, CATALOGUE).items()}  # fmt: skip
    with pytest.raises(UserError, match=rf"could not be fetched\. Or put its file here: {tmp_path}/sources/aime25/test\.jsonl"):  # fmt: skip
        write_benchmarks(["aime25"], known, 17, tmp_path)
    with pytest.raises(UserError, match="no benchmark 'aime26'"):  # names are checked before anything is loaded
        write_benchmarks(["aime25", "aime26"], known, 17, tmp_path)


# ----------------------------------------------------------------------------------------------- lm-eval's own command


def test_every_benchmark_is_a_task_of_lm_eval():
    files = sorted((ROOT / "eval" / "tasks" / "lm_eval").glob("*.yaml"))
    own = {"embedded_sums", "embedded_stories"}  # of params.yaml
    assert {file.stem for file in files} == known_benchmarks({}, CATALOGUE).keys() | own
    for file in files:
        assert f"task: {file.stem}\n" in file.read_text()
        assert f"benchmark: {file.stem}}}\n" in file.read_text()


def test_lm_eval_finds_a_task_by_its_name(monkeypatch: pytest.MonkeyPatch):
    # As `lm_eval --include_path eval/tasks --tasks embedded_stories` does, without lm-eval's own thousands of tasks.
    from lm_eval.tasks import TaskManager

    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("SCALEQUEST_PARAMS", str(LAPTOP))
    task = TaskManager(include_path="eval/tasks", include_defaults=False).load(["embedded_stories"])["tasks"]["embedded_stories"]  # fmt: skip
    docs = list(task.test_docs())
    assert len(docs) == 30
    assert task.doc_to_text(docs[0]) == wording("maths").solve_prompt(docs[0]["question"])
    right, wrong = (task.process_results(docs[0], [f"\\boxed{{{answer}}}"]) for answer in (docs[0]["answer"], "-1.5"))
    assert (right["strict"], wrong["strict"], wrong["unparsed"]) == (1.0, 0.0, 0.0)
