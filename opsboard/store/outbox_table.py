"""``state.db``: the outbox, what is to be told where. A message enters it in the transaction of its incident.

Every function is one job of the writer thread, or a read. Of one incident and channel the newest message that waits is
the one to send: what people need after an outage is how things are, not how they came to be.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec

from opsboard.core.deliveries import Delivery, Message, NewDelivery, State

_message = msgspec.json.Decoder(Message)
_COLUMNS = "id, channel, incident, seq, message, t, not_before, attempts, state, error, ref, done"
_URGENCY = "CASE severity WHEN 'page' THEN 0 WHEN 'ticket' THEN 1 ELSE 2 END"


def add(connection: sqlite3.Connection, deliveries: Iterable[NewDelivery], t: float) -> None:
    """Put messages in; ``t`` in Unix seconds."""
    connection.executemany(
        "INSERT INTO outbox (channel, incident, seq, severity, step, message, t, not_before) VALUES (:channel, :uid, "
        "(SELECT coalesce(max(seq), 0) + 1 FROM outbox WHERE channel = :channel AND incident = :uid), "
        ":severity, :step, :message, :t, :not_before)",
        [
            {
                "channel": one.channel,
                "uid": one.message.uid,
                "severity": one.message.severity,
                "step": one.message.step,
                "message": msgspec.json.encode(one.message).decode(),
                "t": t,
                "not_before": one.not_before,
            }
            for one in deliveries
        ],
    )


def due(connection: sqlite3.Connection, channel: str, now: float, limit: int) -> list[Delivery]:
    """Return what is to be sent, the newest of each incident: pages first, then what was tried least, then the oldest.

    ``now`` in Unix seconds. What is of the future came before the clock was set back, and is due.
    """
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM outbox AS one WHERE state = 'due' AND channel = ? AND (not_before <= ? OR t > ?) "  # noqa: S608  constants
        "AND seq = (SELECT max(seq) FROM outbox WHERE channel = one.channel AND incident = one.incident "
        f"AND state = 'due') ORDER BY {_URGENCY}, attempts, id LIMIT ?",
        (channel, now, now, limit),
    ).fetchall()
    return list(_deliveries(connection, rows))


def next_due(connection: sqlite3.Connection, channel: str) -> float | None:
    """Return when (Unix s) the next message is to be sent; None: none waits."""
    (found,) = connection.execute(
        "SELECT min(not_before) FROM outbox WHERE state = 'due' AND channel = ?", (channel,)
    ).fetchone()
    return None if found is None else float(found)


def sent(connection: sqlite3.Connection, delivery: Delivery, ref: str | None, t: float) -> None:
    """Mark a message as sent, and what waits of the same incident and is older as superseded."""
    _finish(connection, delivery.id, "sent", None, t)
    connection.execute("UPDATE outbox SET ref = ? WHERE id = ?", (ref, delivery.id))
    _supersede(connection, delivery.channel, delivery.message.uid, delivery.seq, t)


def sent_early(connection: sqlite3.Connection, said: NewDelivery, ref: str | None, t: float) -> None:
    """Mark as sent what was sent from memory, and what is older of the incident as superseded, if it waits."""
    text = msgspec.json.encode(said.message).decode()
    row = connection.execute(
        "SELECT id, seq FROM outbox WHERE channel = ? AND incident = ? AND message = ? AND state = 'due'",
        (said.channel, said.message.uid, text),
    ).fetchone()
    if row is None:
        return
    _finish(connection, row[0], "sent", None, t)
    connection.execute("UPDATE outbox SET ref = ? WHERE id = ?", (ref, row[0]))
    _supersede(connection, said.channel, said.message.uid, row[1], t)


def later(connection: sqlite3.Connection, delivery: Delivery, error: str, not_before: float) -> None:
    """Let a message wait until ``not_before`` (Unix s), and say why."""
    connection.execute(
        "UPDATE outbox SET attempts = attempts + 1, error = ?, not_before = ? WHERE id = ? AND state = 'due'",
        (error, not_before, delivery.id),
    )


def dead(connection: sqlite3.Connection, delivery: Delivery, error: str, t: float) -> None:
    """Give a message up, and say why."""
    connection.execute("UPDATE outbox SET attempts = attempts + 1 WHERE id = ?", (delivery.id,))
    _finish(connection, delivery.id, "dead", error, t)


def put_back(connection: sqlite3.Connection, number: int, t: float) -> bool:
    """Let a dead or dropped message be sent once more, now; False when there is none."""
    done = connection.execute(
        "UPDATE outbox SET state = 'due', not_before = ?, attempts = 0, done = NULL "
        "WHERE id = ? AND state IN ('dead', 'dropped', 'due')",
        (t, number),
    )
    return done.rowcount > 0


def drop(connection: sqlite3.Connection, number: int, t: float) -> bool:
    """Give up what waits or is dead, as somebody asked; False when there is none."""
    done = connection.execute(
        "UPDATE outbox SET state = 'dropped', done = ? WHERE id = ? AND state IN ('due', 'dead')", (t, number)
    )
    return done.rowcount > 0


def read(
    connection: sqlite3.Connection, states: Sequence[State], limit: int, channel: str | None, uid: str | None
) -> list[Delivery]:
    """Return the newest messages in one of these states, newest first; of one channel or incident, or of all.

    Of an incident those that tell of it together with others are among them.
    """
    marks = ", ".join("?" * len(states))
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM outbox WHERE state IN ({marks}) "  # noqa: S608  constants
        "AND channel = coalesce(?, channel) AND (incident = coalesce(?, incident) "
        "OR (incident GLOB 'group-*' AND instr(message, ?))) ORDER BY id DESC LIMIT ?",
        (*states, channel, uid, uid, limit),
    ).fetchall()
    return list(_deliveries(connection, rows))


def one(connection: sqlite3.Connection, number: int) -> Delivery | None:
    """Return one by its number."""
    rows = connection.execute(f"SELECT {_COLUMNS} FROM outbox WHERE id = ?", (number,)).fetchall()  # noqa: S608  constants
    return next(_deliveries(connection, rows), None)


def overtaken(connection: sqlite3.Connection, number: int) -> bool:
    """Tell whether newer news of the same incident went to the message's channel: it would say what is not so now."""
    newer = connection.execute(
        "SELECT 1 FROM outbox AS newer JOIN outbox AS one USING (channel, incident) "
        "WHERE one.id = ? AND newer.state = 'sent' AND newer.seq > one.seq LIMIT 1",
        (number,),
    ).fetchone()
    return newer is not None


def last_sent(connection: sqlite3.Connection) -> dict[str, float]:
    """Return of each channel when (Unix s) the last message went out."""
    return dict(connection.execute("SELECT channel, max(done) FROM outbox WHERE state = 'sent' GROUP BY channel"))


def last_told(connection: sqlite3.Connection) -> list[tuple[str, Message]]:
    """Return the last message to each channel of what is open, incidents and groups of them, whatever became of it."""
    rows = connection.execute(
        "SELECT channel, message FROM outbox AS one "
        "WHERE (incident IN (SELECT uid FROM incidents WHERE resolved IS NULL) "
        "OR (incident GLOB 'group-*' AND step <> 'resolve')) "
        "AND seq = (SELECT max(seq) FROM outbox WHERE channel = one.channel AND incident = one.incident)"
    )
    return [(channel, told) for channel, text in rows if (told := _decoded(text)) is not None]


def counts(connection: sqlite3.Connection) -> dict[str, tuple[int, float | None, int]]:
    """Return of each channel how many wait, since when the oldest does (Unix s), and how many are dead."""
    rows = connection.execute(
        "SELECT channel, sum(state = 'due'), min(CASE WHEN state = 'due' THEN t END), sum(state = 'dead') FROM outbox "
        "WHERE state IN ('due', 'dead') GROUP BY channel"
    )
    return {channel: (waiting, oldest, gone) for channel, waiting, oldest, gone in rows}


def _finish(connection: sqlite3.Connection, number: int, state: State, error: str | None, t: float) -> None:
    connection.execute("UPDATE outbox SET state = ?, error = ?, done = ? WHERE id = ?", (state, error, t, number))


def _supersede(connection: sqlite3.Connection, channel: str, uid: str, seq: int, t: float) -> None:
    connection.execute(
        "UPDATE outbox SET state = 'superseded', done = ? WHERE state = 'due' AND channel = ? AND incident = ? "
        "AND seq < ?",
        (t, channel, uid, seq),
    )


def _deliveries(connection: sqlite3.Connection, rows: Iterable[tuple[Any, ...]]) -> Iterator[Delivery]:
    """Yield messages; one that another version wrote its own way is left out."""
    for number, channel, uid, seq, text, t, not_before, attempts, state, error, ref, done in rows:
        message = _decoded(text)
        if message is None:
            continue
        earlier = connection.execute(
            "SELECT count(*), max(CASE WHEN ref IS NOT NULL THEN seq END) FROM outbox "
            "WHERE channel = ? AND incident = ? AND state = 'sent' AND seq < ?",
            (channel, uid, seq),
        ).fetchone()
        before = connection.execute(
            "SELECT ref FROM outbox WHERE channel = ? AND incident = ? AND seq = ?", (channel, uid, earlier[1])
        ).fetchone()
        yield Delivery(
            id=number,
            channel=channel,
            seq=seq,
            message=message,
            created=t,
            not_before=not_before,
            attempts=attempts,
            state=state,
            error=error,
            ref=ref,
            before=None if before is None else before[0],
            told=earlier[0] > 0,
            done=done,
        )


def _decoded(text: str) -> Message | None:
    try:
        return _message.decode(text)
    except msgspec.MsgspecError:
        return None
