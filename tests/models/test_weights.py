"""Weights are written whole, or not at all."""

from types import SimpleNamespace
from typing import Any

import pytest

from scalequest.errors import UserError
from scalequest.models.weights import check_finite


def holding(tensor: Any) -> Any:
    return SimpleNamespace(state_dict=lambda: {"a.weight": tensor})


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_one_number_that_is_not_finite_is_found_wherever_it_is(dtype: str, value: str):
    import torch

    kind = getattr(torch, dtype)
    for place in (0, 77_777, 99_999):  # the first, the last, and inside of what one thread reads
        tensor = torch.ones(100, 1_000, dtype=kind)
        tensor.view(-1)[place] = float(value)
        with pytest.raises(UserError, match=r"not written: 1 of 100,000 numbers of a\.weight are NaN or infinite"):
            check_finite(holding(tensor))


def test_the_largest_numbers_counts_and_nothing_at_all_are_finite():
    import torch

    for kind in (torch.float32, torch.bfloat16, torch.float16):
        check_finite(holding(torch.full((10_000,), torch.finfo(kind).max, dtype=kind)))
    check_finite(holding(torch.tensor([1, 2])))
    check_finite(holding(torch.empty(0)))
