"""The tables of both files, as the steps that lead to them.

A step once released is never edited; a new one is appended. ``user_version`` of a file is the number of steps it has
taken. Views are not here: they follow the list of fields (views.py).
"""

from __future__ import annotations

import sqlite3

STATE = (
    """
    CREATE TABLE runs (
        id INTEGER PRIMARY KEY, started REAL NOT NULL, pid INTEGER NOT NULL, ended REAL
    ) STRICT;
    CREATE TABLE events (
        id INTEGER PRIMARY KEY, t REAL NOT NULL, subject TEXT NOT NULL, kind TEXT NOT NULL,
        severity TEXT NOT NULL, text TEXT NOT NULL
    ) STRICT;
    CREATE INDEX events_subject ON events (subject, id);
    CREATE INDEX events_t ON events (t);
    CREATE TABLE lives (
        id INTEGER PRIMARY KEY, engine TEXT NOT NULL, started REAL NOT NULL, ready REAL, ended REAL, state TEXT NOT
        NULL, pid INTEGER, exit_code INTEGER, supervised INTEGER NOT NULL, message TEXT, UNIQUE (engine, started) )
        STRICT; CREATE TABLE phases ( life_id INTEGER NOT NULL REFERENCES lives (id) ON DELETE CASCADE, position INTEGER
        NOT NULL, name TEXT NOT NULL, started REAL NOT NULL, seconds REAL, PRIMARY KEY (life_id, position) ) STRICT,
        WITHOUT ROWID; CREATE TABLE transitions ( id INTEGER PRIMARY KEY, engine TEXT NOT NULL, t REAL NOT NULL, state
        TEXT NOT NULL, message TEXT ) STRICT; CREATE INDEX transitions_t ON transitions (t); CREATE TABLE wishes (
        engine TEXT PRIMARY KEY, wish TEXT NOT NULL CHECK (wish IN ('up', 'down')), t REAL NOT NULL ) STRICT, WITHOUT
        ROWID; CREATE TABLE audit ( id INTEGER PRIMARY KEY, t REAL NOT NULL, uid INTEGER, pid INTEGER, action TEXT NOT
        NULL, subject TEXT NOT NULL, reason TEXT ) STRICT; CREATE INDEX audit_t ON audit (t); """,
)

SERIES = (
    # Rollups are keyed by time first: a minute's rows land side by side, and a series is read by one seek a minute.
    """
    CREATE TABLE meta (key TEXT PRIMARY KEY, value ANY) STRICT, WITHOUT ROWID;
    CREATE TABLE series (
        id INTEGER PRIMARY KEY, kind TEXT NOT NULL, subject TEXT NOT NULL, field TEXT NOT NULL, unit TEXT,
        counter INTEGER NOT NULL, UNIQUE (kind, subject, field)
    ) STRICT;
    CREATE TABLE recent (seq INTEGER PRIMARY KEY, block BLOB NOT NULL) STRICT;
    CREATE TABLE chunks (
        id INTEGER PRIMARY KEY, subject TEXT NOT NULL, start_ms INTEGER NOT NULL, end_ms INTEGER NOT NULL,
        seq INTEGER NOT NULL, rows INTEGER NOT NULL, times BLOB NOT NULL
    ) STRICT;
    CREATE INDEX chunks_subject ON chunks (subject, end_ms, start_ms);
    CREATE INDEX chunks_end ON chunks (end_ms);
    CREATE TABLE columns (
        chunk_id INTEGER NOT NULL, series_id INTEGER NOT NULL, count INTEGER NOT NULL, rows BLOB, data BLOB NOT NULL
    ) STRICT;
    CREATE INDEX columns_key ON columns (chunk_id, series_id);
    CREATE TABLE minute (
        t INTEGER NOT NULL, series_id INTEGER NOT NULL, count INTEGER NOT NULL, total REAL NOT NULL, low REAL NOT NULL,
        high REAL NOT NULL, last REAL NOT NULL, increase REAL, PRIMARY KEY (t, series_id)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE hour (
        t INTEGER NOT NULL, series_id INTEGER NOT NULL, count INTEGER NOT NULL, total REAL NOT NULL, low REAL NOT NULL,
        high REAL NOT NULL, last REAL NOT NULL, increase REAL, PRIMARY KEY (t, series_id)
    ) STRICT, WITHOUT ROWID;
    """,
)


def migrate(connection: sqlite3.Connection, steps: tuple[str, ...]) -> None:
    """Take the steps that are missing, each in a transaction of its own.

    Raises sqlite3.Error; a failed step leaves no trace.
    """
    done = connection.execute("PRAGMA user_version").fetchone()[0]
    for version, step in enumerate(steps[done:], start=done + 1):
        try:
            connection.executescript(f"BEGIN IMMEDIATE; {step}; PRAGMA user_version = {version}; COMMIT;")
        except sqlite3.Error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
