"""Durations and sizes as people write them: "1500ms", "90s", "15m", "24h", "30d", "2y"; "64MiB", "4GiB"."""

from __future__ import annotations

import re

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0, "y": 31536000.0}
_BYTES = {
    "B": 1,
    "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
    "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40,
}  # fmt: skip
_QUANTITY = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]+)")


class Seconds(float):
    """A duration in seconds, read from text."""

    def __repr__(self) -> str:
        """Show the duration as it would be written."""
        return format_seconds(self)


class Bytes(int):
    """A size in bytes, read from text."""

    def __repr__(self) -> str:
        """Show the size as it would be written."""
        return format_bytes(self)


def parse_seconds(text: object) -> Seconds:
    """Read a duration. Raises ValueError with what is allowed."""
    return Seconds(_parse(text, _SECONDS, 'a duration such as "1500ms", "90s", "15m", "24h", "30d"'))


def parse_bytes(text: object) -> Bytes:
    """Read a size. Raises ValueError with what is allowed."""
    return Bytes(round(_parse(text, _BYTES, 'a size such as "64MiB", "4GiB", "500MB"')))


def format_seconds(value: float) -> str:
    """Write a duration with the largest unit that leaves a whole number."""
    for unit in ("y", "d", "h", "m", "s"):
        if value and value % _SECONDS[unit] == 0:
            return f"{value / _SECONDS[unit]:g}{unit}"
    return f"{value * 1000:g}ms" if 0 < value < 1 else f"{value:g}s"


def format_bytes(value: int) -> str:
    """Write a size with the largest binary unit that leaves a whole number."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if value and value % _BYTES[unit] == 0:
            return f"{value // _BYTES[unit]}{unit}"
    return f"{int(value)}B"


def _parse(text: object, units: dict[str, float] | dict[str, int], allowed: str) -> float:
    match = _QUANTITY.fullmatch(text.strip()) if isinstance(text, str) else None
    if match is None or match[2] not in units:
        msg = f"expected {allowed}, found {text!r}"
        raise ValueError(msg)
    return float(match[1]) * units[match[2]]
