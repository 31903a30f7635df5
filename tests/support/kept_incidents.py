"""A store of incidents that is only memory."""

from __future__ import annotations

from concurrent.futures import Future
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from alerts.incidents import Change
    from opsboard.core.incidents import Curve, Incident
    from opsboard.core.silences import Silence
    from opsboard.store.state import AuditEntry


class FakeKept:
    """What the desk asks of the store."""

    def __init__(self) -> None:
        self.rows: dict[int, Incident] = {}
        self.curves: dict[str, list[Curve]] = {}
        self.asked: list[AuditEntry] = []
        self.silenced: dict[int, Silence] = {}
        self.error: Exception | None = None
        self.written: Future[None] | None = None
        """What says whether a change is on disk; None: it is at once."""

    async def incidents(
        self, *, limit: int = 100, only_open: bool = False, subject: str | None = None
    ) -> list[Incident]:
        self._check()
        found = [one for one in self.rows.values() if subject in {None, one.subject} and (one.open or not only_open)]
        return sorted(found, key=lambda one: -one.id)[:limit]

    async def one_incident(self, name: int | str) -> Incident | None:
        self._check()
        return next((one for one in self.rows.values() if name in {one.id, one.uid}), None)

    async def curves_of(self, uid: str) -> list[Curve]:
        self._check()
        return self.curves.get(uid, [])

    def silence(self, silence: Silence) -> Future[None]:
        self.silenced[silence.id] = silence
        return self.written or done()

    async def silences(self, since: float, limit: int = 1000) -> list[Silence]:
        return [one for one in self.silenced.values() if one.end > since][:limit]

    async def next_silence(self) -> int:
        return len(self.silenced) + 1

    def audit(self, entry: AuditEntry) -> Future[None]:
        self.asked.append(entry)
        return done()

    def carry_out(self, change: Change) -> Future[None]:
        self.rows[change.incident.id] = change.incident
        return self.written or done()

    def _check(self) -> None:
        if self.error:
            raise self.error


def done() -> Future[None]:
    written: Future[None] = Future()
    written.set_result(None)
    return written
