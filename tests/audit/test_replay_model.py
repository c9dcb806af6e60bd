"""Replay on a real engine and a real trainer, with a tiny model, each in a process of its own as the command starts them."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from scalequest.audit.links import CHECKS, verify
from scalequest.audit.replay import start_process
from scalequest.audit.rerun import Spec
from tests.audit.replayed import STAGES, M, Recorded
from tests.fakes import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("forked")]


def apart(specs: Sequence[Spec], root: Path) -> None:
    """Run specs in another process, with the code of this checkout."""
    start_process(specs, ROOT)


REAL_STAGES = {
    "fetch_model@all": STAGES["fetch_model@all"],
    "by_hand": STAGES["by_hand"],
    "qft@sums": (f"--generator sums --base models/base/m --seeds data/seeds.parquet --out models/qft/sums --metrics {M}/qft/sums.json --plot reports/plots/train/qft/sums.csv", ["data/seeds.parquet", "models/base/m"], ["seed", "engine.dtype", "qft", "generators.sums.seed_mix"], ["models/qft/sums", f"{M}/qft/sums.json", "reports/plots/train/qft/sums.csv"]),
    "generate@sums": (STAGES["generate@sums"][0].replace("models/base/m", "models/qft/sums"), ["models/qft/sums"], *STAGES["generate@sums"][2:]),
}  # fmt: skip
REAL_RESULT = {"qft@sums": "models/qft/sums", "generate@sums": "data/questions/sums"}


class Real(Recorded):
    """A generator fine-tuned from a tiny model, and its questions."""

    stages, result = REAL_STAGES, REAL_RESULT
    process = staticmethod(apart)

    base: Path

    def settle(self, params: dict[str, Any]) -> None:
        shutil.copytree(self.base, self.root / "models" / "base" / "m", dirs_exist_ok=True)
        params["engine"] |= {"max_model_len": 512, "max_num_seqs": 16}
        params["generators"]["sums"]["seed_mix"] = {"s": 8}
        params["seeds"] = {"s": params["seeds"]["chain_sum"]}
        params["qft"] |= {"method": "full", "learning_rate": 1.0e-3, "epochs": 3, "batch_size": 2, "per_device_batch_size": 2}  # fmt: skip
        params["generate"] |= {"max_tokens": 24, "temperature": 1.0}
        params["runtime"] |= {"cpu_kv_cache_gib": 1}


@pytest.fixture(scope="module")
def made(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Real:
    Real.base = model
    found = Real.make(tmp_path_factory.mktemp("real") / "repository")
    assert isinstance(found, Real)
    return found


@pytest.fixture
def run(made: Real, tmp_path: Path) -> Real:
    copy = Real.__new__(Real)
    copy.root, copy.params = Path(shutil.copytree(made.root, tmp_path / "repository")), made.params
    return copy


def unbroken(run: Real) -> bool:
    names = [name for name in CHECKS if name != "rows"]
    return not [link for check in verify(run.repository, run.tables().lock, names) for link in check.broken]


def test_a_sound_run_is_equal_to_the_last_digit_on_the_same_machine(run: Real, tmp_path: Path) -> None:
    job, plan = run.replay(tmp_path / "again", "100%")
    # 24 questions in shards of 8, and one training.
    assert [str(u) for u in plan.units] == [*(f"generate@sums, shard {n}" for n in range(3)), "qft@sums, first 3 steps"]
    found = {one.stage: one for one in job.compare(plan)}
    assert found["qft@sums"].rows == 3
    assert found["generate@sums"].rows == 24
    assert [one.differs for one in found.values()] == [[], []]
    assert found["qft@sums"].largest < 1e-5  # the curve is kept with six digits


def test_a_question_that_the_model_did_not_write_is_found(run: Real, tmp_path: Path) -> None:
    rows = run.rows("data/questions/sums")
    rows[12]["completion"] = "What is 7 + 5?"
    run.put("data/questions/sums", rows)
    run.recount("generate@sums")
    run.relock()
    assert unbroken(run)
    [found] = run.differing(tmp_path / "hit", "generate@sums, shard 1")
    assert "question of 1 rows, the first is sums/1/4: recorded 'What is 7 + 5?'" in " ".join(found.differs)


def test_another_model_under_the_same_name_is_found(run: Real, tmp_path: Path) -> None:
    """The untrained model in the trained one's place: its questions are not those of the recorded ones."""
    for file in ("model.safetensors", "config.json"):
        shutil.copy(run.root / "models" / "base" / "m" / file, run.root / "models" / "qft" / "sums" / file)
    run.relock()
    assert unbroken(run)
    [found] = run.differing(tmp_path / "hit", "generate@sums, shard 2")
    assert found.stage == "generate@sums"


def test_a_smoothed_loss_curve_is_found(run: Real, tmp_path: Path) -> None:
    file = run.root / "reports" / "plots" / "train" / "qft" / "sums.csv"
    head, first, second, *rest = file.read_text().splitlines()
    step, loss, *others = second.split(",")
    file.write_text("\n".join([head, first, ",".join([step, f"{float(loss) * 0.9:.6g}", *others]), *rest]) + "\n")
    run.relock()
    assert unbroken(run)
    [found] = run.differing(tmp_path / "hit", "qft@sums, first 3 steps")
    assert found.differs[0].startswith("step 2: loss is recorded as")
