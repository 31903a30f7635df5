"""One subject under judgement, for tests of the life of incidents."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from alerts.incidents import Claim, Incidents
from opsboard.core.clock import ManualClock

if TYPE_CHECKING:
    from alerts.incidents import Change
    from opsboard.core.incidents import Incident

A = "engine/a"


class World:
    """One subject under judgement."""

    def __init__(self, rules: Incidents | None = None, clock: ManualClock | None = None) -> None:
        self.clock = clock or ManualClock()
        self.rules = rules or Incidents()
        self.changes: list[Change] = []

    def claim(self, detector: str = "stall", **changes: Any) -> Claim:
        fields: dict[str, Any] = {
            "detector": detector,
            "subject": A,
            "severity": "page",
            "summary": f"{detector}!",
            "since": self.clock.now().wall - 3,
            "confirmed": True,
            "evidence": {"n": 1},
        }
        return Claim(**(fields | changes))

    def see(
        self, *claims: Claim, seconds: float = 1.0, calm: bool = True, held: float | None = None, step: float = 1.0
    ) -> list[Change]:
        """Look every ``step`` s for ``seconds``; return what changed."""
        changes: list[Change] = []
        for _ in range(max(1, round(seconds / step))):
            now = self.clock.advance(step)
            changes += self.rules.see(A, claims, now, calm=calm, held=held)
        self.changes += changes
        return changes

    def open(self) -> list[Incident]:
        return self.rules.open

    def kinds(self, one: Incident | None = None) -> list[str]:
        one = one or self.rules.shown(self.clock.now())[0]
        return [entry.kind for entry in one.timeline]
