"""What a new daemon makes of what the last one left: it knows why, and does not trust the wall clock."""

from __future__ import annotations

import pytest

from opsboard.core.clock import Now
from opsboard.core.model import EngineState
from opsboard.supervise.adopting import adopt
from opsboard.supervise.situation import Command, Exited, Found, Terms

NOW = Now(wall=1_000_000.0, mono=50.0)
TERMS = Terms(restart="on-failure", drain_timeout_s=60.0)


@pytest.mark.parametrize(
    ("found", "state"),
    [
        (Found(alive=True, was_ready=True, drain_left_s=5.0), EngineState.DRAINING),
        (Found(alive=True, ending=True), EngineState.STOPPING),
        (Found(alive=True), EngineState.STARTING),
        (Found(ended_by_us=True), EngineState.STARTING),
    ],
)
def test_what_was_under_way_goes_on_for_the_same_reason(found: Found, state: EngineState) -> None:
    for cause, told in (("new weights", "new weights"), (None, "found so when the daemon began")):
        known = Found(**{name: getattr(found, name) for name in found.__struct_fields__} | {"cause": cause})
        situation, _ = adopt(known, wanted=True, ready_timeout_s=900.0, now=NOW, terms=TERMS)
        assert (situation.state, situation.cause) == (state, told)


@pytest.mark.parametrize(("left_s", "expected_s"), [(5.0, 5.0), (86_400.0, 60.0), (0.0, 0.0)])
def test_a_drain_goes_on_no_longer_than_it_may(left_s: float, expected_s: float) -> None:
    found = Found(alive=True, was_ready=True, drain_left_s=left_s)
    situation, _ = adopt(found, wanted=True, ready_timeout_s=900.0, now=NOW, terms=TERMS)
    assert situation.drain_by == NOW.mono + expected_s


def test_an_engine_that_nobody_ever_started_needs_no_reason() -> None:
    situation, commands = adopt(Found(), wanted=None, ready_timeout_s=900.0, now=NOW, terms=TERMS)
    assert (situation.state, situation.cause, commands) == (EngineState.STOPPED, None, [])


@pytest.mark.parametrize(
    ("automatic", "state", "commands"),
    [(False, EngineState.STARTING, [Command.LAUNCH]), (True, EngineState.BACKING_OFF, [])],
)
def test_an_engine_that_died_while_it_was_drained_for_a_restart_is_restarted_as_it_was_asked(
    automatic: bool, state: EngineState, commands: list[Command]
) -> None:
    found = Found(drain_left_s=5.0, ended=Exited(code=1), automatic=automatic, cause="new weights")
    situation, todo = adopt(found, wanted=True, ready_timeout_s=900.0, now=NOW, terms=TERMS)
    assert (situation.state, situation.automatic, todo) == (state, automatic, commands)
    others = Found(drain_left_s=5.0, ended=Exited(code=1), left=(7,), cause="new weights")
    situation, todo = adopt(others, wanted=True, ready_timeout_s=900.0, now=NOW, terms=TERMS)
    assert (situation.state, situation.cause, todo) == (EngineState.STOPPING, "new weights", [Command.END])
    unwanted, todo = adopt(found, wanted=False, ready_timeout_s=900.0, now=NOW, terms=TERMS)
    assert (unwanted.state, todo) == (EngineState.STOPPED, [])
