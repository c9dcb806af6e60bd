"""A training stops at its first loss or gradient norm that is not finite, and writes nothing (a tiny real model)."""

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from scalequest.errors import UserError
from scalequest.models.weights import load_chat
from scalequest.params import Params
from scalequest.runtime.facts import StageFacts
from scalequest.runtime.stage import StageRun
from scalequest.training.dpo import DPO
from scalequest.training.examples import Pair, ScoredText
from scalequest.training.job import train
from scalequest.training.regression import Regression
from scalequest.training.reward import Reward
from scalequest.training.sft import SFT
from stages.qft import question_example
from tests.fakes import ROOT, changed
from tests.training.test_job import QUESTIONS, settings
from tests.warm import Warm

pytestmark = pytest.mark.slow

KINDS = {"sft": SFT(), "dpo": DPO(0.1), "reward": Reward(), "regression": Regression()}
# Which process and which of its micro-batches is made to fail, for processes that accelerate starts: they import this file.
FAILS_IN = "SCALEQUEST_TEST_FAILS_IN"


def rows(kind: str, model: Path) -> list[Any]:
    chat = load_chat(model)
    questions = [f"{q} ({i})" for i, q in enumerate(QUESTIONS)]
    if kind == "sft":
        return [question_example(chat, q, f"q{i}") for i, q in enumerate(questions)]
    if kind == "regression":
        return [ScoredText(chat.user_turn(q), i % 2, f"q{i}") for i, q in enumerate(questions)]
    return [
        Pair(chat.question_prefix, chat.question(q + " Explain."), chat.question(q), f"q{i}")
        for i, q in enumerate(questions)
    ]


@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_learning_rate_of_1e12_is_no_green_stage(
    kind: str, method: str, model: Path, laptop: Params, tmp_path: Path
) -> None:
    """Before: 20 of 20 tensors NaN, `last_loss 0.0`, exit 0."""
    with pytest.raises(UserError, match=r"training diverged") as stopped:
        train(
            StageRun(laptop), KINDS[kind], model, tmp_path / "out", rows(kind, model),
            settings(method, learning_rate=1e12, epochs=3),
        )  # fmt: skip
    assert not (tmp_path / "out").exists()
    assert "Expected finite numbers" in str(stopped.value)


@pytest.mark.parametrize("kind", KINDS)
def test_one_nan_micro_batch_stops_at_its_step_and_names_its_rows(
    kind: str, model: Path, laptop: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """16 rows, 4 per step, 2 per micro-batch: the 4th micro-batch is the second of step 2."""
    import transformers

    seen: list[list[list[int]]] = []
    whole = transformers.Trainer.compute_loss

    def compute_loss(self: Any, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        ids, mask = inputs["input_ids"].tolist(), inputs["attention_mask"].tolist()
        seen.append([[i for i, m in zip(a, b, strict=True) if m] for a, b in zip(ids, mask, strict=True)])
        loss = (whole if kind == "regression" else ours)(self, model, inputs, *args, **kwargs)
        return loss * float("nan") if len(seen) == 4 else loss

    trainers = {"sft": "SFTTrainer", "dpo": "DPOTrainer", "reward": "RewardTrainer"}
    if kind in trainers:
        import trl

        target = getattr(trl, trainers[kind])
        ours = target.compute_loss
        monkeypatch.setattr(target, "compute_loss", compute_loss)
    else:
        monkeypatch.setattr(transformers.Trainer, "compute_loss", compute_loss)
    made = rows(kind, model)
    with pytest.raises(
        UserError, match="training diverged at step 2 of 4: loss nan, gradient norm not computed"
    ) as stopped:
        train(StageRun(laptop), KINDS[kind], model, tmp_path / "out", made, settings())
    by_ids = {tuple(ids): row.id for row in made for ids in row.sequences()}
    named = list(dict.fromkeys(by_ids[tuple(ids)] for ids in seen[3]))
    assert len(seen) == 4
    assert len(named) == 2
    expected = ", ".join(f"{int(name[1:])} ({name})" for name in named)
    # Cosine from 2e-3 without warm-up, second of four steps: 2e-3 * (1 + cos(pi / 4)) / 2.
    assert f"learning rate 0.00170711, rows {expected}. Expected" in str(stopped.value)
    assert not (tmp_path / "out").exists()


def test_an_infinite_gradient_under_a_finite_loss_stops_before_a_checkpoint(
    model: Path, laptop: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clipping turns an infinite norm into zero or NaN gradients, and the loss of the step was fine."""
    import trl

    step = trl.SFTTrainer.training_step

    def training_step(self: Any, net: Any, *args: Any, **kwargs: Any) -> Any:
        loss = step(self, net, *args, **kwargs)
        if self.state.global_step == 2:  # the third step
            next(net.parameters()).grad[0, 0] = float("inf")
        return loss

    monkeypatch.setattr(trl.SFTTrainer, "training_step", training_step)
    often = changed(laptop, runtime={"checkpoint_minutes": 0})
    run = StageRun(often, StageFacts("qft@sums", tmp_path))
    with pytest.raises(UserError, match=r"at step 3 of 4: loss \d[\d.]*, gradient norm (inf|nan), .* rows \d+ \(q"):
        train(run, SFT(), model, tmp_path / "out", rows("sft", model), settings())
    kept = {path.name for path in run.journal.folder.glob("training-1/checkpoint-*")}  # type: ignore[union-attr]
    assert kept == {"checkpoint-2"}
    assert not (tmp_path / "out").exists()

    # A rerun resumes from the last step that was sound, and stops at the same one.
    run = StageRun(often, StageFacts("qft@sums", tmp_path))
    with pytest.raises(UserError, match="at step 3 of 4"):
        train(run, SFT(), model, tmp_path / "out", rows("sft", model), settings())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("rank", "forked"), [(0, False), (1, True)])
def test_a_process_that_alone_diverges_stops_them_all(
    rank: int, forked: bool, model: Path, laptop: Params, tmp_path: Path, warm: Warm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A NaN in one process of two: the other waits in a collective operation for gradients that never come."""
    from scalequest.training import launch

    two = changed(laptop, runtime={"accelerate": str(ROOT / "profiles" / "accelerate" / "two-processes.yaml")})
    monkeypatch.setattr(launch, "MODULE", "tests.training.failing_process")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv(FAILS_IN, str(rank))
    if forked:  # once the processes are those that a user starts
        monkeypatch.setattr(sys, "executable", f"{warm.path()}/python")
    with pytest.raises(UserError, match=r"training diverged at step 2 of 4: loss nan, .* rows \d+ \(q\d+\)"):
        train(StageRun(two), SFT(), model, tmp_path / "out", rows("sft", model), settings())
    assert not (tmp_path / "out").exists()


def test_a_model_with_one_broken_tensor_is_not_written(model: Path, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    from scalequest.models.weights import load_tokenizer, save_model

    net = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    with torch.no_grad():
        net.model.layers[1].mlp.up_proj.weight[0, 0] = float("nan")
    with pytest.raises(UserError, match=r"1 of [\d,]+ numbers of model\.layers\.1\.mlp\.up_proj\.weight are NaN"):
        save_model(net, load_tokenizer(model), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_the_gradient_norm_of_each_step_is_kept(model: Path, laptop: Params, tmp_path: Path) -> None:
    trained = train(StageRun(laptop), SFT(), model, tmp_path / "out", rows("sft", model), settings())
    steps = trained.steps()
    assert [step["step"] for step in steps] == [1, 2, 3, 4]
    assert all(step["grad_norm"] > 0 for step in steps)
    assert trained.metrics["largest_grad_norm"] == pytest.approx(max(step["grad_norm"] for step in steps), abs=1e-6)
    assert steps[0]["learning_rate"] == pytest.approx(2e-3)


def fail_in_one_process() -> None:
    """Make the second micro-batch of the process that FAILS_IN names NaN."""
    import trl

    whole, calls = trl.SFTTrainer.compute_loss, []

    def compute_loss(self: Any, *args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        loss = whole(self, *args, **kwargs)
        return loss * float("nan") if len(calls) == 2 and os.environ["RANK"] == os.environ[FAILS_IN] else loss

    trl.SFTTrainer.compute_loss = compute_loss
