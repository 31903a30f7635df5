"""The documented views of ``series.db``: one column a field of core/series.py, for any SQLite tool.

``engine_minute``, ``engine_hour``, ``gpu_minute``, ... A gauge's column is its mean, a counter's what it
grew by. Filter by ``unix``, which is indexed; ``time`` is the same in ISO 8601.
"""

from __future__ import annotations

import sqlite3

from opsboard.core.series import FIELDS, Field, Kind
from opsboard.store.rollups import WIDTHS

_HOST = "(SELECT value FROM meta WHERE key = 'host')"
_NAMES = {
    "engine": f"{_HOST} AS host, s.subject AS engine",
    "gpu": f"{_HOST} AS host, s.subject AS gpu",
    "host": "s.subject AS host",
    "process": f"{_HOST} AS host, substr(s.subject, 1, instr(s.subject, ':') - 1) AS engine,"
    " substr(s.subject, instr(s.subject, ':') + 1) AS role",
}


def definitions() -> dict[str, str]:
    """The SQL of every view by its name."""
    return {f"{kind}_{table}": _view(kind, table) for kind in FIELDS for table in WIDTHS}


def _view(kind: Kind, table: str) -> str:
    columns = ",\n    ".join(_column(field) for field in FIELDS[kind])
    return (
        f"CREATE VIEW {kind}_{table} AS SELECT\n"
        f"    strftime('%Y-%m-%dT%H:%M:%SZ', r.t, 'unixepoch') AS time, r.t AS unix, {_NAMES[kind]},\n    {columns}\n"
        f"FROM {table} AS r JOIN series AS s ON s.id = r.series_id WHERE s.kind = '{kind}' GROUP BY r.t, s.subject"
    )


def _column(field: Field) -> str:
    value = "r.increase" if field.counter else "r.total / r.count"
    return f"max(CASE s.field WHEN '{field.name}' THEN {value} END) AS {field.name}"


def refresh(connection: sqlite3.Connection) -> None:
    """Create the views, again where the fields have changed. Raises sqlite3.Error."""
    there = dict(connection.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'view'"))
    for name, sql in definitions().items():
        if there.get(name) != sql:
            connection.execute(f"DROP VIEW IF EXISTS {name}")
            connection.execute(sql)
