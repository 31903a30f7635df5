"""One engine as a detector sees it, told second by second."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from alerts.base import Detector, Observation
from opsboard.core.clock import ManualClock
from opsboard.core.connections import ConnectionReading
from opsboard.core.inflight import InflightRequest
from opsboard.core.model import (
    CanaryOutcome,
    CanaryReading,
    EngineReading,
    EngineState,
    EngineView,
    Finding,
    LifeView,
    Outcome,
    ProcessView,
)

if TYPE_CHECKING:
    import msgspec

NAME = "a"


def page(steps: float | None = None, *, start: float | None = 100.0, **gauges: Any) -> EngineReading:
    """Return a page: ``steps`` made, ten tokens each; None: it has no such counters."""
    counters = {} if steps is None else {"iterations": steps, "generation_tokens": 10 * steps}
    fields = {"running": 0.0, "waiting": 0.0, "kv_usage": 0.0, **gauges}
    view = EngineView(kind="vllm", process_start=start, counters=counters, **fields)
    return EngineReading(engine=NAME, outcome=Outcome.OK, view=view)


def failed(reason: str | None = "refused", error: str = "nothing listens there") -> EngineReading:
    """Return a page that could not be read."""
    return EngineReading(engine=NAME, outcome=Outcome.FAILED, reason=reason, error=error)


def process(pid: int, role: str) -> ProcessView:
    """Return one process of the engine."""
    return ProcessView(pid=pid, started=0.0, name=role, role=role, cpu_ratio=1.0)


WHOLE = (process(1, "api_server"), process(2, "engine_core"), process(3, "worker"))


class Watched:
    """An engine, a detector, a clock, and what was asked of the engine."""

    def __init__(self, detector: Detector, params: msgspec.Struct | None = None) -> None:
        self.clock = ManualClock()
        self.detector = detector
        self.state = detector.begin(params or detector.params())
        self.asked: list[float] = []
        """When a canary was asked for, in seconds since the beginning."""
        self.life: LifeView | None = None
        self.last: EngineReading | None = None
        self.processes: tuple[ProcessView, ...] = ()
        self.zombies: tuple[int, ...] = ()
        self.looked: float | None = None
        self.inflight: tuple[InflightRequest, ...] | None = None
        self.connected: list[float] | None = None
        """When others connected to it, in seconds since the beginning; None: nobody looks."""
        self._begin = self.clock.now().mono

    @property
    def elapsed(self) -> float:
        return self.clock.now().mono - self._begin

    def read(self, reading: EngineReading, after: float = 1.0) -> Finding | None:
        """Time passes and a page comes."""
        self.clock.advance(after)
        self.last = reading
        return self._step(fresh=True)

    def read_for(self, seconds: float, reading: EngineReading) -> Finding | None:
        """Read the same page every second."""
        found = None
        for _ in range(round(seconds)):
            found = self.read(reading)
        return found

    def look(self, *processes: ProcessView, zombies: tuple[int, ...] = ()) -> None:
        """Look at the processes; the next page tells what follows."""
        self.processes, self.zombies, self.looked = processes, zombies, self.clock.now().mono

    def hear(
        self, outcome: CanaryOutcome, seconds: float = 5.0, after: float = 0.0, reset: bool | None = None
    ) -> Finding | None:
        """Time passes and a canary comes back that was sent ``seconds`` ago."""
        self.clock.advance(after)
        return self._step(canary=CanaryReading(engine=NAME, outcome=outcome, seconds=seconds, reset=reset))

    def live(self, state: EngineState, started: float = 1.0, **fields: Any) -> Finding | None:
        """Supervision says something."""
        now = self.clock.now()
        if self.life is not None and (self.life.started != started or state is not EngineState.READY):
            self.last, self.processes, self.looked = None, (), None  # as EngineTrack does
        self.life = LifeView(engine=NAME, state=state, since=now.wall, supervised=True, started=started, **fields)
        return self._step()

    def _step(self, *, fresh: bool = False, canary: CanaryReading | None = None) -> Finding | None:
        clients = None
        if self.connected is not None:
            since = tuple(self._begin + at for at in sorted(self.connected, reverse=True))
            clients = ConnectionReading(engine=NAME, looked=self.clock.now().mono, since=since)
        seen = Observation(
            engine=NAME, now=self.clock.now(), reading=self.last, fresh=fresh, canary=canary, life=self.life,
            processes=self.processes, looked=self.looked, zombies=self.zombies, inflight=self.inflight,
            connections=clients,
        )  # fmt: skip
        self.state, finding, ask, _ = self.detector.step(self.state, seen)
        if ask:
            self.asked.append(self.elapsed)
        return finding
