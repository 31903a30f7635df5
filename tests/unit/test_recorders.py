"""What goes into a recording beside the pages: what came of canaries, and what was told."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from opsboard.core.clock import ManualClock
from opsboard.core.model import (
    CanaryOutcome,
    CanaryReading,
    EngineReading,
    EngineState,
    Event,
    LifeView,
    Outcome,
)
from opsboard.daemon import recording
from opsboard.daemon.recording import Recorders
from opsboard.recording.lines import Canary, Line, line

CANARY = CanaryReading(engine="a", outcome=CanaryOutcome.TIMEOUT, seconds=5.0, error="no answer")
LIFE = LifeView(engine="a", state=EngineState.STOPPING, since=1.0, supervised=True, cause="asked")
NOW = ManualClock().now()


def told(subject: str, kind: str = "restart") -> Event:
    return Event(t=1.0, subject=subject, kind=kind, text="x")


def heard(*events: Event) -> Recorders:
    """Return recorders, one of them listening, that heard these events."""
    recorders = Recorders()
    recorders._queues[asyncio.Queue()] = 0
    for event in events:
        recorders.hear(event, NOW)
    return recorders


def lines(recorders: Recorders) -> list[Line]:
    (queue,) = recorders._queues
    return [queue.get_nowait() for _ in range(queue.qsize())]


def test_what_is_told_goes_with_the_next_reading_of_whom_it_concerns() -> None:
    recorders = heard(told("engine/a"), told("host"), told("engine/b"))
    assert recorders.news("a") == (told("engine/a"), told("host"))
    assert recorders.news("a") == ()
    assert recorders.news("b") == (told("engine/b"),)
    assert lines(recorders) == []


def test_news_of_a_life_is_a_line_of_its_own() -> None:
    recorders = heard()
    for one in (LIFE, msgspec.structs.replace(LIFE, message="3 of 5"), msgspec.structs.replace(LIFE, started=2.0)):
        recorders.hear(one, NOW)
    found = [(one.error, one.reason, one.life.started) for one in lines(recorders) if one.life is not None]
    assert found == [("stopping: asked", "not_asked", None), ("stopping: asked", "not_asked", 2.0)]


def test_a_canary_is_a_line_of_its_own() -> None:
    recorders = heard()
    recorders.hear(CANARY, NOW)
    told = Canary(ok=False, seconds=5.0, outcome=CanaryOutcome.TIMEOUT, error="no answer")
    assert lines(recorders) == [Line(t=NOW.wall, engine="a", error="canary: timeout", reason="not_asked", canary=told)]


def test_nothing_is_kept_for_nobody_and_not_much_for_an_engine_that_is_down(monkeypatch: pytest.MonkeyPatch) -> None:
    nobody = Recorders()
    nobody.hear(CANARY, NOW)
    nobody.hear(told("host"), NOW)
    nobody.hear(LIFE, NOW)
    assert nobody.news("a") == ()
    many = heard(*(told("engine/a", str(n)) for n in range(recording.EVENTS_KEPT + 5)))
    events = many.news("a")
    assert [events[0].kind, len(events), many.dropped] == ["5", recording.EVENTS_KEPT, 5]


def test_a_line_says_why_there_is_no_page() -> None:
    t = NOW.wall
    refused = EngineReading(engine="a", outcome=Outcome.FAILED, error="x", reason="refused")
    nothing = EngineReading(engine="a", outcome=Outcome.NO_DATA, error="y")
    assert line(refused, t) == Line(t=t, engine="a", error="x", reason="refused")
    assert line(nothing, t) == Line(t=t, engine="a", error="y", reason="no_data")
