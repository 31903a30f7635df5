"""What the board shows: pure functions from the pipeline's state to the JSON of the control socket."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

from opsboard.config.schema import Route
from opsboard.core import incidents
from opsboard.core.clock import Now
from opsboard.core.deliveries import ChannelHealth
from opsboard.core.histogram import latency
from opsboard.core.model import EngineState, Event, GpuView, Rolling
from opsboard.core.nearest import no_engine
from opsboard.core.rates import WINDOWS
from opsboard.core.wire import (
    DaemonInfo,
    Engine,
    EngineDetail,
    EventInfo,
    Gpu,
    Incident,
    Latency,
    ReadingInfo,
    Status,
)
from opsboard.daemon.engine_track import NO_FIGURES, EngineTrack, Figures
from opsboard.daemon.pipeline import PipelineState
from opsboard.daemon.routes import route_infos
from opsboard.daemon.samples import total

BOARD_EVENTS = 16
_FIGURE_NAMES = Figures.__struct_fields__
_GPU_NAMES = tuple(name for name in Gpu.__struct_fields__ if name in GpuView.__struct_fields__)
_INCIDENT_NAMES = tuple(
    name for name in Incident.__struct_fields__ if name in incidents.Incident.__struct_fields__ and name != "evidence"
)


def status(
    state: PipelineState,
    daemon: DaemonInfo,
    now: Now,
    routes: Iterable[Route] = (),
    rolling: Rolling | None = None,
    *,
    channels: Iterable[ChannelHealth] = (),
) -> Status:
    """Return the whole board at ``now``; ``routes`` as configured, ``rolling`` is the restart under way."""
    newest = list(islice(reversed(state.events), BOARD_EVENTS))
    gpus = () if state.gpus is None else state.gpus.gpus
    return Status(
        time=now.wall,
        host=state.host,
        daemon=daemon,
        engines=tuple(engine(state, track, now) for track in state.engines.values()),
        gpus=tuple(map(gpu_line, gpus)),
        incidents=tuple(incident(one, silenced_until(state, one, now.wall)) for one in state.incidents.shown(now)),
        routes=route_infos(routes, states_of(state)),
        rolling=rolling,
        system=state.system,
        gpu_message=None if state.gpus is None else state.gpus.error,
        events=tuple(event_info(event) for event in reversed(newest)),
        channels=tuple(channels),
    )


def states_of(state: PipelineState) -> dict[str, EngineState]:
    """Return the state of every engine on the board."""
    return {name: state_of(track) for name, track in state.engines.items()}


def state_of(track: EngineTrack) -> EngineState:
    """Return an engine's state; one that was never seen is unreachable."""
    return track.state or (track.life.state if track.life is not None else EngineState.UNREACHABLE)


def engine(state: PipelineState, track: EngineTrack, now: Now) -> Engine:
    """Return one engine's line. Values that cannot be read any more are kept, with their age, for ``KEEP_S``."""
    spec, life, last, view = state.specs[track.name], track.life, track.last, track.fresh_view(now)
    figures = track.figures if view is not None else NO_FIGURES
    return Engine(
        name=track.name,
        kind=track.known_kind,
        model=None if track.view is None else track.view.model,
        version=None if track.view is None else track.view.version,
        supervised=track.supervised,
        restartable=spec.restartable,
        state=state_of(track).value,
        state_since=track.state_since,
        phase=None if life is None else life.phase,
        progress=None if life is None else life.progress,
        pid=_pid(track),
        started=_started(track),
        restarts=track.restarts if life is None else life.restarts,
        reading=ReadingInfo(
            outcome=None if last is None else last.outcome.value,
            age_s=track.age_s(now),
            error=None if last is None else last.error,
        ),
        running=None if view is None else view.running,
        waiting=None if view is None else view.waiting,
        kv_usage=None if view is None else view.kv_usage,
        kv_capacity_tokens=None if view is None else view.kv_capacity_tokens,
        rss_bytes=_whole(total(process.rss_bytes for process in track.processes)),
        gpu_memory_bytes=track.gpu_memory_bytes,
        url=track.url,
        message=track.message if last is not None or life is not None else "not read yet",
        hint=track.hint,
        restarted=track.restarted,
        exit_code=None if life is None else life.exit_code,
        cause=None if life is None else life.cause,
        until=None if life is None else life.until,
        drain_timeout_s=spec.drain_timeout_s,
        standby=track.standby,
        wake_s=track.wake_s,
        detectors=state.judging.standing(track.name),
        **{name: getattr(figures, name) for name in _FIGURE_NAMES},
    )


def gpu_line(gpu: GpuView) -> Gpu:
    """Return one GPU's line."""
    return Gpu(**{name: getattr(gpu, name) for name in _GPU_NAMES})


def incident(one: incidents.Incident, silenced: float | None = None) -> Incident:
    """Return an incident as JSON shows it; ``silenced`` until when (Unix s)."""
    return Incident(
        **{name: getattr(one, name) for name in _INCIDENT_NAMES},
        state=one.state,
        evidence=dict(one.evidence),
        silenced=silenced,
    )


def silenced_until(state: PipelineState, one: incidents.Incident, t: float) -> float | None:
    """Return until when (Unix s) an incident is kept quiet; None: it is not."""
    silence = state.silences.of(one, t) if one.open else None
    return None if silence is None else silence.end


def detail(state: PipelineState, name: str, now: Now) -> EngineDetail:
    """Return all that is known of one engine. Raises NotFound."""
    track = find(state, name)
    view, going = track.fresh_view(now), track.transaction
    return EngineDetail(
        engine=engine(state, track, now),
        latencies={} if view is None else _latencies(track),
        phases=() if track.life is None else track.life.phases,
        transaction=() if going is None else going.steps,
        transaction_kind=None if going is None else going.kind,
        processes=track.processes,
        finished={} if view is None else dict(view.finished),
        aliases={} if view is None else dict(view.aliases),
        events=tuple(event_info(event) for event in state.events if event.subject == f"engine/{name}"),
        command=state.specs[name].command,
    )


def find(state: PipelineState, name: str) -> EngineTrack:
    """Return an engine's memory. Raises NotFound, naming the engines there are."""
    track = state.engines.get(name)
    if track is None:
        raise no_engine(name, state.engines)
    return track


def event_info(event: Event) -> EventInfo:
    """Return an event as JSON shows it."""
    return EventInfo(t=event.t, subject=event.subject, kind=event.kind, text=event.text, severity=event.severity.value)


def _latencies(track: EngineTrack) -> dict[str, dict[str, Latency]]:
    found: dict[str, dict[str, Latency]] = {}
    for label, window_s in WINDOWS.items():
        for name, histogram in track.latencies(window_s).items():
            found.setdefault(name, {})[label] = latency(histogram)
    return found


def _pid(track: EngineTrack) -> int | None:
    if track.life is not None and track.life.pid is not None:
        return track.life.pid
    return track.processes[0].pid if track.processes else None


def _started(track: EngineTrack) -> float | None:
    if track.life is not None:
        return track.life.started
    return None if track.view is None else track.view.process_start


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)
