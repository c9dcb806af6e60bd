"""A training stops at its first loss or gradient norm that is not finite, and writes nothing (a tiny real model).

Its curve is the same however many steps are read together.
"""

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
from scalequest.training.collated import unpacked
from scalequest.training.divergence import StopsAtNonFinite
from scalequest.training.dpo import DPO
from scalequest.training.examples import Pair, ScoredText
from scalequest.training.job import Job, ready_trainer, train
from scalequest.training.regression import Regression
from scalequest.training.reward import Reward
from scalequest.training.sft import SFT
from stages.qft import question_example
from tests.fakes import ROOT, changed
from tests.training import test_packing
from tests.training.test_job import QUESTIONS, settings
from tests.warm import Warm

pytestmark = pytest.mark.slow

KINDS = {"sft": SFT(), "dpo": DPO(0.1), "reward": Reward(), "regression": Regression()}
# Which process and which of its micro-batches is made to fail, for processes that accelerate starts: they import this file.
FAILS_IN = "SCALEQUEST_TEST_FAILS_IN"
STEPS_PER_READING = "SCALEQUEST_TEST_STEPS_PER_READING"


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
    """Before: 20 of 20 tensors NaN, `last_loss 0.0`, exit 0.

    With LoRA it depends on the CPU whether the loss is NaN, or that of chance with a gradient of 0.
    """
    with pytest.raises(UserError, match=r"training diverged") as stopped:
        train(
            StageRun(laptop), KINDS[kind], model, tmp_path / "out", rows(kind, model),
            settings(method, learning_rate=1e12, epochs=3),
        )  # fmt: skip
    assert not (tmp_path / "out").exists()
    assert "Expected finite numbers" in str(stopped.value)


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_whose_answers_no_longer_depend_on_its_weights_is_no_green_stage(
    kind: str, model: Path, laptop: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Activations that overflow are zeros after a normalisation on some CPUs: finite losses, and nothing is learned."""
    from transformers.models.llama.modeling_llama import LlamaRMSNorm

    normal, calls = LlamaRMSNorm.forward, 0

    def forward(self: Any, hidden: Any) -> Any:
        nonlocal calls
        calls += 1
        return normal(self, hidden) * (1.0 if calls < 60 else 0.0)

    monkeypatch.setattr(LlamaRMSNorm, "forward", forward)
    with pytest.raises(UserError, match=r"training diverged at step .* gradient norm 0, .* and a gradient"):
        train(StageRun(laptop), KINDS[kind], model, tmp_path / "out", rows(kind, model), settings("lora", epochs=3))
    assert not (tmp_path / "out").exists()


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


@pytest.mark.parametrize(("rank", "forked", "packed"), [(0, False, True), (1, True, False)])
def test_a_process_that_alone_diverges_stops_them_all(
    rank: int, forked: bool, packed: bool, model: Path, laptop: Params, tmp_path: Path, warm: Warm,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """A NaN in one process of two: the other waits in a collective operation for gradients that never come.

    Of packs whose steps are read together, both see the mean loss, and the one process has the rows.
    """
    from scalequest.training import launch

    two = changed(laptop, runtime={"accelerate": str(ROOT / "profiles" / "accelerate" / "two-processes.yaml")})
    monkeypatch.setattr(launch, "MODULE", "tests.training.failing_process")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv(FAILS_IN, str(rank))
    monkeypatch.setenv(STEPS_PER_READING, "3" if packed else "1")
    made = test_packing.rows() if packed else rows("sft", model)
    few = settings(packing=True, max_length=64, epochs=2) if packed else settings()
    if forked:  # once the processes are those that a user starts
        monkeypatch.setattr(sys, "executable", f"{warm.path()}/python")
    with pytest.raises(UserError, match=r"training diverged at step 2 of 4: loss nan, .* rows \d+ \(q\d+\)"):
        train(StageRun(two), SFT(), model, tmp_path / "out", made, few)
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


# ------------------------------------------------------------------------------------------- steps that are read together


class Events:
    """What a training does in order: ``read N`` steps, ``log STEP``, ``save STEP``."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from accelerate import Accelerator
        from transformers import Trainer

        self.seen: list[str] = []
        gather, log, save = Accelerator.gather, Trainer.log, Trainer._save_checkpoint

        def gathered(accelerator: Any, numbers: Any) -> Any:
            self.seen.append(f"read {len(numbers)}")
            return gather(accelerator, numbers)

        def logged(trainer: Any, logs: dict[str, float], *args: Any) -> None:
            if "loss" in logs:
                self.seen.append(f"log {trainer.state.global_step}")
            log(trainer, logs, *args)

        def saved(trainer: Any, *args: Any) -> None:
            self.seen.append(f"save {trainer.state.global_step}")
            save(trainer, *args)

        monkeypatch.setattr(Accelerator, "gather", gathered)
        monkeypatch.setattr(Trainer, "log", logged)
        monkeypatch.setattr(Trainer, "_save_checkpoint", saved)


def packed_trainer(model: Path, laptop: Params, folder: Path, together: int, saved_at: int = 0) -> Any:
    """Seven steps of two rows in two packs, an epoch ending after step 4, a checkpoint after ``saved_at``."""
    from transformers import TrainerCallback

    class Saves(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            control.should_save = state.global_step == saved_at
            control.should_training_stop = state.global_step == 7

    chosen = settings(packing=True, batch_size=2, per_device_batch_size=1, max_length=64, epochs=2)
    made = test_packing.rows()
    trainer = ready_trainer(Job(SFT(), model, folder / "out", made, chosen, "float32", 17, laptop.runtime), folder)
    assert trainer.packs.per_step == 2
    assert trainer.steps_per_reading == 1, "a CPU reads each step"
    trainer.steps_per_reading = together
    trainer.add_callback(Saves())
    return trainer


def curve(trainer: Any) -> list[dict[str, float]]:
    return [entry for entry in trainer.state.log_history if "loss" in entry]


def test_steps_that_are_read_together_keep_their_own_numbers(
    model: Path, laptop: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seven steps in threes, a rest of one, and the same in threes with a checkpoint due after step 5."""
    events, weights, curves = Events(monkeypatch), [], []
    for name, together, saved_at in (("each", 1, 0), ("three", 3, 0), ("saved", 3, 5), ("resumed", 3, 0)):
        events.seen.clear()
        trainer = packed_trainer(model, laptop, tmp_path / name, together, saved_at)
        checkpoint = tmp_path / "saved" / "checkpoint-5"
        trainer.train(resume_from_checkpoint=str(checkpoint) if name == "resumed" else None)
        weights.append({key: value.numpy().tobytes() for key, value in trainer.model.state_dict().items()})
        curves.append(curve(trainer))
        expected = {
            "each": [f"{what} {n}" for step in range(1, 8) for what, n in (("read", 1), ("log", step))],
            "three": ["read 3", "log 1", "log 2", "log 3", "read 3", "log 4", "log 5", "log 6", "read 1", "log 7"],
            "saved": ["read 3", "log 1", "log 2", "log 3", "read 2", "log 4", "log 5", "save 5", "read 2", "log 6", "log 7"],
            "resumed": ["read 2", "log 6", "log 7"],
        }  # fmt: skip
        assert events.seen == expected[name]
    assert [entry["step"] for entry in curves[0]] == [1, 2, 3, 4, 5, 6, 7]
    assert [entry["epoch"] for entry in curves[0]] == [0.25, 0.5, 0.75, 1, 1.25, 1.5, 1.75]
    assert len({entry["loss"] for entry in curves[0]}) == 7
    assert curves[1:] == [curves[0]] * 3
    assert weights[1:] == [weights[0]] * 3


@pytest.mark.parametrize("broken", ["loss", "gradient"])
def test_a_broken_step_among_steps_read_together_is_reported_as_itself(
    broken: str, model: Path, laptop: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Step 5 is the second of the three that are read after step 6. By then the weights are NaN, and step 6 with them."""
    import trl

    whole, seen = trl.SFTTrainer.training_step, dict[int, list[list[list[int]]]]()

    def training_step(trainer: Any, net: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        loss = whole(trainer, net, inputs, *args, **kwargs)
        packs = seen.setdefault(trainer.state.global_step + 1, [])
        packs.append(unpacked(inputs))
        if len(seen) == 5 and len(packs) == 2:
            for weight in net.parameters():
                weight.grad.fill_(float("nan"))
            return loss * float("nan") if broken == "loss" else loss
        return loss

    monkeypatch.setattr(trl.SFTTrainer, "training_step", training_step)
    ids = {tuple(row.prompt + row.target): f"{place} ({row.id})" for place, row in enumerate(test_packing.rows())}
    for saved_at, steps in ((0, 6), (5, 5)):
        seen.clear()
        trainer = packed_trainer(model, laptop, tmp_path / str(saved_at), 3, saved_at)
        with pytest.raises(UserError, match="training diverged at step 5 of 8: loss") as stopped:
            trainer.train()
        assert len(seen) == steps
        rows_of = seen[5][1:] if broken == "loss" else seen[5]
        expected = ", ".join(ids[tuple(row)] for pack in rows_of for row in pack)
        # Cosine from 2e-3 over 8 steps: after 4 of them half of it.
        assert f"gradient norm nan, learning rate 0.001, rows {expected}. Expected" in str(stopped.value)
        assert (": loss nan," in str(stopped.value)) == (broken == "loss")
        assert [entry["step"] for entry in curve(trainer)] == [1, 2, 3, 4]
        assert not list(tmp_path.glob("*/checkpoint-*"))


@pytest.mark.usefixtures("forked")
def test_two_processes_that_read_steps_together_give_the_curve_of_one_that_reads_each(
    model: Path, laptop: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two packs per step, in one process or in two: the same sums, so the same numbers up to rounding."""
    from scalequest.training import launch

    two = changed(laptop, runtime={"accelerate": str(ROOT / "profiles" / "accelerate" / "two-processes.yaml")})
    few, made = settings(packing=True, max_length=64, epochs=2), test_packing.rows()
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setattr(launch, "MODULE", "tests.training.failing_process")
    monkeypatch.setenv(STEPS_PER_READING, "3")
    alone = train(StageRun(laptop), SFT(), model, tmp_path / "1", made, few)
    shared = train(StageRun(two), SFT(), model, tmp_path / "2", made, few)
    assert [entry["step"] for entry in shared.curves] == [1, 2, 3, 4]
    for found, expected in zip(shared.curves, alone.curves, strict=True):
        assert found == pytest.approx(expected, rel=1e-5)
    assert shared.metrics["processes"] == 2


def fail_in_one_process() -> None:
    """Make the second micro-batch of the process that FAILS_IN names NaN, and read STEPS_PER_READING together."""
    calls: list[int] = []

    def compute_loss(self: Any, *args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        loss = super(StopsAtNonFinite, self).compute_loss(*args, **kwargs)  # type: ignore[misc]
        return loss * float("nan") if len(calls) == 2 and os.environ["RANK"] == os.environ.get(FAILS_IN) else loss

    StopsAtNonFinite.steps_per_reading = int(os.environ.get(STEPS_PER_READING, "1"))
    StopsAtNonFinite.compute_loss = compute_loss  # type: ignore[attr-defined]
