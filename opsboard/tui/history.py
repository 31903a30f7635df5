"""The last while of each number: filled from the daemon's history once, kept up to date from the stream."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

from opsboard.core.model import Record
from opsboard.core.series import series_name
from opsboard.core.wire import Engine, History, Status

BUCKETS = 180
"""Steps of every trail, whatever its range: one chart at its widest."""


class Stretch(Record, frozen=True):
    """A stretch of time that ends now."""

    label: str
    seconds: float


class Range(Stretch, frozen=True):
    """A stretch of time that trails are kept for."""

    @property
    def step(self) -> float:
        """Seconds of one bucket."""
        return self.seconds / BUCKETS


RANGES = (Range("15m", 900.0), Range("1h", 3600.0), Range("6h", 21600.0), Range("24h", 86400.0))
RECENT = RANGES[0]
YOUNG = (Stretch("2m", 120.0), Stretch("5m", 300.0))
"""What charts of :data:`RECENT` show of an engine that has no longer past."""

CHARTED = ("kv_usage", "running", "waiting", "generation_tokens_per_s", "ttft_p95_s", "itl_p95_s")
"""Fields of an engine that have a trail; the same names on the wire and in the store (core/series.py)."""


class Trail:
    """Means over fixed steps of absolute time, the newest :data:`BUCKETS` of them. A step without a value is a gap."""

    __slots__ = ("_counts", "_last", "_step", "_sums")

    def __init__(self, step: float) -> None:
        """Start empty; ``step`` in seconds."""
        self._step = step
        self._sums = [0.0] * BUCKETS
        self._counts = [0] * BUCKETS
        self._last = -1

    def add(self, t: float, value: float | None, weight: int = 1) -> None:
        """Take in ``value`` at ``t`` (Unix seconds). None and what is older than the trail leave no mark."""
        index = int(t // self._step)
        if index > self._last:
            for gone in range(max(self._last + 1, index - BUCKETS + 1), index + 1):
                self._sums[gone % BUCKETS] = 0.0
                self._counts[gone % BUCKETS] = 0
            self._last = index
        if value is None or not math.isfinite(value) or index <= self._last - BUCKETS:
            return
        self._sums[index % BUCKETS] += value * weight
        self._counts[index % BUCKETS] += weight

    def fill(self, history: History) -> None:
        """Take in what the daemon remembers, under what the stream has already brought."""
        seen = {i for i in range(self._last - BUCKETS + 1, self._last + 1) if i >= 0 and self._counts[i % BUCKETS]}
        for point in history.points:
            if int(point.t // self._step) not in seen:
                self.add(point.t, point.mean, max(point.count, 1))

    @property
    def reach(self) -> float:
        """Seconds from the oldest value to the newest step; 0.0 without any."""
        first = max(0, self._last - BUCKETS + 1)
        known = (index for index in range(first, self._last + 1) if self._counts[index % BUCKETS])
        oldest = next(known, None)
        return 0.0 if oldest is None else (self._last + 1 - oldest) * self._step

    def values(self, seconds: float) -> list[float | None]:
        """Return the newest ``seconds`` of means, oldest first."""
        return self.grouped(round(seconds / self._step), 1)

    def grouped(self, groups: int, size: int) -> list[float | None]:
        """Return the newest ``groups`` means over ``size`` steps each.

        Groups lie on absolute time, so that a picture moves only once a group.
        """
        if self._last < 0:
            return [None] * groups
        end = self._last // size + 1
        return [self._mean(group * size, group * size + size) for group in range(end - groups, end)]

    def _mean(self, first: int, last: int) -> float | None:
        total, number = 0.0, 0
        for index in range(max(first, self._last - BUCKETS + 1, 0), min(last, self._last + 1)):
            total += self._sums[index % BUCKETS]
            number += self._counts[index % BUCKETS]
        return total / number if number else None


class _Key(NamedTuple):
    engine: str
    field: str
    label: str


class Trails:
    """All trails: every charted field of every engine over :data:`RECENT`, longer ranges only where asked for."""

    def __init__(self) -> None:
        """Start empty."""
        self._trails: dict[_Key, Trail] = {}

    def get(self, engine: str, field: str, span: Range = RECENT) -> Trail:
        """Return the trail of one field, an empty one when there is none yet."""
        key = _Key(engine, field, span.label)
        trail = self._trails.get(key)
        if trail is None:
            trail = self._trails[key] = Trail(span.step)
        return trail

    def filled(self, engine: str, span: Range) -> Stretch:
        """Return what of ``span`` charts of ``engine`` show: all of it, or what is not empty of the recent past."""
        if span != RECENT:
            return span
        reach = max(self.get(engine, field).reach for field in CHARTED)
        return next((young for young in YOUNG if reach <= young.seconds), span)

    def take(self, status: Status) -> None:
        """Take in one state of the board and let go of engines that left it. A stale reading leaves a gap."""
        names = {engine.name for engine in status.engines}
        for key in [key for key in self._trails if key.engine not in names]:
            del self._trails[key]
        longer = {_Key(key.engine, "", key.label) for key in self._trails if key.label != RECENT.label}
        for engine in status.engines:
            self._take_engine(engine, status.time, RECENT)
            for span in RANGES[1:]:
                if _Key(engine.name, "", span.label) in longer:
                    self._take_engine(engine, status.time, span)

    def _take_engine(self, engine: Engine, t: float, span: Range) -> None:
        fresh = engine.reading.outcome == "OK"
        for field in CHARTED:
            self.get(engine.name, field, span).add(t, getattr(engine, field) if fresh else None)


def series_of(engines: Iterable[str], fields: Iterable[str] = CHARTED) -> list[str]:
    """Return the names under which the store keeps the charted fields of ``engines``."""
    names = list(fields)
    return [series_name("engine", engine, field) for engine in engines for field in names]
