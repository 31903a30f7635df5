"""The straight line from a reading to its effects. Synchronous, no I/O, time handed in."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Sequence
from math import isfinite
from typing import assert_never

import msgspec

from alerts.incidents import Change, Claim, Incidents
from collectors.nvml import join
from opsboard.core.clock import Now
from opsboard.core.connections import ConnectionReading
from opsboard.core.incidents import Incident, plain
from opsboard.core.inflight import InflightReading
from opsboard.core.model import (
    CanaryReading,
    EngineReading,
    EngineState,
    Event,
    FindingChange,
    GpuReading,
    GpuView,
    HostReading,
    HostView,
    LifeView,
    Outcome,
    ProcessReading,
    Record,
    Sample,
    Severity,
    Transition,
)
from opsboard.core.silences import Silences
from opsboard.daemon.engine_track import EngineTrack
from opsboard.daemon.judging import Judging
from opsboard.daemon.samples import (
    births,
    engine_samples,
    gpu_memory_samples,
    gpu_samples,
    host_samples,
    judged_samples,
    process_samples,
    self_samples,
    total,
)
from opsboard.daemon.troubles import can_be_judged, engine_troubles, host_troubles, worked_on

EVENTS_KEPT = 256
_GPU_IDENTITY = ("index", "uuid", "name", "mig", "parent", "lost", "xid", "xid_time")


class SelfReading(Record, frozen=True, kw_only=True):
    """What the daemon uses itself: cores and bytes; ``loop_gap_s`` is the longest its event loop was away lately."""

    cpu_ratio: float | None = None
    rss_bytes: int | None = None
    loop_gap_s: float | None = None


class EngineSpec(Record, frozen=True, kw_only=True):
    """What the configuration says of an engine, as far as the pipeline cares."""

    name: str
    kind: str | None = None
    url: str | None = None
    supervised: bool = False
    canary: bool = False
    """Whether it may be asked for a token when a detector wants to know."""
    reset: bool = False
    """And then, idle with blocks in use, to empty its prefix cache."""
    restartable: bool = False
    """It is observed, and its owner gave a command that restarts it."""
    command: tuple[str, ...] | None = None
    """To be shown: without secrets."""
    drain_timeout_s: float | None = None
    """What requests under way may take before a restart ends the process all the same; None: nobody drains it."""


Reading = (
    EngineReading
    | ProcessReading
    | ConnectionReading
    | InflightReading
    | GpuReading
    | HostReading
    | LifeView
    | SelfReading
    | CanaryReading
    | Event
)
"""What can be fed. An Event is a line of a timeline that came from elsewhere, not from a reading."""


class Effects(Record, frozen=True):
    """What a reading leads to: numbers to record, lines for the timeline, claims, and what to ask engines.

    ``births`` are to be recorded before ``samples``: counters of a process that began since they were last read.
    ``canaries`` names engines of which a detector wants to know whether they give one token.
    """

    samples: Sequence[Sample] = ()
    events: Sequence[Event] = ()
    births: Sequence[Sample] = ()
    findings: Sequence[FindingChange] = ()
    canaries: Sequence[str] = ()
    incidents: Sequence[Incident] = ()
    """Those that changed, as they are now."""


class PipelineState:
    """All that the daemon knows now. Changed only by :func:`feed` and :meth:`configure`."""

    def __init__(self, host: str, specs: Iterable[EngineSpec] = ()) -> None:
        """Begin with nothing read. ``host`` is the machine's name on the board."""
        self.host = host
        self.specs: dict[str, EngineSpec] = {}
        self.engines: dict[str, EngineTrack] = {}
        self.gpus: GpuReading | None = None
        self.system: HostView | None = None
        self.itself = SelfReading()
        self.judging = Judging()
        self.incidents = Incidents()
        self.silences = Silences()
        self.channels: Collection[str] = ()
        """Names of those that people are told by."""
        self.events: deque[Event] = deque(maxlen=EVENTS_KEPT)
        self.configure(specs)

    def configure(self, specs: Iterable[EngineSpec]) -> None:
        """Take the engines of a new configuration, in its order; what is known of unchanged ones is kept.

        The dictionaries stay the same: others hold on to them.
        """
        old = dict(self.engines)
        self.specs.clear()
        self.specs.update({spec.name: spec for spec in specs})
        self.engines.clear()
        for name, spec in self.specs.items():
            before = old.get(name)
            track = EngineTrack(name, kind=spec.kind, url=spec.url, supervised=spec.supervised)
            if before is not None and before.supervised and track.supervised:
                track.inherit(before)
            if before is not None and track.same_engine(before):
                track, before.configured_url = before, spec.url
            else:
                self.judging.begin_anew(name)
            self.engines[name] = track
        self.judging.keep(self.engines)

    def recall(self, last: Iterable[Transition]) -> None:
        """Take in the last change of each engine's state that an earlier daemon wrote down."""
        for one in last:
            if one.engine in self.engines:
                self.engines[one.engine].recall(one)

    def kind_of(self, name: str) -> str | None:
        """Return what kind of engine one is; None: nobody knows, or there is none."""
        track = self.engines.get(name)
        return None if track is None else track.known_kind

    def pids_by_engine(self) -> dict[str, list[int]]:
        """Return the processes of each engine as last seen."""
        return {name: [process.pid for process in track.processes] for name, track in self.engines.items()}


def feed(state: PipelineState, reading: Reading, now: Now) -> Effects:
    """Take one reading into ``state`` and return what follows. One of an engine that is not configured is nothing."""
    match reading:
        case EngineReading():
            effects = _engine(state, reading, now)
        case ProcessReading():
            effects = _processes(state, reading, now)
        case ConnectionReading():
            effects = _connections(state, reading)
        case InflightReading():
            effects = _inflight(state, reading)
        case Event():
            effects = _told(state, reading, now)
        case LifeView():
            effects = _life(state, reading, now)
        case CanaryReading():
            effects = _canary(state, reading, now)
        case GpuReading():
            effects = _gpus(state, reading, now)
        case HostReading():
            effects = _host(state, reading, now)
        case SelfReading():
            state.itself = reading
            effects = Effects(self_samples(state.host, reading.cpu_ratio, reading.rss_bytes))
        case _:
            assert_never(reading)
    state.events.extend(effects.events)
    return effects


# --- engines ----------------------------------------------------------------------------------------------------

_SEVERITIES = {
    EngineState.FAILED: Severity.ERROR,
    EngineState.PARKED: Severity.ERROR,
    EngineState.UNREACHABLE: Severity.WARNING,
    EngineState.BACKING_OFF: Severity.WARNING,
}


def _engine(state: PipelineState, reading: EngineReading, now: Now) -> Effects:
    track = state.engines.get(reading.engine)
    if track is None:
        return Effects()
    began_anew = track.read(reading, now)
    events = list(_transition(track, now))
    if began_anew and track.life is None:
        text = "the serving process began anew; rates are withheld until it was read twice"
        events.append(_event(now, f"engine/{track.name}", "restarted", text, Severity.WARNING))
    samples = engine_samples(track, reading)
    judged = _judged(state, track, now, events, fresh=True)
    track.inflight = None
    if reading.view is not None:
        judging = state.judging
        samples += judged_samples(track.name, judging.claims(track.name), judging.measured(track.name, now.mono))
    return msgspec.structs.replace(judged, samples=samples, births=births(samples) if track.newborn else ())


def _canary(state: PipelineState, reading: CanaryReading, now: Now) -> Effects:
    track = state.engines.get(reading.engine)
    return Effects() if track is None else _judged(state, track, now, canary=reading)


def _judged(
    state: PipelineState,
    track: EngineTrack,
    now: Now,
    events: Sequence[Event] = (),
    *,
    fresh: bool = False,
    canary: CanaryReading | None = None,
) -> Effects:
    """Let the detectors judge what is known of an engine now. Their claims follow ``events`` on its timeline."""
    gpus = () if state.gpus is None else state.gpus.gpus
    judged = state.judging.judge(track, now, gpus=gpus, host=state.system, events=events, fresh=fresh, canary=canary)
    changes = _incidents(state, track, now, events)
    return Effects(
        events=[*events, *judged.events, *told(changes, now)],
        findings=judged.changes,
        canaries=(track.name,) if judged.canary else (),
        incidents=_newest(changes),
    )


def _incidents(state: PipelineState, track: EngineTrack, now: Now, events: Sequence[Event]) -> list[Change]:
    """Let what is claimed of an engine, and what became of it, change its incidents."""
    subject, judging, incidents = f"engine/{track.name}", state.judging, state.incidents
    claims = [
        Claim(
            detector=finding.detector,
            subject=subject,
            severity=judging.severity(finding),
            summary=finding.summary,
            since=finding.since if isfinite(finding.since) else now.wall,
            confirmed=finding.confirmed,
            evidence=plain(finding.evidence),
        )
        for finding in judging.claims(track.name)
    ]
    claims += engine_troubles(track, now)
    changes = incidents.see(subject, claims, now, calm=can_be_judged(track), held=worked_on(track, now))
    if track.transaction is not None:
        changes += incidents.act(track.transaction, now)
    return changes + [change for event in events for change in incidents.hear(event, now)]


def told(changes: Iterable[Change], now: Now) -> Iterable[Event]:
    """Return the lines that tell people of changes."""
    for one, text, loud in changes:
        if text is not None:
            severity = _LOUD[one.severity] if loud else Severity.INFO
            yield _event(now, one.subject, "incident", f"incident {one.id} ({one.detector}) {text}", severity)


_LOUD = {"page": Severity.ERROR, "ticket": Severity.WARNING, "note": Severity.INFO}


def _newest(changes: Iterable[Change]) -> tuple[Incident, ...]:
    """Return each incident once, as it is after the last change."""
    return tuple({change.incident.id: change.incident for change in changes}.values())


def _processes(state: PipelineState, reading: ProcessReading, now: Now) -> Effects:
    track = state.engines.get(reading.engine)
    if track is None:
        return Effects()
    track.look(reading, now)
    return msgspec.structs.replace(_judged(state, track, now), samples=process_samples(track))


def _connections(state: PipelineState, reading: ConnectionReading) -> Effects:
    """Take it in; it is judged with the next page, because alone it says nothing."""
    track = state.engines.get(reading.engine)
    if track is not None:
        track.connect(reading)
    return Effects()


def _inflight(state: PipelineState, reading: InflightReading) -> Effects:
    """Take it in; it is judged with the page of the same moment."""
    track = state.engines.get(reading.engine)
    if track is not None:
        track.inflight = reading.requests
    return Effects()


def _told(state: PipelineState, event: Event, now: Now) -> Effects:
    """Let the detectors of whom it concerns see it: one engine, or all when it is the host's or a GPU's."""
    kind, _, name = event.subject.partition("/")
    for engine in state.engines:
        if kind != "engine" or engine == name:
            state.judging.hear(engine, event)
    return Effects(events=(event,), incidents=_newest(state.incidents.hear(event, now)))


def _life(state: PipelineState, life: LifeView, now: Now) -> Effects:
    track = state.engines.get(life.engine)
    if track is None:
        return Effects()
    track.live(life)
    return _judged(state, track, now, list(_transition(track, now)))


def _transition(track: EngineTrack, now: Now) -> Iterable[Event]:
    moved = track.derive(now)
    if moved is None:
        return
    old, new = moved
    if old is None and new not in _SEVERITIES:
        return  # what a daemon finds in order when it starts is no news
    said = "; ".join(part for part in (track.message, track.hint) if part)
    why = f": {said}" if said else ""
    text = f"found {new.word}{why}" if old is None else f"{old.word} → {new.word}{why}"
    yield _event(now, f"engine/{track.name}", new.value, text, _SEVERITIES.get(new, Severity.INFO))


# --- GPUs and host ----------------------------------------------------------------------------------------------


def _gpus(state: PipelineState, reading: GpuReading, now: Now) -> Effects:
    before = state.gpus
    if reading.outcome is Outcome.FAILED and before is not None:
        # The cards are still there; what they said is not true any more.
        silent = tuple(GpuView(**{name: getattr(gpu, name) for name in _GPU_IDENTITY}) for gpu in before.gpus)
        reading = GpuReading(outcome=reading.outcome, gpus=silent, driver=before.driver, error=reading.error)
    gpus = join(reading.gpus, state.pids_by_engine())
    state.gpus = GpuReading(outcome=reading.outcome, gpus=gpus, driver=reading.driver, error=reading.error)
    for track in state.engines.values():
        track.gpu_memory_bytes = _memory_of(track.name, gpus)
    events = list(_gpu_events(before, state.gpus, now))
    return Effects([*gpu_samples(gpus), *gpu_memory_samples(state.engines.values())], events)


def _memory_of(engine: str, gpus: Iterable[GpuView]) -> int | None:
    """Return the bytes an engine holds on all GPUs; None when it holds none or the driver cannot tell for one."""
    held = [process.memory_bytes for gpu in gpus for process in gpu.processes if process.engine == engine]
    known = total(held)
    return None if known is None or None in held else int(known)


def _gpu_events(before: GpuReading | None, after: GpuReading, now: Now) -> Iterable[Event]:
    failed = after.outcome is Outcome.FAILED
    if failed != (before is not None and before.outcome is Outcome.FAILED):
        text = after.error or ("the GPU driver does not answer" if failed else "the GPU driver answers again")
        yield _event(now, "host", "gpu_driver", text, Severity.ERROR if failed else Severity.INFO)
    if failed:
        return
    old = {} if before is None else {gpu.uuid: gpu for gpu in before.gpus}
    for gpu in after.gpus:
        was = old.pop(gpu.uuid, None)
        subject = f"gpu/{gpu.uuid}"
        if gpu.lost != (was is not None and was.lost):
            text = f"GPU {gpu.index} is lost: it fell off the bus" if gpu.lost else f"GPU {gpu.index} is back"
            yield _event(now, subject, "lost" if gpu.lost else "back", text, _gpu_severity(lost=gpu.lost))
        if gpu.xid is not None and (was is None or (gpu.xid, gpu.xid_time) != (was.xid, was.xid_time)):
            yield _event(now, subject, "xid", f"GPU {gpu.index}: Xid {gpu.xid}", Severity.ERROR)
    for gone in old.values():
        yield _event(now, f"gpu/{gone.uuid}", "lost", f"GPU {gone.index} is not listed any more", Severity.ERROR)


def _gpu_severity(*, lost: bool) -> Severity:
    return Severity.ERROR if lost else Severity.INFO


def _host(state: PipelineState, reading: HostReading, now: Now) -> Effects:
    state.system = reading.host  # None: what was true before has no age on the board
    known = {"host", *(f"engine/{name}" for name in state.engines), *(f"channel/{name}" for name in state.channels)}
    claims = host_troubles(reading.host, now, state.incidents.open)
    changes = state.incidents.leave(known, now)
    for name, track in state.engines.items():  # those that stopped or sleep give no pages
        if state.incidents.concerned(f"engine/{name}"):
            changes += _incidents(state, track, now, ())
    known_disk = reading.host is not None and reading.host.disk_free_bytes is not None
    changes += state.incidents.see("host", claims, now, calm=known_disk)
    samples = () if reading.host is None else host_samples(state.host, reading.host)
    return Effects(samples, tuple(told(changes, now)), incidents=_newest(changes))


def _event(now: Now, subject: str, kind: str, text: str, severity: Severity) -> Event:
    return Event(t=now.wall, subject=subject, kind=kind, text=text, severity=severity)
