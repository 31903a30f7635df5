"""The evidence of open incidents drawn in a line of text, for messages: fetched aside, so that no message waits."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from alerts.message import SPARK_CHARS, spark
from opsboard.core.errors import StoreError
from opsboard.core.incidents import Incident
from opsboard.core.wire import History
from opsboard.daemon.freezing import wanted

BEFORE_S, LONGEST_S = 600.0, 6 * 3600.0
"""How long before its beginning a line begins, and how far back it reaches at most."""
FRESH_S = 60.0
AT_ONCE = 5
"""So many are drawn in one look."""


_GIVES = frozenset({"stall", "engine_down", "throughput_collapse", "preemption_storm"})


class Past(Protocol):
    """What is asked of the store."""

    async def history(self, series: str, start: float, end: float, step: float) -> History:
        """Return one series."""

    async def series(self) -> list[str]:
        """Return the names of all series."""


class Sparks:
    """The lines, by incident."""

    def __init__(self, past: Past, host: str) -> None:
        """Draw nothing yet."""
        self._past = past
        self._host = host
        self._lines: dict[str, tuple[float, str | None]] = {}

    def of(self, incident: Incident) -> str | None:
        """Return the line of an incident; None: it is not drawn yet, or there is nothing to draw."""
        return self._lines.get(incident.uid, (0.0, None))[1]

    async def look(self, incidents: Iterable[Incident], now: float) -> None:
        """Draw what is new or old (``now`` in Unix seconds); forget what is over."""
        going = list(incidents)
        self._lines = {one.uid: self._lines[one.uid] for one in going if one.uid in self._lines}
        old = [one for one in going if not 0 <= now - self._lines.get(one.uid, (0.0, None))[0] < FRESH_S]
        try:
            names = await self._past.series() if old else []
            for one in old[:AT_ONCE]:
                self._lines[one.uid] = now, await self._drawn(one, names, now)
        except StoreError:
            return  # a message without a line is better than none

    async def _drawn(self, incident: Incident, names: list[str], now: float) -> str | None:
        # That an engine is up says little; what it gives says more.
        series = [one for one in wanted(incident, self._host, names) if not one.endswith("/up")]
        series.sort(key=lambda one: not (incident.detector in _GIVES and one.endswith("/generation_tokens_per_s")))
        if not series:
            return None
        start = max(incident.since - BEFORE_S, now - LONGEST_S)
        history = await self._past.history(series[0], start, now, max(1.0, (now - start) / (2 * SPARK_CHARS)))
        return spark([point.mean for point in history.points])
