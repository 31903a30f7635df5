"""What a series was: raw samples, minutes or hours, whichever is there and fits the step.

Steps under a minute read raw samples (and minutes where those are gone), steps up to six hours read minutes, longer
ones hours.
"""

from __future__ import annotations

import sqlite3
from array import array
from bisect import bisect_left
from collections.abc import Container, Sequence
from math import ceil, isfinite
from operator import le

from opsboard.core.wire import History, HistoryPoint
from opsboard.store import codec
from opsboard.store.rollups import HOUR_S, MINUTE_S, WIDTHS
from opsboard.store.series import Snapshot

MAX_POINTS = 20_000
"""A reply holds no more points; the step grows instead (Prometheus refuses above 11,000)."""
HOURS_FROM_S = 6 * HOUR_S


class Buckets:
    """Samples by step: count, total, low, high."""

    def __init__(self, start: float, end: float, step: float) -> None:
        self.step_ms = max(1, round(step * 1000))
        self._start_ms, self._end_ms = ceil(start * 1000), ceil(end * 1000)
        self._slots: dict[int, tuple[int, float, float, float]] = {}

    def add_samples(self, times: Sequence[int], values: array[float]) -> None:
        """Add raw samples; times in Unix milliseconds, in any order."""
        if not all(map(le, times, times[1:])):
            pairs = sorted(zip(times, values, strict=True))
            times, values = [pair[0] for pair in pairs], array("d", [pair[1] for pair in pairs])
        at, end = bisect_left(times, self._start_ms), bisect_left(times, self._end_ms)
        while at < end:
            slot = times[at] // self.step_ms
            until = at + 1
            if until < end and times[until] // self.step_ms == slot:
                until = bisect_left(times, (slot + 1) * self.step_ms, until, end)
            self._put(slot, values[at:until])
            at = until

    def _put(self, slot: int, values: array[float]) -> None:
        total = sum(values)
        if not isfinite(total):
            values = array("d", filter(isfinite, values))
            total = sum(values)
        if values:
            self.add(slot * self.step_ms, len(values), total, min(values), max(values))

    def add(self, at_ms: int, count: int, total: float, low: float, high: float) -> None:
        """Add a summary of ``count`` finite samples."""
        slot = at_ms // self.step_ms
        old = self._slots.get(slot)
        if old is not None:
            count, total, low, high = old[0] + count, old[1] + total, min(old[2], low), max(old[3], high)
        self._slots[slot] = (count, total, low, high)

    def points(self) -> tuple[HistoryPoint, ...]:
        """The steps that have samples, ascending."""
        return tuple(
            HistoryPoint(t=slot * self.step_ms / 1000, mean=total / count, min=low, max=high, count=count)
            for slot, (count, total, low, high) in sorted(self._slots.items())
        )


def read(  # noqa: PLR0917  a range and a step read best in this order
    connection: sqlite3.Connection, snap: Snapshot, name: str, start: float, end: float, step: float
) -> History:
    """Read ``[start, end)`` of a series in steps of at least ``step`` seconds, aligned to the Unix epoch.

    The step is raised to whole minutes or hours above those, and so that no more than ``MAX_POINTS`` come; the reply
    says which it is. Raises sqlite3.Error.
    """
    raw_from, minute_from, hour_from, hour_to = _extent(connection, snap)
    start = max(start, min(raw_from, minute_from, hour_from, end))
    step = _fit(step, end - start)
    buckets = Buckets(start, end, step)
    by_hour = min(end, max(minute_from, hour_to) if step >= HOURS_FROM_S else minute_from // HOUR_S * HOUR_S)
    by_minute = end if step >= MINUTE_S else min(end, raw_from // MINUTE_S * MINUTE_S)
    meta = dict(connection.execute("SELECT key, value FROM meta"))
    unsummed = {int(hour) for hour in str(meta.get("open_hours", "")).split(",") if hour}
    _add_rows(connection, buckets, "hour", snap.series_id, (max(start, hour_from), by_hour), skip=unsummed)
    for hour in unsummed:  # more than one, or not the last, only after the clock stepped back
        if start // HOUR_S * HOUR_S <= hour < by_hour:
            _add_rows(connection, buckets, "minute", snap.series_id, (max(start, hour), min(by_hour, hour + HOUR_S)))
    _add_rows(connection, buckets, "minute", snap.series_id, (max(start, by_hour, minute_from), by_minute))
    if step < MINUTE_S:
        _add_chunks(connection, buckets, snap, start, end)
        _add_waiting_chunks(buckets, snap)
        buckets.add_samples(snap.times, snap.values)
    else:
        _add_waiting_minutes(buckets, snap, int(meta.get("rolled_seq", 0)), start, end)
    return History(series=name, step=step, points=buckets.points())


def _fit(step: float, span: float) -> float:
    step = max(step, span / MAX_POINTS, 0.001)
    if step >= HOURS_FROM_S:
        return float(ceil(step / HOUR_S) * HOUR_S)
    if step >= MINUTE_S:
        return float(ceil(step / MINUTE_S) * MINUTE_S)
    return float(round(step, 3))


def _extent(connection: sqlite3.Connection, snap: Snapshot) -> tuple[float, float, float, float]:
    """Where raw samples of the subject, minutes and hours begin, and where hours end; infinite where there are none."""
    never = float("inf")
    (raw_ms,) = connection.execute(
        "SELECT min(start_ms) FROM chunks WHERE subject = ? AND seq <= ?", (snap.subject, snap.chunk_seq)
    ).fetchone()
    memory = [chunk.start_ms for chunk in snap.chunks] + ([min(snap.times)] if snap.times else [])
    raw_from = min([*memory, *([] if raw_ms is None else [raw_ms])], default=None)
    (minute_from,) = connection.execute("SELECT min(t) FROM minute").fetchone()
    (hour_from,) = connection.execute("SELECT min(t) FROM hour").fetchone()
    (hour_to,) = connection.execute("SELECT max(t) + 3600 FROM hour").fetchone()
    waiting = min((row.t for _, row in snap.rollups), default=never)
    return (
        never if raw_from is None else raw_from / 1000,
        min(waiting, never if minute_from is None else minute_from),
        never if hour_from is None else hour_from,
        0 if hour_to is None else hour_to,
    )


def _add_rows(
    connection: sqlite3.Connection,
    buckets: Buckets,
    table: str,
    series_id: int,
    span: tuple[float, float],
    *,
    skip: Container[int] = (),
) -> None:
    (start, end), width = span, WIDTHS[table]
    if not start < end:
        return
    rows = connection.execute(
        f"WITH RECURSIVE grid (t) AS (VALUES (:first) UNION ALL SELECT t + :width FROM grid WHERE t + :width < :end) "  # noqa: S608  a constant
        f"SELECT r.t, r.count, r.total, r.low, r.high FROM grid CROSS JOIN {table} AS r "
        "WHERE r.t = grid.t AND r.series_id = :series",
        {"first": int(start // width) * width, "width": width, "end": min(end, 1e12), "series": series_id},
    )
    for t, count, total, low, high in rows:
        if t not in skip:
            buckets.add(t * 1000, count, total, low, high)


def _add_chunks(connection: sqlite3.Connection, buckets: Buckets, snap: Snapshot, start: float, end: float) -> None:
    rows = connection.execute(
        "SELECT c.times, v.count, v.rows, v.data FROM chunks AS c CROSS JOIN columns AS v ON v.chunk_id = c.id "
        "WHERE c.subject = ? AND c.end_ms >= ? AND c.start_ms < ? AND c.seq <= ? AND v.series_id = ?",
        (snap.subject, start * 1000, end * 1000, snap.chunk_seq, snap.series_id),
    )
    for times, count, which, data in rows:
        buckets.add_samples(_times(times, which), codec.decode(data, count))


def _add_waiting_chunks(buckets: Buckets, snap: Snapshot) -> None:
    for chunk in snap.chunks:
        for column in chunk.columns:
            if column.series_id == snap.series_id:
                buckets.add_samples(_times(chunk.times, column.rows), codec.decode(column.data, column.count))


def _times(times: bytes, which: bytes | None) -> list[int]:
    every = codec.decode_whole(times)[0]
    return every if which is None else [every[row] for row in codec.decode_whole(which)[0]]


def _add_waiting_minutes(buckets: Buckets, snap: Snapshot, in_file: int, start: float, end: float) -> None:
    """What is in no minute of the file yet: summaries that wait, and the minute that has begun."""
    for seq, rollup in snap.rollups:
        if seq > in_file and start <= rollup.t < end:
            buckets.add(rollup.t * 1000, rollup.count, rollup.total, rollup.low, rollup.high)
    if snap.rolled_seq >= in_file:
        buckets.add_samples(snap.times[snap.rolled :], snap.values[snap.rolled :])
