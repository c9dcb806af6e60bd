"""TRL's own trainers take the published tables as they are: a few steps on a tiny model."""

import math
from pathlib import Path
from typing import Any

import pytest

from tests import tiny

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiny, "STEPS", 0)  # weights as drawn: this is about columns
        return tiny.make_model(tmp_path_factory.mktemp("model"))


def load(published: Path, config: str, cache: Path) -> Any:
    import datasets

    return datasets.load_dataset(str(published / "dataset"), config, split="train", cache_dir=str(cache))


def settings(out: Path) -> dict[str, Any]:
    return {"output_dir": str(out), "max_steps": 2, "per_device_train_batch_size": 1, "use_cpu": True, "bf16": False,
            "gradient_checkpointing": False, "logging_steps": 1, "save_strategy": "no", "report_to": [], "max_length": 64}  # fmt: skip


def losses(trainer: Any) -> list[float]:
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def test_sft_on_the_messages(published: Path, model: Path, tmp_path: Path) -> None:
    from trl import SFTConfig, SFTTrainer

    data = load(published, "default", tmp_path / "cache")
    trainer = SFTTrainer(model=str(model), args=SFTConfig(**settings(tmp_path / "out")), train_dataset=data)
    found = losses(trainer)
    assert len(found) == 2
    assert all(map(math.isfinite, found))
    # It learns the messages, not a column that happens to be named after a text.
    text = trainer.processing_class.decode(trainer.train_dataset[0]["input_ids"])
    assert data[0]["messages"][0]["content"] in text
    assert data[0]["messages"][1]["content"] in text


def test_dpo_on_the_preferences(published: Path, model: Path, tmp_path: Path) -> None:
    from trl import DPOConfig, DPOTrainer

    data = load(published, "preferences", tmp_path / "cache")
    trainer = DPOTrainer(model=str(model), args=DPOConfig(**settings(tmp_path / "out")), train_dataset=data)
    first, second = losses(trainer)
    # Model and reference are equal at first, so the loss is -log(1/2); a step on the pair lowers it.
    assert first == pytest.approx(math.log(2), abs=1e-3)
    assert second < first
