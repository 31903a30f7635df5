"""The series around an incident, kept with it for ever: once as it opens, once as it is resolved."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from typing import Literal, Protocol

from opsboard.core.clock import Clock
from opsboard.core.errors import StoreError
from opsboard.core.incidents import Curve, Incident
from opsboard.core.series import series_name
from opsboard.core.wire import History

log = logging.getLogger("opsboard.daemon")

BEFORE_S, LONGEST_S = 900.0, 86400.0
"""How long before its beginning the series begin, and how far back they reach at most."""
POINTS = 240
AT_ONCE = 4
_LOAD = ("up", "running", "waiting", "kv_usage", "generation_tokens_per_s")
ENGINE_FIELDS: dict[str, tuple[str, ...]] = {
    "kv_leak": ("kv_usage", "kv_lost_blocks", "running", "waiting", "requests_finished", "preemptions"),
    "memory_leak": ("rss_bytes", "requests_finished", "running"),
    "gpu_memory_leak": ("gpu_memory_bytes", "requests_finished", "running"),
    "latency": (
        "latency_ratio",
        "prefill_ratio",
        "itl_p50_s",
        "itl_p95_s",
        "ttft_p50_s",
        "ttft_p95_s",
        "running",
        "generation_tokens_per_s",
    ),
    "stall": (*_LOAD, "iterations"),
    "preemption_storm": ("preemptions", *_LOAD),
    "slo_burn": ("ttft_p95_s", "itl_p95_s", "e2e_p95_s", "requests_failed", "requests_finished", "running"),
}
"""What is kept of an engine, by detector; of others its load."""
PROCESS_FIELDS = {"memory_leak": ("rss_anon_bytes", "swap_bytes")}
"""What is kept of each role of its processes."""
CARD_FIELDS = {"gpu_fault": ("sm_clock_mhz", "temperature_c", "power_w", "throttled", "xid")}
"""What is kept of the GPU that its evidence names."""

Moment = Literal["opened", "resolved"]


class Past(Protocol):
    """What is asked of the store."""

    async def history(self, series: str, start: float, end: float, step: float) -> History:
        """Return one series."""

    async def series(self) -> list[str]:
        """Return the names of all series."""

    def curves(self, uid: str, curves: Sequence[Curve]) -> Future[None]:
        """Keep series with an incident."""

    async def curves_of(self, uid: str) -> list[Curve]:
        """Return those kept."""


class Freezer:
    """Keeps them, each in a task of its own, a few at once. What cannot be read or written is logged and left out."""

    def __init__(self, clock: Clock, past: Past, host: str) -> None:
        """Keep nothing yet."""
        self._clock = clock
        self._past = past
        self._host = host
        self._opened: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._room = asyncio.Semaphore(AT_ONCE)

    def hear(self, incident: Incident) -> None:
        """Take in an incident that changed."""
        if incident.open and incident.uid not in self._opened:
            self._opened.add(incident.uid)
            self._begin(incident, "opened")
        elif not incident.open and incident.uid in self._opened:
            self._opened.discard(incident.uid)
            self._begin(incident, "resolved")

    async def close(self) -> None:
        """Stop; the next daemon keeps what is missing of open ones."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _begin(self, incident: Incident, moment: Moment) -> None:
        task = asyncio.get_running_loop().create_task(self._freeze(incident, moment))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _freeze(self, incident: Incident, moment: Moment) -> None:
        now = self._clock.now().wall
        try:
            async with self._room:
                if any(curve.moment == moment for curve in await self._past.curves_of(incident.uid)):
                    return
                start = max(incident.since - BEFORE_S, now - LONGEST_S)
                names = wanted(incident, self._host, await self._past.series())
                histories = [
                    await self._past.history(name, start, now + 1, max(1.0, (now - start) / POINTS)) for name in names
                ]
            curves = [_curve(moment, history) for history in histories if history.points]
            if curves:
                await asyncio.shield(asyncio.wrap_future(self._past.curves(incident.uid, curves)))
        except StoreError as error:
            log.warning("incident %d: its series were not kept: %s", incident.id, error.message)


def wanted(incident: Incident, host: str, known: Iterable[str]) -> list[str]:
    """Return the series that tell about an incident, of those that are recorded."""
    kind, _, name = incident.subject.partition("/")
    recorded = set(known)
    if kind == "host":
        return [one for one in (series_name("host", host, "disk_free_bytes"),) if one in recorded]
    if kind == "gpu":
        return sorted(one for one in recorded if one.startswith(f"gpu/{name}/"))
    fields = ENGINE_FIELDS.get(incident.detector, _LOAD)
    found = [one for one in (series_name("engine", name, field) for field in fields) if one in recorded]
    for field in PROCESS_FIELDS.get(incident.detector, ()):
        roles = (one for one in recorded if one.startswith(f"process/{name}:") and one.endswith(f"/{field}"))
        found += sorted(roles)
    card = str(incident.evidence.get("gpu"))
    cards = (series_name("gpu", card, field) for field in CARD_FIELDS.get(incident.detector, ()))
    return found + [one for one in cards if one in recorded]


def _curve(moment: Moment, history: History) -> Curve:
    points = tuple((point.t, point.mean) for point in history.points)
    return Curve(moment=moment, series=history.series, step=history.step, points=points)
