"""What cannot be read is not taken for gone: a full table of descriptors or a sick disk ends no engine."""

from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path

import pytest

from opsboard.core.clock import ManualClock
from opsboard.core.model import EngineReading, EngineState, EngineView, FindingChange, LifeView, Outcome
from opsboard.daemon.collecting import Collecting, EngineTarget
from opsboard.daemon.connected import Connected
from opsboard.daemon.health import Health
from opsboard.daemon.pipeline import EngineSpec, PipelineState, Reading, feed
from opsboard.daemon.recording import Recorders
from opsboard.supervise import bundle, processes, watching
from opsboard.supervise.adopt import Roster, examine
from opsboard.supervise.orphans import ours
from opsboard.supervise.processes import Family, boot_id, gone, inside, look
from opsboard.supervise.stopping import end_life
from opsboard.supervise.watching import how_it_ended
from tests.support.in_loop import in_loop


def unreadable(place: Path, name: str) -> Path:
    """Make a record that every reader fails on, as with EIO; root may read whatever has no rights. Return the old."""
    kept = (place / name).rename(place / f"{name}.kept")
    (place / name).mkdir()
    return kept


def readable(place: Path, name: str) -> None:
    (place / name).rmdir()
    (place / f"{name}.kept").rename(place / name)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A bundle whose engine is this very process, without a shim."""
    place = tmp_path / "engines" / "a"
    place.mkdir(parents=True)
    me = look(os.getpid())
    assert me is not None
    identity = {"instance": "i", "boot_id": boot_id(), "process": me.record(), "shim": None, "life": 1}
    bundle.write(str(place), bundle.IDENTITY, identity)
    bundle.write(str(place), bundle.STATUS, {"instance": "i", "processes": [me.record()]})
    return place


def full(*_args: object, **_named: object) -> int:
    raise OSError(errno.EMFILE, "Too many open files")


def test_a_look_that_fails_is_no_absence(monkeypatch: pytest.MonkeyPatch) -> None:
    me = look(os.getpid())
    assert me is not None
    monkeypatch.setattr(processes, "open", full, raising=False)
    with pytest.raises(OSError, match="Too many"):
        look(me.pid)
    assert not gone(me)


def test_who_may_not_be_seen_is_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_args: object, **_named: object) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(processes, "open", forbidden, raising=False)
    assert look(os.getpid()) is None


def test_a_control_group_that_cannot_be_read_is_not_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cgroup.procs").write_text(f"{os.getpid()}\n")
    assert [one.pid for one in inside(str(tmp_path))] == [os.getpid()]
    assert inside(str(tmp_path / "removed")) == []
    with monkeypatch.context() as patch:
        patch.setattr(processes, "open", full, raising=False)
        with pytest.raises(OSError, match="Too many"):
            inside(str(tmp_path))
    monkeypatch.setattr(os, "scandir", full)
    with pytest.raises(OSError, match="Too many"):
        inside(str(tmp_path))


def test_a_family_that_cannot_be_looked_at_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    with subprocess.Popen(["sleep", "600"]) as child:
        family = Family(os.getpid())
        family.refresh()
        assert child.pid in family.members
        with monkeypatch.context() as patch:
            patch.setattr(processes, "open", full, raising=False)
            assert family.refresh(full=True) is False
            assert child.pid in family.members
        child.kill()
        child.wait()
        assert family.refresh()
        assert child.pid not in family.members


def test_a_record_that_goes_away_or_cannot_be_read_leaves_the_last_one(place: Path) -> None:
    roster = Roster(place)
    assert [one.pid for one in roster.living()] == [os.getpid()]
    (place / bundle.STATUS).rename(place / "elsewhere")
    assert [one.pid for one in roster.living()] == [os.getpid()]
    (place / "elsewhere").rename(place / bundle.STATUS)
    unreadable(place, bundle.STATUS)
    with pytest.raises(IsADirectoryError):
        roster.living()
    assert [pid for pid, _ in roster.recorded()] == [os.getpid()]
    readable(place, bundle.STATUS)
    assert [one.pid for one in roster.living()] == [os.getpid()]


def test_an_identity_that_cannot_be_read_is_not_no_life(place: Path) -> None:
    assert (before := examine(place)) is not None
    assert before.lives
    unreadable(place, bundle.IDENTITY)
    with pytest.raises(IsADirectoryError):
        examine(place)
    assert not ours(place.parent).serving, "another engine's start does not wait for it"


@in_loop
async def test_an_end_is_not_over_while_nobody_can_look(place: Path) -> None:
    unreadable(place, bundle.IDENTITY)
    with pytest.raises(IsADirectoryError):
        await end_life(place, 1.0, "a test", lambda _text: None)


@in_loop
async def test_who_is_left_is_waited_for(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "_POLL_S", 0.01)
    monkeypatch.setattr(watching, "_SETTLE_S", 0.0)
    looks = []

    def once_again(directory: Path) -> object:
        looks.append(directory)
        if len(looks) == 1:
            unreadable(place, bundle.IDENTITY)
        elif len(looks) == 3:
            readable(place, bundle.IDENTITY)
        return examine(directory)

    monkeypatch.setattr(watching, "examine", once_again)
    await how_it_ended(place, None)
    assert len(looks) == 3


@in_loop
async def test_processes_that_cannot_be_looked_at_are_not_claimed_to_be_gone(place: Path) -> None:
    name = "a"
    state = PipelineState("h", [EngineSpec(name=name, kind="vllm", url="http://127.0.0.1:1", supervised=True)])
    life = LifeView(engine=name, state=EngineState.READY, since=1.0, started=0.5, pid=os.getpid(), supervised=True)
    roster, clock = Roster(place), ManualClock()
    claims: list[FindingChange] = []

    def hear(reading: Reading) -> None:
        claims.extend(feed(state, reading, clock.now()).findings)

    async def pids() -> list[int]:
        return [one.pid for one in roster.living()]

    hear(life)
    reads = Collecting(
        clock=clock,
        state=state,
        feed=hear,
        recorders=Recorders(),
        health=Health(10.0),
        interval_s=1.0,
        connected=Connected(state, clock, hear),
    )
    target = EngineTarget(name, _NoPage(), pids=pids, role_of=lambda _n, _a: "api_server", life=lambda: life)
    await reads._look_if_due(target)
    assert state.engines[name].looked is not None
    unreadable(place, bundle.STATUS)
    for _ in range(3):
        clock.advance(5.0)
        await reads._look_if_due(target)
        hear(EngineReading(engine=name, outcome=Outcome.OK, view=EngineView(kind="vllm")))
        assert state.engines[name].looked is None
    assert claims == []
    readable(place, bundle.STATUS)
    clock.advance(5.0)
    await reads._look_if_due(target)
    assert [one.pid for one in state.engines[name].processes] == [os.getpid()]
    await reads.close()


class _NoPage:
    kind = "vllm"

    async def scrape(self, *, keep_page: bool = False) -> EngineReading:
        return EngineReading(engine="a", outcome=Outcome.FAILED)
