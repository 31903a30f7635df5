"""The line of /proc/PID/stat, whatever a process calls itself."""

from __future__ import annotations

import pytest

from opsboard.core.procstat import Stat, parse

REST = b"7 70 70 0 -1 4194560 1 2 3 4 11 5 0 0 20 0 1 0 4242 9"


def test_a_name_may_hold_blanks_and_brackets() -> None:
    found = parse(b"12 (a) R 1 (b c)) S " + REST)
    assert found == Stat(comm="a) R 1 (b c)", state="S", parent=7, group=70, cpu_ticks=16, start_ticks=4242)
    assert not found.ended


@pytest.mark.parametrize(("state", "ended"), [(b"Z", True), (b"X", True), (b"D", False), (b"t", False)])
def test_a_zombie_has_ended(state: bytes, ended: bool) -> None:
    found = parse(b"12 (x) " + state + b" " + REST)
    assert found is not None
    assert found.ended is ended


@pytest.mark.parametrize("data", [b"", b"12", b"12 (x) S 1 2 3"])
def test_a_line_that_is_not_whole_is_no_process(data: bytes) -> None:
    assert parse(data) is None
