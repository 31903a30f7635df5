"""How many events of how many were bad in any window of the last three days, in little memory.

Two curves of what was counted so far: a point each 5 s for an hour and each 2 min for three days, 24 bytes each.
Between two points events are taken as evenly spread, so a window that begins at a point is exact, and any other is
wrong by a part of one step at its far end; so are events of a time that nobody read, which belong somewhere in the gap.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Sequence
from typing import Any, NamedTuple, Self

FINE_STEP_S, FINE_S = 5.0, 3600.0
COARSE_STEP_S, COARSE_S = 120.0, 3 * 86400.0
_COMPACT = 256
"""Forgotten points are cut off this many at a time."""


class Events(NamedTuple):
    """Bad ones, and all."""

    bad: float
    total: float

    @property
    def ratio(self) -> float:
        """Part that was bad, 0..1; 0 without events."""
        return self.bad / self.total if self.total > 0 else 0.0


_NONE = Events(0.0, 0.0)


class _Curve:
    """What was counted so far, at instants ``step_s`` apart or more, ``horizon_s`` back."""

    __slots__ = ("_at", "_bad", "_head", "_horizon_s", "_step_s", "_total")

    def __init__(self, step_s: float, horizon_s: float, mono: float) -> None:
        self._step_s, self._horizon_s = step_s, horizon_s
        self._at, self._bad, self._total = array("d", [mono]), array("d", [0.0]), array("d", [0.0])
        self._head = 0

    def packed(self) -> tuple[bytes, bytes, bytes]:
        """Return its points: when, bad ones, all."""
        return self._at[self._head :].tobytes(), self._bad[self._head :].tobytes(), self._total[self._head :].tobytes()

    def take(self, points: Sequence[bytes]) -> None:
        """Take what was packed. Raises ValueError."""
        at, bad, total = (array("d", column) for column in points)
        if not len(at) == len(bad) == len(total) > 0:
            raise ValueError("its points are not whole")
        self._at, self._bad, self._total, self._head = at, bad, total, 0

    def add(self, mono: float, now: Events, last: float, before: Events) -> None:
        """Take what is counted ``now``; it was ``before`` at ``last``, and from there on it is spread."""
        at = self._at
        if mono - at[-1] < self._step_s:
            return
        if mono - last >= self._step_s and last > at[-1]:
            self._append(last, before)
        self._append(mono, now)
        head, edge = self._head, mono - self._horizon_s
        while at[head + 1] <= edge:
            head += 1
        if head >= _COMPACT:
            del at[:head], self._bad[:head], self._total[:head]
            head = 0
        self._head = head

    def _append(self, mono: float, now: Events) -> None:
        self._at.append(mono)
        self._bad.append(now.bad)
        self._total.append(now.total)

    def after(self, mono: float, last: float, now: Events) -> Events:
        """Return what was counted after ``mono``; ``now`` in all at ``last``, which no point may tell yet."""
        at, bad, total, head = self._at, self._bad, self._total, self._head
        index = bisect_right(at, mono, head) - 1
        if index < head:
            return Events(now.bad - bad[head], now.total - total[head])
        bad_then, total_then = bad[index], total[index]
        further = index + 1 < len(at)
        then = at[index + 1] if further else last
        if mono >= then:
            return _NONE
        part = (mono - at[index]) / (then - at[index])
        bad_then += ((bad[index + 1] if further else now.bad) - bad_then) * part
        total_then += ((total[index + 1] if further else now.total) - total_then) * part
        return Events(max(0.0, now.bad - bad_then), max(0.0, now.total - total_then))

    def onset(self, since: float, allowed: float) -> float | None:
        """Return the instant after which, from ``since`` on, most more events were bad than ``allowed`` (a ratio).

        The most likely begin of a change that is there now (the maximum of a CUSUM); None without a point there.
        """
        best, found = float("inf"), None
        for index in range(max(self._head, bisect_right(self._at, since, self._head) - 1), len(self._at)):
            excess = self._bad[index] - allowed * self._total[index]
            if excess <= best:
                best, found = excess, self._at[index]
        return found


class History:
    """The events of one kind. It is changed where it lies: copying three days at every reading would not be O(1)."""

    __slots__ = ("_coarse", "_fine", "_last", "_now", "began")

    def __init__(self, mono: float) -> None:
        """Begin with none, at ``mono`` (monotonic seconds)."""
        self._fine = _Curve(FINE_STEP_S, FINE_S, mono)
        self._coarse = _Curve(COARSE_STEP_S, COARSE_S, mono)
        self.began = mono
        self._last, self._now = mono, _NONE

    def add(self, mono: float, bad: float, total: float) -> None:
        """Take in events that were seen at ``mono``, and happened since the last call."""
        if mono <= self._last:
            return
        last, before = self._last, self._now
        self._last, self._now = mono, Events(before.bad + bad, before.total + total)
        self._fine.add(mono, self._now, last, before)
        self._coarse.add(mono, self._now, last, before)

    def last(self, window_s: float, mono: float) -> Events:
        """Return the events of the ``window_s`` seconds before ``mono``, as far back as is known."""
        return self._of(window_s).after(mono - window_s, self._last, self._now)

    def onset(self, window_s: float, mono: float, allowed: float) -> float | None:
        """Return when (monotonic s) more than ``allowed`` of the events began to be bad, inside a window. O(window)."""
        return self._of(window_s).onset(mono - window_s, allowed)

    def packed(self) -> tuple[Any, ...]:
        """Return all of it, for the next daemon."""
        return self.began, self._last, self._now, self._fine.packed(), self._coarse.packed()

    @classmethod
    def unpacked(cls, found: Any) -> Self:
        """Return it as it was. Raises ValueError, TypeError."""
        began, last, now, fine, coarse = found
        history = cls(began)
        history._last, history._now = last, Events(*now)
        history._fine.take(fine)
        history._coarse.take(coarse)
        return history

    def _of(self, window_s: float) -> _Curve:
        return self._fine if window_s <= FINE_S else self._coarse
