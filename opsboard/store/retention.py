"""Keeping ``series.db`` within its ages and its size, in small bites: no statement holds the writer for long.

Size always wins over age. What goes first: raw samples, then minutes, then hours, oldest first. State is never touched.
"""

from __future__ import annotations

import sqlite3

import msgspec

from opsboard.core.clock import Now
from opsboard.store.database import transaction
from opsboard.store.rollups import HOUR_S, MINUTE_S

CHUNKS_A_BITE = 16
"""A chunk is a row and a column row for each of its series: about 400 rows a bite."""
SPARE_PAGES = 256
"""Free pages left in the file for the next writes."""
PAGES_A_BITE = 512
ROOM_PAGES = 64
"""What is freed on a full disk before writing is tried again: 256 kB."""


class StoreLimits(msgspec.Struct, frozen=True, kw_only=True):
    """How long numbers are kept (seconds), and the size ``series.db`` may reach (bytes)."""

    raw_s: float = 48 * 3600.0
    minute_s: float = 30 * 86400.0
    hour_s: float = 2 * 365 * 86400.0
    max_bytes: int = 4 << 30


def aging_wall(opened: Now, now: Now) -> float:
    """The Unix time by which things grow old: a clock that jumps ahead while we run ages nothing at once."""
    return min(now.wall, opened.wall + now.mono - opened.mono)


def tidy(connection: sqlite3.Connection, limits: StoreLimits, wall: float) -> bool:
    """Take one bite of what is too old or too much; True when there may be more. Raises sqlite3.Error."""
    more = _forget_old(connection, limits, wall)
    pages, free, size = (_pragma(connection, name) for name in ("page_count", "freelist_count", "page_size"))
    if (pages - free) * size > limits.max_bytes:
        more = thin(connection) or more
        free = _pragma(connection, "freelist_count")
    if free > SPARE_PAGES or (free and pages * size > limits.max_bytes):
        shrink(connection, PAGES_A_BITE)
        more = more or free > SPARE_PAGES + PAGES_A_BITE
    return more


def thin(connection: sqlite3.Connection, chunks: int = CHUNKS_A_BITE) -> bool:
    """Give up the oldest of what is worth least; False when there is nothing left. Raises sqlite3.Error."""
    return (
        _delete_chunks(connection, "SELECT id FROM chunks ORDER BY end_ms LIMIT ?", (chunks,))
        or _delete_rollups(connection, "minute", None, 60 * MINUTE_S)
        or _delete_rollups(connection, "hour", None, 24 * HOUR_S)
    )


def shrink(connection: sqlite3.Connection, pages: int) -> None:
    """Give up to ``pages`` free pages back to the disk.

    By executescript: on CPython 3.11 ``execute`` steps the pragma once and so frees one page.
    """
    connection.executescript(f"PRAGMA incremental_vacuum({pages})")


def make_room(connection: sqlite3.Connection) -> bool:
    """On a full disk: give up old data, a few rows at a time, until some writes fit. False: nothing left to give up.

    Raises sqlite3.Error when even that needs more room than there is.
    """
    found = False
    while _pragma(connection, "freelist_count") < ROOM_PAGES and thin(connection, chunks=2):
        found = True
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    shrink(connection, ROOM_PAGES // 2)  # half for the file's own next pages, half for the disk
    return found


def _forget_old(connection: sqlite3.Connection, limits: StoreLimits, wall: float) -> bool:
    chunks = _delete_chunks(
        connection,
        "SELECT id FROM chunks WHERE end_ms < ? ORDER BY end_ms LIMIT ?",
        (round((wall - limits.raw_s) * 1000), CHUNKS_A_BITE),
    )
    minutes = _delete_rollups(connection, "minute", wall - limits.minute_s, 10 * MINUTE_S)
    hours = _delete_rollups(connection, "hour", wall - limits.hour_s, 10 * HOUR_S)
    return chunks or minutes or hours


def _delete_chunks(connection: sqlite3.Connection, which: str, parameters: tuple[int, ...]) -> bool:
    ids = connection.execute(which, parameters).fetchall()
    if ids:
        with transaction(connection):
            connection.executemany("DELETE FROM columns WHERE chunk_id = ?", ids)
            connection.executemany("DELETE FROM chunks WHERE id = ?", ids)
    return bool(ids)


def _delete_rollups(connection: sqlite3.Connection, table: str, before: float | None, span_s: int) -> bool:
    """Delete at most ``span_s`` seconds of the oldest rows, older than ``before`` (None: whatever their age)."""
    (first,) = connection.execute(f"SELECT min(t) FROM {table}").fetchone()  # noqa: S608  a constant
    if first is None or (before is not None and first >= before):
        return False
    end = first + span_s if before is None else min(first + span_s, before)
    with transaction(connection):
        connection.execute(f"DELETE FROM {table} WHERE t < ?", (end,))  # noqa: S608  a constant
    return True


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    value: int = connection.execute(f"PRAGMA {name}").fetchone()[0]
    return value
