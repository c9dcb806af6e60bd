"""AdamW on weights in bfloat16, for models whose float32 weights and moments do not fit into a GPU.

A number takes 8 bytes: weight, gradient and two moments of 2 each, where float32 takes 16. A step is computed in float32. What
it gives is rounded stochastically, because a step is often smaller than half the spacing of bfloat16: rounded to nearest, the
weight would stay, and so would the second moment, of which a step changes a thousandth (scalequest.training.rounding).
"""

from collections.abc import Callable
from functools import cache
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from scalequest.training.rounding import LOW_BITS, rounded_by

if TYPE_CHECKING:
    from scalequest.training.job import Job


@cache
def rounded_adamw() -> Any:
    """The class; torch is imported here."""
    from torch.optim import Optimizer

    class RoundedAdamW(Optimizer):
        """AdamW (Loshchilov and Hutter 2019), weights and moments in bfloat16, rounded from
        ``seed``, the step and the weight's place.

        So a resumed training draws what the whole one drew, and no state of a generator has to be kept.
        """

        def __init__(
            self, params: Any, lr: float, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
            weight_decay: float = 0.0, seed: int = 0,
        ) -> None:  # fmt: skip
            super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})
            self.seed = seed

        def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
            """Take one step with the gradients that are there."""
            import torch

            places = (
                (group, f"{number}/{place}", weight)
                for number, group in enumerate(self.param_groups)
                for place, weight in enumerate(group["params"])
                if weight.grad is not None
            )
            with torch.no_grad():
                for group, place, weight in places:
                    state = self.state[weight]
                    if not state:
                        state["step"] = 0
                        state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(weight), torch.zeros_like(weight)
                    state["step"] += 1
                    _move(weight, state, group, f"{self.seed}/{state['step']}/{place}")

    return RoundedAdamW


def _move(weight: Any, state: dict[str, Any], group: dict[str, Any], name: str) -> None:
    """One step of one tensor, rounded from ``name``."""
    import torch

    generator = torch.Generator(weight.device)
    generator.manual_seed(int.from_bytes(sha256(name.encode()).digest()[:7], "big"))
    noise = torch.randint(
        -(1 << 31), 1 << 31, weight.shape, generator=generator, dtype=torch.int32, device=weight.device
    )
    low, high = noise & ((1 << LOW_BITS) - 1), (noise >> LOW_BITS) & ((1 << LOW_BITS) - 1)
    gradient, (one, two) = weight.grad.float(), group["betas"]
    first = state["exp_avg"].float().lerp_(gradient, 1 - one)
    second = state["exp_avg_sq"].float().mul_(two).addcmul_(gradient, gradient, value=1 - two)
    state["exp_avg"].copy_(first)  # a step changes a tenth of it, which rounding to nearest keeps
    state["exp_avg_sq"].copy_(rounded_by(second, high))
    scale = (second / (1 - two ** state["step"])).sqrt_().add_(group["eps"])
    moved = weight.float().mul_(1 - group["lr"] * group["weight_decay"])
    moved.addcdiv_(first, scale, value=-group["lr"] / (1 - one ** state["step"]))
    weight.copy_(rounded_by(moved, low))


def rounded_optimizer(job: "Job") -> tuple[type, dict[str, Any]]:
    """The optimizer of a job and its settings, as transformers' trainer takes them.

    The parameters have been checked: weights of bfloat16, all of them trained, in one process.
    """
    assert job.dtype == "bfloat16", job.dtype
    settings = {"lr": job.params.learning_rate, "weight_decay": job.params.weight_decay, "seed": job.seed}
    return rounded_adamw(), settings
