"""AdamW on bfloat16 weights follows the one on float32, resumes to the same bytes, and is refused where it means nothing."""

from typing import Any

import pytest

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
