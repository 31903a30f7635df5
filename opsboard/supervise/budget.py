"""How often an engine may be restarted without a person, and how long to wait before: pure.

A sliding window, so that a life that lasts a little longer than "healthy" does not open it anew. The engines of a GPU
share one, and those of the host: thirty restarts in a row take a host down, whoever's they are. But one engine that
never works must not take the restart of another that did: who has spent its own window counts in the shared ones no
more, and an engine that has served, or is restarted for the first time, may go beyond them. Nobody goes beyond
:data:`CAP` times a shared window.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from typing import Literal

from opsboard.core.model import Record, Restart

FUTILE_S = 86400.0
"""An engine that has served after none of so many restarts as a window allows is left alone, however far apart they
were: a start that takes longer than its part of the window would else be tried for ever. Older ones do not count."""
CAP = 2
"""No window of a GPU or of the host ever holds more than so many times what it allows."""
_TOGETHER, _TOGETHER_S = 3, 60.0
"""So many restarts of the host's engines within so many seconds double each pause: what fails together does not load
together."""
_NAMED = 3


class Budget(Record, frozen=True, kw_only=True):
    """Seconds, and restarts within ``window_s``."""

    window_s: float = 3600.0
    per_engine: int = 5
    per_gpu: int = 8
    per_host: int = 15
    first_s: float = 1.0
    cap_s: float = 300.0
    """The n-th pause in a row is ``first_s * 2**(n-1)``, at most this."""
    healthy_s: float = 600.0
    """A life that has served this long makes the next pause a first one."""


class Allowed(Record, frozen=True, kw_only=True):
    """It may be restarted in ``wait_s`` seconds; ``text`` counts it."""

    wait_s: float = 0.0
    text: str = "restart"


class Spent(Record, frozen=True, kw_only=True):
    """It may not be restarted without a person."""

    which: Literal["engine", "gpu", "host", "wedged"]
    text: str


Decision = Allowed | Spent


def decide(
    budget: Budget,
    history: Iterable[Restart],
    engine: str,
    gpus: Collection[str],
    *,
    served_s: float,
    now: float,
    jitter: float,
) -> Decision:
    """Tell whether ``engine`` on ``gpus``, whose last life has served ``served_s``, may be restarted.

    Restarts are dated by the clock that ``now`` is of, in seconds; one that is forgiven counts nowhere. ``jitter`` 0..1
    makes the pause half of to all of its length, so that engines which died together do not start together.
    """
    within = sorted((one for one in history if now - one.t < budget.window_s and not one.forgiven), key=_when)
    own = [one for one in within if one.engine == engine]
    minutes = _minutes(budget)
    if len(own) >= budget.per_engine:
        text = f"restarted {len(own)} times within {minutes}, and {budget.per_engine} are allowed"
        return Spent(which="engine", text=text)
    tried = _futile(history, engine, now) if served_s <= 0 else []
    if len(tried) >= budget.per_engine:
        text = f"restarted {len(tried)} times within {(now - tried[-1].t) / 60:.0f} min and never served"
        return Spent(which="engine", text=text)
    loops = bool(own) and not (served_s > 0 or any(one.served_s > 0 for one in own))
    for gpu in sorted(gpus):
        users = [one for one in within if gpu in one.gpus]
        if spent := _spent(budget, users, budget.per_gpu, loops=loops):
            return Spent(which="gpu", text=f"the engines of GPU {gpu} were restarted {spent}")
    if spent := _spent(budget, within, budget.per_host, loops=loops):
        return Spent(which="host", text=f"the engines of this host were restarted {spent}")
    recent = sum(now - one.t < _TOGETHER_S for one in _trying(budget, within))
    healthy = served_s >= budget.healthy_s
    doublings = max(0 if healthy else _in_a_row(own, budget.healthy_s), recent // _TOGETHER)
    pause = min(budget.cap_s, budget.first_s * 2.0**doublings)
    return Allowed(
        wait_s=pause * (0.5 + 0.5 * jitter), text=f"restart {len(own) + 1} of {budget.per_engine} within {minutes}"
    )


def _spent(budget: Budget, shared: Sequence[Restart], limit: int, *, loops: bool) -> str | None:
    """Say how often and whose, when no more may come into a window that engines share.

    ``loops``: no more of an engine that is restarted again and again and never serves.
    """
    full = len(shared) >= CAP * limit or (loops and len(_trying(budget, shared)) >= limit)
    return f"{len(shared)} times within {_minutes(budget)} ({_whose(shared)})" if full else None


def _trying(budget: Budget, restarts: Sequence[Restart]) -> list[Restart]:
    """Return those of engines that may still be restarted: the others are parked, and ask for nothing any more."""
    counts = Counter(one.engine for one in restarts)
    return [one for one in restarts if counts[one.engine] < budget.per_engine]


def _futile(history: Iterable[Restart], engine: str, now: float) -> list[Restart]:
    """Return the last restarts of an engine after none of which it served, the newest first."""
    own = [one for one in history if one.engine == engine and not one.forgiven and now - one.t < FUTILE_S]
    newest = sorted(own, key=_when, reverse=True)
    return newest[: _in_a_row(newest[::-1], sys.float_info.min)]


def _when(restart: Restart) -> float:
    return restart.t


def _minutes(budget: Budget) -> str:
    return f"{budget.window_s / 60:g} min"


def _whose(restarts: Iterable[Restart]) -> str:
    """Name the engines that spent the most: they are to be looked at first."""
    most = sorted(Counter(one.engine for one in restarts).items(), key=lambda item: (-item[1], item[0]))
    named = ", ".join(f"{engine} {count}" for engine, count in most[:_NAMED])
    return f"{named}, others" if len(most) > _NAMED else named


def _in_a_row(own: Sequence[Restart], healthy_s: float) -> int:
    """Return how many restarts, counted back from the last one, followed each other without a healthy life between."""
    count = 0
    for one in reversed(own):
        count += 1
        if one.served_s >= healthy_s:
            break
    return count
