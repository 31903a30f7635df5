"""When an end sends what to whom, without a process."""

from __future__ import annotations

import os
import signal

import pytest

from opsboard.supervise import ending
from opsboard.supervise.ending import LEFTOVER_S, Ending
from opsboard.supervise.processes import Process

MAIN = Process(100, 1, 1, 100, "S", "main")
CHILD = Process(101, 2, 100, 100, "S", "child")
LOOSE = Process(102, 3, 100, 102, "S", "loose")
Sent = list[tuple[str, int, str]]


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> Sent:
    found: Sent = []

    def one(process: Process, number: signal.Signals) -> bool:
        found.append(("pid", process.pid, number.name))
        return True

    monkeypatch.setattr(os, "killpg", lambda group, number: found.append(("group", group, signal.Signals(number).name)))
    monkeypatch.setattr(ending, "send", one)
    return found


def test_term_to_the_group_and_to_those_outside_of_it_once(sent: Sent) -> None:
    end = Ending(100, 30.0, 0.0)
    for now in (0.0, 0.1, 29.9):
        end.step([MAIN, CHILD, LOOSE], now)
    assert sent == [("group", 100, "SIGTERM"), ("pid", 102, "SIGTERM")]
    assert end.killed_at is None


def test_kill_at_the_deadline_until_nobody_is_left(sent: Sent) -> None:
    end = Ending(100, 30.0, 0.0)
    end.step([MAIN, LOOSE], 0.0)
    sent.clear()
    end.step([MAIN, LOOSE], 30.0)
    end.step([LOOSE], 30.1)
    end.step([], 30.2)
    assert sent == [("group", 100, "SIGKILL"), ("pid", 102, "SIGKILL"), ("pid", 102, "SIGKILL")]
    assert end.killed_at == 30.0


def test_a_child_born_during_the_end_gets_its_own_term(sent: Sent) -> None:
    end = Ending(100, 30.0, 0.0)
    end.step([MAIN], 0.0)
    end.step([MAIN, CHILD], 0.1)
    assert sent == [("group", 100, "SIGTERM"), ("pid", 101, "SIGTERM")]


def test_what_outlives_the_main_process_has_less_time(sent: Sent) -> None:
    end = Ending(100, 300.0, 0.0)
    end.step([MAIN, CHILD], 0.0)
    end.step([CHILD], 10.0)
    assert end.kill_at == 10.0 + LEFTOVER_S
    end.step([CHILD], 12.0)
    assert end.kill_at == 10.0 + LEFTOVER_S


def test_a_second_stop_can_only_hurry(sent: Sent) -> None:
    end = Ending(100, 30.0, 0.0)
    end.hurry(300.0, 1.0)
    assert end.kill_at == 30.0
    end.hurry(2.0, 1.0)
    assert end.kill_at == 3.0


def test_a_stopped_process_is_woken_to_hear_it(sent: Sent) -> None:
    Ending(100, 30.0, 0.0).step([MAIN._replace(state="T")], 0.0)
    assert sent == [("group", 100, "SIGTERM"), ("pid", 100, "SIGCONT")]


def test_without_a_member_the_group_is_not_touched(sent: Sent) -> None:
    """Its id may belong to somebody else by now."""
    end = Ending(100, 0.0, 0.0)
    end.step([LOOSE], 0.0)
    end.step([LOOSE], 1.0)
    assert {kind for kind, _, _ in sent} == {"pid"}


def test_an_unknown_group_is_not_that_of_whoever_ends(sent: Sent) -> None:
    """killpg(0) means the caller's own; processes of another PID namespace show group 0."""
    end = Ending(0, 1.0, 0.0)
    for now in (0.0, 1.0):
        end.step([LOOSE._replace(group=0)], now)
    assert sent == [("pid", 102, "SIGTERM"), ("pid", 102, "SIGKILL")]
