"""Where an engine is and what to do next: a pure function of what operators wish, what processes do, and time.

Two commands come out. ``LAUNCH`` is only ever given when nothing of the engine runs and no other launch is out;
``END`` only when something may run and no other end is out. An operator's last wish is kept until it is fulfilled, so
a stop during a start ends what the start begins, and a start during a stop begins when the last old process is gone.
"""

from __future__ import annotations

import signal
from collections.abc import Sequence
from enum import StrEnum

import msgspec

from opsboard.core.clock import Now
from opsboard.core.model import EngineState, Record


class Body(StrEnum):
    """What there is of an engine, whatever it is called outside."""

    NOTHING = "nothing"
    LAUNCHING = "launching"
    """A LAUNCH is out: there may be a process at any moment."""
    ALIVE = "alive"
    ENDING = "ending"
    """An END is out."""
    LEFT = "left"
    """The main process is gone; others of its life are not, or may not be."""


class Command(StrEnum):
    """What the keeper has to carry out."""

    LAUNCH = "launch"
    END = "end"


class Situation(Record, frozen=True, kw_only=True):
    """All that is remembered. ``since`` is Unix seconds, ``ready_by`` seconds of the monotonic clock."""

    since: float
    state: EngineState = EngineState.STOPPED
    body: Body = Body.NOTHING
    wanted: bool = False
    """The operator's last wish: it shall run."""
    message: str | None = None
    exit_code: int | None = None
    ready_by: float | None = None
    ready_timeout_s: float = 0.0


class Start(Record, frozen=True):
    """An operator wants it to run."""


class Stop(Record, frozen=True):
    """An operator wants it not to run."""


class Restart(Record, frozen=True):
    """An operator wants a new life of it."""


class Launched(Record, frozen=True):
    """A LAUNCH is done; the engine has ``ready_timeout_s`` to serve."""

    ready_timeout_s: float


class LaunchFailed(Record, frozen=True):
    """A LAUNCH is done and nothing runs, for the reason in ``message``."""

    message: str


class Ready(Record, frozen=True):
    """The engine serves."""


class Exited(Record, frozen=True, kw_only=True):
    """The main process is gone. ``left`` are pids of its life that are not; ``asked_by`` who ended it, if not we."""

    code: int | None = None
    left: Sequence[int] = ()
    asked_by: str | None = None
    last_words: str | None = None


class Gone(Record, frozen=True):
    """Every process of the life is gone: an END is done, or those that were left have gone by themselves."""


class Survived(Record, frozen=True):
    """An END goes on, but KILL has not helped so far."""

    message: str


class Tick(Record, frozen=True):
    """Time passes."""


Event = Start | Stop | Restart | Launched | LaunchFailed | Ready | Exited | Gone | Survived | Tick


class Found(Record, frozen=True, kw_only=True):
    """What a daemon finds of an engine when it starts. ``age_s`` is the age of the main process in seconds."""

    alive: bool = False
    left: Sequence[int] = ()
    unsure: str | None = None
    """Why it could not be looked at: then something may run."""
    ending: bool = False
    was_ready: bool = False
    age_s: float = 0.0
    ended: Exited | None = None
    """How the last life of this boot ended, when it has."""
    never_began: str | None = None
    """Why the last launch failed, when it did."""
    ended_by_us: bool = False
    """We ended the last life; with a wish to run, a new one was to follow and the daemon died in between."""
    since: float | None = None
    """When it became ready or ended, Unix seconds, where that was written down."""


def adopt(found: Found, *, wanted: bool | None, ready_timeout_s: float, now: Now) -> tuple[Situation, list[Command]]:
    """Return where an engine is when the daemon starts. ``wanted`` is the remembered wish, None if there was none."""
    situation, commands = _adopted(found, wanted, ready_timeout_s, now)
    lasting = situation.state in {EngineState.READY, EngineState.FAILED} and found.unsure is None
    if found.since is None or not lasting:
        return situation, commands
    return msgspec.structs.replace(situation, since=min(found.since, now.wall)), commands


def _adopted(found: Found, wanted: bool | None, ready_timeout_s: float, now: Now) -> tuple[Situation, list[Command]]:
    begin = Situation(since=now.wall, wanted=bool(wanted))
    if found.unsure is not None:
        return _to(begin, now, EngineState.FAILED, Body.LEFT, found.unsure), []
    if found.ending and (found.alive or found.left):
        return _to(begin, now, EngineState.STOPPING, Body.ENDING), [Command.END]
    if found.alive and found.was_ready:
        return _to(begin, now, EngineState.READY, Body.ALIVE), []
    if found.alive:
        # A restarted daemon asks at least once before it calls an old start a failed one.
        left_s = max(ready_timeout_s - found.age_s, 10.0)
        starting = _to(begin, now, EngineState.STARTING, Body.ALIVE)
        return msgspec.structs.replace(starting, ready_by=now.mono + left_s, ready_timeout_s=ready_timeout_s), []
    if found.left:
        return _fail(begin, msgspec.structs.replace(found.ended or Exited(), left=found.left), now), []
    if found.ended_by_us:
        return _launch(begin, now) if wanted else (begin, [])
    if found.never_began is not None and wanted is not False:
        return _to(begin, now, EngineState.FAILED, Body.NOTHING, found.never_began), []
    if found.ended is not None and wanted is not False:
        return _fail(begin, found.ended, now), []
    return begin, []


def step(situation: Situation, event: Event, now: Now) -> tuple[Situation, list[Command]]:
    """Return the situation after ``event`` and what has to be done."""
    match event:
        case Start() | Restart() | Stop():
            return _wish(situation, event, now)
        case Launched(ready_timeout_s=seconds):
            return _launched(situation, seconds, now)
        case LaunchFailed(message=message):
            return _launch_failed(situation, message, now), []
        case Ready():
            return _ready(situation, now), []
        case Exited():
            return _exited(situation, event, now), []
        case Gone():
            return _gone(situation, now)
        case Survived(message=message):
            return (_say(situation, message) if situation.body is Body.ENDING else situation), []
        case Tick():
            return _tick(situation, now), []


def _wish(situation: Situation, event: Start | Stop | Restart, now: Now) -> tuple[Situation, list[Command]]:
    wanted = not isinstance(event, Stop)
    situation = msgspec.structs.replace(situation, wanted=wanted)
    stopping = EngineState.STOPPING
    match situation.body:
        case Body.NOTHING if wanted:
            return _launch(situation, now)
        case Body.NOTHING:
            return _to(situation, now, EngineState.STOPPED, Body.NOTHING), []
        case Body.LAUNCHING if wanted:  # what begins now is as new as a restart could make it
            return _to(situation, now, EngineState.STARTING, Body.LAUNCHING), []
        case Body.LAUNCHING:
            return _to(situation, now, stopping, Body.LAUNCHING, "stops as soon as it has begun"), []
        case Body.ENDING:
            waits = "starts again when the last process of the old life is gone" if wanted else None
            return _to(situation, now, stopping, Body.ENDING, waits), []
        case Body.ALIVE if isinstance(event, Start):
            return situation, []
        case _:
            return _to(situation, now, stopping, Body.ENDING), [Command.END]


def _launch(situation: Situation, now: Now) -> tuple[Situation, list[Command]]:
    started = _to(situation, now, EngineState.STARTING, Body.LAUNCHING)
    return msgspec.structs.replace(started, exit_code=None), [Command.LAUNCH]


def _launched(situation: Situation, ready_timeout_s: float, now: Now) -> tuple[Situation, list[Command]]:
    if situation.body is not Body.LAUNCHING:
        return situation, []
    if not situation.wanted:
        return _to(situation, now, EngineState.STOPPING, Body.ENDING), [Command.END]
    alive = _to(situation, now, EngineState.STARTING, Body.ALIVE)
    return msgspec.structs.replace(alive, ready_by=now.mono + ready_timeout_s, ready_timeout_s=ready_timeout_s), []


def _launch_failed(situation: Situation, message: str, now: Now) -> Situation:
    if situation.body is not Body.LAUNCHING:
        return situation
    if not situation.wanted:
        return _to(situation, now, EngineState.STOPPED, Body.NOTHING)
    return _to(situation, now, EngineState.FAILED, Body.NOTHING, message)


def _ready(situation: Situation, now: Now) -> Situation:
    if situation.body is not Body.ALIVE:
        return situation
    return _to(situation, now, EngineState.READY, Body.ALIVE)


def _exited(situation: Situation, event: Exited, now: Now) -> Situation:
    if situation.body is Body.ENDING:
        return msgspec.structs.replace(situation, exit_code=event.code)
    return _fail(situation, event, now) if situation.body is Body.ALIVE else situation


def _fail(situation: Situation, event: Exited, now: Now) -> Situation:
    """An exit that opsboard did not ask for is a failure, whatever its code: vLLM exits with 0 when its engine dies."""
    situation = msgspec.structs.replace(situation, exit_code=event.code)
    if event.asked_by is not None and not event.left:
        return _to(situation, now, EngineState.STOPPED, Body.NOTHING, f"stopped by {event.asked_by}")
    body = Body.LEFT if event.left else Body.NOTHING
    return _to(situation, now, EngineState.FAILED, body, describe(event))


def _gone(situation: Situation, now: Now) -> tuple[Situation, list[Command]]:
    if situation.body is Body.LEFT:
        return msgspec.structs.replace(situation, body=Body.NOTHING), []
    if situation.body is not Body.ENDING:
        return situation, []
    if situation.wanted:
        return _launch(situation, now)
    return _to(situation, now, EngineState.STOPPED, Body.NOTHING), []


def _tick(situation: Situation, now: Now) -> Situation:
    late = situation.ready_by is not None and now.mono >= situation.ready_by
    if situation.state is not EngineState.STARTING or situation.body is not Body.ALIVE or not late:
        return situation
    seconds = f"{situation.ready_timeout_s:g} s"
    message = f"not ready after {seconds}; its processes still run: stop or restart it, or wait longer"
    return _to(situation, now, EngineState.FAILED, Body.ALIVE, message)


def describe(event: Exited) -> str:
    """Say in one line how a life ended."""
    if event.code is None:
        text = "ended while nobody watched, exit status unknown"
    elif event.code < 0:
        text = f"killed by {_signal_name(-event.code)}"
    else:
        text = f"exited by itself with code {event.code}"
    if event.left:
        text += f"; still running: {', '.join(f'pid {pid}' for pid in event.left[:8])} (a stop or a start ends them)"
    return f"{text}: {event.last_words}" if event.last_words else text


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _to(situation: Situation, now: Now, state: EngineState, body: Body, message: str | None = None) -> Situation:
    since = situation.since if state is situation.state else now.wall
    return msgspec.structs.replace(situation, state=state, body=body, since=since, message=message, ready_by=None)


def _say(situation: Situation, message: str) -> Situation:
    return msgspec.structs.replace(situation, message=message)
