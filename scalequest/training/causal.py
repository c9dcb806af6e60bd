"""What the two kinds of training of a causal model share: the model and the measurement of its targets."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from scalequest.models.folder import local_path
from scalequest.models.weights import load_tokenizer
from scalequest.training.divergence import watched
from scalequest.training.job import Job, lora


def load_causal(path: Path, dtype: Any, seed: int) -> Any:
    """The causal model of a folder in ``dtype``, with torch, NumPy and Python seeded."""
    from transformers import AutoModelForCausalLM, set_seed

    set_seed(seed)
    return AutoModelForCausalLM.from_pretrained(local_path(path), dtype=dtype, use_cache=False, trust_remote_code=False)


def log_probability(model: Any, prompt: Sequence[int], target: Sequence[int]) -> float:
    """Sum of the target tokens' log-probabilities after the prompt, in nats; the softmax is in float32."""
    import torch

    ids = torch.tensor([[*prompt, *target]], device=model.device)
    with torch.no_grad():
        # Without a prompt the first target token follows nothing and has no probability.
        logits = model(input_ids=ids).logits[0, max(len(prompt), 1) - 1 : -1].float()
    learned = ids[0, max(len(prompt), 1) :]
    return logits.log_softmax(-1).gather(1, learned[:, None]).sum().item()


class CausalKind:
    """A kind of training whose model ends in a vocabulary; ``SFT`` and ``DPO`` add trainer and measure."""

    scalar_head: ClassVar[bool] = False

    def start(self, trainer: type, job: Job, **settings: Any) -> Any:
        """The trainer on the job's model, stopping at the first loss that is not finite."""
        return watched(trainer, job.rows)(
            model=self.load(job.model, job.weights_dtype, job.seed),
            processing_class=load_tokenizer(job.model),
            peft_config=lora(job.params),
            **settings,
        )

    def load(self, path: Path, dtype: Any, seed: int) -> Any:
        """The causal model of a folder."""
        return load_causal(path, dtype, seed)
