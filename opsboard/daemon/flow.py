"""Carries effects out: what a reading leads to goes to the store, to the subscribers and to the log, here only."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from typing import Protocol

from alerts.incidents import Change
from opsboard.core.clock import Clock
from opsboard.core.deliveries import NewDelivery
from opsboard.core.incidents import Incident
from opsboard.core.model import CanaryReading, Event, FindingChange, LifeView, Sample, Severity
from opsboard.daemon.pipeline import PipelineState, Reading, feed, told
from opsboard.daemon.recording import Recorders
from opsboard.daemon.subscribers import Newest
from opsboard.daemon.supervising import heed

log = logging.getLogger("opsboard.events")

_LEVELS = {Severity.INFO: logging.INFO, Severity.WARNING: logging.WARNING, Severity.ERROR: logging.ERROR}


class Records(Protocol):
    """The store's writing side; nothing here blocks or raises."""

    def append(self, wall: float, samples: list[Sample]) -> None:
        """Record samples of one moment."""

    def event(self, event: Event) -> Future[None]:
        """Record a line of a timeline."""

    def life(self, life: LifeView) -> None:
        """Record what supervision says."""

    def incident(self, incident: Incident, told: Sequence[NewDelivery] = ()) -> Future[None]:
        """Record an incident as it is now, and what is to be told of it, both or neither."""


class Flow:
    """The way of every reading through the daemon."""

    def __init__(
        self, clock: Clock, state: PipelineState, records: Records, newest: Newest, recorders: Recorders | None = None
    ) -> None:
        """Join the pipeline to what carries its effects out."""
        self._clock = clock
        self._state = state
        self._records = records
        self._newest = newest
        self._recorders = recorders
        self.on_finding: Callable[[FindingChange], None] = lambda _change: None
        """Hears what detectors claim."""
        self.on_life: list[Callable[[LifeView], None]] = []
        """Hear what supervision says, when it has been taken in."""
        self.on_canaries: Callable[[Sequence[str]], None] = lambda _names: None
        """Hears which engines to ask for a token."""
        self.on_incident: Callable[[Incident], None] = lambda _incident: None
        """Hears of incidents that changed."""
        self.on_event: Callable[[Event], None] = lambda _event: None
        """Hears of every line of the timeline."""
        self.announce: Callable[[Incident], Sequence[NewDelivery]] = lambda _incident: ()
        """Says what is to be told of an incident that changed."""
        self.on_told: Callable[[Sequence[NewDelivery], Future[None]], None] = lambda _told, _written: None
        """Hears of it; the future is done when it is on disk."""

    def reading(self, reading: Reading) -> None:
        """Take one reading; ``now`` is taken here, once."""
        now = self._clock.now()
        effects = feed(self._state, reading, now)
        if effects.births:
            self._records.append(now.wall, list(effects.births))
        if effects.samples:
            self._records.append(now.wall, list(effects.samples))
        for event in effects.events:
            self._out(event)
        if self._recorders is not None and isinstance(reading, CanaryReading | LifeView | Event):
            self._recorders.hear(reading, now)
        self._record(effects.incidents)  # before anybody acts on it
        for change in effects.findings:
            self.on_finding(change)
        if effects.canaries:
            self.on_canaries(effects.canaries)

    def life(self, life: LifeView) -> None:
        """Take what supervision says of an engine."""
        self.reading(life)
        self._records.life(life)
        self._newest.publish_soon()
        for hear in self.on_life:
            hear(life)

    def event(self, event: Event) -> None:
        """Take an event that did not come from a reading."""
        self.reading(event)

    def tell(self, kind: str, text: str, severity: Severity = Severity.INFO, subject: str = "host") -> None:
        """Make an event of the daemon's own and take it."""
        self.event(Event(t=self._clock.now().wall, subject=subject, kind=kind, text=text, severity=severity))

    def incident(self, change: Change) -> Future[None]:
        """Take what a person says of an incident; the future is done when it is on disk."""
        for event in told([change], self._clock.now()):
            self.event(event)
        written = self._keep(change.incident)
        self._newest.publish_soon()
        return written

    def when_written(self, written: Future[None], then: Callable[[], None]) -> None:
        """Do something on the loop once a change is on disk, and not at all when it is not."""
        loop = asyncio.get_running_loop()

        def look(done: Future[None]) -> None:
            if not done.cancelled() and done.exception() is None:
                with contextlib.suppress(RuntimeError):  # the loop has ended
                    loop.call_soon_threadsafe(then)

        written.add_done_callback(look)

    def _record(self, incidents: Iterable[Incident]) -> None:
        for one in incidents:
            heed(self._keep(one))

    def _keep(self, incident: Incident) -> Future[None]:
        """Write an incident down with what is told of it; then that is sent."""
        told = self.announce(incident)
        written = self._records.incident(incident, told)
        if told:
            self.on_told(told, written)
        self.on_incident(incident)
        return written

    def _out(self, event: Event) -> None:
        self._records.event(event)
        self._newest.publish_soon()
        self.on_event(event)
        log.log(_LEVELS[event.severity], "%s %s: %s", event.subject, event.kind, event.text)
