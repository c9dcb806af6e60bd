"""The seed of a run, a stage and a shard."""

from hashlib import sha256


def shard_seed(run_seed: int, stage: str, shard: int) -> int:
    """Seed of one shard, in [0, 2**31): from the run's seed, the stage's name and the shard's number only."""
    return int.from_bytes(sha256(f"{run_seed}/{stage}/{shard}".encode()).digest()[:4], "big") >> 1
