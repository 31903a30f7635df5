"""Silences: somebody says that some incidents are to make no noise for a while, and why. Times are Unix seconds."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from fnmatch import fnmatchcase

from opsboard.core.incidents import Incident, Urgency
from opsboard.core.model import Record


class Matchers(Record, frozen=True, kw_only=True):
    """Which incidents. Each that is not empty has to fit; patterns have ``*`` and ``?``."""

    severities: tuple[Urgency, ...] = ()
    detectors: tuple[str, ...] = ()
    subjects: tuple[str, ...] = ()
    """``engine/NAME``, ``gpu/UUID``, ``channel/NAME`` or ``host``."""

    def takes(self, incident: Incident) -> bool:
        """Whether they fit an incident as it is now."""
        return self.fits(incident.severity, incident.detector, incident.subject)

    def fits(self, severity: Urgency, detector: str, subject: str) -> bool:
        """Whether they fit an incident of that kind."""
        return (
            (not self.severities or severity in self.severities)
            and _matches(self.detectors, detector)
            and _matches(self.subjects, subject)
        )

    @property
    def told(self) -> str:
        """What they say, as people read it."""
        parts = (("severity", self.severities), ("detector", self.detectors), ("subject", self.subjects))
        return " ".join(f"{name}={','.join(words)}" for name, words in parts if words)


class Silence(Matchers, frozen=True, kw_only=True):
    """One silence. It stands from ``start`` to ``end``; one that is expired early ends then."""

    id: int
    by: str
    comment: str
    start: float
    end: float

    def stands(self, t: float) -> bool:
        """Whether it holds at ``t``."""
        return self.start <= t < self.end


class Silences:
    """Those that stand, or will."""

    def __init__(self, known: Iterable[Silence] = ()) -> None:
        """Take those that an earlier daemon left."""
        self._known = {one.id: one for one in known}

    def put(self, silence: Silence) -> None:
        """Take a new one, or another form of one."""
        self._known[silence.id] = silence

    def find(self, number: int) -> Silence | None:
        """Return one by its number."""
        return self._known.get(number)

    def listed(self, t: float) -> list[Silence]:
        """Return those that are not over, the oldest first, and forget the others."""
        self._known = {number: one for number, one in self._known.items() if one.end > t}
        return sorted(self._known.values(), key=lambda one: one.id)

    def of(self, incident: Incident, t: float) -> Silence | None:
        """Return the one that keeps an incident quiet, of several the one that ends last."""
        found = [one for one in self._known.values() if one.stands(t) and one.takes(incident)]
        return max(found, key=lambda one: one.end, default=None)


def _matches(patterns: Collection[str], text: str) -> bool:
    return not patterns or any(fnmatchcase(text, pattern) for pattern in patterns)
