"""From a line back to the readings it was made of, as a live daemon would have had them. No clock, no I/O."""

from __future__ import annotations

import msgspec

from collectors.engine_page import PageReader
from opsboard.core.clock import Now
from opsboard.core.connections import ConnectionReading
from opsboard.core.errors import ExpositionError
from opsboard.core.inflight import InflightReading, InflightRequest
from opsboard.core.model import (
    CanaryOutcome,
    CanaryReading,
    EngineReading,
    Event,
    GpuReading,
    GpuView,
    HostReading,
    HostView,
    LifeView,
    Outcome,
    ProcessReading,
    ProcessView,
    Severity,
)
from opsboard.core.text import sanitise
from opsboard.core.wire import Gpu
from opsboard.recording.lines import NO_DATA, NOT_ASKED, Canary, Host, Inflight, Life, Line, Process, Told

Recorded = (
    HostReading
    | GpuReading
    | ProcessReading
    | ConnectionReading
    | InflightReading
    | LifeView
    | Event
    | CanaryReading
    | EngineReading
)

_ROLES = {
    role.replace("_", ""): role
    for role in ("api_server", "engine_core", "worker", "dp_coordinator", "resource_tracker", "shim")
}
"""For recordings that name processes by what they are (``APIServer``) instead of telling a role."""

_TEXTS = ("uuid", "name", "mig")


class Readings:
    """Turns the lines of one file into readings. Remembers of each engine how its pages are laid out."""

    def __init__(self) -> None:
        """Know no engine."""
        self._readers: dict[str, PageReader] = {}
        self._gpus: tuple[Gpu, ...] | None = None
        self._lives: dict[str, Life] = {}

    def of(self, line: Line, now: Now) -> list[Recorded]:
        """Return what was known at the moment of ``line``, its page last: that is what is judged."""
        name = sanitise(line.engine)
        reader = self._readers.get(name)
        if reader is None or (line.kind is not None and line.kind != reader.kind):
            reader = self._readers[name] = PageReader(line.kind)
        found: list[Recorded] = []
        if line.host is not None:
            found.append(_host(line.host))
        if line.gpus and line.gpus != self._gpus:
            self._gpus = line.gpus
            found.append(GpuReading(outcome=Outcome.OK, gpus=tuple(_gpu(gpu) for gpu in line.gpus)))
        if line.life is not None and line.life != self._lives.get(name):
            self._lives[name] = line.life
            found.append(_life(line.life, name))
        if line.processes is not None:
            views = tuple(_process(process, reader) for process in line.processes)
            found.append(ProcessReading(engine=name, outcome=Outcome.OK, processes=views))
        if line.connections is not None:
            since = tuple(now.mono - age for age in line.connections)
            found.append(ConnectionReading(engine=name, looked=now.mono, since=since))
        if line.inflight is not None:
            found.append(InflightReading(engine=name, requests=tuple(map(_request, line.inflight))))
        found += [_event(told, name, now) for told in line.events or ()]
        if line.canary is not None:
            found.append(_canary(line.canary, name))
        if line.reason != NOT_ASKED:
            found.append(_page(line, name, reader))
        return found


def _page(line: Line, name: str, reader: PageReader) -> EngineReading:
    if line.metrics is None:
        error, reason = sanitise(line.error or ""), sanitise(line.reason or "", 64) or None
        if reason == NO_DATA:
            return EngineReading(engine=name, outcome=Outcome.NO_DATA, error=error)
        return EngineReading(engine=name, outcome=Outcome.FAILED, error=error, reason=reason)
    size = len(line.metrics)
    if reader.unreadable:
        return EngineReading(engine=name, outcome=Outcome.NO_DATA, error=reader.unreadable, size_bytes=size)
    try:
        view = reader.view(reader.parse(line.metrics.encode("utf-8", "replace")))
    except ExpositionError as error:
        return EngineReading(engine=name, outcome=Outcome.FAILED, error=error.message, reason="page", size_bytes=size)
    if view is None:
        return EngineReading(engine=name, outcome=Outcome.NO_DATA, error=reader.nothing, size_bytes=size)
    if line.version is not None:
        view = msgspec.structs.replace(view, version=sanitise(line.version, 64))
    return EngineReading(engine=name, outcome=Outcome.OK, view=view, size_bytes=size)


def _process(process: Process, reader: PageReader) -> ProcessView:
    name = sanitise(process.name)
    role = process.role or _ROLES.get(name.replace("_", "").lower())
    if role is None and reader.dialect is not None:
        role = reader.dialect.process_role(name, (name,))
    return ProcessView(
        pid=process.pid,
        started=0.0,
        name=name,
        role=sanitise(role or "other", 64),
        rss_bytes=process.rss,
        rss_anon_bytes=process.rss_anon,
        swap_bytes=process.swap,
    )


def _gpu(gpu: Gpu) -> GpuView:
    values = msgspec.structs.asdict(gpu)
    values.update({key: sanitise(values[key]) for key in _TEXTS if values[key] is not None})
    values["throttle"] = None if gpu.throttle is None else tuple(map(sanitise, gpu.throttle))
    return GpuView(**values)


def _host(host: Host) -> HostReading:
    view = HostView(
        memory_total_bytes=host.memory_total,
        memory_available_bytes=host.memory_available,
        cgroup_limit_bytes=host.cgroup_limit,
    )
    return HostReading(outcome=Outcome.OK, host=view)


def _request(request: Inflight) -> InflightRequest:
    return InflightRequest(
        id=sanitise(str(request.id), 128),
        prompt_tokens=request.prompt_tokens,
        generated_tokens=request.generated_tokens,
    )


def _life(life: Life, engine: str) -> LifeView:
    return LifeView(
        engine=engine,
        state=life.state,
        since=life.since,
        supervised=True,
        pid=life.pid,
        started=life.started,
        restarts=life.restarts,
        cause=None if life.cause is None else sanitise(life.cause),
        message=None if life.message is None else sanitise(life.message),
        exit_code=life.exit_code,
    )


def _canary(canary: Canary, engine: str) -> CanaryReading:
    answered = CanaryOutcome.OK if canary.ok else CanaryOutcome.TIMEOUT
    return CanaryReading(
        engine=engine,
        outcome=canary.outcome or answered,
        seconds=canary.seconds or 0.0,
        error=None if canary.error is None else sanitise(canary.error),
        output_sha256=None if canary.output_sha256 is None else sanitise(canary.output_sha256, 64),
        reset=canary.reset,
    )


def _event(told: Told, engine: str, now: Now) -> Event:
    return Event(
        t=now.wall if told.t is None else told.t,
        subject=sanitise(told.subject or f"engine/{engine}"),
        kind=sanitise(told.kind, 64),
        text=sanitise(told.text),
        severity=told.severity or Severity.INFO,
    )
