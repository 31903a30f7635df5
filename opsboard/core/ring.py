"""The last minutes of one quantity in little memory: bounded in time and length, equal neighbours kept as one run."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import MutableSequence
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")

GRACE = 0.5
"""Part of a window by which its ends may be off: how far before it the first reading may lie, how old the newest be."""
COVER = 0.05
"""Part of a window that readings must span before anything is said about it."""
_COMPACT = 64
"""Forgotten runs are cut off this many at a time."""


class Span(NamedTuple, Generic[T]):
    """What a window really covers: the values at ``start`` and ``end`` (monotonic seconds, ``end`` after ``start``)."""

    start: float
    first: T
    end: float
    last: T


class Ring(Generic[T]):
    """Readings in order of time. ``items`` is the empty container to fill: ``array("d")`` for numbers, else a list.

    A run is a value with the first and the last time it was read, so an idle engine costs nothing. Adding is O(1)
    amortised, a window O(log n). Readings older than ``horizon_s`` seconds are forgotten, but for the one at that
    edge; ``limit`` bounds the runs.
    """

    __slots__ = ("_began", "_ended", "_head", "_items", "horizon_s", "limit", "readings")

    def __init__(self, horizon_s: float, items: MutableSequence[T], limit: int = 4096) -> None:
        """Start empty."""
        self.horizon_s = horizon_s
        self.limit = limit
        self.readings = 0
        """How many readings were added since the start or the last ``clear``."""
        self._items = items
        self._began = array("d")
        self._ended = array("d")
        self._head = 0

    def __len__(self) -> int:
        """Return the number of runs kept."""
        return len(self._items) - self._head

    def add(self, mono: float, item: T) -> None:
        """Append a reading. One that is not newer than the last is ignored: its clock cannot be right."""
        if self.readings and mono <= self._ended[-1]:
            return
        if self.readings and self._items[-1] == item:
            self._ended[-1] = mono
        else:
            self._items.append(item)
            self._began.append(mono)
            self._ended.append(mono)
        self.readings += 1
        self._forget(mono - self.horizon_s)

    def _forget(self, edge: float) -> None:
        head, began = self._head, self._began
        while head + 1 < len(began) and (began[head + 1] <= edge or len(began) - head > self.limit):
            head += 1
        if head >= _COMPACT:
            del self._items[:head], self._began[:head], self._ended[:head]
            head = 0
        self._head = head

    def clear(self) -> None:
        """Forget everything."""
        del self._items[:], self._began[:], self._ended[:]
        self._head = self.readings = 0

    def span(self, window_s: float, now_mono: float) -> Span[T] | None:
        """Return what is known of the last ``window_s`` seconds before ``now_mono``.

        It starts at the window's edge where a reading stands near enough before it, else at the first reading inside,
        and ends at the newest reading. None with fewer than two readings, when the newest is too old, or when they
        cover too little (GRACE, COVER).
        """
        if self.readings < 2:
            return None
        edge, end = now_mono - window_s, self._ended[-1]
        if now_mono - end > window_s * GRACE:
            return None
        index = bisect_right(self._began, edge, self._head) - 1
        if index < self._head:
            index, start = self._head, self._began[self._head]
        elif self._ended[index] >= edge:
            start = edge
        elif edge - self._ended[index] <= window_s * GRACE or index + 1 == len(self._began):
            start = self._ended[index]
        else:
            index += 1
            start = self._began[index]
        if end - start < window_s * COVER or end <= start:
            return None
        return Span(start, self._items[index], end, self._items[-1])
