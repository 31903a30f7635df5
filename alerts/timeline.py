"""The timeline of an incident: lines in order, of which the first and the newest always stay. Pure."""

from __future__ import annotations

from msgspec.structs import replace

from opsboard.core.clock import Now
from opsboard.core.incidents import Entry, Incident

LINES, FIRST = 400, 100
"""Lines kept, and how many of them are the first ones; what people said is never given up."""
_PEOPLE = frozenset({"ack", "note", "resolved", "opened"})


def add(incident: Incident, now: Now, kind: str, text: str, by: str | None = None) -> Incident:
    """Return ``incident`` with one more line."""
    lines = (*incident.timeline, Entry(t=now.wall, kind=kind, text=text, by=by))
    if len(lines) <= LINES:
        return replace(incident, timeline=lines)
    spare = next((at for at in range(FIRST, len(lines)) if lines[at].kind not in _PEOPLE), None)
    if spare is None:
        return replace(incident, timeline=lines)
    return replace(incident, timeline=lines[:spare] + lines[spare + 1 :], left_out=incident.left_out + 1)


def told_s(seconds: float) -> str:
    """Write a duration as people say it: 42 s, 3 m 20 s, 2 h 05 m, 3 d 4 h."""
    whole = max(0, round(seconds))
    days, hours, minutes = whole // 86400, whole // 3600 % 24, whole // 60 % 60
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes:02d} m"
    return f"{minutes} m {whole % 60:02d} s" if minutes else f"{whole} s"
