from pathlib import Path
from typing import Any

import pytest

from scalequest.errors import UserError
from scalequest.models.gguf import PIECE, convert_gguf, dequantize_blocks, name_special_tokens


def test_special_tokens_are_those_of_the_files_own_numbers(tmp_path: Path):
    """What transformers 5.17 made of SmolLM2: the turn's begin for its end, no padding, the end no special token."""
    from scalequest.models.chat import ChatFormat
    from tests.tiny import make_tokenizer

    tokenizer = make_tokenizer(tmp_path)
    begin, end = tokenizer.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"])
    tokenizer.eos_token, tokenizer.pad_token = "<|im_start|>", None
    assert begin in ChatFormat.of(tokenizer).stop_ids
    name_special_tokens(tokenizer, {"bos_token_id": begin, "eos_token_id": end, "pad_token_id": end})
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) == (
        "<|im_start|>",
        "<|im_end|>",
        "<|im_end|>",
    )
    assert tokenizer.unk_token == "<|endoftext|>", "a number that the file does not have changes nothing"
    assert ChatFormat.of(tokenizer).stop_ids == [end]
    with pytest.raises(UserError, match=r"gives 99999 as its eos token, .* none of the vocabulary's \d+ tokens"):
        name_special_tokens(tokenizer, {"eos_token_id": 99_999})


@pytest.mark.slow
def test_a_conversion_writes_the_files_own_end_token(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A GGUF reader that mistakes the end token, around a real tiny model."""
    import transformers

    net = transformers.AutoModelForCausalLM.from_pretrained(model)
    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    end = tokenizer.eos_token_id
    net.config.eos_token_id = end
    tokenizer.eos_token = tokenizer.bos_token
    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", lambda *_, **__: net)
    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", lambda *_, **__: tokenizer)
    convert_gguf(tmp_path / "model.gguf", tmp_path / "out")
    monkeypatch.undo()
    assert transformers.AutoTokenizer.from_pretrained(tmp_path / "out").eos_token_id == end


# ------------------------------------------------------------------------------------------------- a file's own weights

LAYER = {
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}  # fmt: skip
OUTSIDE = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight", "lm_head.weight": "output.weight"}  # fmt: skip


def gguf_name(name: str) -> str:
    """A parameter's name in a GGUF file (its specification, for llama and qwen2)."""
    if name in OUTSIDE:
        return OUTSIDE[name]
    _, _, layer, *rest = name.split(".")
    return f"blk.{layer}.{LAYER['.'.join(rest[:-1])]}.{rest[-1]}"


def rotated(weight: Any, heads: int, back: bool = False) -> Any:
    """Rows of a query or key matrix in the order that a file of the architecture llama has, or ``back`` from it."""
    half = weight.shape[0] // heads // 2
    shape = (heads, half, 2) if back else (heads, 2, half)
    return weight.reshape(*shape, -1).swapaxes(1, 2).reshape(weight.shape)


def write_gguf(path: Path, model: Any, tokenizer: Any, architecture: str) -> dict[str, Any]:
    """Write a model as a quantized GGUF file, and return its weights as the file has them,
    dequantized, under the model's names.
    """
    import json

    import gguf
    import numpy as np
    import torch

    config, vocabulary = model.config, json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_name("tiny")
    writer.add_context_length(256)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10_000.0)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(sorted(vocabulary["vocab"], key=vocabulary["vocab"].get))
    writer.add_token_merges([" ".join(merge) for merge in vocabulary["merges"]])
    writer.add_bos_token_id(tokenizer.bos_token_id)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_pad_token_id(tokenizer.pad_token_id)
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    kept = {}
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue  # a file of a tied model has the matrix once
        weight = tensor.numpy().astype(np.float32)
        turned = heads.get(name.split(".")[-2]) if architecture == "llama" else None
        weight = rotated(weight, turned) if turned else weight
        kind = gguf.GGMLQuantizationType.F32 if weight.ndim == 1 else gguf.GGMLQuantizationType.Q4_0
        data = gguf.quants.quantize(weight, kind)
        writer.add_tensor(gguf_name(name), data, raw_dtype=kind)
        own = gguf.quants.dequantize(data, kind)
        kept[name] = torch.from_numpy(rotated(own, turned, back=True) if turned else own)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    if config.tie_word_embeddings:
        kept["lm_head.weight"] = kept["model.embed_tokens.weight"]
    return kept


@pytest.mark.parametrize("kind", ["Q4_0", "Q8_0", "Q4_K", "Q6_K", "IQ4_XS"])
@pytest.mark.parametrize("shape", [(3, 64, 2560), (2_100, 768), (2, 256)], ids=["experts", "matrix", "small"])
def test_threads_dequantize_to_the_bytes_of_gguf(kind: str, shape: tuple[int, ...]):
    from concurrent.futures import ThreadPoolExecutor

    import gguf
    import numpy as np

    quantization = gguf.GGMLQuantizationType[kind]
    width = gguf.quants.quant_shape_to_byte_shape(shape, quantization)
    data = np.random.default_rng(0).integers(0, 120, width, dtype=np.uint8)  # no scale of float16 is NaN
    with ThreadPoolExecutor(3) as pool:
        found = dequantize_blocks(data, quantization, pool)
    own = gguf.quants.dequantize(data, quantization)
    assert found.shape == own.shape == shape
    assert found.tobytes() == own.tobytes()
    assert shape == (2, 256) or data.size > PIECE, "or no thread was asked"


@pytest.mark.parametrize(
    ("architecture", "tied", "dtype"),
    [
        ("qwen2", True, "float32"),
        ("qwen2", False, "float32"),
        ("llama", True, "float32"),
        ("llama", False, "float32"),
        ("qwen2", True, "bfloat16"),
        ("llama", False, "bfloat16"),
    ],
)
def test_the_logits_are_those_of_the_files_own_weights(tmp_path: Path, architecture: str, tied: bool, dtype: str):
    """The reference is put together here, of the file's dequantized tensors, by the specification's names."""
    import safetensors.torch
    import torch
    import transformers

    from tests.tiny import make_tokenizer

    tokenizer = make_tokenizer(tmp_path / "tokenizer")
    sizes = {
        "vocab_size": len(tokenizer), "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256, "rms_norm_eps": 1e-6,
        "rope_theta": 10_000.0, "tie_word_embeddings": tied, "initializer_range": 0.2,
    }  # fmt: skip
    config_class, model_class = {
        "qwen2": (transformers.Qwen2Config, transformers.Qwen2ForCausalLM),
        "llama": (transformers.LlamaConfig, transformers.LlamaForCausalLM),
    }[architecture]
    torch.manual_seed(0)
    original = model_class(config_class(**sizes)).eval()
    with torch.no_grad():  # biases begin at 0, and norms at 1
        for parameter in original.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
    reference = model_class(config_class(**sizes)).eval()
    own = write_gguf(tmp_path / "model.gguf", original, tokenizer, architecture)
    reference.load_state_dict(own)

    convert_gguf(tmp_path / "model.gguf", tmp_path / "out", dtype)
    # Rounded to nearest, as an engine rounds that loads float32 weights and computes in bfloat16: the same bytes.
    saved = safetensors.torch.load_file(tmp_path / "out" / "model.safetensors")
    assert saved.keys() == own.keys() - ({"lm_head.weight"} if tied else set())
    for name, weight in saved.items():
        assert weight.dtype == getattr(torch, dtype)
        assert torch.equal(weight, own[name].to(weight.dtype))
    converted = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32).eval()
    assert converted.config.tie_word_embeddings is tied
    assert (converted.lm_head.weight.data_ptr() == converted.model.embed_tokens.weight.data_ptr()) is tied
    ids = torch.tensor([[5, 99, 300, 17, 42, 300, 8, 511]])
    with torch.no_grad():
        logits, expected, unquantized = (model(ids).logits for model in (converted, reference, original))
    # A bfloat16 weight is off by up to 1/256 of itself: here by 0.08 in logits of up to 6.
    assert torch.allclose(logits, expected, atol=1e-5 if dtype == "float32" else 0.2)
    # The same comparison sees four bits instead of 32, so it would see a wrong scale or order of rows.
    assert (logits - unquantized).abs().max() > 1e-2
    assert transformers.AutoTokenizer.from_pretrained(tmp_path / "out").decode([300]) == tokenizer.decode([300])


def test_the_names_of_tensors_are_put_together_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """transformers asks for them at each of the model's modules, 33 here. Afterwards gguf has its own function again."""
    import gguf
    import transformers

    from tests.tiny import make_tokenizer

    asked: list[tuple[Any, int]] = []
    names = gguf.get_tensor_name_map

    def counted(architecture: Any, layers: int) -> Any:
        asked.append((architecture, layers))
        return names(architecture, layers)

    monkeypatch.setattr(gguf, "get_tensor_name_map", counted)
    tokenizer = make_tokenizer(tmp_path / "tokenizer")
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2
    )
    write_gguf(tmp_path / "model.gguf", transformers.LlamaForCausalLM(config), tokenizer, "llama")
    convert_gguf(tmp_path / "model.gguf", tmp_path / "out")
    assert asked == [(gguf.MODEL_ARCH.LLAMA, 2)]
    assert gguf.get_tensor_name_map is counted
