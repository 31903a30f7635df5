"""Restarts by age: each engine that shall not grow too old is renewed in its quietest ten minutes before.

Its own past tells when that is; what an engine must not lose by it (the last that serves a route, a budget, a command
that could not be started again) is for supervision to refuse, and then it is tried again every minute.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Protocol

from opsboard.core.clock import Clock
from opsboard.core.errors import NotFound, OpsboardError
from opsboard.core.model import EngineState, LifeView, Record, Severity
from opsboard.core.series import series_name
from opsboard.core.wire import History
from opsboard.supervise.planning import DAY_S, EARLIEST, SLOT_S, plan

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
        past: Past,
        renew: Callable[[str, str], Awaitable[None]],
        tell: Callable[[str, str, Severity, str], None],
    ) -> None:
        """``renew(name, reason)`` begins a restart or raises why not; ``tell(kind, text, severity, subject)``."""
        self._clock = clock
        self._ages = ages
        self._life = life
        self._past = past
        self._renew = renew
        self._tell = tell
        self._traffic: dict[str, tuple[float, Mapping[int, float]]] = {}
        self._told: dict[str, tuple[float, str]] = {}

    async def look(self) -> None:
        """Renew those that are due."""
        for age in self._ages():
            try:
                life, now = self._life(age.engine), self._clock.now().wall
            except NotFound:
                continue
            if life.state is not EngineState.READY or life.started is None:
                continue
            if now - life.started >= EARLIEST * age.max_age_s:
                await self._consider(age, life.started, now)

    async def _consider(self, age: Age, started: float, now: float) -> None:
        chosen = plan(started=started, max_age_s=age.max_age_s, traffic=await self._slots(age.engine, now), now=now)
        if chosen.at > now:
            return
        quiet = "" if chosen.expected is None else f", the quietest ten minutes ({chosen.expected:.3g} tokens/s then)"
        reason = f"planned: {(now - started) / 3600:.1f} h old, max_age is {age.max_age_s / 3600:.3g} h{quiet}"
        try:
            await self._renew(age.engine, reason)
        except OpsboardError as error:
            told = (started, error.message)
            if self._told.get(age.engine) != told:
                self._told[age.engine] = told
                text = f"not restarted although it is time ({reason}): {error.message}; tried again every minute"
                self._tell("planned_restart", text, Severity.WARNING, f"engine/{age.engine}")

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
