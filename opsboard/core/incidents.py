"""What people are told about: an incident with its timeline, what was done about it, and the evidence frozen with it.

Times are Unix seconds. A finding is what a detector claims now (model.py); an incident is one trouble from its first
sign to its end, kept for ever.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Literal, SupportsFloat

from opsboard.core.model import Record
from opsboard.core.text import sanitise

Urgency = Literal["page", "ticket", "note"]
"""How loud: wake somebody, work for somebody, worth knowing."""

Evidence = Mapping[str, float | str | bool | None]


def plain(evidence: Mapping[str, object]) -> dict[str, float | str | bool | None]:
    """Return evidence as JSON can hold it, whoever's detector it comes from: what is no number or text is written out.

    A number that is none (NaN, infinity) is None.
    """
    return {str(name): _plain(value) for name, value in evidence.items()}


def _plain(value: object) -> float | str | bool | None:
    if value is None or type(value) in {bool, int, str}:
        return value  # type: ignore[return-value]  # as the line above says
    if isinstance(value, SupportsFloat) and not isinstance(value, str):
        number = float(value)
        return number if isfinite(number) else None
    return sanitise(str(value))


class Entry(Record, frozen=True, kw_only=True):
    """One line of an incident's timeline. ``by`` is the person who made it, None for opsboard itself.

    ``kind`` is ``opened``, ``confirmed``, ``severity``, ``caused`` (a consequence that is no incident of its own),
    ``gone`` (the claim is not made any more), ``back``, ``flapping``, ``state``, ``action``, ``ack``, ``note``,
    ``silence``, ``related`` or ``resolved``.
    """

    t: float
    kind: str
    text: str
    by: str | None = None


class IncidentAction(Record, frozen=True, kw_only=True):
    """What opsboard did while the incident was open, or an operator asked for. ``outcome`` is None while under way."""

    id: str
    kind: str
    time: float
    outcome: str | None = None
    reason: str | None = None


class Incident(Record, frozen=True, kw_only=True):
    """One trouble of one subject. ``id`` is a small number for people, ``uid`` is unique for ever.

    ``since``: when it began as far as is known; ``opened``: when people could first be told; ``ended``: when it was
    last seen; ``resolved``: when it was closed, for good. ``summary`` and ``evidence`` are the newest,
    ``first_summary`` and ``first_evidence`` what it was opened with. ``cause``: the incident it turned out to be of.
    """

    id: int
    uid: str
    detector: str
    subject: str
    """``engine/NAME``, ``gpu/UUID`` or ``host``."""
    severity: Urgency
    since: float
    opened: float
    summary: str
    first_summary: str
    evidence: Evidence = {}
    first_evidence: Evidence = {}
    confirmed: bool = False
    flapping: bool = False
    acknowledged: float | None = None
    acknowledged_by: str | None = None
    ended: float | None = None
    resolved: float | None = None
    resolved_by: str | None = None
    """The person who closed it; None: it was over, or is open."""
    cause: int | None = None
    related: tuple[int, ...] = ()
    actions: tuple[IncidentAction, ...] = ()
    timeline: tuple[Entry, ...] = ()
    left_out: int = 0
    """Lines in the middle of the timeline that were given up."""

    @property
    def open(self) -> bool:
        """Nobody and nothing has closed it."""
        return self.resolved is None

    @property
    def state(self) -> str:
        """``open``, ``acknowledged`` or ``resolved``."""
        if self.resolved is not None:
            return "resolved"
        return "open" if self.acknowledged is None else "acknowledged"


class Curve(Record, frozen=True, kw_only=True):
    """A recorded series around an incident, kept with it: ``points`` are Unix seconds and means over ``step`` seconds.

    ``moment`` tells when it was frozen: as the incident ``opened`` or as it was ``resolved``.
    """

    moment: Literal["opened", "resolved"]
    series: str
    step: float
    points: tuple[tuple[float, float], ...] = ()
