"""What a channel does not know yet of an incident: from the last message it got and the incident as it is now. Pure."""

from __future__ import annotations

from alerts.timeline import told_s
from opsboard.core.deliveries import Message, Step
from opsboard.core.incidents import Incident, Urgency

LOUDNESS: dict[Urgency, int] = {"note": 0, "ticket": 1, "page": 2}
HEARD = frozenset({"trigger", "update"})
"""Steps that a silence and quiet hours keep back. That somebody has taken it on, and its end, are never kept back."""
_TOLD = frozenset({"confirmed", "caused", "flapping", "action", "note"})
"""Lines of the timeline that are news; the others say what a message says in another way."""


def opened(incident: Incident) -> tuple[Step, str]:
    """Return the first word."""
    return "trigger", f"opened: {incident.summary}"


def news_of(last: Message | None, incident: Incident) -> tuple[Step, str] | None:
    """Return what a channel does not know yet of an incident; None: nothing that is worth a message."""
    if last is None:
        return opened(incident)
    if incident.resolved is not None:
        if last.over:
            return None
        who = f"closed by {incident.resolved_by}" if incident.resolved_by else "over"
        part = "" if incident.cause is None else f", it belongs to incident {incident.cause}"
        return "resolve", f"{who} after {told_s(incident.resolved - incident.since)}{part}"
    if incident.acknowledged is not None and last.state == "open":
        return "acknowledge", f"acknowledged by {incident.acknowledged_by}"
    if LOUDNESS[incident.severity] > LOUDNESS[last.severity]:
        return "update", f"is a {incident.severity} now: {incident.summary}"
    new = len(incident.timeline) + incident.left_out - last.lines
    fresh = [entry for entry in incident.timeline[-new:] if entry.kind in _TOLD] if new > 0 else []
    if not fresh:
        return None
    newest = fresh[-1]
    return "update", newest.text if newest.by is None else f"{newest.by}: {newest.text}"
