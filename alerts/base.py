"""What every detector is: one frozen record in one file, found by :func:`opsboard.core.registry.detectors`.

A detector is pure: no clock, no I/O, O(1) a reading. So it also judges recordings, with or without what only a live
engine can give (processes, canaries); what is missing there is None and makes it slower to be sure, never wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import msgspec

from opsboard.core.clock import Now
from opsboard.core.connections import ConnectionReading
from opsboard.core.incidents import Urgency
from opsboard.core.inflight import InflightRequest
from opsboard.core.judgement import Learning, Off, Unknown
from opsboard.core.lives import SERVES
from opsboard.core.model import (
    CanaryReading,
    EngineReading,
    Event,
    Finding,
    GpuView,
    HostView,
    LifeView,
    Outcome,
    ProcessView,
    Record,
)

__all__ = ["Detector", "Learning", "Observation", "Off", "Step", "check_seconds", "unread"]


class Observation(Record, frozen=True, kw_only=True):
    """All that is known of one engine when something new came of it: a page, a canary's result, or its life's news."""

    engine: str
    now: Now
    reading: EngineReading | None
    """The last one of this life; None: not read yet."""
    fresh: bool = True
    """``reading`` came now. False: it was judged before, and something else came."""
    canary: CanaryReading | None = None
    """A result that came now."""
    life: LifeView | None = None
    """None: nobody supervises it, it is only seen."""
    processes: tuple[ProcessView, ...] = ()
    looked: float | None = None
    """When (monotonic s) its processes were looked at; None: that is not known, and ``processes`` says nothing."""
    zombies: tuple[int, ...] = ()
    """Pids of those that have ended and were not reaped."""
    gpus: tuple[GpuView, ...] = ()
    """All of the host."""
    host: HostView | None = None
    inflight: tuple[InflightRequest, ...] | None = None
    """Requests under way to it as known elsewhere (a gateway); None: nobody knows."""
    connections: ConnectionReading | None = None
    """Who was connected to it a few seconds ago. What is open need not wait for anything. None: nobody can look, or
    nobody had to because its page shows work."""
    events: tuple[Event, ...] = ()
    """New lines of its timeline, and of the host's and its GPUs'."""

    @property
    def accounted(self) -> tuple[InflightRequest, ...] | None:
        """``inflight`` where it is as many as run and wait by the page, None elsewhere.

        Only then is it of the same moment, and all there is.
        """
        view = None if self.reading is None else self.reading.view
        if self.inflight is None or view is None or view.running is None or view.waiting is None:
            return None
        return self.inflight if len(self.inflight) == view.running + view.waiting else None


class Step(NamedTuple):
    """What one observation leads to: what is remembered, what is claimed now, whether to ask the engine one token.

    ``unknown`` says why it does not judge, for people; None: it does. It must stay the same from reading to reading as
    long as it is true (but for the numbers of a :class:`Learning`), and should be a constant: it is made at every one.
    """

    state: Any
    finding: Finding | None = None
    canary: bool = False
    unknown: Unknown | None = None

    def saying(self, unknown: Unknown | None) -> Step:
        """Return it with a reason why it does not judge."""
        return self if unknown is None else self._replace(unknown=unknown)


def unread(seen: Observation) -> str | None:
    """Return why the engine's page tells nothing now; None: it was read, and serves whoever judges by it."""
    if seen.life is not None and seen.life.state not in SERVES:
        return "it does not serve now"
    if seen.reading is None:
        return "its page was not read yet"
    if seen.reading.outcome is Outcome.FAILED:
        return "its page cannot be read"
    if seen.reading.outcome is not Outcome.OK or seen.reading.view is None:
        return "its page has no numbers of an engine"
    return "it sleeps" if seen.reading.view.asleep else None


def check_seconds(params: msgspec.Struct, seconds: Iterable[str] = (), order: Iterable[tuple[str, str]] = ()) -> None:
    """Raise ValueError unless each of ``seconds`` is at least 1 s, and in each pair of ``order`` the second no shorter.

    Fields are named as people write them, without ``_s``.
    """
    for name in seconds:
        if getattr(params, f"{name}_s") < 1:
            raise ValueError(f"`{name}`: expected at least 1s")
    for low, high in order:
        least, found = getattr(params, f"{low}_s"), getattr(params, f"{high}_s")
        if found < least:
            raise ValueError(f"`{high}` ({found:g} s) must not be shorter than `{low}` ({least:g} s)")


class Detector(Record, frozen=True, kw_only=True):
    """One kind of claim. ``params`` is a frozen record with a default and a description for each field.

    Its fields are what people may set: ``quiet_s: Annotated[float, Meta(description="...")] = 5.0`` is the key
    ``quiet = "5s"`` of ``[detector.NAME]``, others keep their name. ``__post_init__`` may raise ValueError.
    ``begin(params)`` is what is remembered before the first observation; ``step(state, seen)`` takes one in. A claim
    that stands is returned at every step; None takes it back.
    """

    name: str
    severity: Urgency
    """How loud its findings are."""
    summary: str
    """For lists of detectors: what it claims, in one line."""
    lasting: bool = False
    """What it remembers goes over the lives of an engine: a daemon that begins anew takes it up in another life, too.

    Memory outlives the daemon where it is made of records, tuples, numbers and texts, or has ``packed`` and
    ``unpacked`` (:class:`opsboard.daemon.memory.Packed`)."""
    params: type[msgspec.Struct]
    begin: Callable[[Any], Any]
    step: Callable[[Any, Observation], Step]
    measured: Callable[[Any, float], Mapping[str, float]] | None = None
    """Fields of an engine's series (core/series.py) that its memory tells at a monotonic instant, claimed or not: they
    are recorded, so that a claim can be drawn with what was before. Called at every page."""
