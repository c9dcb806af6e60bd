"""Exact and near duplicates among millions of questions, the same whatever their order and the number of processes.

Near duplicates are found by an exact similarity join with prefix filtering (Chaudhuri, Ganti and Kaushik 2006, ICDE;
positions: Xiao et al. 2008, WWW): two sets whose Jaccard similarity is at least t share one of their rarest elements, so
only those are looked up. MinHash buckets fill up where many questions come from one story template; the rarest shingles
of such questions hold the numbers and names in which they differ. Duplicates do not enter the index, so a crowd of equal
questions costs one comparison each.
"""

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from scalequest.problems.shingles import Hashes, Offsets

NONE = -1
# Guards a ceiling against rounding errors; the similarity itself is compared without it.
_EPSILON = 1e-9
# Bits of an element that say how frequent it is; the others are its hash's.
_FREQUENCY_BITS = 20


@dataclass(frozen=True)
class Twins:
    """The duplicate of each of N questions.

    Attributes:
        first: place of the question that it duplicates, or NONE (N).
        similarity: its Jaccard similarity with that question; 0 where there is none (N).
    """

    first: NDArray[np.int64]
    similarity: NDArray[np.float64]


def exact_twins(keys: Hashes) -> NDArray[np.int64]:
    """The place of the first question with the same key, for each of N; NONE for that first one.

    Args:
        keys: a hash of 128 bits per question, in the order in which the first one counts (N, 2).
    """
    order = np.lexsort((np.arange(len(keys)), keys[:, 1], keys[:, 0]))
    sorted_keys = keys[order]
    is_first = np.ones(len(keys), bool)
    is_first[1:] = (sorted_keys[1:] != sorted_keys[:-1]).any(axis=1)
    leaders = order[np.flatnonzero(is_first)[np.cumsum(is_first) - 1]] if len(keys) else order
    found = np.full(len(keys), NONE, np.int64)
    found[order[~is_first]] = leaders[~is_first]
    return found


def near_twins(values: Hashes, offsets: Offsets, threshold: float) -> Twins:
    """For each of N sets in order, the most similar earlier set that is no duplicate itself; ties go to the earliest.

    A set is a duplicate where that similarity is at least ``threshold``. So no two sets that stay are as similar, and
    a duplicate stands for no other.

    Args:
        values: distinct elements of every set, one set after another. They are sorted in place by their frequency.
        offsets: set i has the elements ``offsets[i]:offsets[i + 1]``, at least one (N + 1).
        threshold: least Jaccard similarity, in (0, 1].
    """
    bits = int(np.clip(np.ceil(np.log2(max(2, len(values)))), 10, 25))
    counts = np.zeros(1 << bits, np.uint32)
    _count(values, counts, np.uint64(64 - bits))
    _order(values, offsets, counts, np.uint64(64 - bits))
    del counts
    lengths = np.diff(offsets)
    prefix = lengths - np.ceil(threshold * lengths - _EPSILON).astype(np.int64) + 1
    slots = int(np.clip(np.ceil(np.log2(max(2, prefix.sum()))), 10, 26))
    first, similarity = _join(values, offsets, prefix, threshold, slots)
    return Twins(first, similarity)


@njit(cache=True)
def _count(values, counts, shift):
    for value in values:
        counts[value >> shift] += 1


@njit(cache=True)
def _order(values, offsets, counts, shift):
    """Put each element's frequency before its hash, and sort every set: the rarest element first.

    Elements whose hashes begin alike are counted together. That changes the order, and any order finds the same pairs.
    """
    most = np.uint64((1 << _FREQUENCY_BITS) - 1)
    kept = np.uint64(64 - _FREQUENCY_BITS)
    for i in range(len(values)):
        value = values[i]
        values[i] = (min(np.uint64(counts[value >> shift]), most) << kept) | (
            value & ((np.uint64(1) << kept) - np.uint64(1))
        )
    for row in range(len(offsets) - 1):
        values[offsets[row] : offsets[row + 1]].sort()


@njit(cache=True)
def _join(values, offsets, prefix, threshold, slots):
    n = len(offsets) - 1
    first = np.full(n, NONE, np.int64)
    similarity = np.zeros(n, np.float64)
    compared_with = np.full(n, NONE, np.int32)
    head = np.full(1 << slots, NONE, np.int32)
    # One entry per indexed element, in one cache line: the next entry of its slot, its set, its place in that set, the
    # set's size, and half of its bits.
    entries = np.empty((prefix.sum(), 5), np.int32)
    n_entries = 0
    share = threshold / (1 + threshold)
    shift = np.uint64(64 - slots)
    for x in range(n):
        start, size = offsets[x], offsets[x + 1] - offsets[x]
        best = 0.0
        for p in range(prefix[x]):
            value = values[start + p]
            half = np.int32(np.uint32(value & np.uint64(0xFFFFFFFF)))
            entry = head[(value * np.uint64(0x9E3779B97F4A7C15)) >> shift]
            while entry != NONE:
                y, q, other = entries[entry, 1], entries[entry, 2], entries[entry, 3]
                if entries[entry, 4] == half and compared_with[y] != x:
                    needed = int(np.ceil(share * (size + other) - _EPSILON))
                    # This is the first element that both share, so no more can follow than the shorter rest holds.
                    if 1 + min(size - p - 1, other - q - 1) >= needed and values[offsets[y] + q] == value:
                        compared_with[y] = x
                        common = _common(values, start + p, offsets[x + 1], offsets[y] + q, offsets[y + 1], needed)
                        found = common / (size + other - common)
                        if found >= threshold and (found > best or (found == best and y < first[x])):
                            best, first[x] = found, y
                entry = entries[entry, 0]
        similarity[x] = best
        if first[x] == NONE:
            for p in range(prefix[x]):
                value = values[start + p]
                slot = (value * np.uint64(0x9E3779B97F4A7C15)) >> shift
                entries[n_entries, 0] = head[slot]
                entries[n_entries, 1] = x
                entries[n_entries, 2] = p
                entries[n_entries, 3] = size
                entries[n_entries, 4] = np.int32(np.uint32(value & np.uint64(0xFFFFFFFF)))
                head[slot] = n_entries
                n_entries += 1
    return first, similarity


@njit(cache=True, inline="always")
def _common(values, i, i_end, j, j_end, needed):
    """Number of elements that two sorted ranges share; 0 as soon as ``needed`` cannot be reached."""
    common = 0
    while i < i_end and j < j_end:
        if common + min(i_end - i, j_end - j) < needed:
            return 0
        if values[i] == values[j]:
            common += 1
            i += 1
            j += 1
        elif values[i] < values[j]:
            i += 1
        else:
            j += 1
    return common
