"""AdamW on bfloat16 weights follows the one on float32, and resumes to the same bytes.

Where it means nothing it is refused with the parameters: tests/test_params.py, `steps_in_bfloat16_...`.
"""

from pathlib import Path
from typing import Any

import pytest

from scalequest.params import Params
from scalequest.training.job import Job
from scalequest.training.optimizer import rounded_adamw, rounded_optimizer
from scalequest.training.sft import SFT
from tests.training.test_job import settings

pytestmark = pytest.mark.slow
STEPS = 30


def trained(kind: str, cut: int | None = None) -> tuple[list[float], Any]:
    """Losses of a regression with 2,000 weights near 1, and the weights; ``cut`` saves and loads the state at a step."""
    import torch

    from scalequest.training.optimizer import rounded_adamw

    torch.manual_seed(0)
    weight = torch.nn.Parameter(
        (1 + torch.randn(50, 40) / 10).to(torch.float32 if kind == "float32" else torch.bfloat16)
    )
    goal, inputs = torch.randn(50, 40), torch.randn(64, 50)

    def optimizer() -> Any:
        if kind == "rounded":
            return rounded_adamw()([weight], lr=1e-3, seed=3)
        return torch.optim.AdamW([weight], lr=1e-3, weight_decay=0.0)

    steps, losses = optimizer(), []
    for step in range(STEPS):
        if step == cut:
            state, steps = steps.state_dict(), optimizer()
            steps.load_state_dict(state)
        loss = (inputs @ (weight.float() - goal)).square().mean()
        loss.backward()
        steps.step()
        steps.zero_grad()
        losses.append(loss.item())
    return losses, weight.detach()


def test_its_losses_are_those_of_float32_where_rounding_to_nearest_loses_the_steps():
    """Steps of 0.001 on weights of 1, whose neighbours in bfloat16 are 0.004 and 0.008 apart."""
    exact, nearest, rounded = (trained(kind)[0] for kind in ("float32", "nearest", "rounded"))
    gained = exact[0] - exact[-1]
    assert rounded[-1] == pytest.approx(exact[-1], abs=0.1 * gained)
    assert abs(nearest[-1] - exact[-1]) > 0.3 * gained


def test_a_resumed_optimizer_rounds_as_the_whole_one():
    import torch

    assert torch.equal(trained("rounded")[1], trained("rounded", cut=11)[1])


def test_a_job_gets_it_with_its_own_settings(laptop: Params, tmp_path: Path):
    few = settings("full", optimizer="adamw_bfloat16", weight_decay=0.1)
    kind, values = rounded_optimizer(Job(SFT(), tmp_path, tmp_path, [], few, "bfloat16", 1, laptop.runtime))
    assert kind is rounded_adamw()
    assert values == {"lr": 2e-3, "weight_decay": 0.1, "seed": 1}
