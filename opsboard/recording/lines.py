"""One line of a recording: a reading of one engine, and what else was known at that moment (CONTRACT "Recording").

SI: Unix seconds, bytes. What is absent was not known. Fields may be added, none changes its meaning.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from opsboard.core.connections import ConnectionReading
from opsboard.core.model import (
    CanaryOutcome,
    CanaryReading,
    EngineReading,
    EngineState,
    Event,
    HostView,
    LifeView,
    Outcome,
    ProcessView,
    Severity,
)
from opsboard.core.text import sanitise
from opsboard.core.wire import RECORDING_SCHEMA, Gpu

NO_DATA = "no_data"
"""As a ``reason``: the engine answered, and has nothing for us."""
NOT_ASKED = "not_asked"
"""As a ``reason``: nobody asked for its page, there is other news. Any other means that it could not be read."""


class Header(msgspec.Struct, frozen=True):
    """The first line of a file, which may be left out."""

    schema: str = RECORDING_SCHEMA


class Process(msgspec.Struct, frozen=True, omit_defaults=True):
    """One process of the engine."""

    pid: int
    name: str
    rss_anon: int | None = None
    swap: int | None = None
    rss: int | None = None
    role: str | None = None


class Host(msgspec.Struct, frozen=True, omit_defaults=True):
    """The machine's memory."""

    memory_total: int | None = None
    memory_available: int | None = None
    cgroup_limit: int | None = None


class Inflight(msgspec.Struct, frozen=True, omit_defaults=True):
    """One request under way to the engine. Tokens so far."""

    id: str | int
    prompt_tokens: Annotated[int, Meta(ge=0)]
    generated_tokens: Annotated[int, Meta(ge=0)] = 0


class Canary(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What came of a request that opsboard made. ``outcome`` says more than ``ok``; without it, not ok is no answer."""

    ok: bool
    seconds: float | None = None
    output_sha256: str | None = None
    outcome: CanaryOutcome | None = None
    error: str | None = None
    reset: bool | None = None


class Life(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What supervision knew of the engine (LifeView)."""

    state: EngineState
    since: float
    started: float | None = None
    pid: int | None = None
    restarts: int = 0
    cause: str | None = None
    message: str | None = None
    exit_code: int | None = None


class Told(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A line of a timeline; by itself the engine's, of the moment of the reading."""

    kind: str
    text: str
    t: float | None = None
    subject: str | None = None
    severity: Severity | None = None


class Line(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One reading."""

    t: Annotated[float, Meta(gt=0, lt=1e11)]
    engine: Annotated[str, Meta(min_length=1)]
    kind: str | None = None
    metrics: str | None = None
    error: str | None = None
    reason: str | None = None
    """Why there is no page, in one word of ``FetchError.reason``, "page", or :data:`NO_DATA`."""
    version: str | None = None
    """Of the engine, where its page does not tell."""
    processes: tuple[Process, ...] | None = None
    gpus: tuple[Gpu, ...] | None = None
    host: Host | None = None
    inflight: tuple[Inflight, ...] | None = None
    connections: tuple[float, ...] | None = None
    """For how long (s) others have been connected to it."""
    life: Life | None = None
    canary: Canary | None = None
    events: tuple[Told, ...] | None = None
    dropped: int = 0
    """Readings that are missing before this one."""


def line(
    reading: EngineReading,
    t: float,
    *,
    kind: str | None = None,
    processes: tuple[ProcessView, ...] | None = None,
    gpus: tuple[Gpu, ...] | None = None,
    host: HostView | None = None,
    connections: ConnectionReading | None = None,
    life: LifeView | None = None,
    events: tuple[Event, ...] = (),
) -> Line:
    """Return one reading as a recording keeps it: the raw page, or why there is none."""
    page = None if reading.page is None else reading.page.decode("utf-8", "replace")
    return Line(
        t=t,
        engine=reading.engine,
        kind=kind,
        metrics=page,
        error=None if page is not None else sanitise(reading.error or reading.outcome.value),
        reason=None if page is not None else _reason(reading),
        version=None if reading.view is None else reading.view.version,
        processes=None if processes is None else tuple(_process(process) for process in processes),
        gpus=gpus,
        host=None if host is None else _host(host),
        connections=None if connections is None else _ages(connections),
        life=None if life is None else _life(life),
        events=tuple(_told(event, reading.engine) for event in events) or None,
    )


def _ages(connections: ConnectionReading) -> tuple[float, ...] | None:
    since = connections.since
    return None if since is None else tuple(round(connections.looked - one, 3) for one in since)


def life_line(life: LifeView, t: float) -> Line:
    """Return the news of a life: there may be no reading of this engine for long."""
    why = life.cause or life.message
    said = sanitise(f"{life.state.word}: {why}" if why else life.state.word)
    return Line(t=t, engine=life.engine, error=said, reason=NOT_ASKED, life=_life(life))


def canary_line(canary: CanaryReading, t: float) -> Line:
    """Return what came of a canary, at once: what it says is over when the next page comes."""
    told = Canary(
        ok=canary.outcome is CanaryOutcome.OK,
        seconds=canary.seconds,
        output_sha256=canary.output_sha256,
        outcome=canary.outcome,
        error=canary.error,
        reset=canary.reset,
    )
    return Line(t=t, engine=canary.engine, error=f"canary: {canary.outcome}", reason=NOT_ASKED, canary=told)


def _life(life: LifeView) -> Life:
    return Life(**{name: getattr(life, name) for name in Life.__struct_fields__})


def _reason(reading: EngineReading) -> str | None:
    return NO_DATA if reading.outcome is Outcome.NO_DATA else reading.reason


def _process(process: ProcessView) -> Process:
    return Process(
        pid=process.pid,
        name=process.name,
        rss_anon=process.rss_anon_bytes,
        swap=process.swap_bytes,
        rss=process.rss_bytes,
        role=process.role,
    )


def _host(host: HostView) -> Host:
    return Host(host.memory_total_bytes, host.memory_available_bytes, host.cgroup_limit_bytes)


def _told(event: Event, engine: str) -> Told:
    subject = None if event.subject == f"engine/{engine}" else event.subject
    return Told(kind=event.kind, text=event.text, t=event.t, subject=subject, severity=event.severity)
