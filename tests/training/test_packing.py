"""A packed training learns what an unpacked one does: each row's loss, the gradients, the saved model, also after a kill."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scalequest.errors import UserError
from scalequest.params import Params
from scalequest.runtime.facts import StageFacts
from scalequest.runtime.stage import StageRun
from scalequest.training import packing
from scalequest.training.collated import unpacked
from scalequest.training.examples import Example
from scalequest.training.job import Job, ready_trainer, train
from scalequest.training.optimizer import rounded_adamw
from scalequest.training.packing import PackCollator, PackedRows, PackedSteps, balanced, packs_needed
from scalequest.training.sft import SFT
from tests.fakes import changed
from tests.training.test_job import settings

LENGTHS = [5, 90, 7, 88, 60, 3, 61, 4, 30, 31]
MODEL = {
    "vocab_size": 600, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "pad_token_id": 0, "tie_word_embeddings": True,
}  # fmt: skip


# --------------------------------------------------------------------------------------------------------- which packs


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("budget", [90, 128, 1000])
def test_steps_hold_the_rows_of_a_shuffle_in_packs_within_the_budget(budget: int, processes: int):
    packs = PackedSteps(LENGTHS, 4, budget, processes, epochs=2, seed=17)
    for epoch in (0, 1):
        packs.set_epoch(epoch)
        made = list(packs)
        assert len(made) == len(packs) == 3 * packs.per_step
        assert packs.per_step % processes == 0
        order = packing.SortedSteps(LENGTHS, 4, 17)
        order.set_epoch(epoch)
        places = list(order)
        for step in range(3):
            rows = [place for pack in made[step * packs.per_step : (step + 1) * packs.per_step] for place in pack]
            assert sorted(rows) == sorted(places[4 * step : 4 * step + 4])
        assert max(sum(LENGTHS[place] for place in pack) for pack in made) <= budget


def test_packs_of_a_step_are_alike_and_as_few_as_the_budget_allows():
    assert balanced([5, 3, 3, 2, 2, 1], 2) == [[0, 3, 5], [1, 2, 4]]
    assert packs_needed([5, 3, 3, 2, 2, 1], 8, 1) == 2
    # 16 tokens are two packs of 8 only on paper.
    assert packs_needed([6, 6, 4], 8, 1) == 3
    assert packs_needed([6, 6, 4], 8, 2) == 2


def rows() -> list[Example]:
    """Eight rows of 4 to 60 tokens; one has no prompt."""
    make = np.random.default_rng(0)
    texts = [make.integers(4, 600, 4 + 8 * n).tolist() for n in range(8)]
    return [Example(ids[: n % 4], ids[n % 4 :], f"q{n}") for n, ids in enumerate(texts)]


@pytest.mark.parametrize("multiple", [1, 64])
def test_a_pack_restarts_positions_and_learns_no_token_across_a_boundary(multiple: int):
    made = rows()
    batch = PackCollator(0, 60, multiple)([PackedRows(made)[(2, 0, 1)]])
    total = sum(len(made[place]) for place in (2, 0, 1))
    assert batch["input_ids"].shape == batch["position_ids"].shape == batch["labels"].shape
    assert batch["input_ids"].shape[1] == -(-total // multiple) * multiple
    assert unpacked(batch) == [made[place].prompt + made[place].target for place in (2, 0, 1)]
    assert batch["cu_seq_lens_q"].tolist()[:4] == [0, 20, 24, 36]
    assert batch["position_ids"][0, [0, 19, 20, 23, 24]].tolist() == [0, 19, 0, 3, 0]
    # Row 0 has no prompt: its first token follows nothing that it may see.
    targets = made[2].target + made[0].target[1:] + made[1].target
    assert batch["targets"].tolist() == targets
    assert (batch["labels"] != -100).sum() == len(targets)


def test_an_empty_pack_is_one_row_of_which_nothing_is_learned():
    for multiple in (1, 64):
        batch = PackCollator(0, 60, multiple)([[]])
        assert batch["input_ids"].shape == (1, multiple)
        assert (unpacked(batch), batch["targets"].tolist(), batch["cu_seq_lens_q"].tolist()) == ([], [], [0, multiple])


# ------------------------------------------------------------------------------------------------- what the model learns


@pytest.mark.slow
@pytest.mark.parametrize("recomputed", [False, True], ids=["plain", "gradient_checkpointing"])
@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_pack_gives_the_losses_and_gradients_of_its_rows(method: str, recomputed: bool, laptop: Params):
    import torch
    from peft import get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    from scalequest.training.attention import ROWS, use_kernel, use_usual
    from scalequest.training.compiled import compile_layers, undo
    from scalequest.training.fused import add_packed_loss
    from scalequest.training.job import lora

    def gradients() -> dict[str, torch.Tensor]:
        found = {name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None}
        net.zero_grad()
        return found

    torch.manual_seed(0)
    base = LlamaForCausalLM(LlamaConfig(**MODEL))
    net: Any = get_peft_model(base, lora(settings("lora"))) if method == "lora" else base
    with torch.no_grad():
        for name, weight in net.named_parameters():
            if "lora_B" in name:
                weight.copy_(torch.randn_like(weight) * 0.1)
    made, alone = rows(), []
    for example in made:
        ids = torch.tensor([example.prompt + example.target])
        labels = ids.clone()
        labels[0, : len(example.prompt)] = -100
        n = (labels[0, 1:] != -100).sum()
        loss = net(input_ids=ids, labels=labels, use_cache=False).loss * n
        loss.backward()
        alone.append(loss.item())
    expected = gradients()

    net.train()
    if recomputed:
        net.gradient_checkpointing_enable()
        net.enable_input_require_grads()
    use_kernel(base, ROWS)
    add_packed_loss(base, "trl")

    def packed(places: tuple[int, ...]) -> torch.Tensor:
        batch = PackCollator(0, 60, 64)([PackedRows(made)[places]])
        return net(**{name: value for name, value in batch.items() if name not in ("labels", "rows")}, use_cache=False)

    for place in range(len(made)):
        assert packed((place,)).item() == pytest.approx(alone[place], rel=1e-5)
    for compiled in (False, True) if method == "lora" and recomputed else (False,):
        if compiled:  # the graph is captured as on a GPU and then run as it is
            assert compile_layers(net, backend="eager") == 2
            torch._dynamo.reset()
        losses = [packed(places) for places in ((7, 0, 3, 6), (1, 5, 2, 4), ())]
        sum(losses).backward()
        assert sum(loss.item() for loss in losses) == pytest.approx(sum(alone), rel=1e-5)
        found = gradients()
        assert found.keys() == expected.keys()
        for name in expected:
            assert torch.allclose(found[name], expected[name], rtol=1e-3, atol=1e-4), name
    undo(net)
    use_usual(base)
    assert "forward" not in base.__dict__
    ids = torch.tensor([made[7].prompt + made[7].target])
    assert net(input_ids=ids).logits.shape == (1, 60, 600)


def both(model: Path, laptop: Params, out: Path, **changes: Any) -> list[Any]:
    return [
        train(StageRun(laptop), SFT(), model, out / str(packed), rows(), settings(packing=packed, **changes))
        for packed in (False, True)
    ]


@pytest.mark.slow
def test_a_packed_training_is_the_unpacked_one_up_to_rounding(
    model: Path, laptop: Params, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    from safetensors.torch import load_file

    with caplog.at_level("INFO", logger="scalequest"):
        plain, packed = both(model, laptop, tmp_path, epochs=2, max_length=64)
    for name in ("loss", "grad_norm"):
        found, expected = ([entry[name] for entry in trained.curves] for trained in (packed, plain))
        assert len(found) == 4
        assert found == pytest.approx(expected, rel=1e-3)
    assert (packed.metrics["padding_frac"], packed.metrics["learned_tokens"]) == (0, plain.metrics["learned_tokens"])
    assert plain.metrics["padding_frac"] > 0.1
    weights = [load_file(tmp_path / name / "model.safetensors") for name in ("False", "True")]
    assert weights[0].keys() == weights[1].keys()
    assert max((weights[0][key] - weights[1][key]).abs().max().item() for key in weights[0]) < 1e-3
    assert (tmp_path / "False" / "config.json").read_text() == (tmp_path / "True" / "config.json").read_text()
    shown = [r.getMessage() for r in caplog.records if "boundaries" in r.getMessage()]
    assert len(shown) == 1
    assert shown[0].startswith("preflight: a pack of")


@pytest.mark.slow
def test_a_killed_packed_training_resumes_to_the_same_bytes(
    model: Path, laptop: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    import trl

    often = changed(laptop, runtime={"checkpoint_minutes": 0})
    few = settings("lora", epochs=2, max_length=64, packing=True)
    train(StageRun(often), SFT(), model, tmp_path / "whole", rows(), few)

    step = trl.SFTTrainer.training_step

    def killed(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self.state.global_step == 3:
            raise KeyboardInterrupt
        return step(self, *args, **kwargs)

    facts = StageFacts("qft@sums", tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(trl.SFTTrainer, "training_step", killed)
        with pytest.raises(KeyboardInterrupt):
            train(StageRun(often, facts), SFT(), model, tmp_path / "resumed", rows(), few, seed=StageRun(often).seed())
    train(StageRun(often, facts), SFT(), model, tmp_path / "resumed", rows(), few, seed=StageRun(often).seed())
    whole, resumed = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "resumed"))
    assert whole == resumed


# ------------------------------------------------------------------------------------------------------ what is refused


def merged(batch: dict[str, Any]) -> None:
    batch["cu_seq_lens_q"] = batch["cu_seq_lens_q"][[0, 2, *range(3, len(batch["cu_seq_lens_q"]))]]


def shifted(batch: dict[str, Any]) -> None:
    batch["cu_seq_lens_q"][1] += 1


def running(batch: dict[str, Any]) -> None:
    import torch

    batch["position_ids"] = torch.arange(batch["input_ids"].shape[1])[None]


def across(batch: dict[str, Any]) -> None:
    """Learn the first token of the second row, predicted by the last of the first."""
    import torch

    at = batch["cu_seq_lens_q"][1]
    batch["learned"] = torch.cat([batch["learned"], at[None] - 1])
    batch["targets"] = torch.cat([batch["targets"], batch["input_ids"][0, at][None]])


def short(batch: dict[str, Any]) -> None:
    batch["max_length_q"] = 2


@pytest.mark.slow
def test_a_pack_with_wrong_boundaries_stops_the_stage(
    model: Path, laptop: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from scalequest.training import attention
    from scalequest.training.sft import check_packs

    few = settings(packing=True, max_length=64)
    job = Job(SFT(), model, tmp_path / "out", rows(), few, "float32", 17, laptop.runtime)
    trainer = SFT().trainer(job, tmp_path)  # shows a pack and finds nothing wrong
    whole, attend = PackCollator.__call__, attention.rows_attention
    for fault in (merged, shifted, running, across, short):

        def faulty(self: Any, packs: Any, fault: Any = fault) -> dict[str, Any]:
            batch = whole(self, packs)
            fault(batch)
            return batch

        with monkeypatch.context() as patch:
            patch.setattr(PackCollator, "__call__", faulty)
            with pytest.raises(UserError, match="preflight: the trainer would"):
                check_packs(trainer, job)

    # Boundaries that are right and an attention that does not look at them.
    def leaking(*args: Any, cu_seq_lens_q: Any = None, **kwargs: Any) -> Any:
        return attend(*args, **kwargs)

    monkeypatch.setattr(attention, "rows_attention", leaking)
    attention.use_usual(trainer.model)
    attention.use_kernel(trainer.model, attention.ROWS)
    with pytest.raises(UserError, match="other tokens in the first row of a pack move the loss of the second from"):
        check_packs(trainer, job)
    monkeypatch.undo()
    attention.use_kernel(trainer.model, attention.ROWS)
    check_packs(trainer, job)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"layer_types": ["full_attention", "linear_attention"]}, "layers of type linear_attention"),
        ({"sliding_window": 16}, "a sliding window of 16 tokens, shorter than a row of 60"),
        ({"final_logit_softcapping": 30.0}, "final_logit_softcapping 30.0"),
        ({"attention_dropout": 0.1}, "attention_dropout 0.1"),
    ],
)
def test_a_model_that_cannot_be_packed_is_refused(config: dict[str, Any], named: str):
    from transformers import LlamaConfig, LlamaForCausalLM

    from scalequest.training.attention import ROWS, choose_kernel

    net = LlamaForCausalLM(LlamaConfig(**MODEL))
    assert choose_kernel("auto", net, "float32", 60) == ROWS
    for key, value in config.items():
        setattr(net.config, key, value)
    with pytest.raises(UserError, match=named):
        choose_kernel("auto", net, "float32", 60)


@pytest.mark.slow
def test_what_this_machine_does_not_have_is_named(monkeypatch: pytest.MonkeyPatch):
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from scalequest.training import fused
    from scalequest.training.attention import choose_kernel

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match=r"varlen needs a GPU and engine.dtype bfloat16"):
        choose_kernel("varlen", LlamaForCausalLM(LlamaConfig(**MODEL)), "float32", 60)
    with pytest.raises(UserError, match=r"no GPU is there|liger-kernel is not installed"):
        fused.check_fused("liger")


def test_a_nan_in_a_pack_names_its_rows():
    from scalequest.training.divergence import watched

    made = rows()
    class_ = watched(type("Trainer", (), {}), made)
    batch = PackCollator(0, 60, 64)([PackedRows(made)[(3, 1)]])
    assert class_._rows(class_, [batch]) == ["3 (q3)", "1 (q1)"]


@pytest.mark.slow
def test_a_packed_training_in_bfloat16_steps_bfloat16_weights(model: Path, laptop: Params, tmp_path: Path):
    import torch

    params = changed(laptop, engine={"dtype": "bfloat16"})
    chosen = settings(packing=True, max_length=64, epochs=3, optimizer="adamw_bfloat16")
    job = Job(SFT(), model, tmp_path / "out", rows(), chosen, "bfloat16", 17, params.runtime)
    trainer = ready_trainer(job, tmp_path)
    assert {weight.dtype for weight in trainer.model.parameters()} == {torch.bfloat16}
    trainer.train()
    made = trainer.optimizer
    while hasattr(made, "optimizer"):  # accelerate wraps it
        made = made.optimizer
    assert type(made) is rounded_adamw()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[-1] < losses[0]
