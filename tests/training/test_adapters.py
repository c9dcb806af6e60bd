"""A merged adapter is the model that was trained: the same logits, after it was written and read again (docs/adapters.md)."""

from pathlib import Path
from typing import Any

import pytest

from scalequest.params import Params
from scalequest.training.job import lora
from scalequest.training.rounding import round_model
from tests.fakes import changed

pytestmark = pytest.mark.slow

SHAPE = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "pad_token_id": 0, "num_labels": 1,
}  # fmt: skip


@pytest.mark.parametrize("scalar_head", [False, True], ids=["causal", "scalar_head"])
def test_merged_weights_give_the_adapters_logits(tmp_path: Path, laptop: Params, scalar_head: bool):
    import torch
    from peft import get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

    torch.manual_seed(0)
    kind: Any = LlamaForSequenceClassification if scalar_head else LlamaForCausalLM
    base = kind(LlamaConfig(**SHAPE)).eval()
    tokens = torch.randint(1, SHAPE["vocab_size"], (4, 12))
    with torch.no_grad():
        plain = base(input_ids=tokens).logits.clone()
        adapted = get_peft_model(base, lora(changed(laptop, qft={"lora_r": 4}).qft, scalar_head)).eval()
        for name, weight in adapted.named_parameters():
            if "lora_B" in name:  # zero at the start, so that an untrained adapter changes nothing
                weight.copy_(torch.randn_like(weight) * 0.2)
        expected = adapted(input_ids=tokens).logits.clone()
        adapted.merge_and_unload().save_pretrained(tmp_path)
        merged = kind.from_pretrained(tmp_path, dtype=torch.float32).eval()(input_ids=tokens).logits
    assert (expected - plain).abs().max() > 0.01  # the adapter does something
    assert (merged - expected).abs().max() < 1e-4


def test_in_bfloat16_an_adapter_smaller_than_the_spacing_is_kept_on_average(tmp_path: Path, laptop: Params):
    """Merged and cast by rounding to nearest, most of a small adapter is gone; rounded stochastically, all of it is there."""
    import torch
    from peft import get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    base = LlamaForCausalLM(LlamaConfig(**SHAPE | {"hidden_size": 128})).to(torch.bfloat16)
    name = "model.layers.0.mlp.up_proj.weight"
    before = base.state_dict()[name].double().clone()
    adapted = get_peft_model(base, lora(changed(laptop, qft={"lora_r": 4}).qft))
    with torch.no_grad():
        for key, weight in adapted.named_parameters():
            if "lora_B" in key:
                weight.copy_(torch.randn_like(weight) * 2e-5)
    merged = adapted.float().merge_and_unload()
    exact = merged.state_dict()[name].double().clone()
    step = exact - before
    nearest = exact.to(torch.bfloat16).double() - before
    stochastic = round_model(merged, "bfloat16", seed=1).state_dict()[name].double() - before

    def kept(found: torch.Tensor) -> float:
        """Share of the step that is left: its projection on what was trained."""
        return ((found * step).sum() / (step * step).sum()).item()

    assert step.abs().mean() < before.abs().mean() * 2**-9  # smaller than half the spacing
    assert kept(nearest) < 0.5
    assert kept(stochastic) == pytest.approx(1.0, abs=0.25)
