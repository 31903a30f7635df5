"""``state.db``: incidents with their timelines, and the series frozen with them. Kept for ever.

Every function is one job of its writer thread, or a read. The columns are for people's queries; ``record`` is the whole
incident as JSON.
"""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from opsboard.core.incidents import Curve, Incident
from opsboard.core.model import Record

_incident = msgspec.json.Decoder(Incident)
_points = msgspec.json.Decoder(tuple[tuple[float, float], ...])


class KeptIncidents(Record, frozen=True, kw_only=True):
    """What a daemon goes on with.

    ``going``: those that are open, and those that a person closed before they were over. ``last``: of each detector
    and subject the newest id and when it opened (Unix s).
    """

    going: tuple[Incident, ...] = ()
    last: dict[tuple[str, str], tuple[int, float]] = {}
    next_id: int = 1


def put(connection: sqlite3.Connection, incident: Incident) -> None:
    """Keep an incident as it is now."""
    connection.execute(
        "INSERT INTO incidents (id, uid, detector, subject, severity, state, since, opened, acknowledged, "
        "ended, resolved, summary, record) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) "
        "ON CONFLICT (uid) DO UPDATE SET severity = excluded.severity, state = excluded.state, "
        "acknowledged = excluded.acknowledged, ended = excluded.ended, resolved = excluded.resolved, "
        "summary = excluded.summary, record = excluded.record",
        (
            incident.id,
            incident.uid,
            incident.detector,
            incident.subject,
            incident.severity,
            incident.state,
            incident.since,
            incident.opened,
            incident.acknowledged,
            incident.ended,
            incident.resolved,
            incident.summary,
            msgspec.json.encode(incident).decode(),
        ),
    )


def read_kept(connection: sqlite3.Connection) -> KeptIncidents:
    """Return what the next daemon goes on with."""
    going = connection.execute("SELECT record FROM incidents WHERE resolved IS NULL OR ended IS NULL ORDER BY id")
    last = connection.execute("SELECT detector, subject, max(id), opened FROM incidents GROUP BY detector, subject")
    (newest,) = connection.execute("SELECT coalesce(max(id), 0) FROM incidents").fetchone()
    return KeptIncidents(
        going=tuple(_decoded(going)),
        last={(detector, subject): (number, opened) for detector, subject, number, opened in last},
        next_id=newest + 1,
    )


def read(connection: sqlite3.Connection, limit: int, *, only_open: bool, subject: str | None) -> list[Incident]:
    """Return the newest incidents, newest first."""
    rows = connection.execute(
        "SELECT record FROM incidents WHERE (:every OR resolved IS NULL) AND (:subject IS NULL OR subject = :subject) "
        "ORDER BY id DESC LIMIT :limit",
        {"every": not only_open, "subject": subject, "limit": limit},
    )
    return list(_decoded(rows))


def read_one(connection: sqlite3.Connection, name: int | str) -> Incident | None:
    """Return one by its number or its uid; None when there is none."""
    column = "id" if isinstance(name, int) else "uid"
    return next(_decoded(connection.execute(f"SELECT record FROM incidents WHERE {column} = ?", (name,))), None)  # noqa: S608  one of two constants


def put_curves(connection: sqlite3.Connection, uid: str, curves: Sequence[Curve]) -> None:
    """Keep series with an incident."""
    connection.executemany(
        "INSERT OR REPLACE INTO incident_curves (uid, moment, series, step, points) VALUES (?, ?, ?, ?, ?)",
        [
            (uid, curve.moment, curve.series, curve.step, zlib.compress(msgspec.json.encode(curve.points)))
            for curve in curves
        ],
    )


def read_curves(connection: sqlite3.Connection, uid: str) -> list[Curve]:
    """Return the series that were kept with an incident, those of its opening first."""
    rows = connection.execute(
        "SELECT moment, series, step, points FROM incident_curves WHERE uid = ? ORDER BY moment, series", (uid,)
    )
    return [
        Curve(moment=moment, series=series, step=step, points=_points.decode(zlib.decompress(points)))
        for moment, series, step, points in rows
    ]


def _decoded(rows: Iterable[tuple[str]]) -> Iterator[Incident]:
    """Yield incidents; one that another version wrote its own way is left out."""
    for (record,) in rows:
        try:
            yield _incident.decode(record)
        except msgspec.MsgspecError:
            continue
