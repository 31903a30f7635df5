"""Summaries of a minute and of an hour. Averages and extremes stay exact; a minute without samples has no row.

``increase`` (counters only) is what was added since the sample before, whichever minute that one fell into, and takes a
reset as a start from 0, as Prometheus' ``increase`` does. So every part of a summary adds up: rows of one minute merge
in any grouping, a daemon restarted in the middle of a minute loses and doubles nothing, and the hour is made of its
minutes.
"""

from __future__ import annotations

import sqlite3
from array import array
from collections.abc import Iterable
from math import isfinite
from operator import le
from typing import NamedTuple

MINUTE_S = 60
HOUR_S = 3600
WIDTHS = {"minute": MINUTE_S, "hour": HOUR_S}
"""The tables, and the seconds that a row of each covers."""


class Rollup(NamedTuple):
    """One row: ``t`` is the first second of the minute or hour, in Unix seconds. Non-finite samples are not in it."""

    t: int
    series_id: int
    count: int  # type: ignore[assignment]  # shadows tuple.count, which nobody needs of a row
    total: float
    low: float
    high: float
    last: float
    increase: float | None


def summarise(t: int, series_id: int, values: array[float], *, counter: bool, before: float | None) -> Rollup | None:
    """Summarise samples in the order they came; ``before`` is the counter's value just before them.

    None: nothing finite.
    """
    total = sum(values)
    if not isfinite(total):
        values = array("d", filter(isfinite, values))
        total = min(max(sum(values), -1.7e308), 1.7e308)
    if not values:
        return None
    grown = increase(values, before) if counter else None
    return Rollup(t, series_id, len(values), float(total), min(values), max(values), values[-1], grown)


def increase(values: array[float], before: float | None) -> float:
    """What a counter grew by over ``values``; a step down is a reset to 0 and counts as the new value."""
    start = values[0] if before is None else before
    if start <= values[0] and all(map(le, values, values[1:])):
        return values[-1] - start
    grown = 0.0
    for value in values:
        grown += value - start if value >= start else value
        start = value
    return grown


def merge(first: Rollup, second: Rollup) -> Rollup:
    """Join two summaries of one series, ``second`` having come later."""
    grown = None if first.increase is None or second.increase is None else first.increase + second.increase
    return Rollup(
        first.t,
        first.series_id,
        first.count + second.count,
        first.total + second.total,
        min(first.low, second.low),
        max(first.high, second.high),
        second.last,
        grown,
    )


_ADD_MINUTE = """
INSERT INTO minute (t, series_id, count, total, low, high, last, increase) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT DO UPDATE SET count = count + excluded.count, total = total + excluded.total, low = min(low, excluded.low),
    high = max(high, excluded.high), last = excluded.last, increase = increase + excluded.increase
"""
# With one max() beside it, a bare column is of the row that holds the maximum: https://sqlite.org/lang_select.html#bareagg
# A row that counts fewer samples than the one there comes from minutes already thinned out, and is not believed.
_ADD_HOUR = """
INSERT INTO hour (t, series_id, count, total, low, high, last, increase)
SELECT :hour, w.series_id, w.count, w.total, w.low, w.high, l.last, w.increase
FROM (
    SELECT series_id, sum(count) AS count, sum(total) AS total, min(low) AS low, max(high) AS high, sum(increase) AS
    increase FROM minute WHERE t >= :hour AND t < :hour + 3600 GROUP BY series_id ) AS w JOIN ( SELECT series_id, last,
    max(t) FROM minute WHERE t >= :hour AND t < :hour + 3600 GROUP BY series_id ) AS l ON l.series_id = w.series_id
    WHERE true ON CONFLICT DO UPDATE SET count = excluded.count, total = excluded.total, low = excluded.low, high =
    excluded.high, last = excluded.last, increase = excluded.increase WHERE excluded.count >= hour.count
"""


def write_minutes(connection: sqlite3.Connection, rows: Iterable[Rollup]) -> None:
    """Add rows to the minutes that are there. Raises sqlite3.Error."""
    connection.executemany(_ADD_MINUTE, rows)


def write_hour(connection: sqlite3.Connection, hour: int) -> None:
    """Make the rows of one hour (its first second) anew from its minutes: doing it twice changes nothing.

    Raises sqlite3.Error.
    """
    connection.execute(_ADD_HOUR, {"hour": hour})
