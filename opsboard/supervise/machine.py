"""Where an engine is and what to do next: a pure function of what operators wish, what processes do, and time.

``LAUNCH`` is only ever given when nothing of the engine runs and no other launch is out; ``END`` only when something
may run and no other end is out. What operators wish and what automation decides are separate events: an operator's
last wish is kept until it is fulfilled, so a stop during a start ends what the start begins, and a start during a stop
begins when the last old process is gone. Automation only acts on an engine that is wanted, and each of its restarts
goes through PREPARE, where it is counted: nothing else lets it begin a life.
"""

from __future__ import annotations

import msgspec

from opsboard.core.clock import Now
from opsboard.core.model import EngineState, FatalVerdict
from opsboard.supervise.budget import Spent
from opsboard.supervise.moves import (
    ROOM_AGAIN_S,
    Move,
    all_gone,
    because,
    describe,
    drain,
    end,
    fail,
    launch,
    park,
    renew,
    retry,
    say,
    serve,
    to,
    wait,
)
from opsboard.supervise.situation import (
    BY_HAND,
    SERVING,
    Accused,
    Acquitted,
    Answers,
    Body,
    Command,
    Drain,
    Drained,
    Event,
    Exited,
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

_AT_REST = frozenset({EngineState.BACKING_OFF, EngineState.PARKED})
AGAIN = "starts again when the last process of the old life is gone"


def step(situation: Situation, event: Event, now: Now, terms: Terms = BY_HAND) -> Move:  # noqa: C901, PLR0911  one case an event
    """Return the situation after ``event`` and what has to be done."""
    match event:
        case Start() | Restart() | Stop():
            return _wish(situation, event, now, terms)
        case Drain() | Undrain():
            return _service(situation, event, now), []
        case Accused():
            return _accused(situation, event, now, terms)
        case Acquitted():
            return msgspec.structs.replace(situation, broken=False) if situation.broken else situation, []
        case Launched(ready_timeout_s=seconds):
            return _launched(situation, seconds, now)
        case Reborn(ready_timeout_s=seconds):
            return _reborn(situation, seconds, now)
        case LaunchFailed():
            return _launch_failed(situation, event, now, terms)
        case Answers() | Ready() | Unproven():
            return _began(situation, event, now, terms)
        case Exited():
            return _exited(situation, event, now, terms)
        case Gone():
            return _gone(situation, now)
        case Survived(message=message):
            return _survived(situation, message, now), []
        case Drained():
            return _drained(situation, now, "nothing was under way any more")
        case Prepared() | Unprepared():
            return _prepared(situation, event, now, terms)
        case Tick():
            return _tick(situation, now, terms)


# --- what operators want


def _wish(situation: Situation, event: Start | Stop | Restart, now: Now, terms: Terms) -> Move:
    wanted = not isinstance(event, Stop)
    drain_by = situation.drain_by
    situation = msgspec.structs.replace(
        because(situation, event.reason), wanted=wanted, automatic=False, drained=False, doubt=None
    )
    stopping = EngineState.STOPPING
    match situation.body:
        case Body.NOTHING if wanted:
            return launch(situation, now)
        case Body.NOTHING:
            return to(situation, now, EngineState.STOPPED, Body.NOTHING), []
        case Body.LAUNCHING if wanted:  # what begins now is as new as a restart could make it
            return to(situation, now, EngineState.STARTING, Body.LAUNCHING), []
        case Body.LAUNCHING:
            return to(situation, now, stopping, Body.LAUNCHING, "stops as soon as it has begun"), []
        case Body.ENDING:
            return to(situation, now, stopping, Body.ENDING, AGAIN if wanted else None), []
        case Body.ALIVE if isinstance(event, Start) and situation.state not in _AT_REST and not situation.broken:
            return (serve(situation, now) if situation.state is EngineState.DRAINING else situation), []
        case Body.ALIVE if isinstance(event, Restart) and not event.now and situation.state in SERVING:
            if drain_by is not None:  # two restarts at once are one
                return situation, []
            waits = terms.drain_timeout_s and not situation.broken
            return drain(situation, now, terms.drain_timeout_s) if waits else end(situation, now)
        case _:
            return end(situation, now)


def _service(situation: Situation, event: Drain | Undrain, now: Now) -> Situation:
    """Take a serving engine out of service, or back; a restart that has ended the old life is past that.

    A doubt goes only with the word that brings it back.
    """
    drained = isinstance(event, Drain)
    situation = msgspec.structs.replace(situation, drained=drained, doubt=situation.doubt if drained else None)
    if situation.state not in SERVING or (isinstance(event, Drain) and situation.drain_by is not None):
        return situation
    return serve(because(situation, event.reason), now, event.reason)


# --- what automation decides


def _accused(situation: Situation, event: Accused, now: Now, terms: Terms) -> Move:
    serves = situation.body is Body.ALIVE and situation.state in SERVING
    if serves and not event.planned:
        situation = msgspec.structs.replace(situation, broken=True)
    if not (serves and situation.wanted):
        return situation, []
    draining = situation.drain_by is not None
    if event.planned:
        if draining or situation.drained:
            return situation, []
        situation = msgspec.structs.replace(because(situation, event.cause), automatic=True)
        return drain(situation, now, terms.drain_timeout_s)
    if draining:  # a restart is on its way, and what does not work ends no request
        return end(because(situation, event.cause), now, event.cause)
    if terms.restart == "never":
        return situation, []
    return retry(because(situation, event.cause), now, terms, Body.ALIVE, event.cause), []


def _prepared(situation: Situation, event: Prepared | Unprepared, now: Now, terms: Terms) -> Move:
    if not situation.preparing:
        return situation, []
    if isinstance(event, Prepared):
        return renew(situation, now, AGAIN)
    body = Body.LEFT if event.left else situation.body
    if event.verdict is FatalVerdict.PARK:
        return park(situation, now, body, event.message), []
    return wait(situation, now, terms, body, event.message, seconds=ROOM_AGAIN_S), []


# --- what happens


def _launched(situation: Situation, ready_timeout_s: float, now: Now) -> Move:
    if situation.body is not Body.LAUNCHING:
        return situation, []
    if not situation.wanted:
        return end(situation, now)
    return _alive(situation, ready_timeout_s, now), []


def _reborn(situation: Situation, ready_timeout_s: float, now: Now) -> Move:
    """Go on with a life that is not ours, as if it were; without a wish to run it is left alone, too."""
    if situation.state is EngineState.PARKED and situation.body is not Body.ENDING:  # until it serves, or we are told
        return msgspec.structs.replace(situation, body=Body.ALIVE, exit_code=None, doubt=None, proving=False), []
    if situation.body in {Body.ALIVE, Body.NOTHING}:
        situation = msgspec.structs.replace(because(situation, "somebody else began this life"), doubt=None)
        return _alive(situation, ready_timeout_s, now), []
    return _launched(situation, ready_timeout_s, now)


def _alive(situation: Situation, ready_timeout_s: float, now: Now) -> Situation:
    alive = to(situation, now, EngineState.STARTING, Body.ALIVE)
    deadline = now.mono + ready_timeout_s
    return msgspec.structs.replace(
        alive, ready_by=deadline, ready_timeout_s=ready_timeout_s, broken=False, served_s=0.0
    )


def _launch_failed(situation: Situation, event: LaunchFailed, now: Now, terms: Terms) -> Move:
    if situation.body is not Body.LAUNCHING:
        return situation, []
    if situation.wanted:
        body = Body.LEFT if event.left else Body.NOTHING
        return fail(situation, now, terms, body, event.message, verdict=event.verdict), []
    return end(situation, now) if event.left else (to(situation, now, EngineState.STOPPED, Body.NOTHING), [])


def _began(situation: Situation, event: Answers | Ready | Unproven, now: Now, terms: Terms) -> Move:
    if situation.body is not Body.ALIVE:
        return situation, []
    match event:
        case Answers() if situation.state not in SERVING and not situation.proving:
            # It is in time: the proof has a deadline of its own.
            parked = situation.state is EngineState.PARKED
            asked = situation if parked else to(situation, now, EngineState.STARTING, Body.ALIVE)
            return msgspec.structs.replace(asked, proving=True), [Command.PROVE]
        case Ready(doubt=doubt):
            situation = msgspec.structs.replace(because(situation, doubt or "it serves"), doubt=doubt)
            return serve(situation, now), []
        case Unproven(message=message) if situation.proving:
            if situation.state is EngineState.PARKED:
                return msgspec.structs.replace(situation, proving=False), []
            return fail(situation, now, terms, Body.ALIVE, message, verdict=FatalVerdict.RETRY), []
    return situation, []


def _exited(situation: Situation, event: Exited, now: Now, terms: Terms) -> Move:
    if situation.body is Body.ENDING:
        return msgspec.structs.replace(situation, exit_code=event.code), []
    if situation.body is not Body.ALIVE:
        return situation, []
    if situation.drain_by is not None and situation.wanted:  # it was to be ended anyway
        died = msgspec.structs.replace(situation, body=Body.LEFT if event.left else Body.NOTHING)
        return renew(died, now, describe(event))
    if situation.state is EngineState.PARKED:
        body = Body.LEFT if event.left else Body.NOTHING
        return msgspec.structs.replace(situation, body=body, exit_code=event.code, proving=False), []
    if situation.state is not EngineState.STARTING:  # what has served was not configured wrongly
        event = msgspec.structs.replace(event, verdict=FatalVerdict.RETRY)
    return ended(situation, event, now, terms), []


def ended(situation: Situation, event: Exited, now: Now, terms: Terms) -> Situation:
    """Take an exit that opsboard did not ask for: a failure, whatever its code.

    vLLM exits with 0 when its engine dies.
    """
    situation = msgspec.structs.replace(situation, exit_code=event.code)
    asked = event.asked_by is not None and not event.left
    if asked and not (terms.restart == "always" and situation.wanted):
        text = f"stopped by {event.asked_by}"
        return to(because(situation, text), now, EngineState.STOPPED, Body.NOTHING, text)
    body = Body.LEFT if event.left else Body.NOTHING
    return fail(situation, now, terms, body, describe(event), verdict=event.verdict)


def _gone(situation: Situation, now: Now) -> Move:
    if situation.body is Body.LEFT:
        return all_gone(situation), []
    if situation.body is not Body.ENDING:
        return situation, []
    if situation.state is EngineState.PARKED:
        return msgspec.structs.replace(situation, body=Body.NOTHING), []
    if situation.wanted:
        return launch(situation, now)
    return to(situation, now, EngineState.STOPPED, Body.NOTHING), []


def _survived(situation: Situation, message: str, now: Now) -> Situation:
    if situation.body is not Body.ENDING:
        return situation
    if situation.automatic and situation.wanted:
        return park(situation, now, Body.ENDING, message)
    return say(situation, message)


def _drained(situation: Situation, now: Now, message: str) -> Move:
    return end(situation, now, message) if situation.drain_by is not None else (situation, [])


def _tick(situation: Situation, now: Now, terms: Terms) -> Move:
    if situation.drain_by is not None and now.mono >= situation.drain_by:
        return _drained(situation, now, "requests under way did not end in time")
    if situation.ready_by is not None and now.mono >= situation.ready_by:
        seconds = f"{situation.ready_timeout_s:g} s"
        message = f"not ready after {seconds}"
        return fail(situation, now, terms, Body.ALIVE, message, verdict=FatalVerdict.RETRY), []
    if situation.retry_at is not None and now.mono >= situation.retry_at and not situation.preparing:
        if isinstance(terms.decision, Spent):
            return park(situation, now, situation.body, f"{terms.decision.text}: {situation.cause}"), []
        return msgspec.structs.replace(situation, preparing=True, retry_at=None), [Command.PREPARE]
    return situation, []
