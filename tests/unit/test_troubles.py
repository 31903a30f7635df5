"""What is wrong without a detector, when an engine can be judged, and the way of all that through the pipeline."""

from __future__ import annotations

from concurrent.futures import Future

import msgspec
import pytest

from alerts.incidents import AWAY_S, SUSPECT_S, Claim
from alerts.inhibition import WITHIN_S
from opsboard.core.clock import ManualClock
from opsboard.core.incidents import Incident
from opsboard.core.lives import spent_its_budget
from opsboard.core.model import (
    EngineReading,
    EngineState,
    EngineView,
    Event,
    HostReading,
    HostView,
    LifeView,
    Outcome,
    Restart,
    Sample,
    Transaction,
)
from opsboard.daemon.flow import Flow
from opsboard.daemon.pipeline import Effects, EngineSpec, PipelineState, Reading, feed, told
from opsboard.daemon.subscribers import Newest
from opsboard.daemon.troubles import DISK_LOW_BYTES, DISK_WELL_BYTES, SCRAPE_S
from opsboard.supervise.budget import Budget, Spent, decide
from tests.support.kept_incidents import done

GOOD = EngineReading(engine="a", outcome=Outcome.OK, view=EngineView(kind="vllm", running=0.0, waiting=0.0))
BAD = EngineReading(engine="a", outcome=Outcome.FAILED, error="answered 404", reason="status")


OVER = frozenset({EngineState.BACKING_OFF, EngineState.FAILED, EngineState.PARKED})


class Line:
    """A supervised engine on the line."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.state = PipelineState("h", [EngineSpec(name="a", url="http://127.0.0.1:1", supervised=True)])

    def feed(self, *readings: Reading, seconds: float = 1.0) -> list[Effects]:
        return [feed(self.state, one, self.clock.advance(1.0)) for _ in range(round(seconds)) for one in readings]

    def life(self, state: EngineState, message: str | None = None, transaction: Transaction | None = None) -> None:
        life = LifeView(
            engine="a",
            state=state,
            since=self.clock.now().wall,
            supervised=True,
            started=None if state in OVER else 1.0,
            pid=None if state in OVER else 7,
            message=message,
            transaction=transaction,
        )
        self.feed(life)

    def open(self) -> list[str]:
        return [one.detector for one in self.state.incidents.open]


@pytest.mark.parametrize("which", ["engine", "gpu", "host"])
def test_what_a_budget_says_is_known_as_that(which: str) -> None:
    budget = {"engine": Budget(per_engine=1), "gpu": Budget(per_gpu=1), "host": Budget(per_host=1)}[which]
    own = [Restart(engine="a", t=0.0, cause="x", gpus=("0",))] * 2
    decision = decide(budget, own, "a", ("0",), served_s=0.0, now=1.0, jitter=0.0)
    assert isinstance(decision, Spent)
    assert decision.which == which
    life = LifeView(
        engine="a", state=EngineState.PARKED, since=0.0, supervised=True, message=f"{decision.text}: it died"
    )
    assert spent_its_budget(life)
    assert not spent_its_budget(msgspec.structs.replace(life, state=EngineState.FAILED))
    assert not spent_its_budget(msgspec.structs.replace(life, message="the model is not there"))


@pytest.mark.parametrize(
    ("message", "detector"),
    [
        ("the model is not there", "parked"),
        ("restarted 5 times within 60 min, and 5 are allowed: it died", "budget_spent"),
    ],
)
def test_an_engine_that_needs_a_person_pages(message: str, detector: str) -> None:
    line = Line()
    line.life(EngineState.READY)
    line.feed(GOOD)
    line.life(EngineState.PARKED, message)
    (one,) = line.state.incidents.open
    assert one.severity == "page"
    assert detector in {one.detector, *(entry.text.partition(":")[0] for entry in one.timeline)}
    assert message in " ".join([one.summary, *(entry.text for entry in one.timeline)])
    assert len(line.open()) == 1, "one root cause, one incident"
    line.life(EngineState.STARTING)
    line.feed(GOOD, seconds=5)
    assert line.open() == [one.detector], "it does not serve yet"
    line.life(EngineState.READY)
    line.feed(GOOD, seconds=AWAY_S + 5)
    assert line.open() == []


def test_a_page_that_cannot_be_used_is_a_ticket() -> None:
    line = Line()
    line.life(EngineState.READY)
    line.feed(GOOD)
    line.feed(BAD, seconds=SCRAPE_S)
    assert line.open() == []
    effects = line.feed(BAD, seconds=2)
    (one,) = line.state.incidents.open
    assert (one.detector, one.severity, one.confirmed) == ("scrape_failed", "ticket", True)
    assert one.since == pytest.approx(line.clock.now().wall - 61)
    told = [event for each in effects for event in each.events]
    assert [(event.kind, event.text, event.severity) for event in told] == [
        ("incident", "incident 1 (scrape_failed) opened: ticket", "warning")
    ]
    assert [incident.uid for each in effects for incident in each.incidents] == [one.uid]
    line.feed(GOOD, seconds=AWAY_S + 5)
    assert line.open() == []


def test_a_disk_that_fills_is_a_ticket_until_there_is_room_again() -> None:
    line = Line()

    def disk(free: int) -> HostReading:
        return HostReading(outcome=Outcome.OK, host=HostView(disk_free_bytes=free, disk_total_bytes=1 << 40))

    line.feed(disk(DISK_LOW_BYTES))
    assert line.open() == []
    line.feed(disk(DISK_LOW_BYTES - 1))
    (one,) = line.state.incidents.open
    assert (one.detector, one.subject) == ("disk_low", "host")
    assert one.summary == "the disk of the state directory has 1024 MiB left"
    line.feed(disk(DISK_WELL_BYTES - 1), seconds=AWAY_S * 2)
    assert line.open() == ["disk_low"]
    line.feed(HostReading(outcome=Outcome.FAILED), seconds=AWAY_S * 2)
    line.feed(HostReading(outcome=Outcome.OK, host=HostView()), seconds=AWAY_S * 2)
    assert line.open() == ["disk_low"], "unknown is not well"
    line.feed(disk(DISK_WELL_BYTES), seconds=AWAY_S + 5)
    assert line.open() == []


def test_a_crash_is_one_incident_with_the_restart_that_mended_it() -> None:
    line = Line()
    line.life(EngineState.READY)
    line.feed(GOOD, seconds=5)
    line.life(EngineState.BACKING_OFF, "exited by itself with code 1")
    (one,) = line.state.incidents.open
    assert (one.detector, one.severity) == ("engine_down", "page")
    again = Transaction(id="t", engine="a", kind="restart", began=line.clock.now().wall, cause="exited", automatic=True)
    line.life(EngineState.STARTING, transaction=again)
    line.life(
        EngineState.READY,
        transaction=msgspec.structs.replace(again, ended=line.clock.now().wall, outcome="ok"),
    )
    line.feed(Event(t=0.0, subject="engine/a", kind="action", text="drain asked by uid 0"))
    line.feed(GOOD, seconds=AWAY_S + 5)
    assert line.open() == []
    closed = line.state.incidents.shown(line.clock.now())[0]
    assert [(action.kind, action.outcome) for action in closed.actions] == [("restart", "ok")]
    texts = [entry.text for entry in closed.timeline]
    assert "starting → ready" in texts
    assert "restart ok" in texts
    assert "drain asked by uid 0" in texts
    assert closed.timeline[-1].kind == "resolved"


def test_an_incident_of_an_engine_that_was_stopped_ends_without_pages() -> None:
    line = Line()
    line.life(EngineState.READY)
    line.feed(GOOD)
    line.life(EngineState.BACKING_OFF, "exited by itself with code 1")
    line.life(EngineState.STOPPED)
    assert line.open() == ["engine_down"]
    line.feed(HostReading(outcome=Outcome.OK, host=HostView()), seconds=AWAY_S + 5)
    assert line.open() == []


def test_what_opens_is_loud_and_what_people_say_is_not() -> None:
    line = Line()
    line.life(EngineState.READY)
    line.feed(GOOD)
    line.life(EngineState.PARKED, "the model is not there")
    (one,) = line.state.incidents.open
    (opened,) = [event for event in line.state.events if event.kind == "incident"]
    assert opened.severity == "error"
    change = line.state.incidents.note(one, line.clock.now(), "ann", "a disk was moved")
    assert [event.severity for event in told([change], line.clock.now())] == ["info"]


@pytest.mark.parametrize("outcome", ["ok", "failed"])
def test_a_restart_that_somebody_asked_for_is_expected_unless_it_fails(outcome: str) -> None:
    line = Line()
    line.life(EngineState.READY)
    line.feed(GOOD)
    restart = Transaction(id="t", engine="a", kind="restart", began=line.clock.now().wall, cause="new weights")
    line.life(EngineState.STARTING, transaction=restart)
    line.feed(BAD, seconds=SCRAPE_S + SUSPECT_S + 5)
    assert line.open() == []
    over = msgspec.structs.replace(restart, ended=line.clock.now().wall, outcome=outcome)
    if outcome == "ok":
        line.life(EngineState.READY, transaction=over)
        line.feed(BAD, seconds=WITHIN_S - 5)
        assert line.open() == []
        line.feed(BAD, seconds=10)
        assert line.open() == ["scrape_failed"]
    else:
        line.life(EngineState.FAILED, "exited with code 1", transaction=over)
        assert "engine_down" in line.open() or "scrape_failed" in line.open()


def test_an_engine_that_is_taken_away_leaves_nothing_open() -> None:
    line = Line()
    line.life(EngineState.READY)
    line.feed(GOOD)
    line.feed(BAD, seconds=SCRAPE_S + 2)
    line.state.configure([])
    (effects,) = line.feed(HostReading(outcome=Outcome.OK, host=HostView()))
    assert [one.state for one in effects.incidents] == ["resolved"]
    assert line.open() == []


def test_an_incident_is_given_to_the_writer_before_anybody_acts_on_the_claim() -> None:
    order: list[str] = []

    class Records:
        def append(self, wall: float, samples: list[Sample]) -> None:
            """Keep nothing."""

        def life(self, life: LifeView) -> None:
            """Keep nothing."""

        def event(self, event: Event) -> Future[None]:
            return done()

        def incident(self, incident: Incident, told: object = ()) -> Future[None]:
            order.append(f"written: {incident.detector}")
            return done()

    line = Line()
    flow = Flow(line.clock, line.state, Records(), Newest(bytes))
    flow.on_finding = lambda change: order.append(f"heard: {change.finding.detector}")
    flow.on_incident = lambda incident: order.append(f"told: {incident.detector}")
    for state in (EngineState.READY, EngineState.BACKING_OFF):
        started = None if state in OVER else 1.0
        flow.life(LifeView(engine="a", state=state, since=0.0, supervised=True, started=started, message="exited"))
        flow.reading(GOOD)
    assert order[:3] == ["written: engine_down", "told: engine_down", "heard: engine_down"]


def test_trouble_with_a_channel_stays_until_it_is_mended_or_not_configured_any_more() -> None:
    clock, state = ManualClock(), PipelineState("gpu-a")
    state.channels = {"chat"}
    claim = Claim(
        detector="channel_broken", subject="channel/chat", severity="ticket", summary="HTTP 401",
        since=clock.now().wall, confirmed=True,
    )  # fmt: skip
    state.incidents.see(claim.subject, [claim], clock.now())
    looked = HostReading(outcome=Outcome.OK, host=HostView(load1=0.1))
    assert feed(state, looked, clock.advance(5.0)).incidents == ()
    state.channels = set()
    (gone,) = feed(state, looked, clock.advance(5.0)).incidents
    assert not gone.open
