"""The tasks that read: one an engine, one for the GPUs, one for the host. A slow one delays only itself."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from typing import Protocol

from collectors.process import ProcessReader, RoleOf
from opsboard.core.aside import Aside
from opsboard.core.clock import Clock
from opsboard.core.model import EngineReading, GpuReading, HostReading, LifeView, Outcome, ProcessReading
from opsboard.core.wire import Gpu
from opsboard.daemon.board import gpu_line
from opsboard.daemon.connected import Connected
from opsboard.daemon.engine_track import LIVING, SERVING
from opsboard.daemon.health import Health
from opsboard.daemon.parts import Parts
from opsboard.daemon.pipeline import PipelineState, Reading
from opsboard.daemon.recording import Recorders
from opsboard.daemon.tasks import Lag, on_grid
from opsboard.recording.lines import line

PROCESSES_EVERY_S = 5.0
"""Memory leaks by the hour and /proc is dear: read this often, and at every scrape while somebody records."""

SETTLES_S = 3.0
"""After news of an engine its processes are looked at at every tick: those who belong to it may show one by one."""

SPACING_S = 0.001
"""Between the wakes of two targets: about what one costs, so that the processor does not rest in between and its caches
stay warm (measured, eight engines: 2.0 % of a core at 5 ms, 1.55 % at 1 ms, 1.4 % at 0), and none waits long."""

AGAIN_S = 0.3
"""Between two looks, also at an engine of which a part has ended: what the first one claims the second confirms."""

HOST_S = 2.0
"""What the machine may take to say how it is."""

Factory = Callable[[], Awaitable[None]]


class Scraper(Protocol):
    """Reads one engine's page."""

    @property
    def kind(self) -> str | None:
        """What kind of engine it is: configured, or recognised from the first page."""

    async def scrape(self, *, keep_page: bool = False) -> EngineReading:
        """Return what the page says; never raises for foreign reasons."""


class Gpus(Protocol):
    """Reads all GPUs."""

    async def read(self) -> GpuReading:
        """Return what the driver says; never raises."""


class Host(Protocol):
    """Reads the machine."""

    def read(self) -> HostReading:
        """Return what the machine says; never raises."""


class EngineTarget:
    """Reads one engine: its page every interval, its processes every few seconds."""

    def __init__(
        self,
        name: str,
        scraper: Scraper,
        *,
        pids: Callable[[], Awaitable[int | Sequence[int]]],
        role_of: RoleOf,
        life: Callable[[], LifeView | None],
    ) -> None:
        """``pids`` finds the engine's processes: the root of their tree, or all of them; none when that is unknown.

        It raises OSError where they cannot be looked at.
        """
        self.name = name
        self.scraper = scraper
        self.pids = pids
        self.role_of = role_of
        self.life = life
        self.looked = -math.inf
        self._stage: object = None
        self._news = -math.inf

    def due(self, mono: float) -> bool:
        """Whether its processes are to be looked at now: at once when there is news of it, often at first, then rarely.

        News are a new life, that it has begun to serve, and of what kind it is (which tells roles).
        """
        life = self.life()
        stage = self.scraper.kind, None if life is None else (life.started, life.state in SERVING)
        if stage != self._stage:
            self._stage, self._news, self.looked = stage, mono, -math.inf
        if mono - self.looked < (AGAIN_S if mono - self._news < SETTLES_S else PROCESSES_EVERY_S):
            return False
        self.looked = mono
        return True

    @property
    def serves(self) -> bool:
        """Whether there can be a page: a supervised engine that is not up is not asked."""
        life = self.life()
        return life is None or life.state in SERVING

    @property
    def lives(self) -> bool:
        """Whether there can be processes."""
        life = self.life()
        return life is None or life.state in LIVING


class Collecting:
    """Makes the tasks. ``feed`` takes every reading at once."""

    def __init__(
        self,
        *,
        clock: Clock,
        state: PipelineState,
        feed: Callable[[Reading], None],
        recorders: Recorders,
        health: Health,
        interval_s: float,
        connected: Connected,
    ) -> None:
        """``interval_s`` is the grid of all targets; ``lag`` measures how late their wakes come.

        ``connected`` outlives it: it remembers since when somebody waits.
        """
        self.lag = Lag()
        self._clock = clock
        self._state = state
        self._feed = feed
        self._recorders = recorders
        self._health = health
        self._interval_s = interval_s
        self._processes = ProcessReader(clock=clock)
        self._host_looking = Aside("host")
        self._targets: dict[str, EngineTarget] = {}
        self._parts = Parts(self._part_has_ended)
        self._looks: set[asyncio.Task[None]] = set()
        self._connected = connected

    async def close(self) -> None:
        """Wait for no process any more."""
        for look in self._looks:
            look.cancel()
        await asyncio.gather(*self._looks, return_exceptions=True)
        await self._parts.close()

    def tasks(self, targets: Iterable[EngineTarget], gpus: Gpus, host: Host) -> dict[str, Factory]:
        """Return a factory a target, spread so that they do not all wake at once."""
        engines = list(targets)
        self._targets = {target.name: target for target in engines}
        named: dict[str, Callable[[], Awaitable[None]]] = {
            "collect:connections": self._connected.look,  # first: pages are judged with what it has seen
            "collect:host": lambda: self._host(host),
            "collect:gpus": lambda: self._gpus(gpus),
            **{f"collect:engine/{target.name}": self._engine(target) for target in engines},
        }
        spacing = min(SPACING_S / self._interval_s, 1 / len(named))
        return {name: self._grid(tick, index * spacing) for index, (name, tick) in enumerate(named.items())}

    def _grid(self, tick: Callable[[], Awaitable[None]], phase: float) -> Factory:
        return lambda: on_grid(self._interval_s, tick, phase=phase, lag=self.lag)

    def _engine(self, target: EngineTarget) -> Callable[[], Awaitable[None]]:
        async def tick() -> None:
            await self._look_if_due(target)
            if target.serves:
                reading = await target.scraper.scrape(keep_page=self._recorders.active)
                self._feed(reading)
                if self._recorders.active:
                    self._record(reading)

        return tick

    def hear(self, life: LifeView) -> None:
        """Look at the processes of an engine of which there is news: who ends in its first moments is known at once."""
        target = self._targets.get(life.engine)
        if target is not None and target.serves:
            self._soon(self._look_if_due(target))

    async def _look_if_due(self, target: EngineTarget) -> None:
        if not target.lives:
            return
        if target.due(self._clock.now().mono) or self._recorders.active:
            self._look(target, await _pids(target))

    def _look(self, target: EngineTarget, pids: int | Sequence[int] | str) -> None:
        if isinstance(pids, str):
            reading = ProcessReading(engine=target.name, outcome=Outcome.FAILED, error=pids)
        else:
            reading = self._processes.read(target.name, pids, target.role_of)
        self._feed(reading)
        if reading.outcome is not Outcome.FAILED:
            self._parts.follow(target.name, reading.processes)

    def _part_has_ended(self, name: str) -> None:
        self._soon(self._look_twice(name))

    def _soon(self, work: Coroutine[None, None, None]) -> None:
        look = asyncio.get_running_loop().create_task(work)
        self._looks.add(look)
        look.add_done_callback(self._looks.discard)

    async def _look_twice(self, name: str) -> None:
        for pause in (0.0, AGAIN_S):
            await asyncio.sleep(pause)
            target = self._targets.get(name)
            if target is not None and target.lives:
                self._look(target, await _pids(target))

    def _record(self, reading: EngineReading) -> None:
        track, now = self._state.engines.get(reading.engine), self._clock.now()
        gpus: tuple[Gpu, ...] = () if self._state.gpus is None else tuple(map(gpu_line, self._state.gpus.gpus))
        self._recorders.offer(
            line(
                reading,
                now.wall,
                processes=None if track is None or track.looked is None else track.processes,
                connections=None if track is None else track.connections(now),
                gpus=gpus,
                host=self._state.system,
                life=None if track is None else track.life,
                events=self._recorders.news(reading.engine),
                kind=None if reading.view is None else reading.view.kind,
            )
        )

    async def _gpus(self, gpus: Gpus) -> None:
        self._feed(await gpus.read())

    async def _host(self, host: Host) -> None:
        self._feed(self._health.read(self._clock.now()))
        try:  # statvfs of a dead network file system may hang for ever
            self._feed(await self._host_looking.do(host.read, HOST_S))
        except TimeoutError:
            error = f"the disk of the state directory did not answer within {HOST_S:g} s"
            self._feed(HostReading(outcome=Outcome.FAILED, error=error))


async def _pids(target: EngineTarget) -> int | Sequence[int] | str:
    """Return who belongs to an engine, or why that cannot be looked at."""
    try:
        return await target.pids()
    except OSError as error:
        return f"its processes cannot be looked at: {error}"
