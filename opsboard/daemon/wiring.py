"""The only place that builds the daemon's objects, and the order in which they begin and end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket as sockets
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from collectors.host import HostReader
from collectors.nvml import GpuReader
from opsboard.config.detectors import settings
from opsboard.config.load import Loaded, parse_listen
from opsboard.config.places import private_dir
from opsboard.config.policies import in_force
from opsboard.config.schema import Config, Exporter, Route
from opsboard.core.clock import Clock
from opsboard.core.errors import ConfigError, Conflict, OpsboardError
from opsboard.core.model import Record, Severity
from opsboard.core.registry import detectors
from opsboard.core.routes import last_target
from opsboard.core.version import __version__
from opsboard.core.wire import DaemonInfo, Status
from opsboard.daemon import board
from opsboard.daemon.access import Access, open_access
from opsboard.daemon.actions import Actions, Crew
from opsboard.daemon.adopting import Adopting, Around
from opsboard.daemon.canaries import Canaries
from opsboard.daemon.cards import CARDS_S, Cards
from opsboard.daemon.collecting import Collecting
from opsboard.daemon.connected import Connected
from opsboard.daemon.control import Control
from opsboard.daemon.engine_set import EngineSet, Joining
from opsboard.daemon.finder import find_for_ever
from opsboard.daemon.fixed import refuse_fixed
from opsboard.daemon.flow import Flow
from opsboard.daemon.gpu_room import GpuRoom
from opsboard.daemon.health import Health, stale_s
from opsboard.daemon.holders import Holders
from opsboard.daemon.incident_desk import Desk, open_desk
from opsboard.daemon.keeping import open_keeper
from opsboard.daemon.keys import Keys
from opsboard.daemon.messenger import Messenger
from opsboard.daemon.notify import Notifier
from opsboard.daemon.observed import local_port
from opsboard.daemon.pipeline import EVENTS_KEPT, EngineSpec, PipelineState
from opsboard.daemon.planned import LOOK_S, Planned
from opsboard.daemon.policing import POLICY_S, barred, open_policing
from opsboard.daemon.recording import Recorders
from opsboard.daemon.routes import route_infos
from opsboard.daemon.signs import Signs
from opsboard.daemon.specs import ages, load_whole, store_limits
from opsboard.daemon.standby import STANDBY_S, Standby
from opsboard.daemon.subscribers import Newest
from opsboard.daemon.supervising import heed, surroundings
from opsboard.daemon.targets import engine_targets, ready_probe
from opsboard.daemon.tasks import TaskBook, on_grid
from opsboard.daemon.taskset import TaskSet
from opsboard.daemon.telling_desk import TellingDesk
from opsboard.daemon.wishes import Wishes
from opsboard.httpc.fetch import Fetcher
from opsboard.httpc.fetch import Limits as FetchLimits
from opsboard.httpd import Server, refuse_served, serve
from opsboard.store.store import Store
from opsboard.supervise.budget import FUTILE_S, Budget
from opsboard.supervise.processes import age_s
from opsboard.supervise.rolling import RollingRestarts
from opsboard.supervise.supervisor import ENGINES, Supervisor

log = logging.getLogger("opsboard.daemon")

PROBE_S = 3.0


class Options(Record, frozen=True, kw_only=True):
    """What the command line says beyond the configuration."""

    state_dir: Path
    socket: Path
    read_only: bool = False
    """Look only: no supervision, no actions; what runs here is found besides what is configured."""
    urls: tuple[str, ...] = ()
    """Look at these and at nothing else."""
    stop_engines: bool = False


class Daemon:
    """One daemon. :meth:`run` is its whole life."""

    def __init__(
        self, loaded: Loaded, options: Options, clock: Clock, notifier: Notifier, redact: Callable[[Config], None]
    ) -> None:
        """Build what needs neither disk nor loop. ``redact`` tells the log which secrets there are."""
        self._loaded = loaded
        self._options = options
        self._clock = clock
        self._notifier = notifier
        self._redact = redact
        self._started = clock.now().wall
        interval_s = loaded.config.collect.interval
        self._engines = EngineSet(options.urls, read_only=options.read_only)
        self.state = PipelineState(loaded.config.host.name or sockets.gethostname(), self._engines.specs(loaded.config))
        self.state.judging.configure(settings(loaded.config, detectors().found))
        self._health = Health(stale_s(interval_s))
        self._book = TaskBook()
        self._recorders = Recorders()
        self._newest = Newest(lambda: msgspec.json.encode(self.status()) + b"\n")
        self._control: Server | None = None
        self._exporter: Server | None = None
        self._reloading = asyncio.Lock()
        self._fetcher = self._make_fetcher(loaded.config)
        self._gpus = GpuReader(clock=clock)
        self._holders = Holders(self._gpus, self.state.pids_by_engine, options.state_dir / ENGINES, clock)
        self._host = HostReader(options.state_dir)
        self._supervisor: Supervisor | None = None
        self._standby: Standby | None = None
        self._rolling: RollingRestarts | None = None
        self._store: Store
        self._flow: Flow
        self._desk: Desk
        self._messenger: Messenger
        self._signs: Signs
        self._collecting: Collecting
        self._connected: Connected
        self._canaries: Canaries
        self._tasks: TaskSet

    # --- what there is ------------------------------------------------------------------------------------------------

    def status(self) -> Status:
        """Return the board now."""
        rolling = None if self._rolling is None else self._rolling.under_way
        return board.status(
            self.state, self._info(), self._clock.now(), self._routes(), rolling, channels=self._messenger.health()
        )

    def _routes(self) -> tuple[Route, ...]:
        return () if self._options.urls else self._loaded.config.route

    def _serving_others(self, name: str) -> str | None:
        return last_target(name, route_infos(self._routes(), board.states_of(self.state)))

    def _info(self) -> DaemonInfo:
        health, itself = self._store.health(), self.state.itself
        return DaemonInfo(
            version=__version__,
            pid=os.getpid(),
            started=self._started,
            cpu_ratio=itself.cpu_ratio,
            rss_bytes=itself.rss_bytes,
            scrape_lag_s=self._collecting.lag.worst_s,
            dropped=health.dropped + self._recorders.dropped,
            recorded=health.recorded,
            message=health.message,
            interval_s=float(self._loaded.config.collect.interval),
            loop_gap_s=itself.loop_gap_s,
            read_only=self._options.read_only,
        )

    # --- the life -----------------------------------------------------------------------------------------------------

    async def run(self, stop: asyncio.Event) -> None:
        """Begin, collect until ``stop`` is set, end in order. Engines live on, unless told otherwise.

        Raises:
            OpsboardError: the daemon cannot begin, and why.
            ExceptionGroup: with a TaskGaveUp, when a task failed too often.
        """
        async with contextlib.AsyncExitStack() as ending, asyncio.TaskGroup() as group:
            self._tasks = TaskSet(group, self._book)
            async with self._reloading:  # one asked for too early waits
                await self._begin(ending)
            self._notifier.ready(f"{len(self.state.engines)} engines")
            try:
                await stop.wait()
            finally:
                self._notifier.stopping()
                await self._end()

    async def _begin(self, ending: contextlib.AsyncExitStack) -> None:
        config = self._loaded.config
        await self._open_store(config, ending)
        self._flow = Flow(self._clock, self.state, self._store, self._newest, self._recorders)
        self._desk = await open_desk(self._clock, self.state, self._store, self._flow, ending)
        self._messenger = Messenger(self._clock, self.state, self._store, self._flow, self._tasks)
        await self._messenger.begin(self._loaded, ending)
        self._signs = Signs(
            self._clock,
            self.state,
            self._health,
            store=self._store.health,
            channels=self._messenger.health,
            notifier=self._notifier,
        )
        self._messenger.mqtt.wrong = self._signs.wrong
        self._flow.tell("daemon", f"opsboard {__version__} began, {len(self.state.engines)} engines")
        ending.push_async_callback(self._gpus.close)
        ending.push_async_callback(lambda: self._fetcher.close())  # noqa: PLW0108  a reload replaces it
        self._connected = Connected(self.state, self._clock, self._flow.reading)
        self._collecting = self._make_collecting(config)
        ending.push_async_callback(lambda: self._collecting.close())  # noqa: PLW0108  a reload replaces it
        # A daemon that could not be reached must not start engines either.
        access = open_access(config.control, self._options.socket.parent)
        refuse_served(self._options.socket)
        self._exporter = await self._open_exporter(config.exporter)
        self._canaries = Canaries(self.state, self._key_of, self._flow.reading)
        ending.push_async_callback(self._canaries.close)
        if not self._options.read_only:
            self._flow.on_canaries = self._canaries.ask
            engines_dir, runtime_dir = self._options.state_dir / ENGINES, self._options.socket.parent
            await self._engines.read_taken(engines_dir, runtime_dir, self._flow.tell)
            self.state.configure(self._engines.specs(config))
            self._engines.tell_passed_over(config, self._flow.tell)
            await self._open_supervisor(config, ending)
        adopting = None if self._supervisor is None else self._make_adopting(self._supervisor)
        if adopting is not None:
            ending.push_async_callback(adopting.close)
        crew = None
        if self._supervisor is not None and self._standby is not None and self._rolling is not None:
            crew = Crew(hands=self._supervisor, beds=self._standby, rolls=self._rolling)
        keys = Keys(await self._store.keys(), self._store.key)
        actions = Actions(self._clock, self.state.specs, crew, self._flow.event, self._store.audit, keys=keys)
        self._messenger.mqtt.act = actions.ask
        ending.push_async_callback(actions.close)
        await open_keeper(self._clock, self.state, self._options.state_dir, self._tasks, ending)
        self._collect()
        self._tasks.add("loop", self._health.probe)
        self._tasks.add("publish", lambda: on_grid(config.collect.interval, self._publish))
        self._signs.configure(config.heartbeat, self._tasks)
        if self._options.read_only and not self._options.urls:
            self._tasks.add("find", lambda: find_for_ever(self._fetcher, self._found))
        self._control = await self._open_control(access, actions, adopting)

    async def _end(self) -> None:
        """Take no more work, then stop reading; the exit stack ends what is below, the store last."""
        for server in (self._control, self._exporter):
            if server is not None:
                await server.close()
        await self._tasks.close()
        if self._options.stop_engines and self._supervisor is not None:
            names = [spec.name for spec in self.state.specs.values() if spec.supervised]
            await asyncio.gather(
                *(self._supervisor.stop(name, "the daemon ends") for name in names), return_exceptions=True
            )
        self._flow.tell("daemon", "opsboard ends" if self._options.stop_engines else "opsboard ends; engines run on")

    async def _open_store(self, config: Config, ending: contextlib.AsyncExitStack) -> None:
        private_dir(self._options.state_dir)
        self._store = await asyncio.to_thread(
            Store.open, self._options.state_dir, self._clock, store_limits(config), host=self.state.host
        )
        ending.push_async_callback(self._store.close)
        if notice := self._store.health().message:
            log.warning("%s", notice)
        self.state.events.extend(await self._store.events(limit=EVENTS_KEPT))

    async def _open_supervisor(self, config: Config, ending: contextlib.AsyncExitStack) -> None:
        # The uuids of cards are needed only by engines that are given some.
        wanted = any(engine.gpus for engine in config.engine)
        gpus = await self._gpus.read() if wanted else None
        probe = Fetcher(FetchLimits(connect_s=1.0, total_s=PROBE_S))
        ending.push_async_callback(probe.close)
        space = GpuRoom(self._gpus, self.state, self._options.state_dir, self._clock)
        asked, others = self._canaries, self._serving_others
        around = surroundings(self.state, self._store, self._clock, space=space, canaries=asked, serving_others=others)
        wishes = Wishes(self._store.wish, self._flow.tell)
        ending.push_async_callback(wishes.close)
        budget = Budget()
        self._supervisor = Supervisor(
            self._options.state_dir,
            self._options.socket.parent,
            self._clock,
            self._engines.launches(config, gpus),
            ready_probe=ready_probe(probe, self.state.engines.values),
            on_life=self._flow.life,
            on_event=self._flow.event,
            phase_seconds=self._store.phase_seconds,
            on_wish=wishes.remember,
            wishes=self._engines.wishes(await self._store.wishes()),
            around=around,
            restarts=await self._store.restarts(self._clock.now().wall - max(budget.window_s, FUTILE_S)),
            unclean=self._store.unclean,
            budget=budget,
        )
        self.state.recall([one for name in self.state.specs for one in await self._store.transitions(name, limit=1)])
        self._flow.on_finding = self._supervisor.finding
        ending.push_async_callback(self._supervisor.close)
        await self._supervisor.adopt_all()
        planned = Planned(
            self._clock,
            ages=lambda: ages(self._loaded.config),
            life=self._supervisor.life,
            age_s=age_s,
            past=self._store,
            renew=self._supervisor.renew,
            tell=self._flow.tell,
        )
        self._tasks.add("planned", lambda: on_grid(LOOK_S, planned.look))
        supervisor = self._supervisor
        cards = Cards(
            reading=lambda: self.state.gpus,
            now=lambda: supervisor.specs,
            anew=lambda known: self._engines.launches(self._loaded.config, known),
            apply=supervisor.apply,
            lock=self._reloading,
        )
        self._tasks.add("cards", lambda: on_grid(CARDS_S, cards.look))
        self._standby = standby = Standby(
            self._clock,
            self.state,
            self._options.state_dir / ENGINES,
            engines=self._supervisor,
            asked=asked,
            standbys=lambda: {engine.name for engine in self._loaded.config.engine if engine.standby},
            inflight=around.inflight,
            tell=self._flow.tell,
            past=self._store,
        )
        self._flow.on_life += [standby.hear, lambda life: self._collecting.hear(life)]  # noqa: PLW0108  a reload replaces it
        ending.push_async_callback(standby.close)
        self._rolling = rolling = RollingRestarts(
            self._clock,
            self._supervisor,
            keep=lambda rolling: heed(self._store.rolling(rolling)),
            tell=self._flow.tell,
        )
        ending.push_async_callback(rolling.close)
        rolling.resume(await self._store.last_rolling())
        self._tasks.add("standby", lambda: on_grid(STANDBY_S, standby.look))
        policing = await open_policing(
            self._clock,
            self.state,
            self._supervisor,
            self._store,
            ending,
            policies=lambda: in_force(self._loaded.config),
            routes=lambda: route_infos(self._routes(), board.states_of(self.state)),
            barred=lambda: barred(rolling.under_way, self._store.health()),
            carry=self._flow.incident,
        )
        self._tasks.add("policies", lambda: on_grid(POLICY_S, policing.look))

    def _key_of(self, name: str) -> Mapping[str, str]:
        return self._engines.key_of(self._loaded.config, name)

    def _make_adopting(self, supervisor: Supervisor) -> Adopting:
        joining = Joining(self._engines, self.state, supervisor, lambda: self._loaded.config, self._engines_changed)
        around = Around(
            clock=self._clock,
            engines=self._options.state_dir / ENGINES,
            runtime_dir=self._options.socket.parent,
            config=lambda: self._loaded.config,
            fetcher=lambda: self._fetcher,
            taken=lambda: self._engines.taken,
            supervised=joining.supervised,
            take=joining.take,
            let_go=joining.let_go,
            tell=self._flow.event,
            audit=self._store.audit,
            lock=self._reloading,
        )
        return Adopting(around)

    async def _open_control(self, access: Access, actions: Actions, adopting: Adopting | None) -> Server:
        control = Control(
            clock=self._clock,
            state=self.state,
            status=self.status,
            past=self._store,
            newest=self._newest,
            recorders=self._recorders,
            desk=self._desk,
            telling=TellingDesk(self._clock, self._messenger, self._store.outbox, self._store),
            act=actions.ask,
            rolling=lambda: None if self._rolling is None else self._rolling.last,
            cancel_rolling=actions.cancel_rolling,
            adopting=adopting,
            log_path=self._log_path,
            reload=lambda peer: actions.reload(self.reload, peer),
            healthy=self._signs.turning,
            rights=access.allowed,
        )
        return await serve(control.handle, unix=self._options.socket, mode=access.mode, gid=access.gid)

    async def _open_exporter(self, wanted: Exporter | None) -> Server | None:
        if wanted is None:
            return None
        from opsboard.daemon.exporter import Exporter as Pages  # noqa: PLC0415  costs memory that most daemons can save

        host, port = parse_listen(self._loaded.path, "exporter.listen", wanted.listen)
        pages = Pages(self.status, lambda: self._book.restarts)
        try:
            return await serve(pages.handle, host=host, port=port)
        except OSError as error:
            reason = error.strerror or str(error)
            raise ConfigError(f"[exporter] listen: cannot listen on {wanted.listen}: {reason}") from error

    # --- what the tasks do --------------------------------------------------------------------------------------------

    def _make_fetcher(self, config: Config) -> Fetcher:
        timeout = config.collect.timeout
        return Fetcher(FetchLimits(connect_s=min(1.0, timeout), total_s=timeout))

    def _make_collecting(self, config: Config) -> Collecting:
        return Collecting(
            clock=self._clock,
            state=self.state,
            feed=self._flow.reading,
            recorders=self._recorders,
            health=self._health,
            interval_s=config.collect.interval,
            connected=self._connected,
        )

    def _collect(self) -> None:
        """Begin to read what is known now, in the place of what was read before."""
        specs, kind_of = self.state.specs.values(), self.state.kind_of
        targets = engine_targets(specs, self._fetcher, self._supervisor, self._clock, kind_of)
        self._tasks.replace("collect:", self._collecting.tasks(targets, self._holders, self._host))

    def _engines_changed(self) -> None:
        self._collect()
        self._newest.publish_soon()

    def _found(self, specs: list[EngineSpec]) -> None:
        """Take what runs here besides what is configured."""
        configured = self._engines.specs(self._loaded.config)
        places = {local_port(spec.url or "") for spec in configured}
        names = {spec.name for spec in configured}
        others = [spec for spec in specs if local_port(spec.url or "") not in places and spec.name not in names]
        self.state.configure([*configured, *others])
        self._engines_changed()

    async def _publish(self) -> None:
        self._newest.publish()

    def _log_path(self, name: str) -> Path | None:
        spec = self.state.specs.get(name)
        return self._supervisor.log_path(name) if self._supervisor and spec and spec.supervised else None

    # --- reload -------------------------------------------------------------------------------------------------------

    async def reload(self) -> None:
        """Apply the changed file, whole or not at all. Raises what is wrong with it; the old one then stays."""
        async with self._reloading:
            self._notifier.reloading(self._clock.now().mono)
            try:
                await self._reload()
            except OpsboardError as error:
                self._flow.tell("reload_refused", f"{error.message}; the old one stays", Severity.WARNING)
                raise
            finally:
                self._notifier.ready(f"{len(self.state.engines)} engines")

    async def _reload(self) -> None:
        path = self._loaded.path
        if path is None or self._options.read_only:
            raise Conflict("there is no configuration file to read again", hint="start the daemon with --config FILE")
        new = await asyncio.to_thread(load_whole, path)
        old = self._loaded.config
        refuse_fixed(old, new.config)
        exporter = self._exporter
        if new.config.exporter != old.exporter:
            exporter = await self._open_exporter(new.config.exporter)
        try:
            gpus = await self._gpus.read() if any(engine.gpus for engine in new.config.engine) else None
            if self._supervisor is not None:
                self._supervisor.apply(self._engines.launches(new.config, gpus))
        except BaseException:  # who asked may have left, too
            if exporter is not None and exporter is not self._exporter:
                await exporter.close()
            raise
        self._loaded = new
        self._redact(new.config)
        self._messenger.configure(new)
        self._signs.configure(new.config.heartbeat, self._tasks)
        self._store.apply(store_limits(new.config))
        self.state.judging.configure(settings(new.config, detectors().found))
        self.state.configure(self._engines.specs(new.config))
        old_exporter, self._exporter = self._exporter, exporter
        old_fetcher, self._fetcher = self._fetcher, self._make_fetcher(new.config)
        old_collecting, self._collecting = self._collecting, self._make_collecting(new.config)
        self._health.stale_s = stale_s(new.config.collect.interval)
        self._collect()
        self._tasks.add("publish", lambda: on_grid(new.config.collect.interval, self._publish))
        self._engines.tell_passed_over(new.config, self._flow.tell)
        self._flow.tell("reloaded", f"{path}: {len(new.config.engine)} engines")
        try:
            await old_collecting.close()
            await old_fetcher.close()
        finally:
            if old_exporter is not None and old_exporter is not exporter:
                await old_exporter.close()
