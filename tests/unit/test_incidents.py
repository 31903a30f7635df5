"""The life of an incident: what opens it, what keeps it open, what closes it, what belongs to which."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from alerts.flapping import BEGINS, ENDS, STATES, flaps, part_of_change
from alerts.incidents import (
    AWAY_S,
    CHECK_S,
    LEAK_AWAY_S,
    LOUD_S,
    REFRESH_S,
    RESUMED_AWAY_S,
    SUSPECT_S,
    Incidents,
)
from alerts.inhibition import LINGERS_S, WITHIN_S
from alerts.timeline import FIRST, LINES, add, told_s
from opsboard.core.model import Event, Transaction
from tests.support.incident_world import A, World

if TYPE_CHECKING:
    from opsboard.core.incidents import Incident


def test_a_certain_claim_opens_one_incident_at_once_and_its_absence_closes_it_for_good() -> None:
    world = World()
    claim = world.claim()
    (opened,) = world.see(claim)
    assert opened.told == "opened: page"
    one = opened.incident
    assert (one.id, one.state, one.since, one.opened) == (1, "open", claim.since, world.clock.now().wall)
    assert world.see(claim, seconds=30) == []
    gone = world.see(seconds=AWAY_S - 1)
    assert [change.told for change in gone] == [None], "only the timeline"
    assert world.open() == [gone[0].incident]
    left = one.opened + 30
    assert gone[0].incident.ended == left
    world.see()
    (closed,) = world.see()
    assert closed.told == f"resolved: over after {told_s(left - claim.since)}"
    assert (closed.incident.state, closed.incident.ended) == ("resolved", left)
    assert world.open() == []
    (again,) = world.see(world.claim())
    assert (again.incident.id, again.incident.related, again.incident.uid != one.uid) == (2, (1,), True)


def test_a_suspicion_opens_when_it_has_stood_for_a_while() -> None:
    world = World()
    doubt = world.claim(confirmed=False)
    assert world.see(doubt, seconds=SUSPECT_S) == []
    (opened,) = world.see(doubt)
    assert (opened.incident.confirmed, opened.incident.severity) == (False, "ticket")
    (sure,) = world.see(world.claim())
    assert (sure.told, sure.incident.confirmed) == ("went from ticket to page", True)
    assert world.kinds(sure.incident) == ["opened", "confirmed", "severity"]
    world.see(seconds=200)
    assert world.see(doubt, seconds=SUSPECT_S) == []
    world.see()
    assert world.see(doubt, seconds=SUSPECT_S) == [], "the wait begins anew"


def test_a_suspicion_that_lasts_pages_in_the_end() -> None:
    world = World()
    doubt = world.claim(confirmed=False)
    world.see(doubt, seconds=LOUD_S)
    assert world.open()[0].severity == "ticket"
    assert [change.told for change in world.see(doubt, seconds=2)] == ["went from ticket to page"]


def test_a_short_absence_is_told_and_closes_nothing() -> None:
    world = World()
    world.see(world.claim())
    world.see(seconds=5)
    assert world.see(world.claim(), seconds=3) == [], "not worth a line"
    world.see(seconds=30)
    (back,) = world.see(world.claim())
    assert world.kinds(back.incident) == ["opened", "gone", "back"]
    assert back.incident.ended is None


def test_what_cannot_be_judged_is_not_over() -> None:
    world = World()
    world.see(world.claim())
    assert world.see(seconds=3600, calm=False, step=10) == []
    assert len(world.open()) == 1
    assert world.see(seconds=AWAY_S)[-1].told is None
    assert world.see(seconds=2)[-1].incident.resolved is not None


def test_numbers_that_move_are_kept_newest_and_first() -> None:
    world = World()
    world.see(world.claim(evidence={"blocks": 10}, summary="10 blocks"))
    written = [
        change.incident.evidence
        for blocks in range(11, 11 + 2 * int(REFRESH_S))
        for change in world.see(world.claim(evidence={"blocks": blocks}, summary=f"{blocks} blocks"))
    ]
    assert written == [{"blocks": 70}, {"blocks": 130}]
    (one,) = world.open()
    assert (one.evidence, one.first_evidence) == ({"blocks": 130}, {"blocks": 10})
    assert (one.summary, one.first_summary) == ("130 blocks", "10 blocks")


def test_an_incident_only_becomes_louder() -> None:
    world = World()
    world.see(world.claim(severity="ticket"))
    (louder,) = world.see(world.claim(severity="page"))
    assert (louder.told, louder.incident.severity) == ("went from ticket to page", "page")
    assert world.see(world.claim(severity="note")) == []
    assert world.open()[0].severity == "page"


# --- one root cause, one incident


def test_what_a_stall_causes_is_a_line_of_the_stall() -> None:
    world = World()
    stall = world.claim()
    world.see(stall)
    slow = world.claim("latency", severity="ticket")
    (line,) = world.see(stall, slow, seconds=50)
    assert line.incident.detector == "stall"
    assert line.incident.timeline[-1].text == "latency: latency!"
    world.see(slow, seconds=AWAY_S + 2)
    assert world.open() == []
    assert world.see(slow, seconds=WITHIN_S - 2) == [], "it may still come of it"
    (own,) = world.see(slow, seconds=5)
    assert (own.incident.detector, own.incident.related) == ("latency", (1,))


def test_what_looks_back_over_a_window_belongs_for_longer() -> None:
    world = World()
    stall, burn = world.claim(), world.claim("slo_burn")
    world.see(stall, burn)
    world.see(burn, seconds=AWAY_S + LINGERS_S["slo_burn"] - 10, step=10)
    assert world.open() == []
    world.see(burn, seconds=60)
    assert [one.detector for one in world.open()] == ["slo_burn"]


def test_a_consequence_that_was_told_before_its_cause_ends_in_it() -> None:
    world = World()
    slow = world.claim("latency", severity="page")
    world.see(slow)
    world.clock.advance(20)
    changes = world.see(world.claim("engine_down", severity="ticket"), slow)
    (root,) = world.open()
    assert (root.detector, root.severity, root.related) == ("engine_down", "page", (1,))
    told = {change.incident.id: change.incident for change in changes}
    assert (told[1].cause, told[1].resolved, told[1].related) == (2, world.clock.now().wall, (2,))
    assert told[1].timeline[-1].text == "belongs to incident 2: engine_down!"
    assert world.see(world.claim("engine_down"), slow, seconds=10) == []


def test_what_began_long_before_is_a_trouble_of_its_own_and_related() -> None:
    world = World()
    slow = world.claim("latency")
    world.see(slow, seconds=300)
    world.see(world.claim(), slow)
    assert [(one.detector, one.related) for one in world.open()] == [("latency", (2,)), ("stall", (1,))]


def test_of_claims_that_come_at_once_the_cause_opens() -> None:
    world = World()
    world.see(*(world.claim(name) for name in ("slo_burn", "latency", "stall", "engine_down", "odd")))
    assert [(one.detector, one.id) for one in world.open()] == [("engine_down", 1), ("odd", 2)]


def test_another_subject_explains_nothing() -> None:
    world = World()
    world.see(world.claim())
    other = world.claim("latency", subject="engine/b")
    (opened,) = world.rules.see("engine/b", [other], world.clock.now())
    assert (opened.incident.detector, opened.incident.related) == ("latency", ())


def test_somebody_works_on_it() -> None:
    world = World()
    claim = world.claim()
    assert world.see(claim, seconds=120, held=float("inf")) == []
    assert world.see(claim, held=claim.since) == [], "it began meanwhile"
    (opened,) = world.see(claim, held=claim.since - 1)
    assert opened.incident.detector == "stall"
    world.see(held=float("inf"), calm=False, seconds=200)
    assert world.open() != [], "a restart closes nothing"


# --- flapping


def test_flapping_is_told_as_nagios_does() -> None:
    steady, changing = [True] * STATES, [at % 2 == 0 for at in range(STATES)]
    assert part_of_change(steady) == 0
    assert part_of_change(changing) == pytest.approx(1.0)
    assert part_of_change([False] * 20 + [True]) == pytest.approx(0.0625)  # base/flapping.c: one newest change 6.25 %
    assert part_of_change([True] + [False] * 20) == pytest.approx(0.0375)
    newest = [part_of_change([False] * (20 - n) + [at % 2 == 1 for at in range(n + 1)]) for n in range(1, 7)]
    assert [round(part * 100, 1) for part in newest] == [6.2, 12.4, 18.4, 24.2, 29.9, 35.5]
    assert flaps(BEGINS, before=False)
    assert not flaps(BEGINS - 0.01, before=False)
    assert flaps(ENDS, before=True)
    assert not flaps(ENDS - 0.01, before=True)


def test_what_comes_and_goes_becomes_one_incident() -> None:
    world = World()
    for _ in range(15):
        world.see(world.claim(), seconds=CHECK_S, step=5)
        world.see(seconds=CHECK_S, step=5)
    (one,) = world.open()
    assert one.flapping
    opened = one.id
    for _ in range(5):
        world.see(world.claim(), seconds=CHECK_S, step=5)
        world.see(seconds=CHECK_S, step=5)
    assert [one.id for one in world.open()] == [opened]
    world.see(seconds=STATES * CHECK_S, step=5)
    assert world.open() == []
    assert [change.told for change in world.changes].count("is flapping") == 1
    assert not world.changes[-1].incident.flapping


# --- what people do


def test_people_acknowledge_note_and_resolve() -> None:
    world = World()
    world.see(world.claim())
    now = world.clock.now()
    acked = world.rules.acknowledge(world.open()[0], now, "ann", "")
    assert (acked.incident.state, acked.incident.acknowledged_by) == ("acknowledged", "ann")
    again = world.rules.acknowledge(acked.incident, world.clock.advance(5), "bob", "me too")
    assert (again.incident.acknowledged, again.incident.acknowledged_by) == (now.wall, "ann")
    noted = world.rules.note(again.incident, now, "bob", "it is the fan")
    assert world.kinds(noted.incident) == ["opened", "ack", "ack", "note"]
    closed = world.rules.resolve(noted.incident, world.clock.now(), "ann", "")
    assert (closed.incident.state, closed.incident.resolved_by, closed.incident.ended) == ("resolved", "ann", None)
    assert world.see(world.claim(), seconds=600) == [], "closed by hand it stays closed while it lasts"
    noted = world.rules.note(closed.incident, world.clock.now(), "ann", "still there")
    (over,) = world.see(seconds=AWAY_S + 5)
    assert (over.told, over.incident.timeline[-1].text) == (None, "still there")
    assert over.incident.ended is not None
    (another,) = world.see(world.claim())
    assert (another.incident.id, another.incident.related) == (2, (1,))


def test_what_a_person_closed_explains_as_long_as_it_lasts() -> None:
    world = World()
    world.see(world.claim("engine_down"))
    world.rules.resolve(world.open()[0], world.clock.now(), "ann", "taken out for good")
    late = world.claim("scrape_failed")
    assert world.see(world.claim("engine_down"), late, seconds=600) == []
    world.see(late, seconds=AWAY_S + 1)
    world.see(late, seconds=WITHIN_S + 1)
    assert [one.detector for one in world.open()] == ["scrape_failed"]


def test_what_is_done_about_it_is_on_its_timeline() -> None:
    world = World()
    world.see(world.claim())
    began = Transaction(id="t", engine="a", kind="restart", began=world.clock.now().wall, cause="stall", automatic=True)
    (begun,) = world.rules.act(began, world.clock.now())
    assert world.rules.act(began, world.clock.now()) == []
    ended = Transaction(
        id="t", engine="a", kind="restart", began=began.began, cause="stall", automatic=True, ended=1.0, outcome="ok"
    )
    (done,) = world.rules.act(ended, world.clock.now())
    assert [entry.text for entry in done.incident.timeline[1:]] == ["restart began: stall", "restart ok"]
    assert [(action.kind, action.outcome, action.reason) for action in done.incident.actions] == [
        ("restart", "ok", "stall")
    ]
    assert begun.incident.actions[0].outcome is None
    before = Transaction(id="u", engine="a", kind="start", began=began.began - 600)
    assert world.rules.act(before, world.clock.now()) == [], "what was done before is not about it"
    told = Event(t=0.0, subject=A, kind="ready", text="starting → ready")
    assert [world.kinds(change.incident)[-1] for change in world.rules.hear(told, world.clock.now())] == ["state"]
    assert world.rules.hear(Event(t=0.0, subject=A, kind="daemon", text="x"), world.clock.now()) == []


def test_an_engine_that_left_the_configuration_leaves_no_open_incident() -> None:
    world = World()
    world.see(world.claim())
    assert world.rules.leave({A}, world.clock.now()) == []
    (closed,) = world.rules.leave({"host"}, world.clock.now())
    assert closed.told == "resolved: engine/a is not configured any more"


# --- the next daemon


def resumed(*kept: Incident) -> World:
    rules = Incidents()
    last = {(one.detector, one.subject): (one.id, one.opened) for one in kept}
    rules.resume(kept, last, 1 + max(one.id for one in kept))
    return World(rules)


@pytest.mark.parametrize(
    ("detector", "seconds"), [("stall", AWAY_S), ("kv_leak", RESUMED_AWAY_S), ("memory_leak", LEAK_AWAY_S)]
)
def test_the_next_daemon_goes_on_and_closes_what_is_over(detector: str, seconds: float) -> None:
    first = World()
    (opened,) = first.see(first.claim(detector))
    second = resumed(opened.incident)
    assert second.see(seconds=seconds - 20, step=10) == []
    assert second.see(seconds=35)[-1].incident.resolved is not None
    third = resumed(opened.incident)
    third.see(third.claim(detector), seconds=100)
    assert [one.uid for one in third.open()] == [opened.incident.uid]
    third.see(seconds=AWAY_S + 5)
    assert third.open() == [], "what it has seen itself is over as fast as ever"
    assert third.see(third.claim(detector))[0].incident.id == 2


def test_a_leak_of_the_last_daemon_is_over_when_its_engine_begins_anew() -> None:
    first = World()
    (opened,) = first.see(first.claim("memory_leak"))
    second = resumed(opened.incident)
    second.rules.hear(Event(t=0.0, subject=A, kind="starting", text="stopped → starting"), second.clock.now())
    assert second.see(seconds=AWAY_S + 5)[-1].incident.resolved is not None


def test_the_next_daemon_opens_nothing_that_a_person_closed() -> None:
    first = World()
    first.see(first.claim())
    closed = first.rules.resolve(first.open()[0], first.clock.now(), "ann", "known")
    second = resumed(closed.incident)
    assert second.see(second.claim(), seconds=60) == []


# --- the timeline


def test_a_long_timeline_gives_up_lines_in_its_middle_and_never_what_people_said() -> None:
    world = World()
    (opened,) = world.see(world.claim())
    now, one = world.clock.now(), opened.incident
    for at in range(1000):
        one = add(one, now, "note" if at % 10 == 0 else "back", str(at), None)
    assert len(one.timeline) == LINES
    assert one.left_out == 1001 - LINES
    assert [entry.text for entry in one.timeline if entry.kind == "note"] == [str(at) for at in range(0, 1000, 10)]
    assert [entry.text for entry in one.timeline[1:FIRST]] == [str(at) for at in range(FIRST - 1)]
    assert one.timeline[-1].text == "999"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.4, "0 s"), (42, "42 s"), (200, "3 m 20 s"), (7500, "2 h 05 m"), (3 * 86400 + 4 * 3600, "3 d 4 h")],
)
def test_durations_are_said_as_people_say_them(seconds: float, said: str) -> None:
    assert told_s(seconds) == said
