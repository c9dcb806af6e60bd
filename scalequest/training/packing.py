"""Packs: the rows of an optimizer step laid end to end in a few sequences, so that no forward pass holds padding.

A step holds the rows that it holds without packing, and its loss is the same mean over their learned tokens. Only the passes
differ. Each has about the same number of tokens, and at most as many as ``per_device_batch_size`` rows of ``max_length``.
TRL packs otherwise: it fills sequences of one length before the training, so that a step holds another number of rows.
"""

import heapq
import logging
import math
from collections.abc import Iterator, Sequence
from typing import Any

from scalequest.training.examples import IGNORED, Example
from scalequest.training.order import SortedSteps

log = logging.getLogger("scalequest")

Pack = tuple[int, ...]  # places of its rows


class PackedSteps:
    """A sampler for torch's loader that gives packs: N rows shuffled as ``SortedSteps`` does, then each step's split up.

    Every step has the same number of packs, because the trainer accumulates a fixed number of passes; the pack may be empty.

    Args:
        lengths: tokens of each row.
        batch_size: rows of one optimizer step, of all processes together.
        budget: tokens of a pack at most.
        processes: that share a step; the packs of a step are a multiple of it.
        epochs: of the training.
        seed: of the shuffle.
    """

    def __init__(
        self, lengths: Sequence[int], batch_size: int, budget: int, processes: int, epochs: int, seed: int
    ) -> None:
        self.order = SortedSteps(lengths, batch_size, seed)
        self.per_process = max(
            packs_needed([lengths[place] for place in step], budget, processes)
            for epoch in range(epochs)
            for step in self._steps(epoch)
        )
        self.per_step = self.per_process * processes
        self.order.set_epoch(0)

    def _steps(self, epoch: int) -> Iterator[list[int]]:
        self.order.set_epoch(epoch)
        places = list(self.order)
        for start in range(0, len(places), self.order.batch_size):
            yield places[start : start + self.order.batch_size]

    def set_epoch(self, epoch: int) -> None:
        """Choose the shuffle; accelerate's loader calls it, also after a resumption."""
        self.order.set_epoch(epoch)

    def __iter__(self) -> Iterator[Pack]:
        for step in self._steps(self.order.epoch):
            split = balanced([self.order.lengths[place] for place in step], self.per_step)
            yield from (tuple(step[index] for index in pack) for pack in split)

    def __len__(self) -> int:
        return math.ceil(len(self.order) / self.order.batch_size) * self.per_step

    def padding_frac(self, multiple: int) -> float:
        """Share of the positions of the first epoch's passes that fill up, where a pack's length is
        a multiple of ``multiple``.
        """
        lengths = self.order.lengths
        packs = [
            sum(lengths[step[index]] for index in pack)
            for step in self._steps(0)
            for pack in balanced([lengths[place] for place in step], self.per_step)
        ]
        return 1 - sum(packs) / sum(max(multiple, math.ceil(n / multiple) * multiple) for n in packs)


def balanced(lengths: Sequence[int], n: int) -> list[list[int]]:
    """Places of the lengths in ``n`` groups of about the same sum: each, from the longest on, goes to the smallest group."""
    groups: list[list[int]] = [[] for _ in range(n)]
    sums = [(0, number) for number in range(n)]
    for place in sorted(range(len(lengths)), key=lambda place: -lengths[place]):
        total, number = sums[0]
        groups[number].append(place)
        heapq.heapreplace(sums, (total + lengths[place], number))
    return groups


def packs_needed(lengths: Sequence[int], budget: int, processes: int) -> int:
    """Packs of each process for one step, so that none is above the budget; a row alone always fits."""
    n = max(1, math.ceil(sum(lengths) / (budget * processes)))
    while max(sum(lengths[place] for place in pack) for pack in balanced(lengths, n * processes)) > budget:
        n += 1
    return n


class PackedRows:
    """The data set whose items are packs: N rows, of which a pack's places pick some."""

    def __init__(self, rows: Sequence[Example]) -> None:
        import numpy as np

        self.ids = [np.array(row.prompt + row.target) for row in rows]
        self.prompts = [len(row.prompt) for row in rows]

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, pack: Pack) -> list[tuple[Any, int]]:
        """Token ids and length of the prompt, of each row of the pack."""
        return [(self.ids[place], self.prompts[place]) for place in pack]


class PackCollator:
    """Make a pack's tensors.

    Attributes:
        padding: token that fills up; what is filled up is a row of its own, of which nothing is learned.
        longest: tokens of the longest row that may come.
        multiple: of which a pack's length is one. On a GPU 64, so that few shapes occur; elsewhere 1.
    """

    def __init__(self, padding: int, longest: int, multiple: int) -> None:
        self.padding, self.multiple = padding, multiple
        self.longest = max(longest, multiple)

    def __call__(self, packs: Sequence[list[tuple[Any, int]]]) -> dict[str, Any]:
        """The tensors of one pack of T tokens, R rows and L learned tokens.

        Returns:
            ``input_ids``, ``position_ids`` and ``labels`` (1, T), where no label is the first of its row; ``cu_seq_lens_q``
            (R + 1), where rows begin and the last ends, and ``max_length_q``, as transformers names them; ``rows``, how many
            there are without what fills up; ``learned`` (L), the places whose next token is learned, and ``targets`` (L),
            those tokens.
        """
        import numpy as np
        import torch

        (rows,) = packs
        rows, n = list(rows), len(rows)
        total = sum(len(ids) for ids, _ in rows)
        if fill := -total % self.multiple if rows else self.multiple:
            rows.append((np.full(fill, self.padding), fill))
        ids = np.concatenate([ids for ids, _ in rows])
        places = np.cumsum([0, *(len(ids) for ids, _ in rows)])
        labels = ids.copy()
        for start, (_, prompt) in zip(places, rows, strict=False):
            labels[start : start + max(prompt, 1)] = IGNORED  # nothing of this row is there to predict its first token
        learned = np.flatnonzero(labels != IGNORED) - 1
        positions = np.concatenate([np.arange(len(ids)) for ids, _ in rows])
        return {
            "input_ids": torch.from_numpy(ids)[None],
            "position_ids": torch.from_numpy(positions)[None],
            "labels": torch.from_numpy(labels)[None],
            "cu_seq_lens_q": torch.from_numpy(places.astype(np.int32)),
            "max_length_q": self.longest,
            "rows": n,
            "learned": torch.from_numpy(learned),
            "targets": torch.from_numpy(ids[learned + 1]),
        }
