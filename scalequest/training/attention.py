"""Attention over a pack: rows laid end to end in one sequence, each of which sees itself only.

Two kernels compute it. ``varlen`` is torch's own build of FlashAttention-2 with row boundaries (torch.nn.attention.varlen), for
16-bit numbers on a GPU; the package flash-attn is not needed. ``rows`` runs the model's usual attention once per row, on any
device and in any precision. On a CPU this costs nothing, because nothing is computed for padding or across rows.
"""

import inspect
from functools import cache, partial
from itertools import pairwise
from typing import Any

from scalequest.errors import UserError

AUTO, VARLEN, ROWS = "auto", "varlen", "rows"
PREFIX = "scalequest_"  # of the names under which transformers knows the two

# What a layer may do besides attention over all earlier tokens of its row, and how a configuration says so.
LAYERS = {"full_attention", "sliding_attention"}
UNPACKED = ("attn_logit_softcapping", "final_logit_softcapping", "logit_scale", "logits_scaling", "lm_head_multiplier")


def rows_attention(
    module: Any, query: Any, key: Any, value: Any, attention_mask: Any, cu_seq_lens_q: Any = None, **settings: Any
) -> tuple[Any, None]:
    """Transformers' scaled dot-product attention of each row by itself.

    Args:
        module: the attention layer.
        query: (1, heads, T, d).
        key: (1, heads of keys, T, d).
        value: (1, heads of keys, T, d).
        attention_mask: None for a pack.
        cu_seq_lens_q: R + 1 places where the R rows begin and the last one ends; None = no pack, as when a model is measured.
        settings: the other arguments of transformers' attention functions.

    Returns:
        (1, T, heads, d) and no weights.
    """
    import torch
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    sdpa = ALL_ATTENTION_FUNCTIONS["sdpa"]
    if cu_seq_lens_q is None:
        return sdpa(module, query, key, value, attention_mask, **settings)
    places = cu_seq_lens_q.tolist()
    made = [
        sdpa(module, query[:, :, a:b], key[:, :, a:b], value[:, :, a:b], None, **settings)[0]
        for a, b in pairwise(places)
    ]
    return torch.cat(made, dim=1), None


def varlen_attention(
    module: Any, query: Any, key: Any, value: Any, attention_mask: Any, scaling: float | None = None,
    cu_seq_lens_q: Any = None, max_length_q: int | None = None, grouped: bool = True, flags: dict[str, bool] | None = None,
    **settings: Any,
) -> tuple[Any, None]:  # fmt: skip
    """As ``rows_attention``, by one kernel for all rows; ``max_length_q`` is at least the length of the longest one.

    ``grouped`` says whether the kernel takes fewer heads of keys than of queries, and ``flags`` how it is told so.
    """
    import torch
    from torch.nn.attention import varlen

    if cu_seq_lens_q is None:
        return rows_attention(module, query, key, value, attention_mask, scaling=scaling, **settings)
    # Rotated queries and keys come in float32 under autocast, which knows nothing of this operation.
    dtype = value.dtype if value.dtype in (torch.bfloat16, torch.float16) else torch.get_autocast_dtype("cuda")
    q, k, v = (tensor[0].transpose(0, 1).to(dtype).contiguous() for tensor in (query, key, value))
    if not grouped:
        k, v = (tensor.repeat_interleave(q.shape[1] // tensor.shape[1], dim=1) for tensor in (k, v))
    attend: Any = varlen.varlen_attn  # its arguments differ between versions
    made = attend(
        q, k, v, cu_seq_lens_q, cu_seq_lens_q, max_length_q, max_length_q,
        scale=scaling, window_size=(-1, 0), **(flags or {}),
    )  # fmt: skip
    return made[None], None


@cache
def _varlen_arguments() -> frozenset[str]:
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:  # torch before 2.10
        return frozenset()
    return frozenset(inspect.signature(varlen_attn).parameters)


@cache
def _takes_grouped_heads() -> bool:
    """Whether the kernel takes fewer heads of keys than of queries, forward and backward: tried once, on two rows."""
    import torch
    from torch.nn.attention import varlen

    if "enable_gqa" in _varlen_arguments() or not torch.cuda.is_available():
        return True
    make = torch.Generator("cuda").manual_seed(0)
    q, k, v = (
        torch.randn(64, n, 64, device="cuda", dtype=torch.bfloat16, generator=make, requires_grad=True)
        for n in (4, 2, 2)
    )
    places = torch.tensor([0, 24, 64], device="cuda", dtype=torch.int32)
    attend: Any = varlen.varlen_attn
    try:
        found = attend(q, k, v, places, places, 64, 64, window_size=(-1, 0))
        repeated = [t.repeat_interleave(2, dim=1) for t in (k, v)]
        expected = attend(q, *repeated, places, places, 64, 64, window_size=(-1, 0))
        slopes = [torch.autograd.grad(made.float().square().sum(), (q, k, v)) for made in (found, expected)]
    except (RuntimeError, ValueError):
        return False
    return all(torch.allclose(a, b, atol=0.05, rtol=0.05) for a, b in zip(*slopes, strict=True))


def choose_kernel(wanted: str, model: Any, dtype: str, longest: int) -> str:
    """The kernel for a model: what ``runtime.packed_attention`` names, or for ``auto`` what this machine has.

    Args:
        wanted: auto | varlen | rows.
        model: a transformers model, without adapters.
        dtype: precision to compute in.
        longest: tokens of the longest row.

    Raises:
        UserError: the model cannot be packed, or this machine does not have the kernel that is asked for.
    """
    import torch

    refuse_unpackable(model, longest)
    config = model.config.get_text_config()
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    missing = [
        reason
        for reason, there in {
            "a GPU": torch.cuda.is_available(),
            "engine.dtype bfloat16": dtype == "bfloat16",
            "torch 2.11 or later": {"scale", "window_size"} <= _varlen_arguments(),
            "attention heads of at most 256 numbers, a multiple of 8": width % 8 == 0 and width <= 256,
        }.items()
        if not there
    ]
    if wanted == VARLEN and missing:
        raise UserError(
            f"runtime.packed_attention: varlen needs {' and '.join(missing)}. Expected a machine and a model that have it. "
            "Set auto or rows."
        )
    return VARLEN if wanted in (AUTO, VARLEN) and not missing else ROWS


def refuse_unpackable(model: Any, longest: int) -> None:
    """Stop at a model whose layers see more of a pack than attention shows them.

    Raises:
        UserError: the model mixes rows in another way, or computes its logits in a way that the packed loss does not know.
    """
    config = model.config.get_text_config()
    window = getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None
    problems = [f"layers of type {kind}" for kind in sorted(set(getattr(config, "layer_types", None) or ()) - LAYERS)]
    problems += [f"{key} {value}" for key in UNPACKED if (value := getattr(config, key, None)) not in (None, 1, 1.0)]
    if not model._can_set_attn_implementation():
        problems.append("attention of its own")
    if window is not None and window < longest:
        problems.append(f"a sliding window of {window} tokens, shorter than a row of {longest}")
    if dropout := getattr(config, "attention_dropout", 0.0):
        problems.append(f"attention_dropout {dropout}")
    if problems:
        raise UserError(
            f"packing: {type(model).__name__} has {', '.join(problems)}. Expected attention over all earlier tokens of a row and "
            "plain logits. Set the stage's packing to false."
        )


def use_kernel(model: Any, kernel: str) -> None:
    """Let the model's layers call the kernel (``varlen`` or ``rows``), until ``use_usual`` is called."""
    from transformers import AttentionInterface

    attend: Any = rows_attention
    if kernel == VARLEN:  # found out here, because nothing can be tried while a layer is compiled
        flags = {"enable_gqa": True} if "enable_gqa" in _varlen_arguments() else {}
        attend = partial(varlen_attention, grouped=_takes_grouped_heads(), flags=flags)
    AttentionInterface.register(PREFIX + kernel, attend)
    model.set_attn_implementation(PREFIX + kernel)


def use_usual(model: Any) -> None:
    """Take transformers' own attention again, if a kernel of this module is in use."""
    if str(model.config._attn_implementation).startswith(PREFIX):
        model.set_attn_implementation("sdpa")
