"""Reward models of other architectures in vLLM's pooling runner, tiny and random, against transformers' arithmetic.

vLLM runs in a process of its own, one a model; the expected scores come from transformers' own layers in this one.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scalequest.errors import UserError
from scalequest.sampling.scorer import check_scalar_head
from tests.fakes import ROOT
from tests.warm import Warm

HIDDEN, LAYERS, HEADS, KV_HEADS = 128, 2, 4, 2  # heads of 32: vLLM on CPU has none of 16
REWARD_TOKEN = 7

SCORE = """
import json, sys
from pathlib import Path
from scalequest.sampling import vllm
from scalequest.sampling.scorer import Scorer
from scalequest.run.profile import load_profile
model = Path(sys.argv[1])
vllm.remote_code = lambda folder: sys.argv[2] == "code"
scorer = Scorer(model, load_profile().engine.model_copy(update={"max_num_seqs": 8, "max_model_len": 256}), load_profile().runtime.model_copy(update={"cpu_kv_cache_gib": 1}))
solved = [("What is 1 + 1?", "2"), ("What is 1 + 1?", "It is three."), ("Why?", "")]
rows = [ids + scorer.end for ids in scorer.chat.answered(solved)]
print("RESULT" + json.dumps({"scores": scorer.score(rows), "rows": rows, "text": scorer.chat.decode(rows[0])}))
"""
# What InternLM2's repository brings as code: transformers does not know its configuration.
INTERNLM2_CONFIG = """
from transformers import PretrainedConfig


class InternLM2Config(PretrainedConfig):
    model_type = "internlm2"
"""


def scored(warm: Warm, model: Path, code: bool = False) -> dict[str, Any]:
    result = warm.run("-c", SCORE, str(model), "code" if code else "", cwd=ROOT)
    lines = [line for line in result.stdout.splitlines() if line.startswith("RESULT")]
    assert lines, result.stderr[-4000:]
    return json.loads(lines[0].removeprefix("RESULT"))


def expected(backbone: Any, head: Callable[[Any], Any], rows: list[list[int]]) -> list[float]:
    """The head's value at each row's last token."""
    import torch

    with torch.no_grad():
        return [head(backbone(input_ids=torch.tensor([row])).last_hidden_state[0, -1]).item() for row in rows]


def randomized(model: Any) -> Any:
    """Weights large enough that scores differ by more than rounding; norms near one, biases included."""
    import torch

    torch.manual_seed(0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.copy_(torch.randn_like(weight) * (0.1 if "norm" in name else 0.2) + (1.0 if "norm" in name else 0.0))
    return model.eval()


def write(folder: Path, config: dict[str, Any], weights: dict[str, Any]) -> Path:
    from safetensors.torch import save_file

    save_file(
        {name: weight.contiguous() for name, weight in weights.items()}, folder / "model.safetensors", {"format": "pt"}
    )
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.slow
def test_qwen2_reward_models_score_as_their_layers_do(tmp_path: Path, warm: Warm):
    """Qwen2.5-Math-RM's kind: two linear layers with a ReLU between them, read at the last token."""
    import torch
    from transformers import Qwen2Config, Qwen2Model

    from tests.tiny import make_tokenizer

    tokenizer = make_tokenizer(tmp_path)
    config = Qwen2Config(
        vocab_size=len(tokenizer), hidden_size=HIDDEN, intermediate_size=128, num_hidden_layers=LAYERS, num_attention_heads=HEADS,
        num_key_value_heads=KV_HEADS, max_position_embeddings=512, eos_token_id=tokenizer.eos_token_id, bos_token_id=tokenizer.bos_token_id,
    )  # fmt: skip
    backbone = randomized(Qwen2Model(config))
    head = randomized(torch.nn.Sequential(torch.nn.Linear(HIDDEN, HIDDEN), torch.nn.ReLU(), torch.nn.Linear(HIDDEN, 1)))
    weights = {f"model.{k}": v for k, v in backbone.state_dict().items()} | {
        f"score.{k}": v for k, v in head.state_dict().items()
    }
    result = scored(warm, write(tmp_path, config.to_dict() | {"architectures": ["Qwen2ForRewardModel"]}, weights))
    assert result["scores"] == pytest.approx(expected(backbone, head, result["rows"]), abs=1e-4)
    assert len({round(score, 3) for score in result["scores"]}) == 3
    assert result["text"].endswith("<|im_start|>assistant\n2<|im_end|>\n")


@pytest.mark.slow
def test_internlm2_reward_models_score_at_their_own_token(tmp_path: Path, warm: Warm):
    """InternLM2 is Llama with q, k and v in one matrix, a group of heads after the other: so
    Llama's layers give the golden scores.
    """
    import torch
    from transformers import LlamaConfig, LlamaModel

    from tests.tiny import make_tokenizer

    tokenizer = make_tokenizer(tmp_path)
    shape = {
        "vocab_size": len(tokenizer), "hidden_size": HIDDEN, "intermediate_size": 128, "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS, "max_position_embeddings": 512, "rms_norm_eps": 1e-5,
        "eos_token_id": tokenizer.eos_token_id, "bos_token_id": tokenizer.bos_token_id,
    }  # fmt: skip
    backbone = randomized(LlamaModel(LlamaConfig(**shape)))
    head = randomized(torch.nn.Linear(HIDDEN, 1, bias=False))
    names = {
        "embed_tokens": "tok_embeddings", "self_attn.o_proj": "attention.wo", "mlp.gate_proj": "feed_forward.w1",
        "mlp.up_proj": "feed_forward.w3", "mlp.down_proj": "feed_forward.w2", "input_layernorm": "attention_norm",
        "post_attention_layernorm": "ffn_norm",
    }  # fmt: skip
    weights, state, dim = {"v_head.weight": head.weight.detach()}, backbone.state_dict(), HIDDEN // HEADS
    for name, weight in state.items():
        if ".self_attn.q_proj" in name:
            q = weight.reshape(KV_HEADS, HEADS // KV_HEADS * dim, HIDDEN)
            k, v = (
                state[name.replace("q_proj", other)].reshape(KV_HEADS, dim, HIDDEN) for other in ("k_proj", "v_proj")
            )
            weights["model." + name.replace("self_attn.q_proj", "attention.wqkv")] = torch.cat(
                [q, k, v], dim=1
            ).reshape(-1, HIDDEN)
        elif "k_proj" not in name and "v_proj" not in name:
            for old, new in names.items():
                name = name.replace(old, new)
            weights[f"model.{name}"] = weight
    config = shape | {
        "architectures": ["InternLM2ForRewardModel"], "model_type": "internlm2", "hidden_act": "silu", "bias": False,
        "rope_theta": 10000.0, "rope_scaling": None, "tie_word_embeddings": False, "reward_token_id": REWARD_TOKEN, "torch_dtype": "float32",
        "auto_map": {"AutoConfig": "configuration_internlm2.InternLM2Config"},
    }  # fmt: skip
    (tmp_path / "configuration_internlm2.py").write_text(INTERNLM2_CONFIG)
    result = scored(warm, write(tmp_path, config, weights), code=True)
    assert all(row[-1] == REWARD_TOKEN for row in result["rows"])
    assert result["scores"] == pytest.approx(expected(backbone, head, result["rows"]), abs=1e-4)
    assert len({round(score, 3) for score in result["scores"]}) == 3


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"architectures": ["LlamaForCausalLM"]}, "LlamaForCausalLM gives no single score for a sequence"),
        ({"architectures": ["Qwen2ForProcessRewardModel"]}, "Qwen2ForProcessRewardModel gives no single score"),
        ({}, "none gives no single score"),
        (
            {"architectures": ["LlamaForSequenceClassification"], "id2label": {"0": "a", "1": "b"}},
            "has 2 labels, expected 1",
        ),
        ({"architectures": ["LlamaForSequenceClassification"]}, "has 2 labels, expected 1"),
    ],
)
def test_a_model_that_gives_no_reward_is_refused_before_it_is_loaded(config: dict[str, Any], expected: str):
    with pytest.raises(UserError) as caught:
        check_scalar_head(Path("models/base/reward"), config)
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    "config",
    [
        {"architectures": ["InternLM2ForRewardModel"]},
        {"architectures": ["Qwen2ForRewardModel"]},
        {"architectures": ["LlamaForSequenceClassification"], "id2label": {"0": "LABEL_0"}},
        {"architectures": ["LlamaForSequenceClassification"], "num_labels": 1},
    ],
)
def test_a_model_with_a_scalar_head_passes(config: dict[str, Any]):
    assert check_scalar_head(Path("m"), config) == config["architectures"][0]
