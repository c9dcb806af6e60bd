"""Which seeds teach the solver, and which are left to measure it on."""

from collections.abc import Sequence
from typing import Any

from scalequest.problems.draw import hash_place


def split_for_solver(
    seeds: Sequence[dict[str, Any]], method: str, seeds_frac: float, seed: int
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Seeds that the solver is trained on, and seeds that it has never seen.

    A solver that was trained on a problem answers it better than a new one of the same kind. Fail rates and right and wrong
    answers of such problems would be labels of its memory. The split is by a hash of the run's seed and the id, so that more
    seeds move none across.

    Args:
        seeds: rows with ``id``.
        method: ``solver.method``; with ``none`` nothing is taught and every seed is unseen.
        seeds_frac: ``solver.seeds_frac``, the share to teach.
        seed: the run's.

    Returns:
        Taught and unseen seeds, in the given order.
    """
    frac = 0.0 if method == "none" else seeds_frac
    taught = [hash_place(seed, row["id"], "solver") < frac for row in seeds]
    return (
        [row for row, is_taught in zip(seeds, taught, strict=True) if is_taught],
        [row for row, is_taught in zip(seeds, taught, strict=True) if not is_taught],
    )
