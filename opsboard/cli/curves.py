"""Series kept with an incident as one line of text each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from opsboard.core.series import split_series

if TYPE_CHECKING:
    from opsboard.core.incidents import Curve

WIDTH = 48
_BARS = "▁▂▃▄▅▆▇█"


def curve_lines(curves: Iterable[Curve], began: float, ended: float | None) -> list[str]:
    """Return a line a series, the newest freezing of each: its curve with lowest and highest value.

    A mark below tells when the incident began and ended (Unix s).
    """
    newest = {curve.series: curve for curve in sorted(curves, key=lambda curve: curve.moment) if curve.points}
    if not newest:
        return []
    start = min(curve.points[0][0] for curve in newest.values())
    end = max(curve.points[-1][0] for curve in newest.values())
    names = {series: _name(series) for series in newest}
    width = max(map(len, names.values()))
    lines = [
        f"{names[series]:<{width}}  {_bars(curve, start, end)}  {_range(curve.points)}"
        for series, curve in newest.items()
    ]
    return [*lines, f"{'':<{width}}  {_marks(began, ended, start, end)}"]


def _name(series: str) -> str:
    kind, subject, field = split_series(series)
    return f"{subject.partition(':')[2]} {field}" if kind == "process" else field


def _column(t: float, start: float, end: float) -> int:
    part = (t - start) / (end - start) if end > start else 0.0
    return min(WIDTH - 1, max(0, int(part * WIDTH)))


def _bars(curve: Curve, start: float, end: float) -> str:
    """Draw the mean of each column; a point reaches over its step, what nobody read stays empty."""
    columns: dict[int, list[float]] = {}
    for t, value in curve.points:
        for at in range(_column(t, start, end), max(_column(t, start, end) + 1, _column(t + curve.step, start, end))):
            columns.setdefault(at, []).append(value)
    means = {at: sum(values) / len(values) for at, values in columns.items()}
    low, high = min(means.values()), max(means.values())
    drawn = {at: _BARS[round((mean - low) / (high - low) * 7) if high > low else 0] for at, mean in means.items()}
    return "".join(drawn.get(at, " ") for at in range(WIDTH))


def _range(points: Sequence[tuple[float, float]]) -> str:
    values = [value for _, value in points]
    low, high = min(values), max(values)
    return f"{low:.4g}" if low == high else f"{low:.4g} to {high:.4g}"


def _marks(began: float, ended: float | None, start: float, end: float) -> str:
    marks = [" "] * WIDTH
    if ended is not None:
        marks[_column(ended, start, end)] = "v"
    marks[_column(began, start, end)] = "^"
    return "".join(marks).rstrip() + ("  ^ began" if ended is None else "  ^ began, v ended")
