"""How often an engine may be restarted without a person, and how long to wait before: pure.

A sliding window, so that a life that lasts a little longer than "healthy" does not open it anew; health only shortens
the pauses. The window is shared by the engines of a GPU and by those of the host: thirty restarts in a row take a host
down, whoever's they are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from typing import Literal

from opsboard.core.model import Record, Restart

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
    """A life this long makes the next pause a first one."""


class Allowed(Record, frozen=True, kw_only=True):
    """It may be restarted in ``wait_s`` seconds; ``text`` counts it."""

    wait_s: float = 0.0
    text: str = "restart"


class Spent(Record, frozen=True, kw_only=True):
    """It may not be restarted without a person. ``until`` (Unix s) is when the window would allow it again."""

    which: Literal["engine", "gpu", "host", "wedged"]
    text: str
    until: float | None = None


Decision = Allowed | Spent


def decide(
    budget: Budget, history: Iterable[Restart], engine: str, gpus: Collection[str], *, now: float, jitter: float
) -> Decision:
    """Tell whether ``engine`` on ``gpus`` may be restarted, for the next pause counted from ``now`` (Unix s).

    ``jitter`` 0..1 makes the pause half of to all of its length, so that engines which died together do not start
    together. A restart dated later than now (the clock was set back) counts as one of the window.
    """
    within = sorted((one for one in history if abs(now - one.t) < budget.window_s), key=lambda one: one.t)
    own = [one.t for one in within if one.engine == engine and not one.forgiven]
    minutes = f"{budget.window_s / 60:g} min"
    if len(own) >= budget.per_engine:
        text = f"restarted {len(own)} times within {minutes}, and {budget.per_engine} are allowed"
        return Spent(which="engine", text=text, until=_opens(own, budget.per_engine, budget))
    for gpu in sorted(gpus):
        shared = [one for one in within if gpu in one.gpus and not (one.engine == engine and one.forgiven)]
        if len(shared) >= budget.per_gpu:
            text = f"the engines of GPU {gpu} were restarted {len(shared)} times within {minutes} ({_whose(shared)})"
            return Spent(which="gpu", text=text, until=_opens([one.t for one in shared], budget.per_gpu, budget))
    everybody = [one for one in within if not (one.engine == engine and one.forgiven)]
    if len(everybody) >= budget.per_host:
        text = f"the engines of this host were restarted {len(everybody)} times within {minutes} ({_whose(everybody)})"
        return Spent(which="host", text=text, until=_opens([one.t for one in everybody], budget.per_host, budget))
    pause = min(budget.cap_s, budget.first_s * 2.0 ** _in_a_row(own, now, budget.healthy_s))
    text = f"restart {len(own) + 1} of {budget.per_engine} within {minutes}"
    return Allowed(wait_s=pause * (0.5 + 0.5 * jitter), text=text)


def _whose(restarts: Iterable[Restart]) -> str:
    """Name the engines that spent the most: they are to be looked at first."""
    most = sorted(Counter(one.engine for one in restarts).items(), key=lambda item: (-item[1], item[0]))
    named = ", ".join(f"{engine} {count}" for engine, count in most[:_NAMED])
    return f"{named}, others" if len(most) > _NAMED else named


def _in_a_row(times: list[float], now: float, healthy_s: float) -> int:
    """Return how many restarts, counted back from ``now``, followed each other without a healthy life between."""
    count, later = 0, now
    for t in reversed(times):
        if later - t >= healthy_s:
            break
        count, later = count + 1, t
    return count


def _opens(times: list[float], limit: int, budget: Budget) -> float:
    """Return when one of ``limit`` is free again."""
    return times[len(times) - limit] + budget.window_s
