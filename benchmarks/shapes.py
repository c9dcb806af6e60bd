"""Models without weights: the shape of a released model and the tokenizer of one that is at hand, for vLLM's dummy weights."""

import argparse
import shutil
from pathlib import Path
from typing import Any

from scalequest.io import write_json
from scalequest.models.folder import local_path

# Qwen2-Math-7B's body.
BODY = {
    "model_type": "qwen2", "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28,
    "num_key_value_heads": 4, "vocab_size": 152064, "max_position_embeddings": 4096, "hidden_act": "silu", "rms_norm_eps": 1e-6,
    "rope_theta": 10000, "tie_word_embeddings": False, "torch_dtype": "bfloat16",
}  # fmt: skip
# Qwen2.5-1.5B's body.
SMALL = {
    "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_size": 1536, "intermediate_size": 8960,
    "num_hidden_layers": 28, "num_attention_heads": 12, "num_key_value_heads": 2, "vocab_size": 151936,
    "max_position_embeddings": 4096, "hidden_act": "silu", "rms_norm_eps": 1e-6, "rope_theta": 1000000,
    "tie_word_embeddings": True, "torch_dtype": "bfloat16",
}  # fmt: skip
SHAPES = {
    "qwen2.5-1.5b": SMALL,
    "qwen2-math-7b": BODY | {"architectures": ["Qwen2ForCausalLM"]},
    # No released model: that body with the reward head that vLLM knows for it.
    "qwen2-math-7b-reward": BODY | {"architectures": ["Qwen2ForRewardModel"], "num_labels": 1},
}


def add_shape(parser: argparse.ArgumentParser) -> None:
    """Declare ``--shape``."""
    parser.add_argument(
        "--shape", choices=SHAPES, help="a model of this shape with random weights, and MODEL's tokenizer"
    )


def chosen_model(args: argparse.Namespace, scratch: Path) -> tuple[Path, dict[str, Any]]:
    """The folder of the model to measure, and vLLM's settings to load it; one of ``--shape`` is written to ``scratch``."""
    return with_shape(args.model, args.shape, scratch) if args.shape else (args.model, {})


def with_shape(model: Path, shape: str, scratch: Path) -> tuple[Path, dict[str, Any]]:
    """A folder in ``scratch`` with that shape and the model's tokenizer, and vLLM's settings to load it."""
    out = scratch / shape
    weights_and_shape = shutil.ignore_patterns("*.safetensors", "config.json", "generation_config.json")
    shutil.copytree(local_path(model), out, ignore=weights_and_shape)
    write_json(out / "config.json", SHAPES[shape])
    return out, {"load_format": "dummy"}
