"""``state.db``: what policies decided by themselves. Kept for ever.

Every function is one job of its writer thread, or a read. ``record`` is the whole decision as JSON.
"""

from __future__ import annotations

import sqlite3

import msgspec

from opsboard.core.policy_runs import PolicyRun

_run = msgspec.json.Decoder(PolicyRun)


def put(connection: sqlite3.Connection, run: PolicyRun) -> None:
    """Keep a decision as it is now."""
    connection.execute(
        "INSERT OR REPLACE INTO policy_runs (id, policy, engine, incident, t, ended, outcome, reason, record) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            run.id,
            run.policy,
            run.engine,
            run.incident,
            run.t,
            run.ended,
            run.outcome,
            run.reason,
            msgspec.json.encode(run).decode(),
        ),
    )


def read(connection: sqlite3.Connection, since: float) -> list[PolicyRun]:
    """Return those under way and those from ``since`` (Unix s) on, oldest first; not what another version wrote."""
    rows = connection.execute("SELECT record FROM policy_runs WHERE ended IS NULL OR t >= ? ORDER BY t, id", (since,))
    found: list[PolicyRun] = []
    for (record,) in rows:
        try:
            found.append(_run.decode(record))
        except msgspec.MsgspecError:
            continue
    return found
