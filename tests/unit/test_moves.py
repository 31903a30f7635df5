"""What automation does and does not do, one situation each; that no sequence goes wrong is shown in tests/property."""

from __future__ import annotations

import msgspec
import pytest

from opsboard.core.clock import ManualClock
from opsboard.core.model import EngineState, FatalVerdict
from opsboard.supervise import machine
from opsboard.supervise.adopting import adopt
from opsboard.supervise.budget import Allowed, Spent
from opsboard.supervise.moves import hint
from opsboard.supervise.situation import (
    Accused,
    Acquitted,
    Answers,
    Body,
    Command,
    Drain,
    Event,
    Exited,
    Found,
    Gone,
    Launched,
    LaunchFailed,
    Prepared,
    Ready,
    Reborn,
    Restart,
    Situation,
    Start,
    Stop,
    Survived,
    Terms,
    Tick,
    Undrain,
    Unprepared,
    Unproven,
)

NOW = ManualClock().now()
LATER = ManualClock(mono=2_000.0).now()
TERMS = Terms(restart="on-failure", drain_timeout_s=60.0, decision=Allowed(wait_s=8.0, text="restart 2 of 5"))
SPENT = Terms(restart="on-failure", decision=Spent(which="engine", text="restarted 5 times"))
CRASH = Exited(code=-9)


def after(*events: Event, terms: Terms = TERMS, situation: Situation | None = None) -> Situation:
    situation = situation or Situation(since=0.0)
    for event in events:
        situation, _ = machine.step(situation, event, NOW, terms)
    return situation


UP = after(Start(), Launched(900.0))
READY = after(Answers(), Ready(), situation=UP)
HANGS = after(Accused(cause="stall: no step"), situation=READY)
PARKED_ALIVE = after(Accused(cause="stall: no step"), terms=SPENT, situation=READY)


def test_it_is_known_how_long_the_life_before_has_served() -> None:
    later = ManualClock(mono=NOW.mono + 700.0).now()
    assert READY.served(later.mono) == 700.0
    drained, _ = machine.step(READY, Drain(), later, TERMS)
    assert drained.served(later.mono + 5.0) == 705.0, "it serves what it has begun"
    crashed, _ = machine.step(drained, CRASH, later, TERMS)
    assert crashed.served(LATER.mono) == 700.0
    begun, _ = machine.step(crashed, Start(), later, TERMS)
    assert begun.served(LATER.mono) == 0.0


def test_a_crash_waits_is_prepared_and_begins_anew() -> None:
    waiting = after(CRASH, situation=READY)
    assert (waiting.state, waiting.retry_at) == (EngineState.BACKING_OFF, NOW.mono + 8.0)
    assert waiting.message == "killed by SIGKILL; restart 2 of 5"
    assert machine.step(waiting, Tick(), NOW, TERMS) == (waiting, [])
    due, commands = machine.step(waiting, Tick(), LATER, TERMS)
    assert (due.state, commands) == (EngineState.BACKING_OFF, [Command.PREPARE])
    assert machine.step(due, Tick(), LATER, TERMS)[1] == []
    begun, commands = machine.step(due, Prepared(), LATER, TERMS)
    assert (begun.state, begun.automatic, commands) == (EngineState.STARTING, True, [Command.LAUNCH])
    assert not after(Launched(1.0), Answers(), Ready(), situation=begun).automatic


def test_a_hang_is_ended_when_its_turn_comes() -> None:
    assert (HANGS.state, HANGS.body, HANGS.cause) == (EngineState.BACKING_OFF, Body.ALIVE, "stall: no step")
    due, _ = machine.step(HANGS, Tick(), LATER, TERMS)
    ending, commands = machine.step(due, Prepared(), LATER, TERMS)
    assert (ending.state, commands) == (EngineState.STOPPING, [Command.END])
    assert machine.step(ending, Gone(), LATER, TERMS)[1] == [Command.LAUNCH]


@pytest.mark.parametrize(
    ("verdict", "state", "retry_s"),
    [
        (FatalVerdict.RETRY, EngineState.BACKING_OFF, 8.0),
        (FatalVerdict.WAIT, EngineState.BACKING_OFF, 15.0),
        (FatalVerdict.PARK, EngineState.PARKED, None),
    ],
)
def test_what_a_failed_start_asks_for(verdict: FatalVerdict, state: EngineState, retry_s: float | None) -> None:
    failures: list[tuple[Event, Situation]] = [
        (LaunchFailed("why", verdict), after(Start())),
        (Exited(code=1, verdict=verdict), UP),
    ]
    for event, begin in failures:
        failed = after(event, situation=begin)
        assert failed.state is state
        assert failed.retry_at == (None if retry_s is None else NOW.mono + retry_s)
        assert failed.message


def test_what_has_served_was_not_configured_wrongly() -> None:
    assert after(Exited(code=1, verdict=FatalVerdict.PARK), situation=READY).state is EngineState.BACKING_OFF


@pytest.mark.parametrize("terms", [Terms(restart="never", decision=TERMS.decision), TERMS])
def test_nothing_is_done_for_an_engine_that_nobody_wants_or_that_is_supervised_by_hand(terms: Terms) -> None:
    wanted = terms.restart == "never"
    found, _ = adopt(Found(alive=True, was_ready=True), wanted=wanted, ready_timeout_s=900.0, now=NOW, terms=terms)
    left_alone = machine.step(found, Accused(cause="stall"), NOW, terms)
    assert left_alone == (msgspec.structs.replace(found, broken=True), [])
    assert after(CRASH, terms=terms, situation=found).state is EngineState.FAILED


@pytest.mark.parametrize(("restart", "state"), [("on-failure", "stopped"), ("always", "backing_off")])
def test_an_end_by_another_hand(restart: str, state: str) -> None:
    terms = Terms(restart="always" if restart == "always" else "on-failure")
    assert after(Exited(code=-15, asked_by="SIGTERM to the shim"), terms=terms, situation=READY).state.value == state


def test_parked_stays_parked_whatever_happens_to_it() -> None:
    assert (PARKED_ALIVE.state, PARKED_ALIVE.body) == (EngineState.PARKED, Body.ALIVE)
    assert PARKED_ALIVE.message == "restarted 5 times: stall: no step", "first why it is left alone"
    assert "`opsboard engine start a` un-parks it" in (hint("a", PARKED_ALIVE) or "")
    for event in (CRASH, Exited(code=1, left=(7,)), Tick(), Accused(cause="again"), Unproven("no token"), Prepared()):
        situation, commands = machine.step(PARKED_ALIVE, event, LATER, TERMS)
        assert (situation.state, commands) == (EngineState.PARKED, [])
    dead = after(CRASH, situation=PARKED_ALIVE)
    assert dead.body is Body.NOTHING
    assert after(Stop(), situation=dead).state is EngineState.STOPPED
    assert machine.step(dead, Start(), NOW, TERMS)[1] == [Command.LAUNCH]
    assert machine.step(PARKED_ALIVE, Start(), NOW, TERMS)[1] == [Command.END]
    late = after(Answers(), situation=PARKED_ALIVE)
    assert (late.state, after(Ready(), situation=late).state) == (EngineState.PARKED, EngineState.READY)


def test_a_process_that_cannot_be_killed_parks_what_automation_began_and_not_what_a_person_did() -> None:
    due, _ = machine.step(HANGS, Tick(), LATER, TERMS)
    wedged = after(Prepared(), Survived("KILL does not end pid 5"), situation=due)
    assert (wedged.state, wedged.body) == (EngineState.PARKED, Body.ENDING)
    assert machine.step(wedged, Gone(), NOW, TERMS)[1] == []
    asked = after(Restart(now=True), Survived("KILL does not end pid 5"), situation=READY)
    assert (asked.state, asked.message) == (EngineState.STOPPING, "KILL does not end pid 5")
    assert machine.step(asked, Gone(), NOW, TERMS)[1] == [Command.LAUNCH]


def test_an_operator_comes_first_at_every_point() -> None:
    due, _ = machine.step(HANGS, Tick(), LATER, TERMS)
    for begin in (HANGS, due):
        stopped, commands = machine.step(begin, Stop(), NOW, TERMS)
        assert (stopped.state, commands) == (EngineState.STOPPING, [Command.END])
        assert machine.step(stopped, Prepared(), NOW, TERMS) == (stopped, []), "it was called off"
    crashed = after(CRASH, situation=READY)
    assert after(Stop(), situation=crashed).state is EngineState.STOPPED
    started = after(Start(), situation=crashed)
    assert (started.state, started.automatic) == (EngineState.STARTING, False)


def test_no_room_is_waited_for_and_a_lost_cause_is_not() -> None:
    due, _ = machine.step(after(CRASH, situation=READY), Tick(), LATER, TERMS)
    waiting = after(Unprepared("GPU 0 is full"), situation=due)
    assert (waiting.state, waiting.message) == (EngineState.BACKING_OFF, "GPU 0 is full")
    assert after(Unprepared("it never fits", FatalVerdict.PARK), situation=due).state is EngineState.PARKED


def test_automation_only_looks_until_it_may_act() -> None:
    looking = Terms(restart="on-failure", decision=TERMS.decision, not_before=NOW.mono + 30.0)
    assert after(CRASH, terms=looking, situation=READY).retry_at == NOW.mono + 30.0
    assert (
        after(LaunchFailed("x", FatalVerdict.WAIT), terms=looking, situation=after(Start())).retry_at == NOW.mono + 30
    )


def test_a_doubt_outlives_being_taken_out_of_service_by_hand() -> None:
    doubtful = after(Answers(), Ready("its output differs"), situation=UP)
    drained = after(Drain(), situation=doubtful)
    assert (drained.state, drained.doubt) == (EngineState.DRAINING, "its output differs")
    assert after(Undrain(), situation=drained).state is EngineState.READY


def test_a_planned_restart_drains() -> None:
    planned = Accused(cause="24 h old", planned=True)
    draining = after(planned, situation=READY)
    assert (draining.state, draining.drain_by, draining.automatic) == (EngineState.DRAINING, NOW.mono + 60.0, True)
    spent = after(planned, terms=SPENT, situation=READY)
    assert spent.state is EngineState.DRAINING, "it has been counted: it may be the last one"
    by_hand = Terms(restart="never", drain_timeout_s=60.0)
    assert after(planned, terms=by_hand, situation=READY).state is EngineState.DRAINING, "it was asked for, by age"
    out_of_service = after(Drain(), situation=READY)
    assert after(planned, situation=out_of_service) == out_of_service
    assert machine.step(draining, Accused(cause="stall"), NOW, TERMS)[1] == [Command.END], "what hangs ends no request"


def test_what_is_found_of_a_life_that_was_thought_over_is_ended() -> None:
    found = LaunchFailed("still there: pid 7", FatalVerdict.WAIT, left=True)
    by_hand = Terms(restart="never")
    failed = after(Start(), found, terms=by_hand)
    assert (failed.state, failed.body) == (EngineState.FAILED, Body.LEFT)
    assert machine.step(failed, Stop(), NOW, by_hand)[1] == [Command.END]
    assert machine.step(after(Start(), Stop()), found, NOW, TERMS)[1] == [Command.END], "it was stopped meanwhile"
    waiting = after(CRASH, situation=READY)
    for event in (found, Unprepared("still there: pid 7", left=True)):
        begun = after(Start()) if event is found else machine.step(waiting, Tick(), LATER, TERMS)[0]
        there = after(event, situation=begun)
        assert (there.state, there.body) == (EngineState.BACKING_OFF, Body.LEFT)
        due, _ = machine.step(there, Tick(), LATER, TERMS)
        assert machine.step(due, Prepared(), LATER, TERMS)[1] == [Command.END], "then it begins anew"


def test_what_does_not_work_is_not_waited_for() -> None:
    """Whoever restarts it, and whether or not it is restarted by itself."""
    by_hand = Terms(restart="never", drain_timeout_s=60.0)
    hangs = after(Accused(cause="stall"), terms=by_hand, situation=READY)
    assert (hangs.state, hangs.broken) == (EngineState.READY, True)
    restarted, commands = machine.step(hangs, Restart("it hangs"), NOW, by_hand)
    assert (commands, restarted.broken) == ([Command.END], True)
    assert not after(Gone(), terms=by_hand, situation=restarted).broken, "the next life is another one"
    draining = after(Restart("flags"), terms=by_hand, situation=READY)
    assert machine.step(draining, Accused(cause="stall"), NOW, by_hand)[1] == [Command.END]
    reborn = after(Reborn(900.0), terms=by_hand, situation=hangs)
    assert (reborn.state, reborn.broken, reborn.served(LATER.mono)) == (EngineState.STARTING, False, 0.0)
    started, commands = machine.step(hangs, Start("asked for"), LATER, by_hand)
    assert (commands, started.wanted, started.state) == ([Command.END], True, EngineState.STOPPING), "it does not work"
    works = after(Acquitted(), situation=hangs)
    assert after(Restart("flags"), situation=works).state is EngineState.DRAINING


def test_what_dies_while_it_drains_begins_anew_at_once() -> None:
    draining = after(Restart("flags"), situation=READY)
    assert machine.step(draining, CRASH, NOW, TERMS)[1] == [Command.LAUNCH]
    assert machine.step(draining, Exited(code=-9, left=(7,)), NOW, TERMS)[1] == [Command.END]


@pytest.mark.parametrize(
    ("found", "wanted", "state", "commands"),
    [
        (Found(ended=CRASH), True, EngineState.BACKING_OFF, []),
        (Found(ended=CRASH), False, EngineState.STOPPED, []),
        (Found(never_began="command not found: vllm"), True, EngineState.PARKED, []),
        (Found(never_began="cannot execute vllm: Text file busy", passing=True), True, EngineState.BACKING_OFF, []),
        (Found(parked="restarted 5 times"), True, EngineState.PARKED, []),
        (Found(parked="restarted 5 times"), False, EngineState.STOPPED, []),
        (Found(parked="wedged", ending=True, left=(7,)), True, EngineState.PARKED, [Command.END]),
        (Found(parked="stall", alive=True, was_ready=True), True, EngineState.PARKED, []),
        (Found(waiting="GPU 0 is full", automatic=True), True, EngineState.BACKING_OFF, []),
        (Found(waiting="GPU 0 is full", automatic=True), False, EngineState.STOPPED, []),
        (Found(ended_by_us=True), True, EngineState.STARTING, [Command.LAUNCH]),
        (Found(ended_by_us=True, automatic=True), True, EngineState.BACKING_OFF, []),
        (Found(alive=True, was_ready=True, drained=True), True, EngineState.DRAINING, []),
        (Found(alive=True, was_ready=True, doubt="drift"), True, EngineState.DRAINING, []),
        (Found(alive=True, was_ready=True, drain_left_s=7.0), True, EngineState.DRAINING, [Command.DRAIN]),
        (Found(alive=True, was_ready=True, drain_left_s=7.0), False, EngineState.READY, []),
    ],
)
def test_what_a_new_daemon_makes_of_automation(
    found: Found, wanted: bool, state: EngineState, commands: list[Command]
) -> None:
    situation, given = adopt(found, wanted=wanted, ready_timeout_s=900.0, now=NOW, terms=TERMS)
    assert (situation.state, given) == (state, commands)
