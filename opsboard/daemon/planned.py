"""Restarts by age: each engine that shall not grow too old is renewed in its quietest ten minutes before.

Its own past tells when that is; what an engine must not lose by it (the last that serves a route, a budget, a command
that could not be started again) is for supervision to refuse, and then it is tried again every minute. They go one at
a time, and when one does not come back no other goes.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Protocol

from opsboard.core.clock import Clock
from opsboard.core.errors import Conflict, NotFound, OpsboardError
from opsboard.core.model import EngineState, LifeView, Record, Severity
from opsboard.core.series import series_name
from opsboard.core.wire import History
from opsboard.supervise.planning import DAY_S, EARLIEST, SLOT_S, plan

UNDER_WAY = frozenset({EngineState.STOPPING, EngineState.STARTING})
BROKEN = frozenset({EngineState.BACKING_OFF, EngineState.FAILED, EngineState.PARKED})

LOOK_S = 60.0
PAST_S = 7 * DAY_S + SLOT_S
TRAFFIC = "generation_tokens_per_s"
"""What makes a slot quiet: generated tokens a second, which every engine tells."""


class Past(Protocol):
    """The store's reading side."""

    async def history(self, series: str, start: float, end: float, step: float) -> History:
        """Return a series in steps."""


class Age(Record, frozen=True):
    """An engine and how old (seconds) a life of it may become."""

    engine: str
    max_age_s: float


class Planned:
    """Looks every minute whether somebody is due. Never raises for what an engine or a disk does."""

    def __init__(
        self,
        clock: Clock,
        *,
        ages: Callable[[], Iterable[Age]],
        life: Callable[[str], LifeView],
        age_s: Callable[[int | None], float | None],
        past: Past,
        renew: Callable[[str, str], Awaitable[None]],
        tell: Callable[[str, str, Severity, str], None],
    ) -> None:
        """``renew(name, reason)`` begins a restart or raises why not; ``tell(kind, text, severity, subject)``.

        ``age_s(pid)`` is how long a process has run; None where that is not known.
        """
        self._clock = clock
        self._ages = ages
        self._life = life
        self._age_s = age_s
        self._past = past
        self._renew = renew
        self._tell = tell
        self._traffic: dict[str, tuple[float, Mapping[int, float]]] = {}
        self._told: dict[str, str] = {}
        self._renewed: str | None = None
        """The last one that was restarted by age."""

    async def look(self) -> None:
        """Renew those that are due."""
        for age in self._ages():
            life, now = self._known(age.engine), self._clock.now().wall
            if life is None or life.state is not EngineState.READY or life.started is None:
                continue
            # By the wall clock it may be years old: it began before that was set.
            old_s = self._age_s(life.pid)
            if old_s is None:
                old_s = now - life.started
            if old_s >= EARLIEST * age.max_age_s:
                await self._consider(age, now - old_s, now)
            else:
                self._told.pop(age.engine, None)

    def _known(self, engine: str) -> LifeView | None:
        try:
            return self._life(engine)
        except NotFound:
            return None

    async def _consider(self, age: Age, started: float, now: float) -> None:
        chosen = plan(started=started, max_age_s=age.max_age_s, traffic=await self._slots(age.engine, now), now=now)
        if chosen.at > now:
            return
        quiet = "" if chosen.expected is None else f", the quietest ten minutes ({chosen.expected:.3g} tokens/s then)"
        reason = f"planned: {(now - started) / 3600:.1f} h old, max_age is {age.max_age_s / 3600:.3g} h{quiet}"
        if any(_goes_on(life) for other in self._ages() if (life := self._known(other.engine)) is not None):
            return
        try:
            self._refuse_after_a_failure()
            await self._renew(age.engine, reason)
        except OpsboardError as error:
            if self._told.get(age.engine) != error.message:
                self._told[age.engine] = error.message
                text = f"not restarted although it is time ({reason}): {error.message}; tried again every minute"
                self._tell("planned_restart", text, Severity.WARNING, f"engine/{age.engine}")
        else:
            self._renewed = age.engine

    def _refuse_after_a_failure(self) -> None:
        last = None if self._renewed is None else self._known(self._renewed)
        if last is not None and last.state in BROKEN:
            raise Conflict(f"{last.engine}, restarted by age before it, is {last.state.value}")

    async def _slots(self, engine: str, now: float) -> Mapping[int, float]:
        """Return the traffic of the last days by slot, read once a slot; empty where it cannot be read."""
        read, slots = self._traffic.get(engine, (float("-inf"), {}))
        if now // SLOT_S != read // SLOT_S:
            try:
                history = await self._past.history(series_name("engine", engine, TRAFFIC), now - PAST_S, now, SLOT_S)
            except OpsboardError:
                return slots
            slots = {int(point.t // SLOT_S): point.mean for point in history.points}
            self._traffic[engine] = (now, slots)
        return slots


def _goes_on(life: LifeView) -> bool:
    """Tell whether an engine is on its way back into service; one that drains for no restart is not."""
    return life.state in UNDER_WAY or (life.state is EngineState.DRAINING and life.until is not None)
