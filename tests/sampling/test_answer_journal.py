import errno
import json
import os
import stat
from pathlib import Path

import pytest

from scalequest.errors import UserError
from scalequest.sampling.answer_journal import Answer, Journal, parse_line


def test_a_line_that_a_kill_cut_off_is_forgotten_and_the_rest_is_read(tmp_path: Path):
    file = tmp_path / "answers.jsonl"
    whole = Answer("πthon", "stop", 1, 2, "m")
    Journal(file).add("a", whole)
    complete = file.read_bytes()
    file.write_bytes(complete + complete[:20])
    journal = Journal(file)
    assert journal["a"] == whole
    journal.add("b", whole)
    assert len(file.read_bytes()) == 2 * len(complete)
    assert "b" in Journal(file)


WHOLE = Answer("πthon", "stop", 1, 2, "m")


def line(key: str = "a", **changes: object) -> bytes:
    row = {"key": key, "text": "πthon", "finish_reason": "stop", "input_tokens": 1, "output_tokens": 2, "model": "m"}
    return json.dumps(row | changes).encode()


def test_a_whole_line_that_lost_its_line_break_is_kept(tmp_path: Path):
    file = tmp_path / "answers.jsonl"
    file.write_bytes(line("a") + b"\n" + line("b"))
    journal = Journal(file)
    assert journal["a"] == journal["b"] == WHOLE
    journal.add("c", WHOLE)
    assert all(key in Journal(file) for key in "abc")


@pytest.mark.parametrize(
    "damage",
    [
        b"\x00" * 64, b"\xff\xfe\x80", line()[:-9], b"null", b"[]", b"3", b'"a"', b"{}", b"[" * 100_000, b'{"a":' * 100_000,
        line(text=None), line(text=5), line(finish_reason=None), line(input_tokens="1"), line(output_tokens=-2), line(output_tokens=1.5),
        line(input_tokens=True), line(input_tokens=10**30), line().replace(b'"key": "a"', b'"key": ["a"]'), b"9" * 9_000, b"<<<<<<< HEAD",
    ],
    ids=lambda damage: damage[:18].decode("latin-1").encode("unicode_escape").decode(),
)  # fmt: skip
def test_a_damaged_line_costs_one_answer(tmp_path: Path, damage: bytes, caplog: pytest.LogCaptureFixture):
    file = tmp_path / "answers.jsonl"
    file.write_bytes(line("before") + b"\n" + damage + b"\n" + line("after") + b"\n")
    journal = Journal(file)
    assert journal["before"] == journal["after"] == WHOLE
    assert "a" not in journal
    assert f"{file}:2: unreadable, that answer is asked for again" in caplog.text
    journal.add("a", WHOLE)
    assert Journal(file)["a"] == WHOLE
    assert damage in file.read_bytes()  # nothing is rewritten


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (line() + b"\r", WHOLE),
        (b"\xef\xbb\xbf" + line(), WHOLE),
        (line(cost=0.1, provider="x"), WHOLE),  # fields of another version
        (b'{"key": "a", "text": "t", "finish_reason": "stop"}', Answer("t", "stop", None, None, "")),
        (line(text="line\u2028break\x85"), Answer("line\u2028break\x85", "stop", 1, 2, "m")),
    ],
)
def test_what_was_paid_for_is_kept_where_it_can_be_read(given: bytes, expected: Answer):
    assert parse_line(given) == ("a", expected)


def test_the_later_of_two_lines_counts(tmp_path: Path):
    file = tmp_path / "answers.jsonl"
    file.write_bytes(line() + b"\n" + line(text="later") + b"\n")
    assert Journal(file)["a"].text == "later"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("there", [False, True], ids=["new", "of_an_earlier_version"])
def test_answers_are_this_users_alone(tmp_path: Path, there: bool):
    file = tmp_path / ".work" / "api" / "preferences@sums.jsonl"
    if there:
        file.parent.mkdir(parents=True, mode=0o755)
        file.write_bytes(line() + b"\n")
        file.chmod(0o644)
    before = os.umask(0)
    try:
        Journal(file).add("b", WHOLE)
    finally:
        os.umask(before)
    assert (mode(file), mode(file.parent)) == (0o600, 0o700)
    assert ("a" in Journal(file)) is there


@pytest.mark.parametrize("kind", ["link", "broken_link", "folder", "pipe", "folder_is_a_file"])
def test_what_is_no_file_is_refused_and_left_alone(tmp_path: Path, kind: str):
    target = tmp_path / "precious.txt"
    target.write_text("precious")
    file = tmp_path / "api" / "answers.jsonl"
    if kind == "folder_is_a_file":
        file = target / "answers.jsonl"
    else:
        file.parent.mkdir()
    if kind == "link":
        file.symlink_to(target)
    elif kind == "broken_link":
        file.symlink_to(tmp_path / "nowhere")
    elif kind == "folder":
        file.mkdir()
    elif kind == "pipe":
        os.mkfifo(file)
    with pytest.raises(UserError, match=r"answers.jsonl: (is a link|is no regular file|cannot be opened)"):
        Journal(file)
    assert target.read_text() == "precious"


def test_another_users_file_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file = tmp_path / "answers.jsonl"
    content = line() + b"\n" + b"half"
    file.write_bytes(content)
    monkeypatch.setattr(os, "geteuid", lambda: file.stat().st_uid + 1)
    with pytest.raises(UserError, match=rf"{file}: belongs to user {file.stat().st_uid}, this is user"):
        Journal(file)
    assert file.read_bytes() == content


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_root_takes_another_users_answers(tmp_path: Path):
    """A container that runs as root works in the folder of the user outside."""
    file = tmp_path / "answers.jsonl"
    file.write_bytes(line() + b"\n")
    os.chown(file, 12345, 12345)
    assert Journal(file)["a"] == WHOLE
    assert (mode(file), file.stat().st_uid) == (0o600, 12345)


def test_a_full_disk_spoils_no_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file = tmp_path / "answers.jsonl"
    journal = Journal(file)
    journal.add("a", WHOLE)
    write, calls = os.write, iter(range(9))

    def full(descriptor: int, data: bytes) -> int:
        if next(calls) == 0:
            return write(descriptor, data[:20])  # what still fits
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space left"):
        journal.add("b", Answer("x" * 99, "stop", 1, 2, "m"))
    monkeypatch.undo()
    journal.add("c", WHOLE)
    found = Journal(file)
    assert [key in found for key in "abc"] == [True, False, True]
    assert all(parse_line(row) for row in file.read_bytes().splitlines())
