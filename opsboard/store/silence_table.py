"""``state.db``: silences. Kept for ever: who kept what quiet is asked after the fact.

Every function is one job of its writer thread, or a read. The columns are for people's queries; ``record`` is the whole
silence as JSON. Times are Unix seconds.
"""

from __future__ import annotations

import sqlite3

import msgspec

from opsboard.core.silences import Silence

_silence = msgspec.json.Decoder(Silence)


def put(connection: sqlite3.Connection, silence: Silence) -> None:
    """Keep one as it is now."""
    connection.execute(
        "INSERT OR REPLACE INTO silences (id, start, ended, author, comment, record) VALUES (?, ?, ?, ?, ?, ?)",
        (
            silence.id,
            silence.start,
            silence.end,
            silence.by,
            silence.comment,
            msgspec.json.encode(silence).decode(),
        ),
    )


def read(connection: sqlite3.Connection, since: float, limit: int) -> list[Silence]:
    """Return the newest that had not ended at ``since``, the oldest first."""
    rows = connection.execute(
        "SELECT record FROM silences WHERE ended > ? ORDER BY id DESC LIMIT ?", (since, limit)
    ).fetchall()
    found = []
    for (record,) in reversed(rows):
        try:
            found.append(_silence.decode(record))
        except msgspec.MsgspecError:  # another version wrote it its own way
            continue
    return found


def next_id(connection: sqlite3.Connection) -> int:
    """Return the number of the next one."""
    (newest,) = connection.execute("SELECT coalesce(max(id), 0) FROM silences").fetchone()
    return int(newest) + 1
