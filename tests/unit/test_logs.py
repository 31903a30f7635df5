"""Log files that grow, are rotated, spam and lie."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from collectors.logs import LINE_BYTES, LogFollower, tail

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "engine.log"
    path.touch()
    return path


def append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


# --- the last lines ---


def test_the_last_lines_of_a_file(log: Path) -> None:
    append(log, b"one\ntwo\n\nthree\nunfinished")

    assert tail(log, 2) == ["three", "unfinished"]
    assert tail(log, 3) == ["", "three", "unfinished"]
    assert tail(log, 99) == ["one", "two", "", "three", "unfinished"]
    assert tail(log, 0) == []
    assert tail(log, 99, end=7) == ["one", "two"]


def test_an_empty_file_has_no_lines_and_a_missing_one_is_an_error(log: Path) -> None:
    assert tail(log, 5) == []
    with pytest.raises(FileNotFoundError):
        tail(log.with_name("none"), 5)


def test_the_end_of_a_huge_file_is_read_without_the_rest(log: Path) -> None:
    with log.open("wb") as file:
        file.truncate(10 << 40)  # ten sparse TiB
        file.seek(0, os.SEEK_END)
        file.write(b"\nlast but one\nlast\n")

    assert tail(log, 2) == ["last but one", "last"]
    assert len(tail(log, 3, limit=1 << 16)) == 2  # the third would begin before the limit


def test_of_a_progress_bar_the_last_state_is_shown(log: Path) -> None:
    append(log, b"\rload:  0%\rload: 50%\rload: 100%\nnext\r\n")

    assert tail(log, 2) == ["load: 100%", "next"]


def test_lines_are_safe_to_show(log: Path) -> None:
    append(log, b"\x1b[31mred\x1b[0m \x1b]0;title\x07 \x07bell \xff\xfe \xe2\x80\xae\n" + b"x" * 100_000 + b"\n")

    first, second = tail(log, 2)

    assert first == "red  \ufffdbell \ufffd\ufffd \ufffd"
    assert len(second) == 4096
    assert second.endswith("…")


# --- new lines ---


def test_new_lines_come_once_and_whole(log: Path) -> None:
    follower = LogFollower(log)
    append(log, b"one\ntwo\nthr")
    assert follower.read_new() == ["one", "two"]
    assert follower.read_new() == []
    append(log, b"ee\nfour\n")
    assert follower.read_new() == ["three", "four"]
    follower.close()


def test_a_file_that_comes_later_is_read_from_its_beginning(tmp_path: Path) -> None:
    follower = LogFollower(tmp_path / "later.log", from_end=True)
    assert follower.read_new() == []
    append(tmp_path / "later.log", b"hello\n")
    assert follower.read_new() == ["hello"]
    follower.close()


def test_from_the_end_only_what_comes_after(log: Path) -> None:
    append(log, b"old\n")
    follower = LogFollower(log, from_end=True)
    append(log, b"new\n")
    assert follower.read_new() == ["new"]
    follower.close()


def test_rotation_by_rename_loses_nothing(log: Path) -> None:
    follower = LogFollower(log)
    append(log, b"one\n")
    assert follower.read_new() == ["one"]
    append(log, b"two\nlast words")
    log.rename(log.with_suffix(".1"))
    assert follower.read_new() == ["two"]  # nothing new there yet
    append(log.with_suffix(".1"), b" of it\n")
    append(log, b"three\n")
    assert follower.read_new() == ["last words of it", "three"]
    follower.close()


def test_rotation_by_copy_and_truncate(log: Path) -> None:
    follower = LogFollower(log)
    append(log, b"one\ntwo\n")
    assert follower.read_new() == ["one", "two"]
    os.truncate(log, 0)
    append(log, b"three\n")
    assert follower.read_new() == ["three"]
    follower.close()


def test_a_file_that_was_cut_and_has_grown_past_our_place(log: Path) -> None:
    follower = LogFollower(log)
    append(log, b"one\ntwo\n")
    follower.read_new()
    os.truncate(log, 0)
    append(log, b"a much longer line than before\nand one more\n")
    assert follower.read_new() == ["a much longer line than before", "and one more"]
    follower.close()


def test_a_file_that_was_removed_and_made_again(log: Path) -> None:
    follower = LogFollower(log)
    append(log, b"one\n")
    follower.read_new()
    log.unlink()
    assert follower.read_new() == []
    append(log, b"two\n")
    assert follower.read_new() == ["two"]
    follower.close()


def test_ten_megabytes_a_second_are_skipped_and_said(log: Path) -> None:
    follower = LogFollower(log)
    append(log, b"first\n")
    follower.read_new()
    append(log, b"".join(b"spam %06d ........................................\n" % number for number in range(200_000)))

    note, *lines = follower.read_new()

    assert note == f"… {follower.skipped_bytes:,} bytes of log skipped: written faster than read …"
    assert follower.skipped_bytes > 9_000_000
    assert lines[-1] == "spam 199999 ........................................"
    assert all(line.startswith("spam ") for line in lines)  # no half line at the seam
    assert sum(map(len, lines)) <= 256 * 1024
    append(log, b"calm\n")
    assert follower.read_new() == ["calm"]
    follower.close()


def test_an_endless_line_is_cut_and_the_next_one_is_whole(log: Path) -> None:
    follower = LogFollower(log)
    lines = []
    for _ in range(10):
        append(log, b"x" * LINE_BYTES)
        lines += follower.read_new()
    append(log, b"\nnext\n")
    lines += follower.read_new()
    assert [line[:4] for line in lines] == ["xxxx", "next"]
    follower.close()


def test_a_progress_bar_is_seen_while_it_moves(log: Path) -> None:
    follower = LogFollower(log)
    seen = []
    for percent in (0, 50, 100):
        append(log, b"\rLoading shards: %3d%%" % percent)
        seen += follower.read_new()
    append(log, b"\rLoading shards:  99%\rLoading shards: 100%\nnext\n")
    seen += follower.read_new()
    assert seen == [
        "Loading shards:   0%",
        "Loading shards:  50%",
        "Loading shards: 100%",
        "Loading shards: 100%",
        "next",
    ]
    follower.close()


def test_binary_rubbish_is_shown_harmlessly(log: Path) -> None:
    follower = LogFollower(log)
    append(log, bytes(range(256)) * 50 + b"\n")
    for line in follower.read_new():
        assert line.isprintable() or set(line) <= {"\ufffd", *map(chr, range(32, 0x110000))}
        assert "\x1b" not in line
    follower.close()
