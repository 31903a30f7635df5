"""The time of recorded lines: what came late is passed over, and a clock that was set back stops nothing."""

from __future__ import annotations

from opsboard.core.clock import Now

LATE_S = 10.0
"""A line that lies behind the newest by no more came late, or twice; by more, the clock was set back."""
PACE_S = 1.0
"""Between two lines where it is not known: a daemon's interval, if nobody configured another."""


class RecordedClock:
    """Makes instants of recorded times, which must go on: wall as recorded, mono from the first line on."""

    def __init__(self) -> None:
        """Know no time yet."""
        self.late = 0
        """Lines that were passed over."""
        self.set_back = 0
        """How often the clock was."""
        self._ahead_s = 0.0
        """What mono is ahead of the recorded times, because the clock was set back."""
        self._first: float | None = None
        self._newest = 0.0
        self._pace_s = PACE_S
        self._read: dict[str, float] = {}

    @property
    def seconds(self) -> float:
        """From the first line to the newest."""
        return 0.0 if self._first is None else self._newest - self._first + self._ahead_s

    def at(self, engine: str, t: float, *, is_reading: bool) -> Now | None:
        """Return when a line of ``engine`` with the time ``t`` (Unix s) was; None for one that is to be passed over."""
        if self._first is None:
            self._first = self._newest = t
        behind_s = self._newest - t
        if 0 < behind_s <= LATE_S or (is_reading and behind_s <= LATE_S and self._read.get(engine) == t):
            self.late += 1
            return None
        if behind_s > LATE_S:
            self._ahead_s += behind_s + self._pace_s
            self.set_back += 1
            self._read.clear()
        elif behind_s < 0:
            self._pace_s = -behind_s
        self._newest = t
        if is_reading:
            self._read[engine] = t
        return Now(wall=t, mono=self.seconds)
