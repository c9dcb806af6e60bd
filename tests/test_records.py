from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scalequest import records
from scalequest.errors import UserError
from scalequest.records import FILTERED, SCORE, read_rows, read_table, table, write_parts, write_rows, write_table

SCHEMAS = {name: value for name, value in vars(records).items() if isinstance(value, pa.Schema)}


def scores(n: int) -> list[dict[str, Any]]:
    return [{"id": f"sums/0/{i}", "score": i / 4} for i in range(n)]  # quarters are exact in 32 bits


@pytest.mark.parametrize("path", ["scores.parquet", "scores"], ids=["file", "folder"])
def test_rows_come_back_as_they_were(tmp_path: Path, path: str):
    write_rows(tmp_path / path, scores(5), SCORE)
    assert read_rows(tmp_path / path, SCORE) == scores(5)


@pytest.mark.parametrize("schema", SCHEMAS.values(), ids=SCHEMAS)
def test_every_record_type_keeps_empty_values_and_no_rows(tmp_path: Path, schema: pa.Schema):
    row = dict.fromkeys(schema.names)
    write_rows(tmp_path / "one.parquet", [row], schema)
    assert read_rows(tmp_path / "one.parquet", schema) == [row]
    write_rows(tmp_path / "none", [], schema)
    assert read_rows(tmp_path / "none", schema) == []


@pytest.mark.parametrize(
    "row",
    [
        pytest.param({"id": "a"}, id="field_missing"),
        pytest.param({"id": "a", "score": 1.0, "rank": 2}, id="field_unknown"),
        pytest.param({"score": 1.0, "ident": "a"}, id="field_misspelt"),
    ],
)
def test_a_row_of_another_shape_is_our_bug(row: dict[str, Any]):
    with pytest.raises(AssertionError, match="row has"):
        table([{"id": "b", "score": 0.0}, row], SCORE)


def test_a_value_of_another_type_is_refused():
    with pytest.raises((pa.ArrowInvalid, pa.ArrowTypeError)):
        table([{"id": "a", "score": "high"}], SCORE)


def test_a_folder_is_cut_into_parts_and_read_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(records, "ROWS_PER_PART", 4)
    write_parts(tmp_path / "scores", table(scores(9), SCORE))
    parts = sorted((tmp_path / "scores").iterdir())
    # 9 rows in parts of 4: 4 + 4 + 1.
    assert [p.name for p in parts] == ["part-00000.parquet", "part-00001.parquet", "part-00002.parquet"]
    assert [pq.read_metadata(p).num_rows for p in parts] == [4, 4, 1]
    assert read_rows(tmp_path / "scores", SCORE) == scores(9)


def test_equal_tables_are_equal_bytes_however_they_were_put_together(tmp_path: Path):
    whole = table(scores(1_000), SCORE)
    pieces = pa.concat_tables([table(scores(1_000)[i : i + 7], SCORE) for i in range(0, 1_000, 7)])
    write_table(tmp_path / "a", whole)
    write_table(tmp_path / "b", pieces)
    write_table(tmp_path / "c", read_table(tmp_path / "a", SCORE))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes() == (tmp_path / "c").read_bytes()


def test_only_the_columns_asked_for_are_read(tmp_path: Path):
    write_rows(tmp_path / "s.parquet", scores(2), SCORE)
    assert read_rows(tmp_path / "s.parquet", SCORE, columns=["id"]) == [{"id": "sums/0/0"}, {"id": "sums/0/1"}]


def test_a_file_of_other_columns_is_refused_with_both(tmp_path: Path):
    write_rows(tmp_path / "s.parquet", scores(1), SCORE)
    with pytest.raises(UserError) as caught:
        read_rows(tmp_path / "s.parquet", FILTERED)
    assert f"{tmp_path / 's.parquet'}: columns {{'id': 'string', 'score': 'float'}}, expected" in str(caught.value)
    assert "'difficulty': 'float'" in str(caught.value)
    assert "rerun its stage" in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" * 9], ids=["empty", "cut", "damaged"])
def test_a_file_that_is_no_parquet_is_named(tmp_path: Path, content: bytes):
    (tmp_path / "x.parquet").write_bytes(content)
    with pytest.raises(UserError, match=r"x.parquet: no whole Parquet file \(.*\). Expected one .* dvc checkout"):
        read_rows(tmp_path / "x.parquet", SCORE)


def test_a_page_that_is_damaged_is_named(tmp_path: Path):
    path = tmp_path / "x.parquet"
    write_rows(path, scores(1_000), SCORE)
    content = bytearray(path.read_bytes())
    content[60:200] = bytes(140)
    path.write_bytes(content)
    for read in (lambda: read_rows(path, SCORE), lambda: list(records.StoredRows(path, SCORE))):
        with pytest.raises(UserError, match=r"x.parquet: no whole Parquet file"):
            read()


def test_a_column_of_another_type_is_refused(tmp_path: Path):
    doubles = pa.schema([pa.field("id", pa.string()), pa.field("score", pa.float64())])
    pq.write_table(pa.Table.from_pylist(scores(1), schema=doubles), tmp_path / "s.parquet")
    with pytest.raises(UserError, match="'score': 'double'"):
        read_rows(tmp_path / "s.parquet", SCORE)


def test_one_bad_part_of_many_is_refused(tmp_path: Path):
    write_rows(tmp_path / "s" / "part-00000.parquet", scores(1), SCORE)
    write_rows(tmp_path / "s" / "part-00001.parquet", [dict.fromkeys(FILTERED.names)], FILTERED)
    with pytest.raises(UserError, match=r"part-00001\.parquet: columns"):
        read_rows(tmp_path / "s", SCORE)


@pytest.mark.parametrize("make_folder", [False, True], ids=["nothing_there", "empty_folder"])
def test_what_is_not_there_is_named(tmp_path: Path, make_folder: bool):
    if make_folder:
        (tmp_path / "s").mkdir()
    with pytest.raises(UserError, match="s: no Parquet file there; run the stage that writes it"):
        read_rows(tmp_path / "s", SCORE)


@pytest.mark.parametrize("sizes", [[], [0], [3], [50_000], [70_000, 1, 60_000], [20_000] * 5, [49_999, 1, 50_000, 2]])
@pytest.mark.parametrize("suffix", ["", ".parquet"], ids=["folder", "file"])
def test_a_stream_of_tables_gives_the_files_of_the_whole(tmp_path: Path, sizes: list[int], suffix: str):
    ids = [str(n) for n in range(sum(sizes))]
    whole = pa.Table.from_pydict({"id": ids, "score": [n / 4 for n in range(len(ids))]}, schema=records.SCORE)
    starts = [sum(sizes[:k]) for k in range(len(sizes))]
    tables = (whole.slice(start, size) for start, size in zip(starts, sizes, strict=True))
    paths = [tmp_path / f"{name}{suffix}" for name in ("stream", "whole")]
    assert records.write_stream(paths[0], tables, records.SCORE) == len(ids)
    records.write_parts(paths[1], whole)
    read = [{f.name: f.read_bytes() for f in path.iterdir()} if not suffix else path.read_bytes() for path in paths]
    assert read[0] == read[1]


def test_a_stream_that_fails_leaves_no_file(tmp_path: Path):
    def tables():
        yield table(scores(60_000), SCORE)
        raise UserError("no more")

    with pytest.raises(UserError, match="no more"):
        records.write_stream(tmp_path / "s.parquet", tables(), SCORE)
    assert not list(tmp_path.iterdir())


# ----------------------------------------------------------------------------------------------------- by row group


def test_row_groups_are_the_file_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(records, "ROWS_PER_PART", 4)
    write_rows(tmp_path / "s.parquet", scores(9), SCORE)
    groups = records.row_groups(tmp_path / "s.parquet", SCORE)
    assert [(group.number, group.rows) for group in groups] == [(0, 4), (1, 4), (2, 1)]
    assert [row for group in groups for row in group.read().to_pylist()] == scores(9)
    assert groups[0].read(["id"]).column_names == ["id"]
    write_rows(tmp_path / "none", [], SCORE)
    assert records.row_groups(tmp_path / "none", SCORE) == []


def test_stored_rows_are_read_anew_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(records, "ROWS_PER_PART", 5)
    monkeypatch.setattr(records, "ROWS_HELD", 2)
    given = [{"id": str(n), "score": n / 2} for n in range(13)]
    records.write_rows(tmp_path / "scores", given, SCORE)
    found = records.StoredRows(tmp_path / "scores", SCORE)
    assert len(found) == 13
    assert list(found) == list(found) == given
    assert given[7] in found
    assert {"id": "7", "score": 0.0} not in found


@pytest.mark.parametrize("after", [0, 2, 4, 5], ids=["from_the_start", "in_order", "behind", "at_the_end"])
def test_places_are_found_wherever_they_are_expected(after: int):
    ids = pa.array(["a", "b", "c", "d", "e"])
    assert records.places(pa.array(["c", "c", "e"]), ids, after).to_pylist() == [2, 2, 4]
    assert records.places(pa.array(["c", "x"]), ids, after).to_pylist() == [2, None]


@pytest.mark.parametrize("each", [1, 3])
def test_ids_in_order_are_not_looked_up_among_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, each: int):
    monkeypatch.setattr(records, "ROWS_PER_PART", 10)
    names = [f"{n:03}" for n in range(100)]
    write_rows(tmp_path / "s.parquet", [{"id": name, "score": 0.0} for name in names for _ in range(each)], SCORE)
    groups, read, index_in = records.row_groups(tmp_path / "s.parquet", SCORE), [], records.pc.index_in

    def counted(rows: pa.Array, value_set: pa.Array) -> pa.Array:
        read.append(len(value_set))
        return index_in(rows, value_set=value_set)

    monkeypatch.setattr(records.pc, "index_in", counted)
    found = records.spans(groups, "id", pa.array(names))
    assert found == [(n * 10 // each, (n * 10 + 9) // each) for n in range(10 * each)]
    assert max(read) == 11  # of 100


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (["a", "a", "b", "c", "c", "e"], [(0, 0), (1, 2), (2, 4)]),  # of two rows each: a a, b c, c e
        (["e", "d", "a", "b", "c", "c"], [(3, 4), (0, 1), (2, 2)]),
    ],
    ids=["in_order", "in_another_order"],
)
def test_spans_are_the_first_and_last_place_of_each_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: list[str], expected: list[tuple[int, int]]
):
    monkeypatch.setattr(records, "ROWS_PER_PART", 2)
    write_rows(tmp_path / "s.parquet", [{"id": name, "score": 0.0} for name in rows], SCORE)
    groups = records.row_groups(tmp_path / "s.parquet", SCORE)
    assert records.spans(groups, "id", pa.array(["a", "b", "c", "d", "e"])) == expected
    with pytest.raises(UserError, match=r"s.parquet: id '\w' is not among the 2 rows"):
        records.spans(groups, "id", pa.array(["a", "b"]))
