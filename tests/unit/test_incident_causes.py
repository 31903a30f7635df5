"""What belongs to which incident, by what its numbers say; and what a person has closed that gets worse."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from alerts.incident_actions import ACTIONS_KEPT
from alerts.incidents import AWAY_S, GONE_S, SUSPECT_S
from opsboard.core.model import Transaction
from tests.support.incident_world import A, World


@pytest.mark.parametrize(
    ("predicates", "belong"),
    [
        ("lost", {"stall", "engine_down", "latency"}),
        ("hot xid_reset", {"stall", "engine_down", "latency"}),
        ("xid_restart", {"engine_down", "latency"}),
        ("hot slowed", {"latency"}),
        ("xid_wears", set()),
    ],
)
def test_a_gpu_explains_what_such_a_fault_can_do(predicates: str, belong: set[str]) -> None:
    for detector in ("stall", "engine_down", "latency"):
        world = World()
        fault = world.claim("gpu_fault", severity="ticket", evidence={"predicates": predicates})
        world.see(fault)
        world.see(fault, world.claim(detector), seconds=3)
        names = {one.detector for one in world.open()}
        assert names == ({"gpu_fault"} if detector in belong else {"gpu_fault", detector})


@pytest.mark.parametrize(
    ("leak", "down", "belongs"),
    [
        ("memory_leak", {"evidence": {"predicate": "exited", "exit_code": -9.0}}, True),
        ("memory_leak", {"evidence": {"predicate": "half_death", "exit_code": None}}, True),
        ("memory_leak", {"evidence": {"predicate": "exited", "exit_code": 1.0}}, False),
        ("memory_leak", {"evidence": {"predicate": "refused"}}, False),
        ("gpu_memory_leak", {"summary": "exited by itself with code 1: CUDA Out of memory"}, True),
        ("gpu_memory_leak", {"evidence": {"predicate": "exited", "exit_code": -9.0}}, False),
    ],
)
def test_a_leak_of_memory_explains_an_engine_that_was_killed(leak: str, down: dict[str, Any], belongs: bool) -> None:
    world = World()
    cause = world.claim(leak, severity="ticket")
    world.see(cause, seconds=300, step=10)
    world.see(cause, world.claim("engine_down", **down), calm=False)
    assert [one.detector for one in world.open()] == [leak] if belongs else [leak, "engine_down"]
    assert world.open()[0].severity == ("page" if belongs else "ticket")


@pytest.mark.parametrize(("usage", "belongs"), [(0.98, True), (0.2, False), (None, False)])
def test_lost_blocks_explain_a_stall_when_the_cache_is_full(usage: float | None, belongs: bool) -> None:
    world = World()
    cause = world.claim("kv_leak", severity="ticket")
    world.see(cause, seconds=300, step=10)
    world.see(cause, world.claim("stall", evidence={"kv_usage": usage}))
    assert len(world.open()) == (1 if belongs else 2)


@pytest.mark.parametrize("taken_on", [False, True])
def test_what_came_of_a_cause_that_was_proven_later_ends_in_it_unless_somebody_has_taken_it_on(taken_on: bool) -> None:
    world = World()
    storm = world.claim("preemption_storm")
    world.see(storm, seconds=300, step=10)
    if taken_on:
        world.rules.acknowledge(world.open()[0], world.clock.now(), "ann", "")
    leak = world.claim("kv_leak", severity="ticket", since=storm.since - 600)
    world.see(storm, leak, seconds=30)
    assert [one.detector for one in world.open()] == (["preemption_storm", "kv_leak"] if taken_on else ["kv_leak"])
    assert [one.related for one in world.open()] == ([(2,), (1,)] if taken_on else [(1,)])
    assert world.open()[-1].severity == ("ticket" if taken_on else "page")


def test_what_a_consequence_causes_belongs_to_the_cause_as_well() -> None:
    world = World()
    leak = world.claim("kv_leak", severity="ticket")
    world.see(leak, seconds=300, step=10)
    storm = world.claim("preemption_storm")
    world.see(leak, storm, seconds=5)
    burn = world.claim("slo_burn")
    world.see(leak, storm, burn, seconds=5)
    (one,) = world.open()
    assert [entry.text for entry in one.timeline if entry.kind == "caused"] == [
        "preemption_storm: preemption_storm!",
        "slo_burn: slo_burn!",
    ]


def test_a_consequence_that_becomes_louder_makes_its_cause_as_loud() -> None:
    world = World()
    fault = world.claim("gpu_fault", severity="ticket")
    world.see(fault)
    world.see(fault, world.claim(confirmed=False), seconds=SUSPECT_S + 5)
    assert world.open()[0].severity == "ticket"
    (louder,) = world.see(fault, world.claim())
    assert (louder.told, louder.loud, louder.incident.severity) == ("went from ticket to page", True, "page")
    assert world.see(fault, world.claim(), seconds=30) == []


def test_a_consequence_that_flickers_is_one_line_of_its_cause() -> None:
    world = World()
    cause, line = world.claim(), world.claim("latency")
    world.see(cause)
    for _ in range(10):
        world.see(cause, line)
        world.see(cause, seconds=GONE_S / 2)
    assert world.kinds() == ["opened", "caused"]


def test_a_consequence_that_is_dated_anew_stays_with_its_cause() -> None:
    world = World()
    cause = world.claim()
    world.see(cause)
    world.see(cause, world.claim("latency"), seconds=5)
    world.see(cause, world.claim("latency", since=cause.since - 3600), seconds=5)
    assert [one.detector for one in world.open()] == ["stall"]


# --- what people close


def test_what_is_closed_by_hand_while_it_flickers_stays_closed() -> None:
    world = World()
    world.see(world.claim())
    world.see(seconds=5)
    world.rules.resolve(world.open()[0], world.clock.now(), "ann", "known")
    assert world.see(world.claim(), seconds=60) == []
    (over,) = world.see(seconds=AWAY_S + 5)
    assert over.incident.ended is not None


def test_what_is_closed_by_hand_and_gets_worse_is_told_again() -> None:
    world = World()
    mild = world.claim("kv_leak", severity="ticket")
    world.see(mild)
    world.rules.resolve(world.open()[0], world.clock.now(), "ann", "next week")
    assert world.see(mild, seconds=60) == []
    assert world.see(world.claim("kv_leak", confirmed=False), seconds=600, step=10) == [], "not sure is not worse"
    first, second = world.see(world.claim("kv_leak"))
    assert (first.incident.id, first.told, first.incident.ended) == (1, None, world.clock.now().wall)
    assert (second.incident.id, second.told, second.incident.related) == (2, "opened: page", (1,))


def test_what_was_closed_by_hand_of_an_engine_that_left_is_over() -> None:
    world = World()
    world.see(world.claim())
    world.rules.resolve(world.open()[0], world.clock.now(), "ann", "taken away")
    (over,) = world.rules.leave({"host"}, world.clock.now())
    assert (over.told, over.incident.ended) == (None, world.clock.now().wall)
    assert not world.rules.concerned(A)


def test_an_older_one_that_was_left_open_is_not_taken_for_the_one_that_is() -> None:
    first = World()
    (opened,) = first.see(first.claim())
    twin = replace(opened.incident, id=2, uid="twin")
    second = World()
    second.rules.resume([opened.incident, twin], {}, 3)
    now = second.clock.now()
    second.rules.acknowledge(opened.incident, now, "ann", "")
    closed = second.rules.resolve(opened.incident, now, "ann", "a twin")
    assert closed.incident.id == 1
    assert [one.uid for one in second.open()] == ["twin"]


def test_an_end_that_nobody_saw_is_not_given_a_length() -> None:
    first = World()
    (opened,) = first.see(first.claim())
    second = World()
    second.rules.resume([opened.incident], {}, 2)
    second.clock.advance(6 * 3600)
    (closed,) = second.see(seconds=AWAY_S + 5)
    assert closed.told == "resolved: not claimed since opsboard began anew; nobody saw it end"


def test_an_incident_of_months_does_not_hold_every_restart() -> None:
    world = World()
    world.see(world.claim())
    for number in range(ACTIONS_KEPT + 20):
        done = Transaction(
            id=str(number), engine="a", kind="restart", began=world.clock.advance(60).wall, automatic=True, outcome="ok"
        )
        world.rules.act(done, world.clock.now())
    kept = world.open()[0].actions
    assert (len(kept), kept[-1].id) == (ACTIONS_KEPT, str(ACTIONS_KEPT + 19))
