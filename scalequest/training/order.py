"""In which order a training takes its rows: by a seed, and within each optimizer step by length.

Rows of like length share a forward pass, so that little of it is padding. Which rows make up a step is the same as without:
the step's gradient is, too, up to rounding. transformers' own ``batch_rebalance`` also sorts within a step, but its forward
passes hold unequal numbers of rows, whose mean losses would count unequally in DPO, and its shuffle ignores the seed.
"""

from collections.abc import Iterator, Sequence


class SortedSteps:
    """A sampler for torch's loader. Places of N rows, shuffled anew in each epoch; in each stretch
    of ``batch_size`` the longest comes first.

    Args:
        lengths: tokens of each row.
        batch_size: rows of one optimizer step, of all processes together.
        seed: of the shuffle; the epoch is added to it, as accelerate does.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        self.lengths, self.batch_size, self.seed = lengths, batch_size, seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the shuffle; accelerate's loader calls it, also after a resumption."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        from torch import Generator, randperm

        places = randperm(len(self.lengths), generator=Generator().manual_seed(self.seed + self.epoch)).tolist()
        for start in range(0, len(places), self.batch_size):
            step = places[start : start + self.batch_size]
            yield from sorted(step, key=lambda place: -self.lengths[place])

    def __len__(self) -> int:
        return len(self.lengths)


def padding_frac(lengths: Sequence[int], batch_size: int, micro_batch: int, seed: int) -> float:
    """Share of the positions of an epoch's forward passes that hold padding, in its first epoch.

    Args:
        lengths: tokens of each row; of a preference pair, of its longer side.
        batch_size: rows of one optimizer step.
        micro_batch: rows of one forward pass.
        seed: of the shuffle.
    """
    order = [lengths[place] for place in SortedSteps(lengths, batch_size, seed)]
    passes = [order[start : start + micro_batch] for start in range(0, len(order), micro_batch)]
    return 1 - sum(order) / sum(max(rows) * len(rows) for rows in passes)
