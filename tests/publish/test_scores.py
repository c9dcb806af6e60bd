"""The hub's result files: only scores on data sets of the hub, read back by huggingface_hub."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from scalequest.publish.cards import Facts
from scalequest.publish.scores import eval_results
from tests.publish.conftest import COMMIT


def facts(**benchmark: Any) -> Facts:
    scores = {"student": {"maths": {"n": 164, "flexible": 0.5, "flexible_stderr": 0.039}}}
    params = {f"benchmarks.maths.{key}": value for key, value in benchmark.items()}
    return Facts("x", {}, "", "", [], {}, params, {}, scores, date="2026-11-28T09:00:00+00:00")


def test_the_written_file_is_read_back_by_the_hubs_library(published: Path) -> None:
    from huggingface_hub import parse_eval_result_entries

    [path] = (published / "model" / ".eval_results").iterdir()
    assert path.name == "sums.yaml"
    [entry] = parse_eval_result_entries(yaml.safe_load(path.read_text()))
    assert (entry.dataset_id, entry.task_id, entry.dataset_revision) == ("openai/gsm8k", "gsm8k", COMMIT)
    assert entry.value == 100.0
    assert entry.notes == "% right in any form, ± 0.00 (one standard error), 1 items; zero-shot, greedy"


def test_a_drawn_part_of_a_test_set_says_so() -> None:
    found = eval_results(facts(kind="hub", repo="org/maths", commit=COMMIT, n=164))
    assert found["maths.yaml"][0]["value"] == 50.0
    assert "± 3.90 (one standard error), 164 items, drawn from all" in found["maths.yaml"][0]["notes"]


@pytest.mark.parametrize("kind", ["jsonl", "package", "reasoning_gym"])
def test_a_score_on_another_source_is_not_claimed_for_a_data_set_of_the_hub(kind: str) -> None:
    assert eval_results(facts(kind=kind, path="gsm8k.jsonl", n=None)) == {}
