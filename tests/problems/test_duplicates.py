import random

import numpy as np
import pytest

from scalequest.problems.duplicates import NONE, exact_twins, near_twins


def arrays(sets: list[set[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Sets of small numbers as hashes that fill 64 bits."""
    values = [np.array(sorted(s), np.uint64) * np.uint64(0x9E3779B97F4A7C15) for s in sets]
    return np.concatenate(values), np.cumsum([0, *map(len, sets)])


def compared_with_all(sets: list[set[int]], threshold: float) -> list[tuple[int, float]]:
    """The same by comparing each set with every earlier one that stays."""
    stay: list[int] = []
    found = []
    for at, own in enumerate(sets):
        best = max(((len(own & sets[i]) / len(own | sets[i]), -i) for i in stay), default=(0.0, 1))
        if best[0] >= threshold:
            found.append((-best[1], best[0]))
        else:
            found.append((NONE, 0.0))
            stay.append(at)
    return found


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7, 0.85, 0.9, 0.99])
@pytest.mark.parametrize("seed", range(3))
def test_the_join_finds_what_comparing_all_finds(threshold: float, seed: int):
    rng = random.Random(seed)
    sets: list[set[int]] = []
    for _ in range(400):
        if sets and rng.random() < 0.7:  # an edit of an earlier set, also of one that is a duplicate
            old = set(rng.choice(sets))
            for _ in range(rng.randrange(6)):
                old.discard(rng.choice(sorted(old or {0})))
                old.add(rng.randrange(60))
            sets.append(old or {1})
        else:
            sets.append({rng.randrange(200) for _ in range(rng.randint(1, 40))})
    found = near_twins(*arrays(sets), threshold)
    assert list(zip(found.first.tolist(), found.similarity.tolist(), strict=True)) == compared_with_all(sets, threshold)
    assert 0 < np.sum(found.first != NONE) < len(sets)


def test_equal_similarities_go_to_the_earliest():
    # 8 of 10 shared with both.
    sets = [{0, *range(10, 18), 1}, {2, *range(10, 18), 3}, set(range(10, 18))]
    assert near_twins(*arrays(sets), 0.8).first.tolist() == [NONE, NONE, 0]


def test_the_threshold_itself_is_a_duplicate():
    # 17 of 20 elements: 0.85 exactly, and 0.85 has no exact float.
    sets = [set(range(20)), set(range(17))]
    assert near_twins(*arrays(sets), 0.85).first.tolist() == [NONE, 0]
    assert near_twins(*arrays(sets), 0.8500001).first.tolist() == [NONE, NONE]


def test_a_crowd_of_near_duplicates_is_compared_with_the_one_that_is_kept():
    # 200,000 questions of one template that differ in one number: all pairs would be 2e10 comparisons.
    n = 200_000
    common = np.arange(1, 41, dtype=np.uint64)
    rows = np.empty((n, 41), np.uint64)
    rows[:, :40], rows[:, 40] = common, np.arange(1000, 1000 + n)
    found = near_twins(rows.ravel() * np.uint64(0x9E3779B97F4A7C15), np.arange(0, 41 * n + 1, 41), 0.85)
    # 40 shared of 42.
    assert found.first.tolist() == [NONE] + [0] * (n - 1)
    assert set(found.similarity[1:].tolist()) == {40 / 42}


def test_exact_duplicates_name_the_first_of_their_key():
    keys = np.array([[1, 2], [1, 3], [1, 2], [2, 1], [1, 3], [1, 2]], np.uint64)
    assert exact_twins(keys).tolist() == [NONE, NONE, 0, NONE, 1, 0]
    assert exact_twins(np.zeros((0, 2), np.uint64)).tolist() == []
