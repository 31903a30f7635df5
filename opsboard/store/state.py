"""``state.db``: events, lives of engines, the operator's wishes, who asked for what.

Every function is one job of its writer thread.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import Literal

import msgspec

from opsboard.core.model import EngineState, Event, LifeView, Severity

Wish = Literal["up", "down"]

OVER = frozenset({EngineState.STOPPED, EngineState.FAILED, EngineState.BACKING_OFF, EngineState.PARKED})
"""States in which nothing has to run. What failed, hangs or is parked may run on: then the view tells its start."""
KEYS_KEPT = 1000


class AuditEntry(msgspec.Struct, frozen=True, kw_only=True):
    """Who asked for what: ``uid`` and ``pid`` are the peer's, None for opsboard itself; ``t`` in Unix seconds."""

    t: float
    action: str
    subject: str
    uid: int | None = None
    pid: int | None = None
    reason: str | None = None


def add_event(connection: sqlite3.Connection, event: Event) -> None:
    """Append one line of a timeline."""
    connection.execute(
        "INSERT INTO events (t, subject, kind, severity, text) VALUES (?, ?, ?, ?, ?)",
        (event.t, event.subject, event.kind, event.severity.value, event.text),
    )


def read_events(connection: sqlite3.Connection, subject: str | None, limit: int) -> list[Event]:
    """Return the newest ``limit`` events, oldest first; of one subject, or of all."""
    where = "WHERE subject = :subject" if subject is not None else ""
    rows = connection.execute(
        f"SELECT t, subject, kind, severity, text FROM events {where} ORDER BY id DESC LIMIT :limit",  # noqa: S608  a constant
        {"subject": subject, "limit": limit},
    ).fetchall()
    return [
        Event(t=t, subject=about, kind=kind, text=text, severity=Severity(severity))
        for t, about, kind, severity, text in reversed(rows)
    ]


def set_wish(connection: sqlite3.Connection, engine: str, wish: Wish, t: float) -> None:
    """Remember whether the operator wants an engine up or down."""
    connection.execute("INSERT OR REPLACE INTO wishes (engine, wish, t) VALUES (?, ?, ?)", (engine, wish, t))


def read_wishes(connection: sqlite3.Connection) -> dict[str, Wish]:
    """Return the last wish for each engine."""
    return dict(connection.execute("SELECT engine, wish FROM wishes"))


def add_audit(connection: sqlite3.Connection, entry: AuditEntry) -> None:
    """Remember who asked for what."""
    connection.execute(
        "INSERT INTO audit (t, uid, pid, action, subject, reason) VALUES (?, ?, ?, ?, ?, ?)",
        (entry.t, entry.uid, entry.pid, entry.action, entry.subject, entry.reason),
    )


def read_audit(connection: sqlite3.Connection, limit: int) -> list[AuditEntry]:
    """Return the newest ``limit`` entries, oldest first."""
    rows = connection.execute(
        "SELECT t, uid, pid, action, subject, reason FROM audit ORDER BY id DESC LIMIT ?", (limit,)
    ).fetchall()
    return [
        AuditEntry(t=t, uid=uid, pid=pid, action=action, subject=subject, reason=reason)
        for t, uid, pid, action, subject, reason in reversed(rows)
    ]


def put_key(connection: sqlite3.Connection, key: str, t: float, answer: str) -> None:
    """Remember what was answered to an idempotency key; the newest ``KEYS_KEPT`` stay."""
    connection.execute("INSERT OR REPLACE INTO keys (id, t, answer) VALUES (?, ?, ?)", (key, t, answer))
    connection.execute(
        "DELETE FROM keys WHERE id IN (SELECT id FROM keys ORDER BY t DESC LIMIT -1 OFFSET ?)", (KEYS_KEPT,)
    )


def read_keys(connection: sqlite3.Connection) -> dict[str, str]:
    """Return the answers by key, oldest first."""
    return dict(connection.execute("SELECT id, answer FROM keys ORDER BY t"))


class LifeLog:
    """Filters the stream of life views (progress changes often) down to what is worth a synced write."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[object, ...]] = {}

    def changed(self, life: LifeView) -> bool:
        """True when state, process or phase differ from the view before."""
        key = (life.state, life.started, life.pid, life.exit_code, life.phase, life.supervised)
        if self._seen.get(life.engine) == key:
            return False
        self._seen[life.engine] = key
        return True


def write_life(connection: sqlite3.Connection, life: LifeView, now: float) -> None:
    """Write the transition, the life it belongs to, and what its phases took. ``now`` in Unix seconds."""
    last = connection.execute(
        "SELECT state FROM transitions WHERE engine = ? ORDER BY id DESC LIMIT 1", (life.engine,)
    ).fetchone()
    if last is None or last[0] != life.state.value:
        connection.execute(
            "INSERT INTO transitions (engine, t, state, message, reason) VALUES (?, ?, ?, ?, ?)",
            (life.engine, life.since, life.state.value, life.message, life.cause),
        )
    if life.started is not None:
        _write_running(connection, life)
    elif life.state in OVER:
        # It ended when it came into this state, or just now when it was in it before.
        connection.execute(
            "UPDATE lives SET ended = CASE state WHEN :state THEN :now ELSE :since END, state = :state, "
            "exit_code = :exit_code, message = :message WHERE engine = :engine AND ended IS NULL AND state <> 'lost'",
            {**_values(life), "now": now},
        )


def _values(life: LifeView) -> Mapping[str, object]:
    return {
        "engine": life.engine,
        "started": life.started,
        "since": life.since,
        "state": life.state.value,
        "pid": life.pid,
        "exit_code": life.exit_code,
        "supervised": int(life.supervised),
        "message": life.message,
        "ready": life.since if life.state is EngineState.READY else None,
    }


def _write_running(connection: sqlite3.Connection, life: LifeView) -> None:
    # A life that was never seen to end, while another one has begun, ended unseen: when and how stays unknown.
    connection.execute(
        "UPDATE lives SET state = 'lost' WHERE engine = :engine AND started <> :started AND ended IS NULL",
        _values(life),
    )
    (life_id,) = connection.execute(
        "INSERT INTO lives (engine, started, ready, state, pid, supervised, message) "
        "VALUES (:engine, :started, :ready, :state, :pid, :supervised, :message) "
        "ON CONFLICT (engine, started) DO UPDATE SET state = excluded.state, pid = coalesce(excluded.pid, pid), "
        "ready = coalesce(ready, excluded.ready), message = excluded.message RETURNING id",
        _values(life),
    ).fetchone()
    connection.executemany(
        "INSERT INTO phases (life_id, position, name, started, seconds) VALUES (?, ?, ?, ?, ?) "
        "ON CONFLICT DO UPDATE SET name = excluded.name, started = excluded.started, seconds = excluded.seconds",
        [(life_id, at, phase.name, phase.started, phase.seconds) for at, phase in enumerate(life.phases)],
    )


def read_phase_seconds(connection: sqlite3.Connection, engine: str) -> dict[str, float]:
    """Return what each phase took in the last start that became ready; empty when none did."""
    return dict(
        connection.execute(
            "SELECT name, sum(seconds) FROM phases WHERE seconds IS NOT NULL AND life_id = "
            "(SELECT id FROM lives WHERE engine = ? AND ready IS NOT NULL ORDER BY started DESC LIMIT 1) "
            "GROUP BY name ORDER BY min(position)",
            (engine,),
        )
    )
