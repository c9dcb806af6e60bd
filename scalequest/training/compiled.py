"""Compiled layers: a faster training of the same model, on a GPU."""

from typing import Any

from scalequest.errors import UserError


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


def undo(model: Any) -> None:
    """Take back forward passes that were put on a model's modules: their classes' own count again."""
    for module in model.modules():
        module.__dict__.pop("forward", None)
