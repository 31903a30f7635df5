"""What the machine does to a situation, one move each. Nothing here asks whether it should."""

from __future__ import annotations

import re
import signal

import msgspec

from opsboard.core.clock import Now
from opsboard.core.lives import EXITS_WITH_0
from opsboard.core.model import EngineState, FatalVerdict
from opsboard.supervise.budget import Spent
from opsboard.supervise.situation import SERVING, Body, Command, Exited, Situation, Terms

_NAMED = 8
_LEFT = re.compile(r"; still running: pid \d+(, pid \d+)*")
"""What :func:`describe` says of processes that are left."""
ROOM_AGAIN_S = 15.0
"""How often it is looked whether what is in the way of a start has gone."""

FOR_ROOM = "waits for room: "
"""Begins what is said of an engine that is not started, nor counted, until something outside has gone."""

Move = tuple[Situation, list[Command]]


def to(situation: Situation, now: Now, state: EngineState, body: Body, message: str | None = None) -> Situation:
    """Come into a state; what was waited for in the old one is waited for no more."""
    since = situation.since if state is situation.state else now.wall
    serves = situation.served_from if state in SERVING else None
    return msgspec.structs.replace(
        situation,
        state=state,
        body=body,
        since=since,
        message=message,
        ready_by=None,
        drain_by=None,
        retry_at=None,
        preparing=False,
        proving=False,
        served_from=serves,
        served_s=0.0 if serves is not None else situation.served(now.mono),
    )


def say(situation: Situation, message: str) -> Situation:
    """Tell people something else about the same state."""
    return msgspec.structs.replace(situation, message=message)


def because(situation: Situation, cause: str) -> Situation:
    """Remember why what follows happens."""
    return msgspec.structs.replace(situation, cause=cause or None)


def launch(situation: Situation, now: Now) -> Move:
    """Begin a new life."""
    started = to(situation, now, EngineState.STARTING, Body.LAUNCHING)
    return msgspec.structs.replace(started, exit_code=None, doubt=None, broken=False, served_s=0.0), [Command.LAUNCH]


def end(situation: Situation, now: Now, message: str | None = None) -> Move:
    """End what there is of a life."""
    return to(situation, now, EngineState.STOPPING, Body.ENDING, message), [Command.END]


def renew(situation: Situation, now: Now, message: str | None = None) -> Move:
    """Begin a new life, as soon as there is nothing of the old one."""
    return launch(situation, now) if situation.body is Body.NOTHING else end(situation, now, message)


def drain(situation: Situation, now: Now, timeout_s: float) -> Move:
    """Let what is under way end, before a restart."""
    draining = to(situation, now, EngineState.DRAINING, Body.ALIVE, "restarts when its requests are done")
    return msgspec.structs.replace(draining, drain_by=now.mono + timeout_s), [Command.DRAIN]


def serve(situation: Situation, now: Now, reason: str = "") -> Situation:
    """Be in service, or beside it when it was wanted so, for that ``reason``, or there is a doubt."""
    why = situation.doubt
    if situation.drained and why is None:
        why = f"out of service: {reason}" if reason else "out of service by hand"
    state = EngineState.READY if why is None else EngineState.DRAINING
    serves = now.mono if situation.served_from is None else situation.served_from
    return msgspec.structs.replace(to(situation, now, state, Body.ALIVE, why), automatic=False, served_from=serves)


def fail(situation: Situation, now: Now, terms: Terms, body: Body, message: str, *, verdict: FatalVerdict) -> Situation:
    """Be what a failure makes of it: left as it is, waiting for room, tried again later, or parked."""
    situation = because(situation, message)
    if not situation.wanted or terms.restart == "never":
        return to(situation, now, EngineState.FAILED, body, message)
    if verdict is FatalVerdict.PARK:
        return park(situation, now, body, message)
    if verdict is FatalVerdict.WAIT:
        return wait(situation, now, terms, body, f"{FOR_ROOM}{message}", seconds=ROOM_AGAIN_S)
    return retry(situation, now, terms, body, message)


def retry(situation: Situation, now: Now, terms: Terms, body: Body, message: str) -> Situation:
    """Be restarted by ourselves after a pause, if the budgets allow it."""
    decision = terms.decision
    if isinstance(decision, Spent):
        return park(situation, now, body, f"{decision.text}: {message}")
    return wait(situation, now, terms, body, f"{message}; {decision.text}", seconds=decision.wait_s)


def wait(situation: Situation, now: Now, terms: Terms, body: Body, message: str, *, seconds: float) -> Situation:
    """Look again in ``seconds``, or when automation may act at all."""
    retry_at = max(now.mono + seconds, terms.not_before)
    if retry_at > now.mono + seconds:
        message += " (not sooner: the last daemon ended uncleanly, this one only looks at first)"
    waiting = to(situation, now, EngineState.BACKING_OFF, body, message)
    return msgspec.structs.replace(waiting, retry_at=retry_at, automatic=True)


def park(situation: Situation, now: Now, body: Body, why: str) -> Situation:
    """Leave it to a person."""
    parked = to(because(situation, why), now, EngineState.PARKED, body, why)
    return msgspec.structs.replace(parked, automatic=True)


def all_gone(situation: Situation) -> Situation:
    """Be the same without what was left of a life."""
    message = None if situation.message is None else _LEFT.sub("", situation.message)
    return msgspec.structs.replace(situation, body=Body.NOTHING, message=message)


def hint(engine: str, situation: Situation) -> str | None:
    """Say what a person can do about an engine that stays as it is by itself; None where nothing is to be done."""
    match situation.state, situation.body:
        case EngineState.PARKED, _:
            return f"nothing more happens by itself: `opsboard engine start {engine}` un-parks it"
        case EngineState.FAILED, Body.LEFT:
            return f"`opsboard engine stop {engine}`, or a start, ends what still runs"
        case EngineState.FAILED, Body.ALIVE:
            return f"its processes still run: `opsboard engine restart {engine}`, or wait longer"
        case EngineState.DRAINING, _ if situation.drain_by is None:
            then = "brings it back" if situation.doubt is None else "takes the new answer as the golden one"
            return f"`opsboard engine undrain {engine}` {then}"
    return None


def describe(event: Exited) -> str:
    """Say in one line how a life ended."""
    if event.code is None:
        text = "ended, exit status unknown" if event.result else "ended while nobody watched, exit status unknown"
    elif event.code < 0:
        text = f"killed by {_signal_name(-event.code)}"
    else:
        text = f"exited by itself with code {event.code}"
        text += f" ({EXITS_WITH_0})" if event.code == 0 else ""
    if event.result:
        text += f" ({event.result})"
    if event.left:
        text += f"; still running: {', '.join(f'pid {pid}' for pid in event.left[:_NAMED])}"
    return f"{text}: {event.last_words}" if event.last_words else text


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
