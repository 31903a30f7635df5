"""Who is who among processes: real ones, started and ended by the test."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from opsboard.supervise import bundle, processes
from opsboard.supervise.adopt import EVER, Roster
from opsboard.supervise.processes import Family, Process, age_s, alive, below, look, not_used_again, send, tagged
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# A child whose own child sleeps; it says that child's pid and waits for a line before it dies.
PARENT = """
import subprocess, sys
print(subprocess.Popen(["sleep", "600"]).pid, flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "600"], env={"OPSBOARD_INSTANCE": "mine"}) as process:
        yield process
        process.kill()


def test_a_process_and_its_end(sleeper: subprocess.Popen[bytes]) -> None:
    found = look(sleeper.pid)
    assert found is not None
    assert found.parent == os.getpid()
    assert alive(sleeper.pid, found.start_ticks)
    assert not alive(sleeper.pid, found.start_ticks + 1)
    assert not alive(None, None)
    sleeper.kill()
    wait_until(lambda: look(sleeper.pid) is None, what="a zombie is nobody")
    assert sleeper.poll() is not None


def test_how_long_a_process_has_run(sleeper: subprocess.Popen[bytes]) -> None:
    ours = age_s(os.getpid())
    assert ours is not None
    assert 0.0 <= (age_s(sleeper.pid) or 0.0) <= ours
    assert age_s(None) is None
    sleeper.kill()
    sleeper.wait(10)
    assert age_s(sleeper.pid) is None


def test_a_pid_that_somebody_else_has_by_now_stands_for_nobody_of_ours(sleeper: subprocess.Popen[bytes]) -> None:
    """Memory that a stranger holds under it must not keep an engine from its next start."""
    found = look(sleeper.pid)
    assert found is not None
    ours, earlier = (found.pid, found.start_ticks), (found.pid, found.start_ticks - 1)
    assert not_used_again([ours]) == not_used_again([ours, earlier]) == [sleeper.pid]
    assert not_used_again([earlier]) == []
    sleeper.kill()
    sleeper.wait(10)
    assert not_used_again([ours, earlier]) == [sleeper.pid], "the driver may list it although it is gone"


def test_who_ever_belonged_to_a_life_is_known_within_bounds(tmp_path: Path) -> None:
    main = {"pid": 1, "start_ticks": 7}
    roster = Roster(tmp_path)
    for first in range(2, 4 * EVER, EVER):
        children = [{"pid": pid, "start_ticks": pid} for pid in range(first, first + EVER - 1)]
        bundle.write(str(tmp_path), bundle.STATUS, {"processes": [*children, main, {"pid": 5, "start_ticks": None}]})
        os.utime(tmp_path / bundle.STATUS, ns=(first, first))
        known = roster.recorded()
        assert len(known) == EVER
        assert {(1, 7), (first, first)} <= set(known)
    roster.forget()
    assert roster.recorded() == []


def test_a_signal_for_somebody_else_is_not_sent(sleeper: subprocess.Popen[bytes]) -> None:
    found = look(sleeper.pid)
    assert found is not None
    assert send(found._replace(start_ticks=found.start_ticks - 1), signal.SIGKILL) is False
    assert sleeper.poll() is None
    assert send(found, signal.SIGKILL) is True
    sleeper.wait(10)
    assert send(found, signal.SIGKILL) is False


def test_without_pidfds_too(sleeper: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    def too_old(_pid: int) -> int:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(os, "pidfd_open", too_old)
    found = look(sleeper.pid)
    assert found is not None
    assert send(found._replace(start_ticks=1), signal.SIGKILL) is False
    assert send(found, signal.SIGKILL) is True
    assert sleeper.wait(10) == -signal.SIGKILL


def test_the_mark_is_found(sleeper: subprocess.Popen[bytes]) -> None:
    assert [process.pid for process in tagged("mine")] == [sleeper.pid]
    assert tagged("min") == []


def test_names_with_blanks_and_brackets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "7").mkdir()
    fields = "S 1 7 7 0 -1 4194304 0 0 0 0 1 2 0 0 20 0 1 0 4242 0 0"
    (tmp_path / "7" / "stat").write_text(f"7 (a) (b c) {fields}")
    monkeypatch.setattr(processes, "PROC", str(tmp_path))
    assert look(7) == Process(7, 4242, 1, 7, "S", "a) (b c")


def test_descendants_of_a_table() -> None:
    table = {pid: Process(pid, 0, parent, 0, "S", "") for pid, parent in [(1, 0), (5, 1), (3, 5), (9, 3), (4, 1)]}
    assert [process.pid for process in below({5}, table)] == [3, 9]
    assert below({9}, table) == []
    assert sorted(process.pid for process in below({3, 4}, table)) == [9]


def test_a_family_keeps_its_orphans() -> None:
    """The grandchild stays a member when its parent dies, whoever takes it in."""
    family = Family(os.getpid())
    with subprocess.Popen(
        [sys.executable, "-S", "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdin is not None
        assert parent.stdout is not None
        grandchild = int(parent.stdout.readline())
        assert family.refresh() is True
        assert {parent.pid, grandchild} <= family.members.keys()
        parent.stdin.close()
        parent.wait(10)
        assert family.refresh() is True
        assert parent.pid not in family.members
        assert grandchild in family.members
        os.kill(grandchild, signal.SIGKILL)
        wait_until(lambda: family.refresh() and grandchild not in family.members, what="the orphan's end")
