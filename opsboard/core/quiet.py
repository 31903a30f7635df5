"""Quiet hours as people write them: "22:00-07:00", "mon-fri 19:00-08:00", "sat-sun". Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import lru_cache
from zoneinfo import ZoneInfo

from opsboard.core.model import Record

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
DAY_MIN = 24 * 60
_DAY = "|".join(DAYS)
_WINDOW = re.compile(rf"(?:({_DAY})(?:-({_DAY}))?)?\s*(?:(\d\d):(\d\d)-(\d\d):(\d\d))?", re.IGNORECASE)


class Window(Record, frozen=True, kw_only=True):
    """Some hours of some days, in minutes of the day. One that ends before it begins goes on into the next day."""

    days: frozenset[int] = frozenset(range(7))
    """0 is Monday: the days on which it begins."""
    start: int = 0
    end: int = DAY_MIN

    def holds(self, weekday: int, minute: int) -> bool:
        """Whether such a moment is in it."""
        if self.start < self.end:
            return weekday in self.days and self.start <= minute < self.end
        before = (weekday - 1) % 7
        return (weekday in self.days and minute >= self.start) or (before in self.days and minute < self.end)


class Quiet(Record, frozen=True, kw_only=True):
    """When tickets and notes wait. ``zone`` None: the host's own time."""

    windows: tuple[Window, ...] = ()
    zone: str | None = None

    def holds(self, t: float) -> bool:
        """Whether ``t`` (Unix s) is in quiet hours, by the clock on the wall there."""
        if not self.windows:
            return False
        local = datetime.fromtimestamp(t, UTC).astimezone(None if self.zone is None else _zone(self.zone))
        minute = local.hour * 60 + local.minute
        return any(window.holds(local.weekday(), minute) for window in self.windows)


def quiet(texts: Iterable[str], zone: str | None = None) -> Quiet:
    """Read quiet hours. Raises ValueError with what is allowed."""
    if zone is not None:
        try:
            _zone(zone)
        except (KeyError, ValueError, OSError):
            msg = f'expected a time zone that this host knows, such as "Europe/Berlin", found {zone!r}'
            raise ValueError(msg) from None
    return Quiet(windows=tuple(map(window, texts)), zone=zone)


def window(text: str) -> Window:
    """Read one. Raises ValueError with what is allowed."""
    match = _WINDOW.fullmatch(text.strip())
    msg = f'expected quiet hours such as "22:00-07:00", "mon-fri 19:00-08:00" or "sat-sun", found {text!r}'
    if match is None or not text.strip():
        raise ValueError(msg)
    first, last, *clock = match.groups()
    days = frozenset(range(7)) if first is None else _days(first.lower(), (last or first).lower())
    if clock[0] is None:
        return Window(days=days)
    hours = [int(part) for part in clock]
    start, end = hours[0] * 60 + hours[1], hours[2] * 60 + hours[3]
    if max(hours[1], hours[3]) > 59 or start >= DAY_MIN or end > DAY_MIN or start == end:
        raise ValueError(msg)
    return Window(days=days, start=start, end=end)


@lru_cache(4)
def _zone(name: str) -> ZoneInfo:
    """Keep it: its file may be gone later."""
    return ZoneInfo(name)


def _days(first: str, last: str) -> frozenset[int]:
    begin, end = DAYS.index(first), DAYS.index(last)
    return frozenset((begin + at) % 7 for at in range((end - begin) % 7 + 1))
