"""Rows of one optimizer step share forward passes by length; what is learned stays the same."""

import pytest
import torch
from torch.utils.data import RandomSampler

from scalequest.training.order import SortedSteps, padding_frac

LENGTHS = [5, 90, 7, 88, 60, 3, 61, 4, 30, 31]


@pytest.mark.parametrize("epoch", [0, 1])
def test_steps_hold_the_rows_that_a_shuffle_gives_them(epoch: int):
    """The shuffle that transformers and accelerate make of seed and epoch; the last step may be short."""
    shuffle = list(RandomSampler(LENGTHS, generator=torch.Generator().manual_seed(17 + epoch)))
    found = SortedSteps(LENGTHS, 4, 17)
    found.set_epoch(epoch)
    places = list(found)
    assert len(found) == len(places) == len(LENGTHS)
    for start in range(0, len(LENGTHS), 4):
        step = places[start : start + 4]
        assert sorted(step) == sorted(shuffle[start : start + 4])
        assert [LENGTHS[place] for place in step] == sorted((LENGTHS[place] for place in step), reverse=True)


def test_epochs_and_seeds_have_orders_of_their_own():
    first = SortedSteps(LENGTHS, 2, 1)
    orders = {tuple(first)}
    first.set_epoch(1)
    assert len(orders | {tuple(first), tuple(SortedSteps(LENGTHS, 2, 3))}) == 3


def test_sorting_leaves_less_padding():
    # Two long and two short rows in a step of four: pairs of like length have none.
    assert padding_frac([10, 100, 10, 100], 4, 2, 0) == 0
    assert padding_frac([10, 100, 10, 100], 4, 4, 0) == pytest.approx(1 - 220 / 400)
    assert padding_frac(LENGTHS, 1, 1, 0) == 0
