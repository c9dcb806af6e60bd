"""Model folders: reading a tokenizer, writing weights whole or not at all."""

import shutil
from pathlib import Path
from typing import Any

from scalequest.errors import UserError
from scalequest.models.chat import ChatFormat
from scalequest.models.folder import local_path


def quiet_libraries() -> None:
    """No progress bars: a stage's log holds what matters, and a bar is no use in a file."""
    import datasets
    import transformers

    datasets.disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()


def load_tokenizer(model: Path) -> Any:
    """The model's tokenizer."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(local_path(model), trust_remote_code=False)
    if tokenizer.pad_token is None:  # Llama 3 and Mistral have none; what is padded is masked, so any token serves
        tokenizer.pad_token = tokenizer.unk_token or tokenizer.eos_token
    return tokenizer


def load_chat(model: Path) -> ChatFormat:
    """The model's chat format."""
    return ChatFormat.of(load_tokenizer(model))


def check_finite(model: Any) -> None:
    """Look at every weight.

    Raises:
        UserError: a tensor holds NaN or infinity; it is named.
    """
    import torch

    for name, tensor in model.state_dict().items():
        if not tensor.is_floating_point() or not tensor.numel():
            continue
        # NaN passes through both. They copy nothing: `isfinite` writes the tensor twice, in 60 times the time.
        if all(torch.isfinite(bound) for bound in tensor.aminmax()):
            continue
        if broken := int((~torch.isfinite(tensor)).sum()):
            raise UserError(
                f"the model is not written: {broken:,} of {tensor.numel():,} numbers of {name} are NaN or infinite. Expected "
                "finite weights. Look at the training's losses and gradient norms, or at the model that came in."
            )


def save_model(model: Any, tokenizer: Any, out: Path) -> None:
    """Write weights, configuration and tokenizer, complete or not at all.

    Raises:
        UserError: a tensor is not finite; nothing is written.
    """
    check_finite(model)
    temporary = out.with_name(f".{out.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    model.save_pretrained(temporary)
    tokenizer.save_pretrained(temporary)
    for file in temporary.iterdir():
        file.chmod(0o644)  # safetensors writes 0600
    shutil.rmtree(out, ignore_errors=True)
    temporary.rename(out)
