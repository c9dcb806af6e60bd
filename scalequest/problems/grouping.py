"""Groups of duplicates among screened questions: which one is kept, and what the others match."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from scalequest.problems.duplicates import NONE, exact_twins, near_twins
from scalequest.problems.screening import CODES, VERDICTS, Batch
from scalequest.problems.shingles import Hashes, Offsets


@dataclass
class Grouping:
    """What is known of N questions after screening: verdict, match and evidence of each, in the order they were added.

    Attributes:
        verdicts: places in VERDICTS (N).
        kept: place of the question that a duplicate's group keeps, NONE for the others (N).
        near: whether a duplicate is a near one (N).
        matched: the benchmark items that single questions match (N).
        evidence: what was found in single questions (N).
    """

    verdicts: NDArray[np.int8]
    kept: NDArray[np.int64]
    near: NDArray[np.bool_]
    matched: pa.ChunkedArray
    evidence: pa.ChunkedArray
    _ids: pa.Array
    _twin: NDArray[np.int64]
    _similarity: NDArray[np.float64]

    def columns(self, start: int, stop: int) -> tuple[pa.Array, pa.Array, pa.Array]:
        """Verdict, match and evidence of the questions ``start`` to ``stop``.

        A duplicate matches the question that is kept. Its evidence is the similarity with it, after the question that it
        equals where that is a near duplicate itself.
        """
        names = pa.array(VERDICTS).take(pa.array(self.verdicts[start:stop]))
        matched = pa.concat_arrays(self.matched.slice(start, stop - start).chunks or [pa.array([], pa.string())])
        evidence = pa.concat_arrays(self.evidence.slice(start, stop - start).chunks or [pa.array([], pa.string())])
        places = start + np.flatnonzero(self.kept[start:stop] != NONE)
        if not len(places):
            return names, matched, evidence
        mask = pa.array(self.kept[start:stop] != NONE)
        matched = pc.replace_with_mask(matched, mask, self._ids.take(pa.array(self.kept[places])))
        said = []
        for at in places:
            words = f"jaccard {self._similarity[at]:.3f}" if self._similarity[at] else ""
            equal = "" if self.near[at] or not words else f"equals {self._ids[int(self._twin[at])].as_py()}, "
            said.append(equal + words)
        return names, matched, pc.replace_with_mask(evidence, mask, pa.array(said, pa.string()))


@dataclass
class Screened:
    """Collects checked batches, and groups their duplicates when all are there."""

    _batches: list[Batch] = field(default_factory=list)
    _ids: list[pa.Array] = field(default_factory=list)
    _generators: list[NDArray[np.int16]] = field(default_factory=list)

    def add(self, batch: Batch, ids: pa.Array, generator: int | NDArray[np.int16]) -> None:
        """Take a batch with its ids and its generator's place in the mix, one or one per question."""
        self._batches.append(batch)
        self._ids.append(ids)
        self._generators.append(np.broadcast_to(np.asarray(generator, np.int16), len(ids)))

    def first(self, n: int) -> "Screened":
        """The first ``n`` batches, which keep what they hold."""
        return Screened(self._batches[:n], self._ids[:n], self._generators[:n])

    def group(self, threshold: float) -> Grouping:
        """Find the duplicates. The first of a group is kept: by the mix's order, then by the numbers in its id.

        Exact duplicates come first, then near ones among those that are left, so the batches may be in any order.

        Args:
            threshold: least Jaccard similarity of near duplicates; 1 finds exact ones only.
        """
        batches, ids = self._batches, pa.concat_arrays([pa.array([], pa.string()), *self._ids])
        verdicts = np.concatenate([np.zeros(0, np.int8), *(batch.verdicts for batch in batches)])
        left = np.flatnonzero(verdicts == CODES["kept"])
        order = _by_id(ids.take(pa.array(left)), np.concatenate([np.zeros(0, np.int16), *self._generators])[left])
        keys = np.concatenate([np.zeros((0, 2), np.uint64), *(batch.keys for batch in batches)])[order]
        first = exact_twins(keys)
        kept = np.full(len(ids), NONE, np.int64)
        twin, similarity, near = kept.copy(), np.zeros(len(ids)), np.zeros(len(ids), bool)
        places = left[order]  # of the questions to group, first ones first
        exact = np.flatnonzero(first != NONE)
        kept[places[exact]] = twin[places[exact]] = places[first[exact]]
        verdicts[places[exact]] = CODES["exact_duplicate"]
        if threshold < 1:
            alone = np.flatnonzero(first == NONE)
            values, offsets = self._gather(order[alone])
            found = near_twins(values, offsets, threshold)
            close = np.flatnonzero(found.first != NONE)
            at, leader = places[alone[close]], places[alone[found.first[close]]]
            kept[at] = twin[at] = leader
            near[at], similarity[at] = True, found.similarity[close]
            verdicts[at] = CODES["near_duplicate"]
            # An exact duplicate of a near duplicate belongs to the group of what is kept.
            own = places[exact]
            moved = own[kept[kept[own]] != NONE]
            similarity[moved] = similarity[twin[moved]]
            kept[moved] = kept[twin[moved]]
        matched = pa.chunked_array([batch.matched for batch in batches], pa.string())
        evidence = pa.chunked_array([batch.evidence for batch in batches], pa.string())
        return Grouping(verdicts, kept, near, matched, evidence, ids, twin, similarity)

    def _gather(self, order: NDArray[np.int64]) -> tuple[Hashes, Offsets]:
        """The shingles of the questions at ``order`` (places among those left), in that order; the batches lose theirs."""
        counts = [len(batch.offsets) - 1 for batch in self._batches]
        lengths = np.concatenate([np.zeros(0, np.int64), *(np.diff(batch.offsets) for batch in self._batches)])
        ends = np.zeros(len(order) + 1, np.int64)
        np.cumsum(lengths[order], out=ends[1:])
        target = np.full(len(lengths), NONE, np.int64)
        target[order] = ends[:-1]
        values = np.empty(ends[-1], np.uint64)
        start = 0
        for at, (batch, count) in enumerate(zip(self._batches, counts, strict=True)):
            to = np.repeat(target[start : start + count], np.diff(batch.offsets))
            within = np.arange(len(batch.shingles)) - np.repeat(batch.offsets[:-1], np.diff(batch.offsets))
            inside = to != NONE
            values[(to + within)[inside]] = batch.shingles[inside]
            start += count
            self._batches[at] = Batch(
                batch.verdicts, batch.matched, batch.evidence, batch.keys, batch.shingles[:0], batch.offsets[:1]
            )
        return values, ends


def _by_id(ids: pa.Array, generators: NDArray[np.int16]) -> NDArray[np.int64]:
    """The order of questions by their generator's place in the mix, then by the numbers in their ids (generator/shard/row)."""
    try:
        parts = pc.split_pattern(ids, "/", max_splits=2, reverse=True)
        shard, row = (pc.list_element(parts, at).cast(pa.int64()).to_numpy(zero_copy_only=False) for at in (1, 2))
    except (pa.ArrowInvalid, pa.ArrowIndexError):
        keys: Sequence[tuple[int, list[tuple[int, int, str]]]] = [
            (int(g), [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in (name or "").split("/")])
            for g, name in zip(generators, ids.to_pylist(), strict=True)
        ]
        return np.array(sorted(range(len(ids)), key=keys.__getitem__), np.int64)
    return np.lexsort((row, shard, generators))
