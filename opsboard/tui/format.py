"""Numbers as people read them: three digits, quantised so that noise repaints nothing. Unknown is ``--``."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import datetime, tzinfo

from opsboard.core.model import state_word as in_full

UNKNOWN = "--"


def _three(value: float) -> str:
    """Return ``value`` (below 1000) with three significant digits."""
    if value < 9.995:
        return f"{value:.2f}"
    if value < 99.95:
        return f"{value:.1f}"
    return f"{value:.0f}"


def _usable(value: float | None) -> bool:
    """Return whether there is a number that can be: none of what is shown is ever below 0."""
    return value is not None and math.isfinite(value) and value >= 0


def count(value: float | None) -> str:
    """Return a number of things: ``0``, ``0.4``, ``12``, ``999``, ``1.24k``, ``12.4M``. At most five cells."""
    if value is None or not _usable(value):
        return UNKNOWN
    if value < 9.95:
        text = f"{value:.1f}"
        return text.removesuffix(".0") if text != "0.0" or value == 0 else "<0.1"
    for unit in ("", "k", "M", "G", "T"):
        if value < 999.5:
            return f"{value:.0f}" if not unit else _three(value) + unit
        value /= 1000
    return ">999T"


def whole(value: float | None) -> str:
    """Return a number of requests: whole below ten thousand."""
    if value is None or not _usable(value):
        return UNKNOWN
    return f"{value:.0f}" if 0 <= value < 9999.5 else count(value)


def rate(value: float | None) -> str:
    """Return a small rate: ``0``, ``0.02``, ``1.3``, ``42``. At most five cells; a trace is ``<.01``, never 0."""
    if value is None or not _usable(value):
        return UNKNOWN
    if 0 < value < 0.005:
        return "<.01"
    if 0 < value < 0.995:
        return f"{value:.2f}"
    return count(value)


def seconds(value: float | None) -> str:
    """Return a latency: ``0.4ms``, ``41ms``, ``312ms``, ``1.24s``, ``12.4s``, ``124s``, ``42m``. At most five cells."""
    if value is None or not _usable(value):
        return UNKNOWN
    if value == 0:
        return "0ms"
    if value < 0.00095:
        return "<1ms"
    if value < 0.00995:
        return f"{value * 1000:.1f}ms"
    if value < 0.9995:
        return f"{value * 1000:.0f}ms"
    if value < 999.5:
        return _three(value) + "s"
    return f"{min(value / 60, 9999):.0f}m"


def within(value: float | None, lower: float, upper: float | None, cells: int) -> str:
    """Return a latency that lies between two bounds: ``<300ms`` above 0, ``>10s`` without an upper one, else itself.

    At most ``cells`` (five or more); where they are too few the bound is rounded so that it stays true: ``<0.3s``.
    """
    if value is None or (upper is not None and not lower == 0 < upper):
        return seconds(value)
    return ">" + _bound(lower, cells - 1, math.floor) if upper is None else "<" + _bound(upper, cells - 1, math.ceil)


def _bound(bound: float, cells: int, outward: Callable[[float], int]) -> str:
    amount, unit = (bound * 1000, "ms") if bound < 1 else (bound, "s") if bound < 999 else (bound / 60, "m")
    for digits in (6, 1, 0):
        text = f"{outward(round(amount * 10**digits, 6)) / 10**digits:g}{unit}"
        if len(text) <= cells:
            return text
    return f"{outward(round(bound * 10, 6)) / 10:g}s"


def size(value: float | None) -> str:
    """Return bytes in binary units: ``512M``, ``9.12G``, ``71.2G``. At most five cells."""
    if value is None or not _usable(value):
        return UNKNOWN
    if value < 1024:
        return f"{value:.0f}B"
    for unit in ("K", "M", "G", "T", "P"):
        value /= 1024
        if value < 999.5:
            return _three(value) + unit
    return ">999P"


def percent(ratio: float | None) -> str:
    """Return a ratio as a whole percentage; a trace is ``<1%``, never 0."""
    if ratio is None or not _usable(ratio):
        return UNKNOWN
    if 0 < ratio < 0.01:
        return "<1%"
    return f"{min(ratio * 100, 9999):.0f}%"


def age(value: float | None) -> str:
    """Return how long (ago), coarsely: ``7s``, ``45s``, ``12m``, ``3h12``, ``2d4h``, ``120d``. At most five cells."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    total = int(max(value, 0))  # clocks of two machines may differ
    if total < 60:
        return f"{total if total < 20 else total // 5 * 5}s"
    minutes = total // 60
    if minutes < 60:
        return f"{minutes}m"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours}h{minutes:02d}"
    days, hours = divmod(hours, 24)
    return f"{days}d{hours}h" if days < 10 else f"{min(days, 9999)}d"


def duration(value: float | None) -> str:
    """Return how long something took: ``0.8s``, ``12s``, ``3m05``, ``1h02``."""
    if value is None or not _usable(value):
        return UNKNOWN
    if value < 10:
        return f"{value:.1f}s"
    total = round(value)
    if total < 60:
        return f"{total}s"
    minutes, rest = divmod(total, 60)
    if minutes < 60:
        return f"{minutes}m{rest:02d}"
    return age(value)


def clock(wall: float | None, zone: tzinfo | None, pattern: str = "%H:%M:%S") -> str:
    """Return the time of day of ``wall`` (Unix seconds) in ``zone`` (None: this machine's)."""
    if wall is None or not _usable(wall):
        return "--:--:--"
    try:
        return datetime.fromtimestamp(wall, zone).strftime(pattern)
    except (OverflowError, OSError, ValueError):
        return "--:--:--"


def state_word(state: str, *, short: bool) -> str:
    """Return the word of CONTRACT for a state; the ``short`` ones have at most eight letters."""
    if short:
        return {"backing_off": "backoff", "unreachable": "unreach."}.get(state, state)
    return in_full(state)
