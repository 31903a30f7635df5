"""How fast KV blocks are lost: an hour, a finished request, a request whose client went away; and when none is left."""

from __future__ import annotations

from math import inf

from msgspec.structs import replace

from alerts.eta import seconds_until
from alerts.theil_sen import Slope, slope
from opsboard.core.model import Record

SPAN_S = 30.0
"""A pace is told of no shorter time."""
FEW = 3
"""Points, the one without a loss among them, that are few."""
POINTS = 32
"""More are thinned out: every other one goes."""
SOON_S, LATER_S = 10.0, 60.0
"""The pace is worked out anew so soon after the last time when more is lost, and so late when it is not."""
HOUR_S = 3600.0


class Point(Record, frozen=True):
    """What was lost at least at one instant (monotonic s), and what the engine had done until then."""

    mono: float
    finished: float
    gone: float
    lost: int


class Growth(Record, frozen=True, kw_only=True):
    """The way of a loss so far, and its pace in blocks; None: not known."""

    points: tuple[Point, ...] = ()
    worked_out: float = -inf
    per_hour: Slope | None = None
    per_finished: float | None = None
    per_gone: float | None = None


def accounted(point: Point) -> Growth:
    """Begin where nothing is lost."""
    return Growth(points=(point,))


def grew(growth: Growth, point: Point, *, exact: bool) -> Growth:
    """Take in what is lost now. ``exact``: all of it is seen, and not what is proven at least.

    Nobody knows when it began after the last time that nothing was lost. So that instant counts only as long as there
    is little else to go by, and only where the rest is exact.
    """
    points = growth.points
    if points and point.lost < points[-1].lost:
        points = tuple(one for one in points if one.lost <= point.lost)
    more = not points or point.lost > points[-1].lost
    rested_s = point.mono - growth.worked_out
    if rested_s < SOON_S or not (more or rested_s >= LATER_S):
        return growth if points is growth.points else replace(growth, points=points)
    if more:
        points = (*points, point)
        if len(points) > POINTS:
            points = (*points[:-1:2], points[-1])
    way = points if more else (*points, point)
    if way[0].lost == 0:
        if len(way) > FEW:
            way = way[1:]
        elif not exact:
            return replace(growth, points=points, worked_out=point.mono)
    if way[-1].mono - way[0].mono < SPAN_S:
        return replace(growth, points=points, worked_out=point.mono)
    hourly = slope([(one.mono, float(one.lost)) for one in way])
    return Growth(
        points=points,
        worked_out=point.mono,
        per_hour=None if hourly is None else hourly.times(HOUR_S),
        per_finished=_each([(one.finished, float(one.lost)) for one in way]),
        per_gone=_each([(one.gone, float(one.lost)) for one in way]),
    )


def _each(points: list[tuple[float, float]]) -> float | None:
    found = slope(points)
    return None if found is None else found.value


def seconds_left(growth: Growth, free: float) -> tuple[float | None, float | None, float | None]:
    """Return in how many seconds ``free`` blocks are lost too: likely, soonest, latest; None: never, or not known."""
    pace = growth.per_hour
    if pace is None:
        return None, None, None
    likely, soonest, latest = (
        None if one is None else seconds_until(free, one / HOUR_S) for one in (pace.value, pace.high, pace.low)
    )
    return likely, soonest, latest
