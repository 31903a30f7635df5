"""Who is connected to an engine: the record that joins those who look to those who judge."""

from __future__ import annotations

from opsboard.core.model import Record


class ConnectionReading(Record, frozen=True, kw_only=True):
    """Who was connected to an engine's port at ``looked``, opsboard itself not counted. Monotonic seconds."""

    engine: str
    looked: float
    since: tuple[float, ...] | None = None
    """When each was first seen, the latest first, of very many the latest. None: nobody here listens on its port, so
    that nothing is known."""
