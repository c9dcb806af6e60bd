"""A GGUF file as a model in the Hugging Face format: dequantized weights, plain configuration, tokenizer."""

import gc
import logging
import os
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from scalequest.errors import UserError
from scalequest.models.weights import quiet_libraries, save_model

log = logging.getLogger("scalequest")

# Raise it when `convert_gguf` writes other bytes than before, so that what an earlier version wrote is not reused.
CONVERSION = 2
# Numbers that are dequantized at a time: few enough for a core's cache.
PIECE = 3 << 15
# Pieces that a thread takes at a time.
STRIDE = 16


def convert_gguf(gguf: Path, out: Path, dtype: str = "float32") -> None:
    """Write dequantized weights in ``dtype``, with a configuration that no longer claims to be quantized.

    Each weight is rounded to the nearest number of ``dtype``, as an engine does that loads float32
    weights and computes in ``dtype``. So ``engine.dtype`` here changes no byte of what an engine
    samples, and the file is half as large. Training starts from the rounded weights, those that
    the engine samples from, and not from the float32 values: bfloat16 moves a weight by at most
    1/256 of itself, less than four to eight bits of quantization had moved it before.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    quiet_libraries()
    log.info("converting %s to %s", gguf.name, dtype)
    kind = getattr(torch, dtype)
    with fast_reading():
        loaded = AutoModelForCausalLM.from_pretrained(
            gguf.parent,
            gguf_file=gguf.name,
            quantization_config=GgufConfig(dequantize=True),
            dtype=kind,
            trust_remote_code=False,
        )
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name, trust_remote_code=False)
    config: dict[str, Any] = loaded.config.to_dict()
    config.pop("quantization_config", None)
    with torch.device("meta"):  # no memory and no random numbers: it takes the loaded tensors themselves
        plain = AutoModelForCausalLM.from_config(type(loaded.config)(**config), dtype=kind, trust_remote_code=False)
    plain.load_state_dict(loaded.state_dict(), assign=True)
    plain.tie_weights()
    plain.generation_config = loaded.generation_config
    out.parent.mkdir(parents=True, exist_ok=True)
    name_special_tokens(tokenizer, config)
    save_model(plain, tokenizer, out)


@contextmanager
def fast_reading() -> Iterator[None]:
    """Within the block, transformers reads a GGUF file's header once and dequantizes on all cores.

    It takes both from the package gguf, whose reader makes a Python object per token: 8 CPU seconds
    for 150,000 tokens, at each of three calls (configuration, weights, tokenizer). And it asks gguf
    for the names of all tensors again for each of the model's modules: 397 times for 135M.
    """
    import gguf

    package: Any = gguf
    read, dequantize, names = gguf.GGUFReader, gguf.dequantize, gguf.get_tensor_name_map
    readers: dict[str, Any] = {}

    def read_once(path: Any, *args: Any) -> Any:
        if str(path) not in readers:
            # None of a million new objects is garbage; looking for some takes a fifth of the time.
            collecting = gc.isenabled()
            gc.disable()
            try:
                readers[str(path)] = read(path, *args)
            finally:
                if collecting:
                    gc.enable()
        return readers[str(path)]

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        package.GGUFReader = read_once
        package.dequantize = lambda data, kind: dequantize_blocks(data, kind, pool)
        package.get_tensor_name_map = cache(names)
        try:
            yield
        finally:
            package.GGUFReader, package.dequantize, package.get_tensor_name_map = read, dequantize, names


def dequantize_blocks(data: Any, kind: Any, pool: Executor) -> Any:
    """What ``gguf.quants.dequantize`` returns, byte for byte, with the blocks shared out over ``pool``.

    Args:
        data: quantized blocks, uint8, (..., bytes per row); numbers as they are in other types.
        kind: the ``GGMLQuantizationType`` of ``data``.
    """
    import numpy as np
    from gguf import GGML_QUANT_SIZES
    from gguf.quants import dequantize, quant_shape_from_byte_shape

    if data.dtype != np.uint8 or data.size < PIECE:
        return dequantize(data, kind)
    numbers, size = GGML_QUANT_SIZES[kind]
    result = np.empty(quant_shape_from_byte_shape(data.shape, kind), np.float32)
    blocks, target = data.reshape(-1, size), result.reshape(-1, numbers)
    step = PIECE // numbers

    def fill(first: int) -> None:
        for start in range(first, min(first + STRIDE * step, len(blocks)), step):
            # One row: gguf works on 16 rows at a time, which for narrow ones is twice as slow.
            piece = blocks[start : start + step]
            target[start : start + step] = dequantize(piece.reshape(1, -1), kind).reshape(-1, numbers)

    for _ in pool.map(fill, range(0, len(blocks), STRIDE * step)):
        pass
    return result


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
