"""One published run for all tests that only read it: with preference pairs, a hub model and a hub test set."""

import shutil
from pathlib import Path

import pytest

from scalequest.audit.lock import read_lock
from scalequest.publish import command
from scalequest.records import PREFERENCE
from tests.audit import pipeline as made
from tests.audit.pipeline import Pipeline

COMMIT = "a" * 40
PAIR = {
    "id": "sums/0/0", "generator": "sums", "direction": "difficulty", "question": "What is 1 + 1?",
    "rewrite": "What is 17 + 25?", "completion": "What is 17 + 25?", "finish_reason": "stop", "verdict": "kept",
}  # fmt: skip


@pytest.fixture(scope="session")
def published(finished_pipeline: Pipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``hub/`` of the tiny run; ``repository`` is beside it."""
    folder = tmp_path_factory.mktemp("published")
    run = Pipeline(Path(shutil.copytree(finished_pipeline.root, folder / "repository", symlinks=True)))
    run.params["domain"] = "maths"
    run.params["models"]["student"] = f"hf:org/base@{COMMIT}"
    run.params["benchmarks"]["sums"] = {"kind": "hub", "repo": "openai/gsm8k", "commit": COMMIT, "file": "x", "n": None}
    run.table("data/preferences/sums.parquet", [PAIR, PAIR | {"id": "sums/0/10", "verdict": "unchanged"}], PREFERENCE)
    run.write("dvc.yaml", made.PIPELINE + '  preferences: {matrix: {g: "${mix}"}}\n')
    with pytest.MonkeyPatch.context() as patch:
        stage = ("--generator sums --out data/preferences/sums.parquet", ["models/qft/sums"], ["seed"], ["data/preferences/sums.parquet"])  # fmt: skip
        patch.setitem(made.STAGES, "preferences@sums", stage)
        run.lock()
    run.commit()
    lock = read_lock(run.repository, run.repository.revision("workspace"))
    command.write_hub_folder(run.repository, lock, folder / "hub", "Tiny run", {"student": "mit"}, "me/data")
    return folder / "hub"
