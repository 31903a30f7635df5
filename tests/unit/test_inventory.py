"""What is found of a life, in the machine's words, whatever the clocks have been set to."""

from __future__ import annotations

import pytest

from opsboard.supervise.adopt import Exit, Remains
from opsboard.supervise.inventory import found
from opsboard.supervise.memo import Notes
from opsboard.supervise.processes import Process
from opsboard.supervise.situation import Found

STARTED = 1_000.0
MAIN = Process(7, 1, 1, 7, "S", "vllm")


def seen(wall: float, age_s: float | None, main: Process | None = MAIN, ended: Exit | None = None) -> Found:
    remains = Remains(
        directory="a",
        instance="life 1",
        life=1,
        started=STARTED,
        log_offset=0,
        socket="",
        argv_sha256="",
        same_boot=True,
        main=main,
        was_ready=True,
        ready_since=STARTED + 40.0,
        exit=ended,
    )
    return found(remains, Notes(), wall, lambda _offset: None, age_s)


@pytest.mark.parametrize(
    ("wall", "age_s", "served_s"),
    [(STARTED + 100.0, 100.0, 60.0), (STARTED + 86_400.0, 100.0, 100.0), (STARTED - 86_400.0, 100.0, 0.0)],
)
def test_a_clock_that_was_set_makes_no_life_old(wall: float, age_s: float, served_s: float) -> None:
    there = seen(wall, age_s)
    assert (there.age_s, there.served_s) == (age_s, served_s)


def test_without_a_clock_since_boot_the_other_one_counts() -> None:
    assert (seen(STARTED + 100.0, None).age_s, seen(STARTED + 100.0, None).served_s) == (100.0, 60.0)


def test_a_life_that_is_over_has_served_until_its_end() -> None:
    ended = Exit(code=-9, ended=STARTED + 700.0, asked_by=None, message=None)
    assert seen(STARTED + 9_000.0, None, main=None, ended=ended).served_s == 660.0
