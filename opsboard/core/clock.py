"""The one place that names the clock. Durations come from ``mono``, dates from ``wall``; both are passed in."""

from __future__ import annotations

import time
from typing import Protocol

import msgspec


class Now(msgspec.Struct, frozen=True):
    """One instant on both clocks: ``wall`` in Unix seconds, ``mono`` in seconds of a clock that never steps."""

    wall: float
    mono: float


class Clock(Protocol):
    """What code asks for the time; tests hand in their own."""

    def now(self) -> Now:
        """Return the present instant on both clocks."""
        ...


class SystemClock:
    """The machine's clocks."""

    def now(self) -> Now:
        """Return the present instant on both clocks."""
        return Now(wall=time.time(), mono=time.monotonic())  # noqa: TID251  the one home of the clock


class ManualClock:
    """A clock that tests move by hand."""

    def __init__(self, wall: float = 1_700_000_000.0, mono: float = 1_000.0) -> None:
        """Start at the given instants, in seconds."""
        self._now = Now(wall=wall, mono=mono)

    def now(self) -> Now:
        """Return the instant last set."""
        return self._now

    def advance(self, seconds: float) -> Now:
        """Move both clocks forward and return the new instant."""
        self._now = Now(wall=self._now.wall + seconds, mono=self._now.mono + seconds)
        return self._now
