"""Cast trained float32 weights to bfloat16 by seeded stochastic rounding.

A fine-tuning step is often smaller than half the spacing of bfloat16, and the weights it started from are on that grid: round
to nearest takes the old value again, and the training is lost (docs/paper-differences.md has the measurement). Rounded up or
down with probabilities in proportion to the distances, the expected value of each weight is the trained one.
"""

from hashlib import sha256
from typing import Any

LOW_BITS = 16  # bits of a float32 mantissa that bfloat16 does not have


def to_bfloat16(weights: Any, seed: int) -> Any:
    """A float32 tensor in bfloat16, each value one of its two neighbours; a value on the grid stays.

    Args:
        weights: finite float32 tensor of any shape.
        seed: of the draws. They are made on the CPU, so that every device rounds alike.
    """
    import torch

    bits = weights.contiguous().view(torch.int32)
    if not (bits & ((1 << LOW_BITS) - 1)).any():
        return weights.to(torch.bfloat16)
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randint(0, 1 << LOW_BITS, bits.shape, generator=generator, dtype=torch.int32).to(bits.device)
    return rounded_by(weights, noise)


def rounded_by(weights: Any, noise: Any) -> Any:
    """A float32 tensor in bfloat16, rounded by ``noise``: numbers of the same shape, from 0 to 65,535, drawn evenly."""
    import torch

    # Sign and magnitude: a carry out of the low bits moves to the neighbour away from zero, across binades too.
    bits = weights.contiguous().view(torch.int32) + noise
    return (bits & -(1 << LOW_BITS)).view(torch.float32).to(torch.bfloat16)


def round_model(model: Any, dtype: str, seed: int) -> Any:
    """The float32 model in ``dtype``; each parameter is rounded from ``seed`` and its own name, a tied one once."""
    import torch

    if dtype == "bfloat16":
        for name, parameter in model.named_parameters():  # tied weights are one parameter, and stay so
            parameter.data = to_bfloat16(
                parameter.data, int.from_bytes(sha256(f"{seed}/{name}".encode()).digest()[:7], "big")
            )
    return model.to(getattr(torch, dtype))
