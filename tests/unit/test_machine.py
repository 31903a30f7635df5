"""The words and states that people see; that no sequence goes wrong is shown in tests/property/test_automation.py."""

from __future__ import annotations

import pytest

from opsboard.core.clock import ManualClock
from opsboard.core.lives import EXITS_WITH_0
from opsboard.core.model import EngineState
from opsboard.supervise import machine
from opsboard.supervise.adopting import adopt
from opsboard.supervise.budget import Allowed
from opsboard.supervise.moves import hint
from opsboard.supervise.situation import (
    Body,
    Command,
    Event,
    Exited,
    Found,
    Gone,
    Launched,
    Ready,
    Situation,
    Start,
    Stop,
    Terms,
    Tick,
)

CLOCK = ManualClock()
NOW = CLOCK.now()
OUT_OF_MEMORY = Exited(code=1, last_words="“CUDA out of memory”")


def after(*events: Event, situation: Situation | None = None) -> Situation:
    situation = situation or Situation(since=0.0)
    for event in events:
        situation, _ = machine.step(situation, event, NOW)
    return situation


UP = after(Start(), Launched(900.0))
READY = after(Ready(), situation=UP)


@pytest.mark.parametrize(
    ("event", "message"),
    [
        (OUT_OF_MEMORY, "exited by itself with code 1: “CUDA out of memory”"),
        (Exited(code=0), f"exited by itself with code 0 ({EXITS_WITH_0})"),
        (Exited(code=-9), "killed by SIGKILL"),
        (Exited(code=-99), "killed by signal 99"),
        (Exited(), "ended while nobody watched, exit status unknown"),
        (Exited(code=-9, left=(7, 8)), "killed by SIGKILL; still running: pid 7, pid 8"),
    ],
)
def test_an_end_that_nobody_asked_for(event: Exited, message: str) -> None:
    situation = after(event, situation=READY)
    assert (situation.state, situation.message, situation.exit_code) == (EngineState.FAILED, message, event.code)
    assert situation.body is (Body.LEFT if event.left else Body.NOTHING)
    assert hint("a", situation) == (
        "`opsboard engine stop a`, or a start, ends what still runs" if event.left else None
    )


def test_what_is_restarted_by_itself_asks_nothing_of_a_person_and_tells_the_cause_first() -> None:
    terms = Terms(restart="on-failure", decision=Allowed(wait_s=1.0, text="restart 1 of 5"))
    waiting, _ = machine.step(READY, Exited(code=-9, left=(7,)), NOW, terms)
    assert waiting.message == "killed by SIGKILL; still running: pid 7; restart 1 of 5"


def test_why_it_takes_longer_after_an_unclean_end_of_the_daemon_is_told() -> None:
    terms = Terms(restart="on-failure", decision=Allowed(wait_s=1.0, text="restart 1 of 5"), not_before=NOW.mono + 30.0)
    waiting, _ = machine.step(READY, Exited(code=1), NOW, terms)
    assert waiting.retry_at == NOW.mono + 30.0
    assert "the last daemon ended uncleanly" in (waiting.message or "")


def test_an_end_by_another_hand_is_no_failure() -> None:
    situation = after(Exited(code=-15, asked_by="SIGTERM to the shim"), situation=READY)
    assert (situation.state, situation.message) == (EngineState.STOPPED, "stopped by SIGTERM to the shim")


def test_since_moves_with_the_state_only() -> None:
    clock = ManualClock()
    situation, _ = machine.step(Situation(since=0.0), Start(), clock.now())
    began = situation.since
    situation, _ = machine.step(situation, Launched(900.0), clock.advance(5))
    assert situation.since == began
    situation, _ = machine.step(situation, Ready(), clock.advance(5))
    assert situation.since == began + 10


def test_a_deadline_passes_once_and_late_is_not_never() -> None:
    clock = ManualClock()
    situation, _ = machine.step(UP, Tick(), clock.advance(899))
    assert situation.state is EngineState.STARTING
    situation, _ = machine.step(UP, Tick(), clock.advance(1))
    assert situation.state is EngineState.FAILED
    assert situation.message == "not ready after 900 s"
    assert "its processes still run: `opsboard engine restart a`" in (hint("a", situation) or "")
    assert after(Ready(), situation=situation).state is EngineState.READY
    assert after(Stop(), situation=situation).state is EngineState.STOPPING


def test_an_orphan_is_ended_before_the_next_start() -> None:
    assert after(Exited(code=-9, left=(7, 8)), Gone(), situation=READY).message == "killed by SIGKILL"
    left = after(Exited(code=-9, left=(7,)), situation=READY)
    ending, commands = machine.step(left, Start(), NOW)
    assert (ending.state, commands) == (EngineState.STOPPING, [Command.END])
    starting, commands = machine.step(ending, Gone(), NOW)
    assert (starting.state, commands) == (EngineState.STARTING, [Command.LAUNCH])


@pytest.mark.parametrize(
    ("found", "wanted", "state", "commands"),
    [
        (Found(), None, EngineState.STOPPED, []),
        (Found(), True, EngineState.STOPPED, []),
        (Found(alive=True, was_ready=True), None, EngineState.READY, []),
        (Found(alive=True, was_ready=True), False, EngineState.READY, []),
        (Found(alive=True), None, EngineState.STARTING, []),
        (Found(alive=True, ending=True), False, EngineState.STOPPING, [Command.END]),
        (Found(left=(7,), ending=True), True, EngineState.STOPPING, [Command.END]),
        (Found(left=(7,)), False, EngineState.FAILED, []),
        (Found(ended=OUT_OF_MEMORY), None, EngineState.FAILED, []),
        (Found(ended=OUT_OF_MEMORY), True, EngineState.FAILED, []),
        (Found(ended=OUT_OF_MEMORY), False, EngineState.STOPPED, []),
        (Found(never_began="command not found: vllm"), True, EngineState.FAILED, []),
        (Found(never_began="command not found: vllm"), False, EngineState.STOPPED, []),
        (Found(ended=Exited(code=-15), ended_by_us=True), True, EngineState.STARTING, [Command.LAUNCH]),
        (Found(ended=Exited(code=-15), ended_by_us=True), False, EngineState.STOPPED, []),
        (Found(unsure="could not be looked at"), True, EngineState.FAILED, []),
    ],
)
def test_what_a_new_daemon_makes_of_what_it_finds(
    found: Found, wanted: bool | None, state: EngineState, commands: list[Command]
) -> None:
    situation, given = adopt(found, wanted=wanted, ready_timeout_s=900.0, now=NOW)
    assert (situation.state, given) == (state, commands)
    assert situation.state is not EngineState.FAILED or situation.message


def test_an_adopted_start_keeps_its_deadline_and_is_asked_at_least_once() -> None:
    young, _ = adopt(Found(alive=True, age_s=100.0), wanted=True, ready_timeout_s=900.0, now=NOW)
    assert young.ready_by == NOW.mono + 800
    old, _ = adopt(Found(alive=True, age_s=9000.0), wanted=True, ready_timeout_s=900.0, now=NOW)
    assert old.ready_by is not None
    assert old.ready_by > NOW.mono


def test_what_is_adopted_has_been_so_since_before_the_daemon() -> None:
    ready, _ = adopt(
        Found(alive=True, was_ready=True, since=NOW.wall - 9e4), wanted=True, ready_timeout_s=900.0, now=NOW
    )
    assert (ready.state, ready.since) == (EngineState.READY, NOW.wall - 9e4)
    failed, _ = adopt(Found(ended=Exited(code=1), since=NOW.wall - 60.0), wanted=None, ready_timeout_s=900.0, now=NOW)
    assert (failed.state, failed.since) == (EngineState.FAILED, NOW.wall - 60.0)
    ahead, _ = adopt(
        Found(alive=True, was_ready=True, since=NOW.wall + 60.0), wanted=True, ready_timeout_s=900.0, now=NOW
    )
    assert ahead.since == NOW.wall, "the clock was set back"
    starting, _ = adopt(Found(alive=True), wanted=True, ready_timeout_s=900.0, now=NOW)
    assert starting.since == NOW.wall
