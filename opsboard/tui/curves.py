"""Recorded numbers made ready to be drawn: what was frozen with an incident and what is remembered since. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from opsboard.core.incidents import Curve
from opsboard.core.model import Record
from opsboard.core.wire import History
from opsboard.tui.bars import Values


class Track(Record, frozen=True, kw_only=True):
    """One series: ``points`` are Unix seconds and means over ``step`` seconds, ascending."""

    step: float
    points: tuple[tuple[float, float], ...]

    @property
    def ends(self) -> tuple[float, float]:
        """When it begins and ends, in Unix seconds."""
        return self.points[0][0], self.points[-1][0] + self.step


Tracks = Mapping[str, Track]


def gathered(frozen: Iterable[Curve], live: Iterable[History]) -> dict[str, Track]:
    """Return each series as it is remembered, else as it was frozen: at the end rather than as it opened."""
    found: dict[str, Track] = {}
    for curve in sorted(frozen, key=lambda curve: curve.moment):
        if curve.points:
            found[curve.series] = Track(step=curve.step, points=curve.points)
    for history in live:
        points = tuple((point.t, point.mean) for point in history.points)
        if points:
            found[history.series] = Track(step=history.step, points=points)
    return found


def added(level: Track, more: Track) -> Track:
    """Return the sum of two levels of the same moments; where ``more`` has no point there is nothing of it."""
    others = dict(more.points)
    return Track(step=level.step, points=tuple((t, value + others.get(t, 0.0)) for t, value in level.points))


def rate(counter: Track) -> Track:
    """Return how fast a counter grew, a second; where it began anew nothing is known."""
    pairs = zip(counter.points, counter.points[1:], strict=False)
    grown = [(later, (after - before) / (later - earlier)) for (earlier, before), (later, after) in pairs]
    return Track(step=counter.step, points=tuple((t, value) for t, value in grown if value >= 0))


def binned(track: Track, start: float, end: float, columns: int) -> list[float | None]:
    """Return means over ``columns`` equal stretches of time; a point reaches over its step, a gap stays one."""
    sums, counts = [0.0] * columns, [0] * columns
    per = (end - start) / columns
    for t, value in track.points:
        if t + track.step <= start or t >= end or per <= 0:
            continue
        first = max(0, int((t - start) / per))
        last = min(columns - 1, max(first, int((t + track.step - start) / per - 1e-6)))
        for column in range(first, last + 1):
            sums[column] += value
            counts[column] += 1
    return [total / count if count else None for total, count in zip(sums, counts, strict=True)]


def against(level: Track, counter: Track, columns: int) -> tuple[list[float | None], float]:
    """Return ``level`` over equal stretches of work, and how much work that was: a counter that began anew goes on."""
    done, work, at, before = 0.0, counter.points, 0, counter.points[0][1]
    pairs: list[tuple[float, float]] = []
    for t, value in level.points:
        while at < len(work) and work[at][0] <= t:
            done += max(0.0, work[at][1] - before)
            before = work[at][1]
            at += 1
        if at:
            pairs.append((done, value))
    total = done
    if total <= 0:
        return [None] * columns, 0.0
    sums, counts = [0.0] * columns, [0] * columns
    for amount, value in pairs:
        column = min(columns - 1, int(amount / total * columns))
        sums[column] += value
        counts[column] += 1
    return _bridged([s / n if n else None for s, n in zip(sums, counts, strict=True)]), total


def _bridged(values: Sequence[float | None]) -> list[float | None]:
    """Fill columns that no point fell into with the one before: work done at once is no gap in time."""
    out: list[float | None] = []
    for value in values:
        out.append(value if value is not None or not out else out[-1])
    return out


def span(tracks: Iterable[Track]) -> tuple[float, float] | None:
    """Return the stretch of time that any of them covers."""
    ends = [track.ends for track in tracks if track.points]
    return (min(start for start, _ in ends), max(end for _, end in ends)) if ends else None


def lowest_highest(values: Values) -> tuple[float, float]:
    """Return the least and greatest value that is known; 0 and 0 without any."""
    known = [value for value in values if value is not None]
    return (min(known), max(known)) if known else (0.0, 0.0)
