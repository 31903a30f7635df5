"""From cumulative counters and histograms to what happened in the last seconds, through gaps and restarts.

A counter that goes down was reset: the process began anew. That is a state (``restarted``), never a negative rate:
everything before is forgotten and rates are None until the new life has been read twice.
"""

from __future__ import annotations

from array import array
from math import isnan

from opsboard.core import histogram
from opsboard.core.model import Histogram
from opsboard.core.ring import Ring

WINDOWS = {"10s": 10.0, "1m": 60.0, "5m": 300.0}
"""The windows of the board in seconds, by the names they have in JSON."""


class CounterTrack:
    """The readings of one cumulative counter over ``horizon_s`` seconds (16 to 24 bytes each)."""

    __slots__ = ("_last", "_ring", "_was_reset")

    def __init__(self, horizon_s: float = 300.0) -> None:
        """Start without readings."""
        self._ring: Ring[float] = Ring(horizon_s, array("d"))
        self._last: float | None = None
        self._was_reset = False

    def add(self, mono: float, value: float) -> bool:
        """Take a reading at ``mono`` (monotonic seconds). True: it went down, so it was reset. NaN is no reading."""
        if isnan(value):
            return False
        reset = self._last is not None and value < self._last
        if reset:
            self.reset()
        self._last = value
        self._ring.add(mono, value)
        return reset

    def reset(self) -> None:
        """Forget the old life; for a process that is known to have restarted although its counters did not go down."""
        self._ring.clear()
        self._last = None
        self._was_reset = True

    @property
    def restarted(self) -> bool:
        """True from a reset until the new life has been read twice."""
        return self._was_reset and self._ring.readings < 2

    def rate(self, window_s: float, now_mono: float) -> float | None:
        """Return the increase a second over what was really covered of the window; None while that is unknown."""
        span = self._ring.span(window_s, now_mono)
        return None if span is None else (span.last - span.first) / (span.end - span.start)

    def increase(self, window_s: float, now_mono: float) -> float | None:
        """Return the increase over what was covered of the window, not extrapolated; None while that is unknown."""
        span = self._ring.span(window_s, now_mono)
        return None if span is None else span.last - span.first


class HistogramTrack:
    """The readings of one cumulative histogram, packed (8 bytes a bucket, and only when changed)."""

    __slots__ = ("_bounds", "_last", "_ring", "_was_reset")

    def __init__(self, horizon_s: float = 300.0) -> None:
        """Start without readings."""
        self._ring: Ring[bytes] = Ring(horizon_s, [])
        self._bounds: tuple[float, ...] = ()
        self._last: Histogram | None = None
        self._was_reset = False

    def add(self, mono: float, reading: Histogram) -> bool:
        """Take a reading at ``mono`` (monotonic seconds). True: it was reset (a bucket went down, or other bounds)."""
        last = self._last
        reset = last is not None and histogram.was_reset(reading, last)
        if reset:
            self.reset()
        self._last, self._bounds = reading, reading.bounds
        self._ring.add(mono, _pack(reading))
        return reset

    def reset(self) -> None:
        """Forget the old life."""
        self._ring.clear()
        self._last = None
        self._was_reset = True

    @property
    def restarted(self) -> bool:
        """True from a reset until the new life has been read twice."""
        return self._was_reset and self._ring.readings < 2

    def window(self, window_s: float, now_mono: float) -> Histogram | None:
        """Return the observations of what was covered of the window (count 0: none); None while that is unknown."""
        span = self._ring.span(window_s, now_mono)
        if span is None:
            return None
        return histogram.subtract(_unpack(span.last, self._bounds), _unpack(span.first, self._bounds))


_NO_TOTAL = float("nan")


def _pack(reading: Histogram) -> bytes:
    return array("d", (_NO_TOTAL if reading.total is None else reading.total, *reading.counts)).tobytes()


def _unpack(packed: bytes, bounds: tuple[float, ...]) -> Histogram:
    total, *counts = array("d", packed)
    return Histogram(bounds=bounds, counts=tuple(counts), total=None if isnan(total) else total)
