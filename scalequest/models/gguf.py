"""A GGUF file as a model in the Hugging Face format: dequantized weights, plain configuration, tokenizer."""

import logging
from pathlib import Path
from typing import Any

from scalequest.errors import UserError
from scalequest.models.weights import quiet_libraries, save_model

log = logging.getLogger("scalequest")

# Raise it when `convert_gguf` writes other bytes than before, so that what an earlier version wrote is not reused.
CONVERSION = 2


def convert_gguf(gguf: Path, out: Path) -> None:
    """Write dequantized float32 weights with a configuration that no longer claims to be quantized."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    quiet_libraries()
    log.info("converting %s", gguf.name)
    loaded = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, dtype=torch.float32, trust_remote_code=False
    )
    config: dict[str, Any] = loaded.config.to_dict()
    config.pop("quantization_config", None)
    plain = AutoModelForCausalLM.from_config(
        type(loaded.config)(**config), dtype=torch.float32, trust_remote_code=False
    )
    plain.load_state_dict(loaded.state_dict())
    plain.generation_config = loaded.generation_config
    out.parent.mkdir(parents=True, exist_ok=True)
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name, trust_remote_code=False)
    name_special_tokens(tokenizer, config)
    save_model(plain, tokenizer, out)


def name_special_tokens(tokenizer: Any, config: dict[str, Any]) -> None:
    """Give the tokenizer the special tokens of the configuration, which come from the file's own numbers.

    Some releases of transformers guess them from the kind of tokenizer instead: 5.17 takes
    SmolLM2's ``<|im_start|>`` for its end.

    Raises:
        UserError: a number is no token's.
    """
    for kind in ("bos", "eos", "pad", "unk"):
        number = config.get(f"{kind}_token_id")
        if number is None:
            continue
        token = tokenizer.convert_ids_to_tokens(number)
        if not isinstance(token, str):
            raise UserError(
                f"the GGUF file gives {number!r} as its {kind} token, which is none of the vocabulary's {len(tokenizer)} tokens; the file "
                "is broken: take another version of the package, or name the model as hf: or path:"
            )
        setattr(tokenizer, f"{kind}_token", token)
