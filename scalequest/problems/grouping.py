"""Groups of duplicates among screened questions: which one is kept, and what the others match."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from scalequest.outcomes import DUPLICATES
from scalequest.problems.duplicates import NONE, Twins, exact_twins, near_twins
from scalequest.problems.meaning import DIMENSIONS, Vectors
from scalequest.problems.screening import CODES, VERDICTS, Batch
from scalequest.problems.semantic import semantic_twins
from scalequest.problems.shingles import Hashes, Offsets


@dataclass
class Grouping:
    """What is known of N questions after screening: verdict, match and evidence of each, in the order they were added.

    Attributes:
        verdicts: places in VERDICTS (N).
        kept: place of the question that a duplicate's group keeps, NONE for the others (N).
        matched: the benchmark items that single questions match (N).
        evidence: what was found in single questions (N).
    """

    verdicts: NDArray[np.int8]
    kept: NDArray[np.int64]
    matched: pa.ChunkedArray
    evidence: pa.ChunkedArray
    _ids: pa.Array
    _twin: NDArray[np.int64]
    _similarity: NDArray[np.float64]

    def columns(self, start: int, stop: int) -> tuple[pa.Array, pa.Array, pa.Array]:
        """Verdict, match and evidence of the questions ``start`` to ``stop``.

        A duplicate matches the question that is kept. Its evidence is the similarity with it. Where it duplicates
        another duplicate, the evidence names that one, and what that one duplicates, up to the one that is kept.
        """
        names = pa.array(VERDICTS).take(pa.array(self.verdicts[start:stop]))
        matched = pa.concat_arrays(self.matched.slice(start, stop - start).chunks or [pa.array([], pa.string())])
        evidence = pa.concat_arrays(self.evidence.slice(start, stop - start).chunks or [pa.array([], pa.string())])
        places = start + np.flatnonzero(self.kept[start:stop] != NONE)
        if not len(places):
            return names, matched, evidence
        mask = pa.array(self.kept[start:stop] != NONE)
        matched = pc.replace_with_mask(matched, mask, self._ids.take(pa.array(self.kept[places])))
        said = [self._evidence(int(at)) for at in places]
        return names, matched, pc.replace_with_mask(evidence, mask, pa.array(said, pa.string()))

    def _evidence(self, at: int) -> str:
        steps: list[str] = []
        while (twin := int(self._twin[at])) != NONE:
            kind = VERDICTS[self.verdicts[at]]
            last = self._twin[twin] == NONE
            name = "" if last else self._ids[twin].as_py()
            if kind == "exact_duplicate":
                steps += [] if last else [f"equals {name}"]
            else:
                measure = "jaccard" if kind == "near_duplicate" else "cosine"
                steps.append(f"{measure} {self._similarity[at]:.3f}" + (f" with {name}" if name else ""))
            at = twin
        return ", ".join(steps)


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

    def group(self, jaccard: float, cosine: float = 1.0) -> Grouping:
        """Find the duplicates. The first of a group is kept: by the mix's order, then by the numbers in its id.

        Exact duplicates come first, then near ones among those that are left, then semantic ones. So the batches may be
        in any order.

        Args:
            jaccard: least Jaccard similarity of near duplicates; 1 looks for none.
            cosine: least cosine of semantic duplicates; 1 looks for none.
        """
        batches, ids = self._batches, pa.concat_arrays([pa.array([], pa.string()), *self._ids])
        verdicts = np.concatenate([np.zeros(0, np.int8), *(batch.verdicts for batch in batches)])
        left = np.flatnonzero(verdicts == CODES["kept"])
        order = _by_id(ids.take(pa.array(left)), np.concatenate([np.zeros(0, np.int16), *self._generators])[left])
        keys = np.concatenate([np.zeros((0, 2), np.uint64), *(batch.keys for batch in batches)])[order]
        twin, similarity = np.full(len(ids), NONE, np.int64), np.zeros(len(ids))

        def note(verdict: str, among: NDArray[np.int64], found: Twins) -> NDArray[np.int64]:
            """Note the duplicates ``among`` places of ``order``, and return the places that are left."""
            at = among[found.first != NONE]
            rows, leaders = left[order[at]], left[order[among[found.first[found.first != NONE]]]]
            twin[rows], similarity[rows] = leaders, found.similarity[found.first != NONE]
            verdicts[rows] = CODES[verdict]
            return among[found.first == NONE]

        first = exact_twins(keys)
        alone = note("exact_duplicate", np.arange(len(order)), Twins(first, np.zeros(len(first))))
        if jaccard < 1:
            alone = note("near_duplicate", alone, near_twins(*self._gather(order[alone]), jaccard))
        if cosine < 1:
            numbers = np.concatenate([np.zeros(0, np.uint64), *(batch.numbers for batch in batches)])[order[alone]]
            note("semantic_duplicate", alone, semantic_twins(self._gather_vectors(order[alone]), numbers, cosine))
        # What a duplicate duplicates may be a duplicate of the next kind.
        kept = twin.copy()
        for _ in DUPLICATES:
            further = np.flatnonzero(kept != NONE)
            further = further[twin[kept[further]] != NONE]
            kept[further] = twin[kept[further]]
        matched = pa.chunked_array([batch.matched for batch in batches], pa.string())
        evidence = pa.chunked_array([batch.evidence for batch in batches], pa.string())
        return Grouping(verdicts, kept, matched, evidence, ids, twin, similarity)

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
            self._batches[at] = replace(batch, shingles=batch.shingles[:0], offsets=batch.offsets[:1])
        return values, ends

    def _gather_vectors(self, order: NDArray[np.int64]) -> Vectors:
        """The vectors of the questions at ``order``, in that order; the batches lose theirs."""
        target = np.full(sum(len(batch.keys) for batch in self._batches), NONE, np.int64)
        target[order] = np.arange(len(order))
        found = np.empty((len(order), DIMENSIONS), np.int8)
        start = 0
        for at, batch in enumerate(self._batches):
            to = target[start : start + len(batch.keys)]
            found[to[to != NONE]] = batch.vectors[to != NONE]
            start += len(to)
            self._batches[at] = replace(batch, vectors=batch.vectors[:0])
        return found


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
