"""The detectors at work: what each remembers of each engine, and what it claims. No clock and no I/O.

A detector may come from another package. One that breaks is told once, forgets that engine and goes on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from math import isfinite
from typing import Any, NamedTuple, Protocol

from alerts.base import Detector, Observation
from alerts.timeline import told_s
from opsboard.core.clock import Now
from opsboard.core.incidents import Urgency
from opsboard.core.judgement import Learning, Off, Unknown
from opsboard.core.model import CanaryReading, Event, Finding, FindingChange, GpuView, HostView, Outcome, Severity
from opsboard.core.registry import detectors
from opsboard.core.text import sanitise
from opsboard.core.wire import DetectorInfo
from opsboard.daemon.engine_track import EngineTrack
from opsboard.daemon.memory import Mind, Recalled, life_of

_SEVERITY = {"page": Severity.ERROR, "ticket": Severity.WARNING, "note": Severity.INFO}
_QUIETER: tuple[Urgency, ...] = ("page", "ticket", "note")

_UNSEEN = "nothing was seen of it yet"
_OFF = Off("switched off in the configuration")
_FAILED = "the detector failed here and begins anew"

NEWS_KEPT = 64
"""Lines from elsewhere that wait for an engine to be judged; of more the oldest are not seen."""


class Judged(NamedTuple):
    """What a judgement leads to; ``canary``: some detector wants to know whether the engine gives one token."""

    changes: Sequence[FindingChange] = ()
    events: Sequence[Event] = ()
    canary: bool = False


class Setting(Protocol):
    """What is configured of a detector."""

    @property
    def enabled(self) -> bool:
        """Whether it judges at all."""

    @property
    def severity(self) -> Urgency:
        """How loud its findings are."""

    @property
    def params(self) -> Any:
        """Its parameters."""


class Judging:
    """Every detector, for every engine."""

    def __init__(self, known: Iterable[Detector] | None = None) -> None:
        """Begin with nothing seen. ``known`` is for tests; else all that are found."""
        plugins = detectors()
        self._detectors: tuple[Detector, ...] = tuple(plugins.found.values() if known is None else known)
        self._params: dict[str, Any] = {}
        """Of those that are configured; others have their defaults."""
        self._urgency: dict[str, Urgency] = {detector.name: detector.severity for detector in self._detectors}
        self._off: frozenset[str] = frozenset()
        self._unloaded = dict(plugins.broken) if known is None else {}
        self._broken: set[str] = set()
        self._states: dict[str, dict[str, Any]] = {}
        self._unknown: dict[str, dict[str, Unknown | None]] = {}
        """By engine: why a detector does not judge it."""
        self._recalled: dict[str, Recalled] = {}
        self._claims: dict[tuple[str, str], Finding] = {}
        self._news: dict[str, deque[Event]] = {}

    def configure(self, settings: Mapping[str, Setting]) -> None:
        """Take what is configured of detectors, by name. One with other parameters begins anew on every engine.

        What one claims that is off now closes when its engine is next judged.
        """
        for name, setting in settings.items():
            if not setting.enabled or setting.params != self._params.get(name, setting.params):
                for states in (*self._states.values(), *(one.states for one in self._recalled.values())):
                    states.pop(name, None)
            self._params[name], self._urgency[name] = setting.params, setting.severity
        self._off = frozenset(name for name, setting in settings.items() if not setting.enabled)

    def claims(self, engine: str) -> list[Finding]:
        """Return what is claimed of an engine now."""
        return [finding for (name, _), finding in self._claims.items() if name == engine]

    def standing(self, engine: str) -> tuple[DetectorInfo, ...]:
        """Return of every detector whether it judges an engine, and why not."""
        unknown = self._unknown.get(engine, {})
        return tuple(
            _info(one.name, _OFF if one.name in self._off else unknown.get(one.name, _UNSEEN))
            for one in self._detectors
        )

    def measured(self, engine: str, mono: float) -> dict[str, float]:
        """Return what the detectors measured of an engine at ``mono``, by field of its series."""
        states = self._states.get(engine, {})
        found: dict[str, float] = {}
        for one in self._detectors:
            if one.measured is not None and one.name in states:
                with suppress(Exception):  # foreign code must not stop the line; a drawing lacks a point
                    found |= one.measured(states[one.name], mono)
        return found

    def minds(self, engine: str) -> list[Mind]:
        """Return what the detectors remember of an engine."""
        states = self._states.get(engine, {})
        return [Mind(one, self._of(one), states[one.name]) for one in self._detectors if one.name in states]

    def known(self) -> dict[str, tuple[Detector, Any]]:
        """Return the detectors that are on, each with its parameters."""
        return {one.name: (one, self._of(one)) for one in self._detectors if one.name not in self._off}

    def recall(self, engine: str, recalled: Recalled) -> None:
        """Take what an earlier daemon knew of an engine; it counts from its first page on, which tells its life."""
        self._recalled[engine] = recalled

    def recalls(self, engine: str) -> bool:
        """Tell whether what an earlier daemon knew of an engine still waits for its first page."""
        return engine in self._recalled

    def _of(self, detector: Detector) -> Any:
        return self._params.get(detector.name) or detector.params()

    def begin_anew(self, engine: str) -> None:
        """Forget what was seen of an engine: it is another one now. What was claimed closes when it is next judged."""
        self._states.pop(engine, None)
        self._unknown.pop(engine, None)
        self._recalled.pop(engine, None)
        self._news.pop(engine, None)

    def hear(self, engine: str, event: Event) -> None:
        """Take in a line of a timeline that came from elsewhere; detectors see it when the engine is next judged."""
        self._news.setdefault(engine, deque(maxlen=NEWS_KEPT)).append(event)

    def severity(self, finding: Finding) -> Urgency:
        """Return how loud a finding is: as its detector, or as it says where that is quieter."""
        allowed = self._urgency[finding.detector]
        return allowed if finding.severity is None else max(allowed, finding.severity, key=_QUIETER.index)

    def keep(self, engines: Collection[str]) -> None:
        """Forget all other engines, and what was claimed of them."""
        self._states = {name: states for name, states in self._states.items() if name in engines}
        self._unknown = {name: unknown for name, unknown in self._unknown.items() if name in engines}
        self._recalled = {name: recalled for name, recalled in self._recalled.items() if name in engines}
        self._news = {name: news for name, news in self._news.items() if name in engines}
        self._claims = {key: finding for key, finding in self._claims.items() if key[0] in engines}

    def judge(
        self,
        track: EngineTrack,
        now: Now,
        *,
        gpus: tuple[GpuView, ...] = (),
        host: HostView | None = None,
        events: Sequence[Event] = (),
        fresh: bool = False,
        canary: CanaryReading | None = None,
    ) -> Judged:
        """Let every detector take in what is known of ``track`` now. ``fresh``: its last reading is new."""
        seen = Observation(
            engine=track.name,
            now=now,
            reading=track.last,
            fresh=fresh,
            canary=canary,
            life=track.life,
            processes=track.processes,
            looked=track.looked,
            zombies=track.zombies,
            connections=track.connections(now),
            gpus=gpus,
            host=host,
            inflight=track.inflight,
            events=(*self._news.pop(track.name, ()), *events),
        )
        states = self._states.get(track.name)
        if states is None:
            states = self._states[track.name] = {}
        if fresh and track.name in self._recalled and track.last is not None and track.last.outcome is Outcome.OK:
            states.update(self._recalled.pop(track.name).of(life_of(track)))
        unknown = self._unknown.setdefault(track.name, {})
        changes: list[FindingChange] = []
        told = self._told_unloaded(now) if self._unloaded else []
        ask = False
        for detector in self._detectors:
            name = detector.name
            claim: Finding | None = None
            wants = False
            try:
                if name not in self._off:
                    if name not in states:
                        states[name] = detector.begin(self._of(detector))
                    states[name], claim, wants, unknown[name] = detector.step(states[name], seen)
            except Exception as error:  # noqa: BLE001  foreign code must not stop the line
                states.pop(name, None)
                unknown[name] = _FAILED
                told += self._told_broken(name, track.name, error, now)
            ask = ask or wants
            before = self._claims.get((track.name, name))
            if claim is not None or before is not None:
                changes += self._change((track.name, name), before, claim, now)
        lines = ((change, self._line(change)) for change in changes)
        told += [
            line for change, line in lines if not (change.open and _said(change.finding.summary, line, seen.events))
        ]
        return Judged(changes, told, ask)

    def _change(
        self, key: tuple[str, str], before: Finding | None, claim: Finding | None, now: Now
    ) -> Iterable[FindingChange]:
        if claim is not None:
            self._claims[key] = claim
            if before is None or (before.confirmed, before.severity) != (claim.confirmed, claim.severity):
                yield FindingChange(t=now.wall, finding=claim, open=True)
        elif before is not None:
            del self._claims[key]
            yield FindingChange(t=now.wall, finding=before, open=False)

    def _line(self, change: FindingChange) -> Event:
        finding = change.finding
        loud = _SEVERITY[self.severity(finding)]
        if not change.open:
            lasted_s = change.t - finding.since
            after = f" after {told_s(lasted_s)}" if isfinite(lasted_s) else ""
            text, severity = f"{finding.detector} is over{after}: {finding.summary}", Severity.INFO
        elif finding.confirmed:
            text, severity = finding.summary, loud
        else:
            text, severity = f"suspected: {finding.summary}", min(loud, Severity.WARNING, key=_loudness)
        subject = f"engine/{finding.engine}"
        return Event(t=change.t, subject=subject, kind=finding.detector, text=text, severity=severity)

    def _told_broken(self, detector: str, engine: str, error: Exception, now: Now) -> list[Event]:
        if detector in self._broken:
            return []
        self._broken.add(detector)
        text = f"the detector {detector} failed on engine {engine} and begins anew there: {sanitise(repr(error), 200)}"
        return [Event(t=now.wall, subject="host", kind="detector_broken", text=text, severity=Severity.ERROR)]

    def _told_unloaded(self, now: Now) -> list[Event]:
        unloaded, self._unloaded = self._unloaded, {}
        texts = [f"the detector in {place} cannot be used: {sanitise(why, 200)}" for place, why in unloaded.items()]
        return [
            Event(t=now.wall, subject="host", kind="detector_broken", text=text, severity=Severity.ERROR)
            for text in texts
        ]


@lru_cache(1024)
def _info(detector: str, unknown: Unknown | None) -> DetectorInfo:
    """Return what JSON says of a detector; the same ones again and again, so that a status costs little."""
    if unknown is None:
        return DetectorInfo(name=detector)
    state = "learning" if isinstance(unknown, Learning) else "off" if isinstance(unknown, Off) else "unknown"
    return DetectorInfo(name=detector, state=state, reason=str(unknown))


def _said(summary: str, line: Event, events: Sequence[Event]) -> bool:
    """Tell whether ``events`` say it already, and as loudly as ``line`` would."""
    loudness = _loudness(line.severity)
    return bool(summary) and any(
        summary in event.text and event.subject == line.subject and _loudness(event.severity) >= loudness
        for event in events
    )


def _loudness(severity: Severity) -> int:
    return list(Severity).index(severity)
