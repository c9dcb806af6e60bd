"""Model folders without weights: the shape of a released model and the tokenizer of one that is at hand, for vLLM's dummy weights."""

import shutil
from pathlib import Path

from scalequest.io import write_json
from scalequest.models import local_path

# Of the released models' own config.json.
QWEN2_7B = {
    "model_type": "qwen2", "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28,
    "num_key_value_heads": 4, "vocab_size": 152064, "max_position_embeddings": 4096, "hidden_act": "silu", "rms_norm_eps": 1e-6,
    "rope_theta": 10000, "tie_word_embeddings": False, "torch_dtype": "bfloat16",
}  # fmt: skip
SHAPES = {
    "qwen2-7b": QWEN2_7B | {"architectures": ["Qwen2ForCausalLM"]},
    "qwen2-7b-reward": QWEN2_7B | {"architectures": ["Qwen2ForRewardModel"], "num_labels": 1},
}


def dummy_model(shape: str, tokenizer_of: Path, out: Path) -> Path:
    """Write a model folder of this shape, with another model's tokenizer and no weights, to ``out``."""
    shutil.copytree(
        local_path(tokenizer_of),
        out,
        ignore=shutil.ignore_patterns("*.safetensors", "config.json", "generation_config.json"),
    )
    write_json(out / "config.json", SHAPES[shape])
    return out
