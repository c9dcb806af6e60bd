"""Stochastic rounding to bfloat16: unbiased, seeded, and a value on the grid stays."""

from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


def test_the_expected_value_is_the_trained_one():
    import torch

    from scalequest.training.rounding import to_bfloat16

    # Neighbours of 1 + 2**-7 * f are 1 and 1 + 2**-7; of a value just below 2 they straddle a binade.
    for value in (1 + 2**-7 * 0.1, -(1 + 2**-7 * 0.75), 1.9961, 3e-5, -7e-39):
        draws = to_bfloat16(torch.full((200_000,), value), seed=3).double()
        exact = torch.full((1,), value).double().item()
        low, high = draws.min().item(), draws.max().item()
        share = (exact - low) / (high - low)
        assert 0 < share < 1
        assert draws.unique().numel() == 2
        # Standard error of the mean of n draws of two values: spacing * sqrt(p * (1 - p) / n); 4 of them.
        assert abs(draws.mean().item() - exact) < 4 * (high - low) * (share * (1 - share) / 200_000) ** 0.5


def test_each_value_becomes_one_of_its_neighbours_and_one_on_the_grid_stays():
    import torch

    from scalequest.training.rounding import to_bfloat16

    torch.manual_seed(0)
    weights = torch.randn(300, 200) * torch.logspace(-30, 10, 200)
    grid = weights.to(torch.bfloat16)
    assert torch.equal(to_bfloat16(grid.float(), seed=1), grid)
    rounded = to_bfloat16(weights, seed=1)
    nearest_error = (grid.float() - weights).abs()
    spacing = 2.0 ** (weights.abs().log2().floor() - 7)
    assert ((rounded.float() - weights).abs() < spacing).all()
    assert (rounded != grid).any()
    assert (nearest_error <= spacing / 2).all()
    # A tensor of which one value alone is off the grid: the others stay.
    mixed = grid.float().clone()
    mixed[0, 0] = 1 + 2**-9
    assert torch.equal(to_bfloat16(mixed, seed=1)[1:], grid[1:])


def test_the_draws_follow_the_seed_alone():
    import torch

    from scalequest.training.rounding import to_bfloat16

    weights = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(1)
    first = to_bfloat16(weights, seed=5)
    torch.manual_seed(2)
    assert torch.equal(first, to_bfloat16(weights, seed=5))
    assert not torch.equal(first, to_bfloat16(weights, seed=6))


def test_tied_weights_stay_tied_and_equal_tensors_draw_apart(model: Path):
    import torch
    from transformers import AutoModelForCausalLM

    from scalequest.training.rounding import round_model

    net = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    # Tied by hand, so that the test does not rest on the tiny model's configuration.
    net.config.tie_word_embeddings = True
    net.lm_head.weight = net.model.embed_tokens.weight
    layers = net.model.layers
    torch.manual_seed(0)
    with torch.no_grad():
        layers[0].mlp.up_proj.weight.normal_()
        layers[1].mlp.up_proj.weight.copy_(layers[0].mlp.up_proj.weight)
    rounded = round_model(net, "bfloat16", seed=1)
    assert rounded.lm_head.weight is rounded.model.embed_tokens.weight
    assert {p.dtype for p in rounded.parameters()} == {torch.bfloat16}
    assert not torch.equal(layers[0].mlp.up_proj.weight, layers[1].mlp.up_proj.weight)


def test_float32_is_left_alone(tmp_path: Path):
    import torch

    from scalequest.training.rounding import round_model

    layer = torch.nn.Linear(8, 8)
    before = layer.weight.detach().clone()
    assert torch.equal(round_model(layer, "float32", seed=1).weight, before)
