"""Seeds in [0, 2**31): of a shard, and of a row."""

from hashlib import sha256


def shard_seed(run_seed: int, stage: str, shard: int) -> int:
    """Seed of one shard: from the run's seed, the stage's name and the shard's number only."""
    return _seed(f"{run_seed}/{stage}/{shard}")


def row_seed(run_seed: int, stage: str, row_id: str) -> int:
    """Seed of one row: from the run's seed, the stage's name and the row's id only.

    It does not depend on which other rows there are. Sample ``k`` of a row has the id ``ROW#k``.
    """
    return _seed(f"{run_seed}/{stage}/row/{row_id}")


def _seed(text: str) -> int:
    return int.from_bytes(sha256(text.encode()).digest()[:4], "big") >> 1
