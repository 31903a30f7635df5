"""``state.db``: what supervision did by itself, what each start and restart took, and every change of state.

Every function is one job of its writer thread, or a read.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

import msgspec

from opsboard.core.model import EngineState, Restart, Rolling, Step, Transaction, Transition

_rolling = msgspec.json.Decoder(Rolling)
_steps = msgspec.json.Decoder(tuple[Step, ...])


def add_restart(connection: sqlite3.Connection, restart: Restart) -> None:
    """Count a restart that nobody asked for."""
    gpus = msgspec.json.encode(restart.gpus).decode()
    connection.execute(
        "INSERT INTO restarts (engine, t, cause, gpus, served_s, forgiven) VALUES (?, ?, ?, ?, ?, ?)",
        (restart.engine, restart.t, restart.cause, gpus, restart.served_s, int(restart.forgiven)),
    )


def take_back(connection: sqlite3.Connection, restart: Restart) -> None:
    """Let a restart that was not begun count no more."""
    connection.execute("DELETE FROM restarts WHERE engine = ? AND t = ?", (restart.engine, restart.t))


def forgive(connection: sqlite3.Connection, engine: str) -> None:
    """Let what was counted for an engine count no more: a person has looked at it."""
    connection.execute("UPDATE restarts SET forgiven = 1 WHERE engine = ? AND forgiven = 0", (engine,))


def read_restarts(connection: sqlite3.Connection, since: float) -> list[Restart]:
    """Return the restarts from ``since`` (Unix s) on, oldest first."""
    rows = connection.execute(
        "SELECT engine, t, cause, gpus, served_s, forgiven FROM restarts WHERE t >= ? ORDER BY t, id", (since,)
    )
    return [
        Restart(
            engine=engine,
            t=t,
            cause=cause,
            gpus=msgspec.json.decode(gpus, type=tuple[str, ...]),
            served_s=served_s,
            forgiven=bool(forgiven),
        )
        for engine, t, cause, gpus, served_s, forgiven in rows
    ]


def put_transaction(connection: sqlite3.Connection, transaction: Transaction) -> None:
    """Keep a start or restart that is over."""
    connection.execute(
        "INSERT OR REPLACE INTO actions (id, engine, kind, t, ended, cause, automatic, outcome, steps) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            transaction.id,
            transaction.engine,
            transaction.kind,
            transaction.began,
            transaction.ended,
            transaction.cause,
            int(transaction.automatic),
            transaction.outcome,
            msgspec.json.encode(transaction.steps).decode(),
        ),
    )


def read_transactions(
    connection: sqlite3.Connection, engine: str, limit: int, kinds: Sequence[str]
) -> list[Transaction]:
    """Return the newest transactions of an engine of these kinds, oldest first."""
    rows = connection.execute(
        "SELECT id, kind, t, ended, cause, automatic, outcome, steps FROM actions WHERE engine = ? "
        "AND kind IN (SELECT value FROM json_each(?)) ORDER BY t DESC LIMIT ?",
        (engine, msgspec.json.encode(kinds).decode(), limit),
    ).fetchall()
    return [
        Transaction(
            id=name,
            engine=engine,
            kind=kind,
            began=began,
            ended=ended,
            cause=cause,
            automatic=bool(automatic),
            outcome=outcome,
            steps=_steps.decode(steps),
        )
        for name, kind, began, ended, cause, automatic, outcome, steps in reversed(rows)
    ]


def read_transitions(connection: sqlite3.Connection, engine: str, limit: int) -> list[Transition]:
    """Return the newest changes of an engine's state, oldest first."""
    rows = connection.execute(
        "SELECT t, state, reason, message FROM transitions WHERE engine = ? ORDER BY id DESC LIMIT ?", (engine, limit)
    ).fetchall()
    return [
        Transition(t=t, engine=engine, state=EngineState(state), reason=reason, message=message)
        for t, state, reason, message in reversed(rows)
    ]


def put_rolling(connection: sqlite3.Connection, rolling: Rolling) -> None:
    """Keep how far a rolling restart is."""
    connection.execute(
        "INSERT OR REPLACE INTO rolling (id, t, ended, outcome, course) VALUES (?, ?, ?, ?, ?)",
        (rolling.id, rolling.began, rolling.ended, rolling.outcome, msgspec.json.encode(rolling).decode()),
    )


def read_rolling(connection: sqlite3.Connection) -> Rolling | None:
    """Return the last rolling restart; None when there was none, or one that another version wrote its own way."""
    row = connection.execute("SELECT course FROM rolling ORDER BY t DESC LIMIT 1").fetchone()
    try:
        return None if row is None else _rolling.decode(row[0])
    except msgspec.MsgspecError:
        return None
