import math
import tracemalloc
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from scalequest import records
from scalequest.problems.draw import hash_place
from scalequest.records import LEDGER, table, write_stream
from scalequest.report.data import shown_rows
from scalequest.report.tables import Asked, Stored

OUTCOMES = ("kept", "too_easy", "kept", "near_duplicate", "kept")


def rows(n: int, text: str = "How many are {}?") -> list[dict[str, Any]]:
    return [
        {"id": f"g/0/{k}", "generator": "sums" if k % 3 else "stories", "question": text.format(k),
         "outcome": OUTCOMES[k % 5], "matched": "", "evidence": "", "verdict": "solvable",
         "difficulty": None if k % 7 == 0 else k / 8, "min_difficulty": 0.5}
        for k in range(n)
    ]  # fmt: skip


def stored(path: Path, made: list[dict[str, Any]]) -> Stored:
    write_stream(path, (table(made[at : at + 50], LEDGER) for at in range(0, len(made), 50)), LEDGER)
    return Stored(path, LEDGER)


# Arrow's threads may still free buffers when a test is over: a pool that ended with it crashed the process.
POOLS: list[pa.MemoryPool] = []


@pytest.fixture(autouse=True)
def small_row_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "ROWS_PER_PART", 100)


def test_rows_are_found_by_place_and_by_value_in_any_row_group(tmp_path: Path) -> None:
    made = rows(250)
    ledger = stored(tmp_path / "ledger.parquet", made)
    assert len(ledger) == 250
    assert ledger.take([249, 0, 100, 99, 0]) == [made[k] for k in (249, 0, 100, 99, 0)]
    assert ledger.take([]) == []
    assert ledger.having("id", {"g/0/240", "g/0/3", "g/0/nobody"}) == [made[3], made[240]]
    assert ledger.having("id", ()) == []
    own = ledger.numbers("difficulty", generator="stories")
    expected = [k / 8 if k % 7 else math.nan for k in range(0, 250, 3)]
    np.testing.assert_array_equal(own, np.array(expected, np.float32))


def test_a_draw_is_that_of_all_rows_at_once(tmp_path: Path) -> None:
    made = rows(250)
    by_hash = sorted(made, key=lambda row: hash_place(0, row["id"], "report"))
    for (generator, outcome), own in shown_rows(
        stored(tmp_path / "ledger.parquet", made), 3, "generator", "outcome"
    ).items():
        assert own == [row for row in by_hash if (row["generator"], row["outcome"]) == (generator, outcome)][:3]


def test_what_is_counted_is_that_of_all_rows(tmp_path: Path) -> None:
    made = rows(250, "One  two\n{}")
    asked = Asked(stored(tmp_path / "ledger.parquet", made))
    assert asked.counts() == Counter((row["generator"], row["outcome"]) for row in made)
    assert asked.kept.tolist() == [row["outcome"] == "kept" for row in made]
    assert asked.of("sums").tolist() == [row["generator"] == "sums" for row in made]
    assert not asked.of("nobody").any()
    assert not asked.ended_as("nothing").any()
    assert set(asked.words.tolist()) == {3.0}
    assert np.isnan(asked.difficulty).tolist() == [row["difficulty"] is None for row in made]


def test_memory_grows_by_bytes_and_not_by_rows(tmp_path: Path) -> None:
    peaks = []
    pool = pa.default_memory_pool()
    for n in (500, 5_000):
        ledger = stored(tmp_path / f"{n}.parquet", rows(n, "x" * 2_000 + "{}"))
        own = pa.proxy_memory_pool(pool)
        POOLS.append(own)
        pa.set_memory_pool(own)
        tracemalloc.start()
        try:
            asked = Asked(ledger)
            ledger.first_drawn(20, "report", "outcome")
            ledger.take(range(0, n, n // 10))
            ledger.having("id", {"g/0/7"})
            ledger.numbers("difficulty")
            assert len(asked.words) == n
            peaks.append(tracemalloc.get_traced_memory()[1] + own.max_memory())
        finally:
            tracemalloc.stop()
            pa.set_memory_pool(pool)
    # 4,500 questions more: 2 kB of text each would be 9 MB.
    assert peaks[1] < peaks[0] + 4_500 * 100
