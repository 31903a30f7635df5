"""The tables of both files, as the steps that lead to them.

A step once released is never edited; a new one is appended. ``user_version`` of a file is the number of steps it has
taken. Views are not here: they follow the list of fields (views.py).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlite_utils import Database

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
        id INTEGER PRIMARY KEY, engine TEXT NOT NULL, started REAL NOT NULL, ready REAL, ended REAL,
        state TEXT NOT NULL, pid INTEGER, exit_code INTEGER, supervised INTEGER NOT NULL, message TEXT,
        UNIQUE (engine, started)
    ) STRICT;
    CREATE TABLE phases (
        life_id INTEGER NOT NULL REFERENCES lives (id) ON DELETE CASCADE, position INTEGER NOT NULL,
        name TEXT NOT NULL, started REAL NOT NULL, seconds REAL, PRIMARY KEY (life_id, position)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE transitions (
        id INTEGER PRIMARY KEY, engine TEXT NOT NULL, t REAL NOT NULL, state TEXT NOT NULL, message TEXT
    ) STRICT;
    CREATE INDEX transitions_t ON transitions (t);
    CREATE TABLE wishes (
        engine TEXT PRIMARY KEY, wish TEXT NOT NULL CHECK (wish IN ('up', 'down')), t REAL NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE audit (
        id INTEGER PRIMARY KEY, t REAL NOT NULL, uid INTEGER, pid INTEGER, action TEXT NOT NULL,
        subject TEXT NOT NULL, reason TEXT
    ) STRICT;
    CREATE INDEX audit_t ON audit (t);
    """,
    """
    ALTER TABLE transitions ADD COLUMN reason TEXT;
    CREATE INDEX transitions_engine ON transitions (engine, id);
    CREATE TABLE restarts (
        id INTEGER PRIMARY KEY, engine TEXT NOT NULL, t REAL NOT NULL, cause TEXT NOT NULL, gpus TEXT NOT NULL,
        forgiven INTEGER NOT NULL DEFAULT 0
    ) STRICT;
    CREATE INDEX restarts_t ON restarts (t);
    CREATE TABLE actions (
        id TEXT PRIMARY KEY, engine TEXT NOT NULL, kind TEXT NOT NULL, t REAL NOT NULL, ended REAL, cause TEXT,
        automatic INTEGER NOT NULL, outcome TEXT, steps TEXT NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX actions_engine ON actions (engine, t);
    CREATE INDEX actions_t ON actions (t);
    """,
    "ALTER TABLE restarts ADD COLUMN served_s REAL NOT NULL DEFAULT 0",
    """
    CREATE TABLE rolling (
        id TEXT PRIMARY KEY, t REAL NOT NULL, ended REAL, outcome TEXT, course TEXT NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX rolling_t ON rolling (t);
    CREATE TABLE keys (id TEXT PRIMARY KEY, t REAL NOT NULL, answer TEXT NOT NULL) STRICT, WITHOUT ROWID;
    CREATE INDEX keys_t ON keys (t);
    """,
    """
    CREATE TABLE incidents (
        id INTEGER PRIMARY KEY, uid TEXT NOT NULL UNIQUE, detector TEXT NOT NULL, subject TEXT NOT NULL,
        severity TEXT NOT NULL, state TEXT NOT NULL, since REAL NOT NULL, opened REAL NOT NULL, acknowledged REAL,
        ended REAL, resolved REAL, summary TEXT NOT NULL, record TEXT NOT NULL
    ) STRICT;
    CREATE INDEX incidents_open ON incidents (id) WHERE resolved IS NULL OR ended IS NULL;
    CREATE INDEX incidents_subject ON incidents (subject, id);
    CREATE TABLE incident_curves (
        uid TEXT NOT NULL REFERENCES incidents (uid), moment TEXT NOT NULL, series TEXT NOT NULL, step REAL NOT NULL,
        points BLOB NOT NULL, PRIMARY KEY (uid, moment, series)
    ) STRICT, WITHOUT ROWID;
    """,
    """
    CREATE TABLE policy_runs (
        id TEXT PRIMARY KEY, policy TEXT NOT NULL, engine TEXT NOT NULL, incident INTEGER NOT NULL, t REAL NOT NULL,
        ended REAL, outcome TEXT, reason TEXT NOT NULL, record TEXT NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX policy_runs_t ON policy_runs (t);
    CREATE INDEX policy_runs_open ON policy_runs (id) WHERE ended IS NULL;
    """,
    """
    CREATE TABLE outbox (
        id INTEGER PRIMARY KEY, channel TEXT NOT NULL, incident TEXT NOT NULL, seq INTEGER NOT NULL,
        severity TEXT NOT NULL, step TEXT NOT NULL, message TEXT NOT NULL, t REAL NOT NULL, not_before REAL NOT NULL,
        attempts INTEGER NOT NULL DEFAULT 0, state TEXT NOT NULL DEFAULT 'due', error TEXT, ref TEXT, done REAL,
        UNIQUE (channel, incident, seq)
    ) STRICT;
    CREATE INDEX outbox_due ON outbox (channel, not_before) WHERE state = 'due';
    CREATE INDEX outbox_t ON outbox (t);
    """,
    """
    CREATE TABLE silences (
        id INTEGER PRIMARY KEY, start REAL NOT NULL, ended REAL NOT NULL, author TEXT NOT NULL, comment TEXT NOT NULL,
        record TEXT NOT NULL
    ) STRICT;
    CREATE INDEX silences_ended ON silences (ended);
    """,
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


def migrate(connection: sqlite3.Connection, steps: Sequence[str]) -> None:
    """Take the steps that are missing, each in a transaction of its own, and note them in ``_sqlite_migrations``.

    Raises sqlite3.Error; a failed step leaves no trace.
    """
    done = connection.execute("PRAGMA user_version").fetchone()[0]
    if done >= len(steps):
        return
    # 19 MB and 0.2 s: only for a file that is new or old.
    from sqlite_utils import Database, Migrations  # noqa: PLC0415

    migrations = Migrations("opsboard")
    for version, step in enumerate(steps, start=1):
        migrations(name=f"step {version}")(_taking(version, step))
    migrations.apply(Database(connection))


def _taking(version: int, step: str) -> Callable[[Database], None]:
    def take(database: Database) -> None:
        for statement in _statements(step):
            database.execute(statement)
        database.execute(f"PRAGMA user_version = {version:d}")

    return take


def _statements(script: str) -> Iterator[str]:
    statement = ""
    for part in script.split(";"):
        statement += part + ";"
        if sqlite3.complete_statement(statement):
            if statement.strip(" ;\n"):
                yield statement
            statement = ""
