"""The bytes that code outside the dependencies of any stage writes: one tiny file per record type, metrics, JSON lines.

The ground floor (io, records, outcomes, params, errors) and `runtime` are no dependency of a stage, so DVC reruns nothing when
they change. What they write is pinned here instead. To print the hashes anew: python -m tests.test_golden
"""

import json
import math
import re
import tempfile
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from scalequest import outcomes, records
from scalequest.io import read_json, rounded, write_json, write_jsonl
from scalequest.records import ROWS_PER_PART, SCORE, write_rows
from scalequest.runtime.stage import StageRun
from scalequest.seeding import row_seed, shard_seed
from tests.fakes import ROOT

GOLDEN = Path(__file__).parent / "golden" / "bytes.json"
CHANGED = "this changes the bytes of every output: rerun with `dvc repro -f`, then pin the new hash"

SCHEMAS = {name: value for name, value in vars(records).items() if isinstance(value, pa.Schema)}
VALUES: dict[pa.DataType, list[Any]] = {
    records.TEXT: ["sums/0/1", "π ≈ 3.14\n", "", None],
    records.INT: [0, -7, 2**31 - 1, None],
    records.REAL: [0.25, -1.5e-7, 1e9, None],
    pa.int64(): [2**40, 0, -1, None],
}


def digest(path: Path) -> str:
    """sha256 of a file, or of a folder's files with their names."""
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    whole = sha256()
    for file in files:
        whole.update(file.name.encode() + b"\0" + file.read_bytes() if path.is_dir() else file.read_bytes())
    return whole.hexdigest()


def parquet_files(folder: Path) -> Iterator[tuple[str, Path]]:
    """One file per schema with every kind of value, and a folder whose parts and row groups are cut."""
    for name, schema in SCHEMAS.items():
        columns = [[VALUES[field.type][(row + at) % 4] for row in range(4)] for at, field in enumerate(schema)]
        rows = [dict(zip(schema.names, row, strict=True)) for row in zip(*columns, strict=True)]
        write_rows(folder / f"{name}.parquet", rows, schema)
        yield f"{name}.parquet", folder / f"{name}.parquet"
    many = [{"id": str(n), "score": n / 4} for n in range(ROWS_PER_PART + 1)]
    write_rows(folder / "parts", many, SCORE)
    yield "parts", folder / "parts"


def text_files(folder: Path) -> Iterator[tuple[str, Path]]:
    """Metrics as a stage writes them, and JSON lines."""
    values = {"rows": 3, "share": rounded(2 / 3), "pi": rounded(math.pi, 2), "by": {"sums": 0.1 + 0.2, "note": "π"}}
    StageRun(None).metrics(folder / "metrics.json", values, {"one_verdict": True, "no_verdicts": False})
    yield "metrics.json", folder / "metrics.json"
    write_jsonl(folder / "rows.jsonl", [{"z": 1, "a": "π\n"}, {"a": None, "b": [1.5, True]}])
    yield "rows.jsonl", folder / "rows.jsonl"
    StageRun(None).plot(
        folder / "curve.csv", ("step", "loss", "margin"), [{"step": 1, "loss": 2 / 3}, {"step": 2e6, "margin": -1e-9}]
    )
    yield "curve.csv", folder / "curve.csv"


def names(folder: Path) -> Iterator[tuple[str, Path]]:
    """Names of outcomes and warnings, which stages write into tables and metrics; sentences may change."""
    constants = {
        name: sorted(value) if isinstance(value, dict) else value
        for name, value in vars(outcomes).items()
        if name.isupper() and name != "NEXT_STEPS" and isinstance(value, dict | str | float | int)
    }
    write_json(folder / "outcomes.json", constants)
    yield "outcomes.json", folder / "outcomes.json"
    write_json(folder / "seeds.json", [shard_seed(17, "judge", 3), row_seed(17, "respond", "sums/0/1#2")])
    yield "seeds.json", folder / "seeds.json"


def hashes() -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        parquet = {key: digest(path) for key, path in parquet_files(folder)}
        text = {key: digest(path) for key, path in (*text_files(folder), *names(folder))}
    return {"pyarrow": pa.__version__, "parquet": parquet, "text": text}


PINNED: dict[str, Any] = read_json(GOLDEN) if GOLDEN.exists() else {"pyarrow": "", "parquet": {}, "text": {}}


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    return hashes()


def test_every_record_type_is_pinned(found: dict[str, Any]) -> None:
    assert set(PINNED["parquet"]) == set(found["parquet"])
    assert set(PINNED["text"]) == set(found["text"])


@pytest.mark.parametrize("name", PINNED["text"])
def test_text_files_have_their_bytes(found: dict[str, Any], name: str) -> None:
    assert found["text"][name] == PINNED["text"][name], f"{name}: {CHANGED}"


def test_the_pinned_parquet_is_that_of_the_locked_pyarrow() -> None:
    # Parquet's bytes depend on pyarrow's version: its name stands in every file.
    locked = re.search(r"^pyarrow==(\S+)", (ROOT / "requirements" / "cpu.lock").read_text(), re.MULTILINE)
    assert locked
    assert PINNED["pyarrow"] == locked[1], f"requirements/cpu.lock has another pyarrow: {CHANGED}"


@pytest.mark.parametrize("name", PINNED["parquet"])
def test_parquet_files_have_their_bytes(found: dict[str, Any], name: str) -> None:
    if pa.__version__ != PINNED["pyarrow"]:
        pytest.skip(f"pyarrow {pa.__version__} is installed, the bytes are those of the lock's {PINNED['pyarrow']}")
    assert found["parquet"][name] == PINNED["parquet"][name], f"{name}: {CHANGED}"


# ------------------------------------------------------------------------- an edit of what is exempt does not pass


@pytest.mark.parametrize(
    ("target", "change", "kind"),
    [
        pytest.param("scalequest.records.COMPRESSION", "gzip", "parquet", id="parquet_compression"),
        pytest.param("scalequest.records.ROWS_PER_PART", 10_000, "parquet", id="row_groups"),
        pytest.param("tests.test_golden.rounded", lambda value, digits=6: round(value, 4), "text", id="rounding"),
        pytest.param("scalequest.outcomes.KEPT", "passed", "text", id="outcome_name"),
        pytest.param(
            "scalequest.runtime.stage.write_json",
            lambda path, data: path.write_text(json.dumps(data)),
            "text",
            id="metrics_layout",
        ),
    ],
)
def test_an_edit_of_exempt_code_changes_a_pinned_hash(
    monkeypatch: pytest.MonkeyPatch, found: dict[str, Any], target: str, change: Any, kind: str
) -> None:
    monkeypatch.setattr(target, change)
    assert hashes()[kind] != found[kind]


if __name__ == "__main__":
    write_json(GOLDEN, hashes())
    print(f"written: {GOLDEN}")
