"""The loss of a pack without its logits.

Of 5,120 tokens and 152,000 words the logits take 3 GB, as many again in float32, and their gradients too. A fused loss computes
them piece by piece and keeps none. ``trl`` is TRL's own and works everywhere. ``liger`` is Liger's kernel, on a GPU.
"""

import types
from importlib.util import find_spec
from typing import Any

from scalequest.errors import UserError

TRL, LIGER = "trl", "liger"
TILE = 32768  # words of the vocabulary whose logits TRL's loss holds at once


def summed_loss(hidden: Any, weight: Any, bias: Any, targets: Any, fused: str) -> Any:
    """Sum of the targets' negative log-probabilities, in nats.

    Args:
        hidden: (L, H), the last layer's output at the places before the targets.
        weight: (V, H), of the vocabulary.
        bias: (V) or None.
        targets: (L).
        fused: trl | liger.
    """
    import torch

    if not len(targets):  # a pack without learned tokens, which still takes part in the backward pass
        return hidden.sum() * 0.0 + weight.sum() * 0.0
    if fused == LIGER:
        from liger_kernel.transformers.fused_linear_cross_entropy import LigerFusedLinearCrossEntropyLoss

        if torch.is_autocast_enabled("cuda"):
            dtype = torch.get_autocast_dtype("cuda")
            hidden, weight = hidden.to(dtype), weight.to(dtype)
        loss = LigerFusedLinearCrossEntropyLoss(reduction="sum", accum_dtype=torch.float32)
        return loss(weight, hidden, targets, bias)
    from trl.kernels import ChunkedLogProbFunction

    made = ChunkedLogProbFunction.apply(hidden, weight, bias, targets, 1.0, TILE, None, 1.0, ("log_probs",))
    return -made[0].sum()


def check_fused(fused: str) -> None:
    """Look whether the loss can be computed here.

    Raises:
        UserError: liger is asked for, and the package or a GPU is missing.
    """
    import torch

    if fused == LIGER and find_spec("liger_kernel") is None:
        raise UserError(
            "runtime.fused_loss: liger, and the package liger-kernel is not installed. Expected it beside torch. "
            "Install it with `pip install liger-kernel`, or set trl."
        )
    if fused == LIGER and not torch.cuda.is_available():
        raise UserError("runtime.fused_loss: liger, and no GPU is there. Expected a GPU. Set trl.")


def add_packed_loss(model: Any, fused: str) -> None:
    """Let a causal model return the summed loss of a pack; without ``learned`` it computes what it did.

    ``model(input_ids=.., position_ids=.., learned=.., targets=.., ...)`` gives a scalar: see ``PackCollator`` for the names.
    The loss is computed inside the vocabulary layer's own forward pass. FSDP gathers a layer's weights when that runs; where a
    loss only takes them from the layer, as TRL's does, torch warns that a wrapped module ran no forward pass.
    """
    head = model.get_output_embeddings()
    usual, usual_head = model.forward, head.forward

    def head_forward(self: Any, hidden: Any, targets: Any = None) -> Any:
        return usual_head(hidden) if targets is None else summed_loss(hidden, self.weight, self.bias, targets, fused)

    def forward(self: Any, *args: Any, learned: Any = None, targets: Any = None, **kwargs: Any) -> Any:
        if learned is None:
            return usual(*args, **kwargs)
        hidden = self.base_model(*args, **kwargs).last_hidden_state[0]
        return self.get_output_embeddings()(hidden.index_select(0, learned), targets=targets)

    head.forward = types.MethodType(head_forward, head)
    model.forward = types.MethodType(forward, model)
