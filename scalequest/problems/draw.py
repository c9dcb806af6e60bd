"""Drawing some rows of many: by a hash of seed and id, so that neither a file's order nor its length decides."""

from collections.abc import Hashable, Sequence
from hashlib import sha256


def hash_place(seed: int, row_id: str, purpose: str = "") -> float:
    """Place of a row in [0, 1), by a hash of seed, purpose and id alone: the file's order and length do not move it.

    Draws of one purpose agree, and draws of two purposes are independent. Every caller names its purpose: without one, the
    100 lowest places of one stage would all be among the places below 0.2 that the next stage holds out.
    """
    key = f"{seed}/{purpose}/{row_id}" if purpose else f"{seed}/{row_id}"
    return int.from_bytes(sha256(key.encode()).digest()[:8], "big") / 2**64


def draw(
    ids: Sequence[str],
    n: int | None,
    seed: int,
    strata: Sequence[Hashable] | None = None,
    evenly: bool = False,
    purpose: str = "",
) -> list[int]:
    """Positions of ``n`` of N rows in ascending order, drawn by hash of seed and id; draws of growing ``n`` are nested.

    A file sorted by subject must not give one subject, so no stage takes "the first n rows".

    Args:
        ids: the rows' ids. Rows with the same id have independent places, by their order among themselves.
        n: rows to draw; None or at least N = all.
        seed: of the draw.
        strata: the group of each row (source, subject, level). Each group is drawn from separately.
        evenly: equal numbers of each stratum; one that has fewer gives all it has, and the others fill up to ``n``. Else in
            proportion to the strata's sizes.
        purpose: what is drawn for. Draws for two purposes from the same ids are independent.
    """
    groups: Sequence[Hashable] = [""] * len(ids) if strata is None else strata
    members: dict[Hashable, list[tuple[float, int]]] = {}
    seen: dict[str, int] = {}
    for at, (row_id, group) in enumerate(zip(ids, groups, strict=True)):
        seen[row_id] = again = seen.get(row_id, -1) + 1
        place = hash_place(seed, f"{row_id}#{again}" if again else row_id, purpose)
        members.setdefault(group, []).append((place, at))
    order: list[tuple[float, float, int]] = []
    for places in members.values():
        for rank, (place, at) in enumerate(sorted(places)):
            order.append((rank if evenly else (rank + 0.5) / len(places), place, at))
    return sorted(at for _, _, at in sorted(order)[:n])
