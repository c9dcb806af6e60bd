import gzip
import json
import os
import time
from pathlib import Path

import pytest

from scalequest import io
from scalequest.errors import UserError
from scalequest.io import atomic_path, read_json, read_jsonl, read_whole, write_json, write_jsonl, write_text


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_only_when_it_is_complete(tmp_path: Path):
    target = tmp_path / "new" / "file.txt"
    with atomic_path(target) as temporary:
        temporary.write_text("half")
        assert not target.exists()
        assert temporary.parent == target.parent  # the same file system, so that the rename is atomic
    assert target.read_text() == "half"
    assert names(target.parent) == ["file.txt"]


def test_a_failure_leaves_the_old_file_and_no_rest(tmp_path: Path):
    target = tmp_path / "file.txt"
    target.write_text("old")

    def write() -> None:
        with atomic_path(target) as temporary:
            temporary.write_text("new, but")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write()
    assert target.read_text() == "old"
    assert names(tmp_path) == ["file.txt"]


def test_a_read_only_file_is_replaced(tmp_path: Path):
    # DVC makes cached outputs read-only; what is written over one must not reach the cache's copy.
    target, cached = tmp_path / "file.txt", tmp_path / "cached"
    cached.write_text("old")
    cached.chmod(0o444)
    target.hardlink_to(cached)
    write_text(target, "new")
    assert (target.read_text(), cached.read_text()) == ("new", "old")


def test_the_temporary_name_is_no_parquet_and_no_shard(tmp_path: Path):
    with atomic_path(tmp_path / "shard-000000.parquet") as temporary:
        temporary.touch()
        assert not list(tmp_path.rglob("*.parquet"))
        assert str(os.getpid()) in temporary.name


def test_equal_data_are_equal_bytes_whatever_their_order(tmp_path: Path):
    write_json(tmp_path / "a", {"b": 1, "a": {"d": 2.5, "c": None}})
    write_json(tmp_path / "b", {"a": {"c": None, "d": 2.5}, "b": 1})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert (tmp_path / "a").read_bytes().endswith(b"}\n")


def test_json_keeps_letters_as_they_are(tmp_path: Path):
    write_json(tmp_path / "a", {"q": "π ≈ 3.14 \u2028"})
    assert "π ≈ 3.14" in (tmp_path / "a").read_text(encoding="utf-8")
    assert read_json(tmp_path / "a") == {"q": "π ≈ 3.14 \u2028"}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_json_refuses_what_is_no_number(tmp_path: Path, value: float):
    with pytest.raises(ValueError, match="Out of range float"):
        write_json(tmp_path / "a", {"score": value})
    assert not names(tmp_path)


def test_jsonl_comes_back_as_it_was(tmp_path: Path):
    # A line separator inside a text must not break the line.
    rows = [{"q": "one\ntwo"}, {"q": "three\u2028four\u0085"}, {"z": 1, "a": 2}]
    write_jsonl(tmp_path / "a.jsonl", rows)
    assert list(read_jsonl(tmp_path / "a.jsonl")) == rows
    assert (tmp_path / "a.jsonl").read_bytes().count(b"\n") == 3
    assert [list(json.loads(x)) for x in (tmp_path / "a.jsonl").read_text().split("\n")[2:3]] == [["z", "a"]]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param('{"a": 1}\n{"a": \n', r"x\.jsonl:2: not JSON \(Expecting value\)", id="broken"),
        pytest.param('{"a": 1}\n\n[1]\n', r"x\.jsonl:3: a list; expected a JSON object", id="list"),
        pytest.param('"a"\n', r"x\.jsonl:1: a str; expected a JSON object", id="string"),
    ],
)
def test_the_bad_line_is_named(tmp_path: Path, text: str, expected: str):
    (tmp_path / "x.jsonl").write_text(text)
    with pytest.raises(UserError, match=expected):
        list(read_jsonl(tmp_path / "x.jsonl"))


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"{", "Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"),
        (b"", "Expecting value: line 1 column 1 (char 0)"),
        (b'"\xff"', "not UTF-8 at byte 1"),
        (b"[" * 200_000, "lists or objects in one another without end"),
        (b"9" * 9_999, "a number of thousands of digits"),
    ],
    ids=["cut", "empty", "other_letters", "deep", "long_number"],
)
def test_a_document_that_is_no_json_is_named(tmp_path: Path, content: bytes, why: str):
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(UserError) as error:
        read_json(tmp_path / "x.json")
    assert str(error.value).startswith(f"{tmp_path / 'x.json'}: not JSON in UTF-8 ({why}). Expected")


def test_a_missing_jsonl_is_named(tmp_path: Path):
    with pytest.raises(UserError, match=r"x\.jsonl: no such file; expected a JSONL file"):
        list(read_jsonl(tmp_path / "x.jsonl"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(
            b'{"a": 1}\n{"a": "caf\xe9"}\n', "x.jsonl:2: not UTF-8 (byte 0xe9 at position 11)", id="windows_1252"
        ),
        pytest.param('{"a": 1}'.encode("utf-16"), "x.jsonl:1: not UTF-8 (byte 0xff at position 1)", id="utf_16"),
        pytest.param(b"[" * 200_000, "x.jsonl:1: not JSON (RecursionError)", id="deep"),
        pytest.param(b'{"a": ' + b"9" * 5_000 + b"}", "x.jsonl:1: not JSON (ValueError)", id="number_too_long"),
    ],
)
def test_a_line_that_cannot_be_read_is_named(tmp_path: Path, content: bytes, message: str):
    (tmp_path / "x.jsonl").write_bytes(content)
    with pytest.raises(UserError) as caught:
        list(read_jsonl(tmp_path / "x.jsonl"))
    assert message in str(caught.value)


def test_a_byte_order_mark_is_not_content(tmp_path: Path):
    (tmp_path / "x.jsonl").write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n{"a": 2}\r\n')
    assert list(read_jsonl(tmp_path / "x.jsonl")) == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize("damage", [lambda b: b[:-9], lambda b: b"plain text\n"], ids=["cut", "no_gzip"])
def test_a_broken_gzip_file_is_named(tmp_path: Path, damage):
    (tmp_path / "x.jsonl.gz").write_bytes(damage(gzip.compress(b'{"a": 1}\n' * 100)))
    with pytest.raises(UserError, match=r"x\.jsonl\.gz: not a complete gzip file"):
        list(read_jsonl(tmp_path / "x.jsonl.gz"))


def written(path: Path, text: str, ago_s: float = 0) -> None:
    path.write_text(text)
    os.utime(path, (time.time() - ago_s,) * 2)


@pytest.fixture
def lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(io, "QUIET_S", 0.3)
    monkeypatch.setattr(io, "PATIENCE_S", 1.0)
    return tmp_path / "dvc.lock"


@pytest.mark.parametrize(
    ("ago_s", "waits_s"),
    [
        pytest.param(60, (0, 0.2), id="old"),
        pytest.param(0, (0.2, 0.9), id="fresh"),
        pytest.param(-60, (0.2, 0.9), id="by_a_clock_that_is_ahead"),
    ],
)
def test_a_file_is_read_once_nobody_writes_it(lock: Path, ago_s: float, waits_s: tuple[float, float]):
    written(lock, "whole", ago_s)
    begin = time.monotonic()
    assert read_whole(lock, lock.read_text) == "whole"
    assert waits_s[0] <= time.monotonic() - begin <= waits_s[1]


def test_a_fresh_file_is_waited_for_only_while_somebody_may_write_it(lock: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(io, "QUIET_S", 60.0)
    monkeypatch.setattr(io, "PATIENCE_S", 60.0)
    monkeypatch.setattr(io, "SETTLED_S", 0.02)
    written(lock, "whole", 0.05)
    writers = iter([True, True, False])
    assert read_whole(lock, lock.read_text, lambda: not next(writers)) == "whole"
    assert next(writers, None) is None


def test_a_writer_that_came_after_the_question_is_noticed(lock: Path):
    written(lock, "old", 60)
    found = []

    def read() -> str:
        found.append(lock.read_text())
        if len(found) == 1:
            written(lock, "half")
        return found[-1]

    assert read_whole(lock, read, lambda: True) == "half"
    assert found == ["old", "half"]


def test_a_file_that_changed_while_it_was_read_is_read_again(lock: Path):
    written(lock, "old", 60)
    found = []

    def read() -> str:
        found.append(lock.read_text())
        if len(found) == 1:
            written(lock, "new, in part")
        return found[-1]

    assert read_whole(lock, read) == "new, in part"
    assert found == ["old", "new, in part"]


def test_an_error_counts_only_of_a_file_that_is_complete(lock: Path):
    written(lock, "old", 60)
    tries = []

    def read() -> str:
        tries.append(lock.read_text())
        if len(tries) == 1:
            written(lock, "half")
        raise ValueError(tries[-1])

    with pytest.raises(ValueError, match="half"):
        read_whole(lock, read)
    assert len(tries) == 2


@pytest.mark.parametrize("fails", [True, False])
def test_a_writer_without_end_is_not_waited_for_without_end(lock: Path, fails: bool):
    written(lock, "0", 60)

    def read() -> str:
        written(lock, str(int(lock.read_text()) + 1))
        if fails:
            raise ValueError("half")
        return "answer"

    begin = time.monotonic()
    if fails:
        with pytest.raises(ValueError, match="half"):
            read_whole(lock, read)
    else:
        assert read_whole(lock, read) == "answer"
    assert 1.0 <= time.monotonic() - begin < 5


def test_an_absent_file_is_not_waited_for(lock: Path):
    begin = time.monotonic()
    assert read_whole(lock, lock.exists) is False
    assert time.monotonic() - begin < 0.2
