"""What a policy decided about an incident.

It is kept before it is carried out, so that a crash neither repeats nor loses it.
"""

from __future__ import annotations

from opsboard.core.incidents import Evidence
from opsboard.core.model import Record


class PolicyRun(Record, frozen=True, kw_only=True):
    """One decision of a policy. Times are Unix seconds.

    ``outcome`` is None while it is under way, then ``ok``, ``failed`` or ``aborted`` as the restart itself,
    ``refused`` (supervision would not begin it, or it could not be written down) or ``dry_run``.
    """

    id: str
    policy: str
    engine: str
    incident: int
    uid: str
    """The incident's."""
    t: float
    do: tuple[str, ...]
    reason: str
    """The policy, the incident and its sentence: what supervision is told, and what its own record of it says."""
    evidence: Evidence = {}
    """The numbers it was decided with."""
    life: float | None = None
    """When the life began that it is about: another life has not that trouble."""
    before: str | None = None
    """The engine's last transaction when it was decided: what it leads to is another one."""
    ended: float | None = None
    outcome: str | None = None
    text: str | None = None
    """Why it ended so."""

    @property
    def kind(self) -> str:
        """What is done, in the words of actions."""
        return "restart" if "restart" in self.do else self.do[-1]

    @property
    def dry(self) -> bool:
        """Nothing was to be done."""
        return self.outcome == "dry_run"
