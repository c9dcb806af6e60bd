"""What makes a training fast without changing what is learned: a loss without logits, and compiled layers.

Of 5,120 tokens and 152,000 words the logits take 3 GB, as many again in float32, and their gradients too. A fused loss computes
them piece by piece and keeps none. ``trl`` is TRL's own and works everywhere. ``liger`` is Liger's kernel, on a GPU.
"""

import types
from collections.abc import Sequence
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


def decoder_layers(model: Any) -> list[Any]:
    """The repeated blocks of a transformers model, by the names that it gives for splitting over devices."""
    names = set(model._no_split_modules or ())
    return [module for module in model.modules() if type(module).__name__ in names]


def compile_layers(model: Any, backend: str = "inductor") -> int:
    """Compile each block's forward pass, and return how many blocks there are.

    All blocks share one compiled graph, made in seconds, where a whole model takes a minute. Lengths are dynamic, so that no
    step compiles again. Hooks of FSDP and recomputation of activations stay outside.

    Raises:
        UserError: the model names no blocks.
    """
    import torch

    layers = decoder_layers(model)
    if not layers:
        raise UserError(
            f"runtime.compile_training: {type(model).__name__} names no repeated blocks. Expected some. Set it to false."
        )
    for layer in layers:
        layer.forward = torch.compile(layer.forward, dynamic=True, backend=backend)
    return len(layers)


def undo(model: Any, modules: Sequence[str] = ("forward",)) -> None:
    """Take back what the functions here put on a model: its classes' own forward passes count again."""
    for module in model.modules():
        for name in modules:
            module.__dict__.pop(name, None)
