"""What one daemon writes beside an engine, and the next one reads."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from opsboard.core.clock import ManualClock
from opsboard.core.model import EngineState
from opsboard.supervise import bundle, machine
from opsboard.supervise.memo import Memo, Notes
from opsboard.supervise.situation import (
    Body,
    Event,
    Exited,
    Gone,
    Launched,
    Ready,
    Restart,
    Situation,
    Start,
    Stop,
    Terms,
)
from opsboard.supervise.transaction import Course, follow

TERMS = Terms(restart="on-failure", drain_timeout_s=60.0)


class Daemon:
    """A machine whose every situation is written down."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.memo = Memo("a", place)
        self.situation = Situation(since=0.0)
        self.course: Course | None = None
        self.lives = 0

    def hear(self, *events: Event) -> None:
        now = ManualClock().now()
        for event in events:
            self.situation, _ = machine.step(self.situation, event, now, TERMS)
            self.lives += self.situation.body is Body.LAUNCHING
            self.course = follow(self.course, self.situation, now, engine="a", new_id="id", clears=False)
            until = None if self.situation.drain_by is None else now.wall + 60.0
            self.memo.remember(self.situation, self.course, f"life {self.lives}", until)

    def file(self, name: str) -> dict[str, object] | None:
        path = self.place / name
        return json.loads(path.read_text()) if path.exists() else None

    def notes(self) -> Notes:
        return Memo("a", self.place).read()


UP = (Start("up"), Launched(900.0), Ready())


def test_nothing_is_known_of_an_engine_that_was_never_there(tmp_path: Path) -> None:
    assert Daemon(tmp_path / "none").notes() == Notes()


def test_a_stop_is_written_before_it_is_done_and_takes_back_what_was_to_follow(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path)
    daemon.hear(*UP)
    assert daemon.file("stop.json") is None
    daemon.hear(Restart(now=True))
    assert daemon.file("stop.json") == {"protocol": 1, "instance": "life 1", "again": True}
    daemon.hear(Stop())
    assert daemon.file("stop.json") == {"protocol": 1, "instance": "life 1", "again": False}
    daemon.hear(Gone())
    assert daemon.situation.state is EngineState.STOPPED
    assert (daemon.file("stop.json") or {})["again"] is False


def test_a_stop_of_what_waits_for_its_turn_is_one_too(tmp_path: Path) -> None:
    """The record of an older end must not bring the engine back."""
    daemon = Daemon(tmp_path)
    daemon.hear(*UP)
    (tmp_path / "stop.json").write_text('{"protocol": 1, "instance": "life 1", "again": true}')
    daemon.hear(Exited(code=-9), Stop())
    assert (daemon.file("stop.json") or {})["again"] is False


def test_what_somebody_else_stopped_is_not_begun_by_the_next_daemon(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path)
    daemon.hear(*UP, Exited(code=0, asked_by="SIGTERM to the shim"))
    assert daemon.situation.state is EngineState.STOPPED
    assert (daemon.file("stop.json") or {})["again"] is False


def test_a_daemon_killed_between_two_files_has_lost_no_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever was written last: either the end that goes on is known, or the life that is to follow."""
    daemon = Daemon(tmp_path)
    daemon.hear(*UP, Restart(now=True))
    seen = []

    def looked_at(real: Callable[..., object]) -> Callable[..., None]:
        def change(*record: object) -> None:
            real(*record)
            seen.append(((daemon.file("stop.json") or {}).get("again"), daemon.notes().launching))

        return change

    monkeypatch.setattr(bundle, "write", looked_at(bundle.write))
    monkeypatch.setattr(bundle, "remove", looked_at(bundle.remove))
    daemon.hear(Gone())
    assert seen[-1] == (None, "life 2")
    assert all(again or launching == "life 2" for again, launching in seen)


def test_what_is_under_way_is_read_back(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path)
    daemon.hear(Start("up"))
    assert daemon.notes().launching == "life 1"
    daemon.hear(Launched(900.0), Ready(), Restart("flags"))
    notes = daemon.notes()
    assert (notes.launching, notes.drain_until, notes.automatic) == (None, ManualClock().now().wall + 60.0, False)
    assert notes.transaction is not None
    assert [step.name for step in notes.transaction.steps] == ["drain"]
    daemon.hear(Exited(code=-9), Launched(900.0), Ready(), Exited(code=-9))
    assert (daemon.notes().waiting, daemon.notes().drain_until) == ("killed by SIGKILL", None)


def test_doubts_and_parking_are_removed_when_they_are_over(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path)
    daemon.hear(Start("up"), Launched(900.0), Ready("its output differs"))
    assert daemon.notes().doubt == "its output differs"
    daemon.hear(Restart(now=True))
    assert daemon.file("service.json") is None
    daemon.situation = Situation(since=5.0, state=EngineState.PARKED, wanted=True, cause="restarted 5 times")
    daemon.hear(Gone())
    assert (daemon.notes().parked, daemon.notes().parked_since) == ("restarted 5 times", 5.0)
    assert stat.S_IMODE((tmp_path / "parked.json").stat().st_mode) == 0o600
    daemon.hear(Start())
    assert daemon.notes().parked is None


@pytest.mark.parametrize("garbage", ["\x00{[", '{"transaction": 7}', '{"drain_until": "soon"}', "[]"])
def test_notes_that_nobody_understands_say_nothing(tmp_path: Path, garbage: str) -> None:
    (tmp_path / "transaction.json").write_text(garbage)
    assert Daemon(tmp_path).notes() == Notes()
