"""What is there of an engine, in the machine's words: the remains of its last life, and what was written beside it."""

from __future__ import annotations

from collections.abc import Callable

from opsboard.supervise.adopt import Remains
from opsboard.supervise.memo import Notes
from opsboard.supervise.situation import Found
from opsboard.supervise.watching import exited


def found(
    remains: Remains | None,
    notes: Notes,
    wall: float,
    last_words: Callable[[int], str | None],
    age_s: float | None = None,
) -> Found:
    """Put what was found at ``wall`` (Unix s) together; ``last_words(offset)`` quotes the log of a life.

    ``age_s`` is the age of its main process by a clock that nobody sets, None where that is not known.
    """
    instance = remains.instance if remains is not None else None
    # It was about to begin, and the shim never wrote it down.
    unborn = notes.launching is not None and notes.launching != instance
    begun = notes.transaction if notes.transaction is not None and notes.transaction.outcome is None else None
    noted = Found(
        automatic=notes.automatic,
        cause=begun.cause if begun is not None else None,
        waiting=notes.waiting,
        parked=notes.parked,
        drained=notes.drained,
        doubt=notes.doubt,
        ended_by_us=unborn,
    )
    if remains is None:
        return _with(noted, since=notes.parked_since)
    known = remains.exit
    over = remains.same_boot and not remains.lives
    crashed = over and (known is None or known.message is None)
    since = known.ended if known is not None else remains.ready_since if remains.alive else None
    return _with(
        noted,
        alive=remains.alive,
        left=tuple(process.pid for process in remains.others) if not remains.alive else (),
        ending=remains.ending,
        was_ready=remains.was_ready,
        age_s=max(0.0, wall - remains.started if age_s is None else age_s),
        ended=exited(remains, last_words(remains.log_offset) if crashed else None)
        if crashed or remains.lives
        else None,
        never_began=known.message if over and known is not None else None,
        passing=known is not None and known.passing,
        ended_by_us=over and (remains.again is not None or unborn),
        drain_left_s=None if notes.drain_until is None else max(0.0, notes.drain_until - wall),
        since=notes.parked_since if notes.parked is not None else since,
        served_s=_served_s(remains, wall, age_s),
    )


def _served_s(remains: Remains, wall: float, age_s: float | None) -> float:
    """Return how long a life has served, until its end or ``wall``; 0 when it is not known."""
    over = remains.exit.ended if remains.exit is not None else wall if remains.main is not None else None
    if remains.ready_since is None or over is None:
        return 0.0
    return max(0.0, min(over - remains.ready_since, over if age_s is None else age_s))


def _with(found: Found, **changes: object) -> Found:
    return Found(**{name: getattr(found, name) for name in found.__struct_fields__} | changes)
