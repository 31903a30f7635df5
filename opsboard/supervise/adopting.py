"""What a daemon that starts makes of the engine it finds: pure."""

from __future__ import annotations

import msgspec

from opsboard.core.clock import Now
from opsboard.core.model import EngineState, FatalVerdict
from opsboard.supervise.machine import ended
from opsboard.supervise.moves import Move, because, describe, drain, end, fail, launch, park, retry, serve, to
from opsboard.supervise.situation import BY_HAND, GOES_ON, Body, Command, Exited, Found, Situation, Terms

_LASTING = frozenset({EngineState.READY, EngineState.FAILED, EngineState.PARKED})


def adopt(found: Found, *, wanted: bool | None, ready_timeout_s: float, now: Now, terms: Terms = BY_HAND) -> Move:
    """Return where an engine is when the daemon starts. ``wanted`` is the remembered wish, None if there was none."""
    situation, commands = _adopted(found, wanted, ready_timeout_s, now, terms)
    if situation.cause is None and situation.state is not EngineState.STOPPED:
        situation = because(situation, found.cause or "found so when the daemon began")
    if found.since is None or situation.state not in _LASTING or found.unsure is not None:
        return situation, commands
    return msgspec.structs.replace(situation, since=min(found.since, now.wall)), commands


def _adopted(found: Found, wanted: bool | None, ready_timeout_s: float, now: Now, terms: Terms) -> Move:
    begin = Situation(
        since=now.wall,
        wanted=bool(wanted),
        drained=found.drained,
        doubt=found.doubt,
        automatic=found.automatic,
        served_s=found.served_s,
    )
    if found.unsure is not None:
        return to(begin, now, EngineState.FAILED, Body.LEFT, found.unsure), []
    if found.parked is not None and wanted is not False:
        return _still_parked(begin, found, now)
    if found.ending and (found.alive or found.left):
        return end(begin, now)
    if found.alive:
        return _alive(begin, found, ready_timeout_s, now, terms)
    if found.drain_left_s is not None and begin.wanted and found.ended is not None:  # it was to be ended anyway
        return _drained(begin, found, found.ended, now, terms)
    if found.left:
        return ended(begin, msgspec.structs.replace(found.ended or Exited(), left=found.left), now, terms), []
    waits = found.waiting is not None and begin.wanted and terms.restart != "never"
    if waits or found.ended_by_us:
        return _go_on(begin, found, now, terms)
    if found.never_began is not None and wanted is not False:
        verdict = FatalVerdict.RETRY if found.passing else FatalVerdict.PARK
        return fail(begin, now, terms, Body.NOTHING, found.never_began, verdict=verdict), []
    over = found.ended if wanted is not False else None
    return begin if over is None else ended(begin, over, now, terms), []


def _still_parked(begin: Situation, found: Found, now: Now) -> Move:
    why = found.parked or ""
    if found.ending and (found.alive or found.left):
        return park(begin, now, Body.ENDING, why), [Command.END]
    body = Body.ALIVE if found.alive else Body.LEFT if found.left else Body.NOTHING
    return park(begin, now, body, why), []


def _alive(begin: Situation, found: Found, ready_timeout_s: float, now: Now, terms: Terms) -> Move:
    if not found.was_ready:
        # A restarted daemon asks at least once before it calls an old start a failed one.
        left_s = max(ready_timeout_s - found.age_s, 10.0)
        starting = to(begin, now, EngineState.STARTING, Body.ALIVE)
        return msgspec.structs.replace(starting, ready_by=now.mono + left_s, ready_timeout_s=ready_timeout_s), []
    begin = msgspec.structs.replace(begin, served_from=now.mono - found.served_s)
    if found.drain_left_s is not None and begin.wanted:
        # What is left was told by the wall clock, which may have been set back since.
        return drain(begin, now, min(found.drain_left_s, terms.drain_timeout_s))
    return serve(begin, now), []


def _drained(begin: Situation, found: Found, ended: Exited, now: Now, terms: Terms) -> Move:
    begin = because(begin, found.cause or "a restart that the end of the last daemon interrupted")
    return end(begin, now, describe(ended)) if found.left else _go_on(begin, found, now, terms)


def _go_on(begin: Situation, found: Found, now: Now, terms: Terms) -> Move:
    """Begin the life that was to follow: at once when a person wanted it, else as any other restart of our own."""
    if not begin.wanted:
        return begin, []
    if not found.automatic:
        return launch(begin, now)
    message = found.waiting or GOES_ON
    return retry(because(begin, message), now, terms, Body.NOTHING, message), []
