"""The detectors over recorded readings: the daemon's own line, without daemon, clock or disk. Deterministic."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

import msgspec

from opsboard.core.incidents import Urgency
from opsboard.core.model import Event, Finding, FindingChange
from opsboard.core.wire import DetectorInfo
from opsboard.daemon.judging import Setting
from opsboard.daemon.pipeline import EngineSpec, PipelineState, feed
from opsboard.recording.reader import Moment


class Judge:
    """Judges the readings of one recording, from nothing. What a detector would ask an engine is not asked."""

    def __init__(
        self, settings: Mapping[str, Setting] | None = None, tell: Callable[[Event], None] = lambda _event: None
    ) -> None:
        """``settings`` of detectors by name, as configured; ``tell`` hears of detectors that fail."""
        self._state = PipelineState("recording")
        self._state.judging.configure(settings or {})
        self._tell = tell

    def severity(self, finding: Finding) -> Urgency:
        """Return how loud a finding is."""
        return self._state.judging.severity(finding)

    def standing(self) -> Mapping[str, tuple[DetectorInfo, ...]]:
        """Return of each engine whether its detectors judge it now, and why not."""
        return {name: self._state.judging.standing(name) for name in self._state.engines}

    def changes(self, moments: Iterable[Moment]) -> Iterator[FindingChange]:
        """Yield what opens, gains or loses its confirmation, and closes, when it does."""
        state = self._state
        for now, engine, readings in moments:
            if engine not in state.engines:
                state.configure([*state.specs.values(), EngineSpec(name=engine)])
            for reading in readings:
                effects = feed(state, reading, now)
                for event in effects.events:
                    if event.kind == "detector_broken":
                        self._tell(event)
                yield from effects.findings


class Claim(msgspec.Struct, kw_only=True):
    """A finding from its opening to its close, None while it is open. Unix seconds."""

    opened: float
    finding: Finding
    """As it was said last."""
    confirmed: float | None = None
    """When it was last confirmed; None: it is not."""
    closed: float | None = None


class Claims:
    """What was claimed, in the order in which it opened."""

    def __init__(self) -> None:
        """Nothing yet."""
        self.all: list[Claim] = []
        self._open: dict[tuple[str, str], Claim] = {}

    def take(self, change: FindingChange) -> Claim | None:
        """Take a change in. Return the claim when it has opened or closed by it, None when it stands as before."""
        key = (change.finding.engine, change.finding.detector)
        claim = self._open.get(key)
        opened = claim is None
        if claim is None:
            claim = self._open[key] = Claim(opened=change.t, finding=change.finding)
            self.all.append(claim)
        claim.finding = change.finding
        if not change.open:
            claim.closed = change.t
            del self._open[key]
        elif not change.finding.confirmed:
            claim.confirmed = None
        elif claim.confirmed is None:
            claim.confirmed = change.t
        return claim if opened or claim.closed is not None else None
