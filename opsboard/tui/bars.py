"""Bars, sparklines and area charts made of characters. Pure: numbers in, text out; None stays a gap."""

from __future__ import annotations

import math
from collections.abc import Sequence

from opsboard.tui.glyphs import Glyphs
from opsboard.tui.spans import Span, Style

Values = Sequence[float | None]


def bar(ratio: float | None, width: int, glyphs: Glyphs, style: Style = "") -> tuple[Span, Span]:
    """Return the filled and the empty part of a bar of ``width`` cells; an unknown ratio is all empty."""
    if ratio is None or not math.isfinite(ratio):
        return Span("", style), Span(glyphs.track * width, "dim")
    halves = round(min(max(ratio, 0.0), 1.0) * width * 2)
    if ratio > 0:
        halves = max(halves, 1)
    full, half = divmod(halves, 2)
    filled = glyphs.bar * full + glyphs.half * half
    return Span(filled, style), Span(glyphs.track * (width - full - half), "dim")


def spark(values: Values, width: int, top: float, glyphs: Glyphs) -> str:
    """Return the last ``width`` values as columns one cell high, ``top`` being full."""
    return "".join(_level(v, top, 1, 0, glyphs) for v in _last(values, width))


def area(values: Values, width: int, height: int, top: float, glyphs: Glyphs) -> list[str]:
    """Return ``height`` lines, highest first: ``values`` (one a column) as a filled curve, ``top`` being full."""
    shown = _last(values, width)
    return ["".join(_level(v, top, height, row, glyphs) for v in shown) for row in range(height - 1, -1, -1)]


def _last(values: Values, width: int) -> Values:
    """Return exactly the last ``width`` values, with gaps for those that are not there."""
    return (*(None for _ in range(width - len(values))), *values[len(values) - min(width, len(values)) :])


def _level(value: float | None, top: float, height: int, row: int, glyphs: Glyphs) -> str:
    """Return the character of one column in one row (0 the lowest), where gaps and traces show."""
    steps = len(glyphs.ramp) - 1
    if value is None or not math.isfinite(value):
        return glyphs.gap if row == 0 else " "
    level = round(min(max(value / top, 0.0), 1.0) * height * steps) if top > 0 else 0
    if row == 0:
        level = max(level, 1)
    return glyphs.ramp[min(max(level - row * steps, 0), steps)]


def resample(values: Values, columns: int) -> list[float | None]:
    """Return ``values`` as exactly ``columns`` numbers: means where there are more, repeated where there are fewer."""
    total = len(values)
    if not total or columns <= 0:
        return [None] * max(columns, 0)
    out: list[float | None] = []
    for column in range(columns):
        first = column * total // columns
        last = max(first + 1, (column + 1) * total // columns)
        known = [v for v in values[first:last] if v is not None and math.isfinite(v)]
        out.append(sum(known) / len(known) if known else None)
    return out


def nice_top(values: Values, floor: float) -> float:
    """Return 1, 2 or 5 times a power of ten, at or above all ``values`` and ``floor``: axes that do not jump."""
    peak = max((v for v in values if v is not None and math.isfinite(v)), default=0.0)
    peak = max(peak, floor)
    if peak <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(peak))
    return next((m * power for m in (1.0, 2.0, 5.0) if peak <= m * power * 1.0001), 10.0 * power)
