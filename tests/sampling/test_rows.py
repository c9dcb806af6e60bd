"""Rows are mapped in a stream: what is asked is made when its shard is due, and what came of it is read back in pieces."""

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scalequest.params import Params
from scalequest.records import SCORED
from scalequest.runtime import rows as row_stores
from scalequest.runtime.facts import StageFacts
from scalequest.runtime.stage import StageRun
from scalequest.sampling import rows
from scalequest.sampling.rows import Each, map_rows

SHARD = 10


class Item:
    """A number; counts how many of its kind are in memory."""

    live = most = 0

    def __init__(self, number: int) -> None:
        self.number = number
        Item.live += 1
        Item.most = max(Item.most, Item.live)

    def __del__(self) -> None:
        Item.live -= 1


def key(item: Item) -> str:
    return f"{item.number:032x}"


@pytest.fixture
def mapped(tmp_path: Path, laptop: Params, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(rows, "ROWS_READ", 7)

    def run(numbers: list[int], on_disk: bool = True) -> tuple[list[float], list[list[int]]]:
        asked: list[list[int]] = []

        def work(items: Any, _seed: int, _shard: int) -> Any:
            asked.append([item.number for item in items])
            return [{"key": key(item), "score": float(item.number)} for item in items], 0

        stage = StageRun(laptop, StageFacts("judge", tmp_path, {"m": "x"}, {"n": str(numbers)}) if on_disk else None)
        found = map_rows(stage, Each(numbers, lambda n: [Item(n)]), key, lambda: work, SCORED, SHARD, Path("m"), {})
        scores = [row["score"] for row in found]
        assert [row["score"] for row in found] == scores, "they can be read twice"
        assert len(found) == len(numbers)
        return scores, asked

    return run


@pytest.mark.parametrize("on_disk", [True, False])
def test_one_shard_of_what_is_asked_is_in_memory(mapped: Any, on_disk: bool):
    Item.live = Item.most = 0
    numbers = [n * 7919 % 997 for n in range(197)]
    scores, asked = mapped(numbers, on_disk)
    assert scores == numbers
    assert asked == [numbers[at : at + SHARD] for at in range(0, 197, SHARD)]
    # The shard before is let go of when the next one is there.
    assert Item.most <= 2 * SHARD + 2


def test_what_is_missing_comes_after_whole_shards_and_what_is_asked_twice_is_made_once(mapped: Any):
    mapped([3, 14, 15])
    numbers = [*range(30), 5, 6, 35]
    scores, asked = mapped(numbers)
    assert scores == numbers
    # Of the third shard and of the last one nothing was there. What the two others lack is one batch, cut anew.
    assert asked == [
        [*range(20, 30)],
        [35],
        [0, 1, 2, 4, 5, 6, 7, 8, 9, 10],
        [11, 12, 13, 16, 17, 18, 19],
    ]


def test_few_files_of_the_store_are_in_memory(mapped: Any, monkeypatch: pytest.MonkeyPatch):
    opened: list[row_stores.RowStore] = []
    reading = row_stores.RowStore.rows

    def rows_of(self: row_stores.RowStore, places: Any) -> list[dict[str, Any]]:
        found = reading(self, places)
        opened.append(self)
        assert len(self._read) <= row_stores.FILES_HELD
        return found

    monkeypatch.setattr(row_stores.RowStore, "rows", rows_of)
    numbers = [n * 7919 % 997 for n in range(200)]
    assert mapped(numbers)[0] == numbers
    assert len(opened[-1]._parts) == 20
    # Found again in the order of other rows, which is no file's.
    assert mapped(sorted(numbers)) == (sorted(numbers), [])


def test_keys_are_found_as_numpy_finds_them_in_half_of_its_memory():
    names = [f"{n * 7919 % 19_997:032x}" for n in range(20_000)]  # three of them come up twice
    assert len(set(names)) == 19_997
    tracemalloc.start()
    store = row_stores.RowStore(None, SCORED, iter(names))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    keys, first, places = np.unique(np.array(names, "S32"), return_index=True, return_inverse=True)
    for found, expected in ((store.keys, keys), (store.first, first), (store.places, places)):
        assert found.dtype == expected.dtype
        assert found.tolist() == expected.tolist()
    assert peak < 100 * len(names)


def test_a_key_that_would_be_cut_is_our_own_bug():
    with pytest.raises(AssertionError, match="more than 32 characters"):
        row_stores.RowStore(None, SCORED, ["x" * 33])
