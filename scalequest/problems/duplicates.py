"""Exact and near duplicates among millions of questions, the same whatever their order and the number of processes.

Near duplicates are found by an exact similarity join with prefix filtering (Chaudhuri, Ganti and Kaushik 2006, ICDE;
positions: Xiao et al. 2008, WWW): two sets whose Jaccard similarity is at least t share one of their rarest elements, so
only those are looked up. MinHash buckets fill up where many questions come from one story template; the rarest shingles
of such questions hold the numbers and names in which they differ. What still shares one is mostly ruled out by 64 bits of
each set, before its elements are read (Sandes, Teodoro and Melo 2020, TKDE). Duplicates do not enter the index, so a
crowd of equal questions costs one comparison each.
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
    entries = np.empty(prefix.sum(), _ENTRY)
    first, similarity = _join(values, offsets, prefix, threshold, slots, entries)
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


# What is known of an indexed element without a look at its set: the set, its size, the element's place in it, the low half
# of the element, and which of 64 bits the set's elements have.
_ENTRY = np.dtype([("set", "i4"), ("size", "i4"), ("place", "i4"), ("half", "u4"), ("bits", "u8")])


@njit(cache=True, inline="always")
def _slot(value, shift):
    return (value * np.uint64(0x9E3779B97F4A7C15)) >> shift


@njit(cache=True, inline="always")
def _number_of_ones(bits):
    bits -= (bits >> np.uint64(1)) & np.uint64(0x5555555555555555)
    bits = (bits & np.uint64(0x3333333333333333)) + ((bits >> np.uint64(2)) & np.uint64(0x3333333333333333))
    bits = (bits + (bits >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return np.int64((bits * np.uint64(0x0101010101010101)) >> np.uint64(56))


@njit(cache=True)
def _join(values, offsets, prefix, threshold, slots, entries):
    n = len(offsets) - 1
    first = np.full(n, NONE, np.int64)
    similarity = np.zeros(n, np.float64)
    compared_with = np.full(n, NONE, np.int32)
    shift = np.uint64(64 - slots)
    # The entries of a slot are in a row, because a slot of a million-row template has many.
    ends = np.zeros((1 << slots) + 1, np.int32)
    for x in range(n):
        for at in range(offsets[x], offsets[x] + prefix[x]):
            ends[_slot(values[at], shift) + np.uint64(1)] += 1
    for slot in range(1 << slots):
        ends[slot + 1] += ends[slot]
    starts = ends[:-1].copy()
    ends = starts.copy()  # they grow as the slots are filled
    share = threshold / (1 + threshold)
    for x in range(n):
        start, size = offsets[x], offsets[x + 1] - offsets[x]
        bits = np.uint64(0)
        for at in range(start, offsets[x + 1]):
            bits |= np.uint64(1) << (values[at] & np.uint64(63))
        best = 0.0
        for p in range(prefix[x]):
            value = values[start + p]
            half = np.uint32(value & np.uint64(0xFFFFFFFF))
            slot = _slot(value, shift)
            for at in range(starts[slot], ends[slot]):
                entry = entries[at]
                if entry.half != half:
                    continue
                y, q, other = entry.set, entry.place, entry.size
                needed = int(np.ceil(share * (size + other) - _EPSILON))
                # This is the first element that both share, so no more can follow than the shorter rest holds. And each
                # bit that only one set has is an element that only this set has.
                if (
                    1 + min(size - p - 1, other - q - 1) >= needed
                    and size + other - _number_of_ones(bits ^ entry.bits) >= 2 * needed
                    and compared_with[y] != x
                    and values[offsets[y] + q] == value
                ):
                    compared_with[y] = x
                    common = _common(values, start + p, offsets[x + 1], offsets[y] + q, offsets[y + 1], needed)
                    found = common / (size + other - common)
                    if found >= threshold and (found > best or (found == best and y < first[x])):
                        best, first[x] = found, y
        similarity[x] = best
        if first[x] == NONE:
            for p in range(prefix[x]):
                value = values[start + p]
                slot = _slot(value, shift)
                entry = entries[ends[slot]]
                entry.set, entry.size, entry.place = x, size, p
                entry.half, entry.bits = np.uint32(value & np.uint64(0xFFFFFFFF)), bits
                ends[slot] += 1
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
