"""The engines of this host that opsboard starts and stops, each in the hands of its keeper."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path

from opsboard.core.clock import Clock
from opsboard.core.errors import Conflict, SuperviseError
from opsboard.core.model import EngineState, Event, FindingChange, LifeView, Restart, Severity
from opsboard.core.nearest import no_engine
from opsboard.supervise import situation
from opsboard.supervise.adopt import examine
from opsboard.supervise.budget import Budget
from opsboard.supervise.keeper import Keeper
from opsboard.supervise.launch import LaunchSpec
from opsboard.supervise.ledger import OBSERVE_S, Ledger
from opsboard.supervise.runners.registry import began
from opsboard.supervise.situation import Body
from opsboard.supervise.world import Begins, Surroundings, Wish, World, log, nobody

__all__ = ["LaunchSpec", "Supervisor", "Surroundings", "Wish"]

ENGINES = "engines"
"""Where the bundles lie below the state directory."""
DETECTORS = frozenset({"stall", "engine_down"})
"""Findings that supervision acts on: that an engine does not work, whatever its health page says."""
_RUNNING = frozenset({EngineState.STARTING, EngineState.READY, EngineState.DRAINING})


class Supervisor:
    """Starts, stops, restarts and adopts. Closing it touches no engine."""

    def __init__(
        self,
        state_dir: Path,
        runtime_dir: Path,
        clock: Clock,
        specs: Iterable[LaunchSpec],
        *,
        ready_probe: Callable[[str], Awaitable[bool]],
        on_life: Callable[[LifeView], None],
        on_event: Callable[[Event], None],
        phase_seconds: Callable[[str], Awaitable[Mapping[str, float]]],
        on_wish: Callable[[str, Wish], None],
        wishes: Mapping[str, Wish],
        around: Surroundings | None = None,
        restarts: Iterable[Restart] = (),
        unclean: bool = False,
        budget: Budget | None = None,
    ) -> None:
        """Bundles lie in ``state_dir/engines/NAME``, sockets in ``runtime_dir``.

        ``ready_probe(url)`` tells whether an engine serves; ``on_life`` hears of every change, ``on_event`` of what a
        change of state does not tell; ``on_wish`` remembers what operators want and ``wishes`` is what they wanted
        before; ``phase_seconds(name)`` is how long each phase of the last start took. ``restarts`` are those that
        count against the ``budget``, and after an ``unclean`` end of the last daemon automation only looks for a
        while. Callbacks run on the loop: they must not block and must not raise.
        """
        now = clock.now()
        self.not_before = now.mono + OBSERVE_S if unclean else float("-inf")
        """Seconds of the monotonic clock: until then only looked at, unless somebody asks."""
        self._engines = state_dir / ENGINES
        self._wishes = dict(wishes)
        self._stops = Counter[str]()
        self._world = World(
            runtime_dir=runtime_dir,
            clock=clock,
            ready_probe=ready_probe,
            on_life=on_life,
            on_event=on_event,
            on_wish=self._remember(on_wish),
            phase_seconds=phase_seconds,
            around=around or Surroundings(),
            ledger=Ledger(budget or Budget(), restarts, now=now, not_before=self.not_before),
        )
        self._keepers = {spec.name: self._keeper(spec) for spec in specs}
        self._tasks: set[asyncio.Task[None]] = set()

    async def adopt_all(self) -> None:
        """Find out what runs, all engines at once, 2 s each at most; then start what starts by itself. Call it once."""
        await asyncio.gather(*(self._adopt(keeper) for keeper in self._keepers.values()))
        await self._tell_of_strangers()

    async def start(self, name: str, reason: str, *, begins: Begins = nobody) -> None:
        """Start an engine; return when its process runs, which may be after the end of its last one.

        Here and below ``begins`` is called when nothing speaks against it, before anything is done.

        Raises:
            NotFound: no such engine.
            SuperviseError: it could not be started, and why; not when opsboard tries again by itself.
        """
        keeper = await self._known(name)
        life = keeper.view
        if keeper.body is Body.ALIVE and life.state is EngineState.FAILED:
            raise SuperviseError(f"{name} still runs as pid {life.pid}", hint=f"opsboard engine restart {name}")
        begins()
        keeper.wish(situation.Start(reason), reason)
        await _begun(keeper)

    async def stop(self, name: str, reason: str, *, begins: Begins = nobody) -> None:
        """Stop an engine; return when no process of it is left. Raises NotFound."""
        keeper = await self._known(name, surely=False)
        begins()
        self._stops[name] += 1
        keeper.wish(situation.Stop(reason), reason)
        await keeper.settled()

    async def restart(self, name: str, reason: str, *, now: bool = False, begins: Begins = nobody) -> None:
        """Let what is under way end, stop an engine, start it; return when the new process runs.

        An engine that runs is not stopped when it is clear that it could not be started again, nor, without ``now``,
        when nobody else serves what it serves; ``now`` ends what is under way, too. Raises as :meth:`start`, and
        Conflict.
        """
        keeper = await self._known(name)
        hint, stops = f"opsboard engine restart {name} --now", self._stops[name]
        if not now:
            self.check_last(name, hint)
        if keeper.body is Body.ALIVE:
            await keeper.rehearse()
            if self._stops[name] != stops:  # the later wish counts
                raise Conflict(f"{name} was stopped meanwhile", hint=f"opsboard engine start {name}")
            if not now:  # others may be on their way out meanwhile
                self.check_last(name, hint)
        begins()
        keeper.wish(situation.Restart(reason, now), reason)
        await _begun(keeper)

    async def begun(self, name: str) -> bool:
        """Return when nothing is under way: True when it serves, or would if it were not out of service by a wish.

        Raises NotFound.
        """
        keeper = self._of(name)
        await keeper.begun()
        return keeper.sound

    def wish(self, name: str) -> Wish | None:
        """Return what an operator wanted of an engine last; None where nobody said anything."""
        return self._wishes.get(name)

    async def renew(self, name: str, reason: str) -> None:
        """Restart an engine because it is time to, by ourselves: drained, counted, and only where another one serves.

        Returns when it has been begun. Raises NotFound, Conflict, SuperviseError.
        """
        keeper = self._of(name)
        if keeper.view.state is not EngineState.READY:
            raise Conflict(f"{name} is {keeper.view.state.word}: only what serves is restarted by age")

        def begins() -> None:  # others may be on their way out meanwhile
            self.check_last(name, "it is tried again")

        begins()
        await keeper.rehearse()
        await keeper.renew(reason, begins)

    async def drain(self, name: str, reason: str, *, now: bool = False, begins: Begins = nobody) -> None:
        """Take an engine out of service; it goes on with what is under way. Raises NotFound, Conflict."""
        keeper = await self._known(name, surely=False)
        if keeper.view.state not in _RUNNING:
            raise Conflict(f"{name} is {keeper.view.state.word}: only an engine that serves can be drained")
        if not now:
            self.check_last(name, f"opsboard engine drain {name} --now")
        begins()
        keeper.wish(situation.Drain(reason), reason)

    async def undrain(self, name: str, reason: str, *, begins: Begins = nobody) -> None:
        """Bring an engine back into service, or call off a restart that still drains. Raises NotFound, Conflict."""
        keeper = await self._known(name, surely=False)
        if keeper.view.state not in _RUNNING:
            raise Conflict(f"{name} is {keeper.view.state.word}: there is nothing to bring back")
        begins()
        keeper.wish(situation.Undrain(reason), reason)

    def finding(self, change: FindingChange) -> None:
        """Hear what a detector claims: a confirmed claim that an engine does not work restarts it."""
        finding = change.finding
        keeper = self._keepers.get(finding.engine)
        if keeper is None or finding.detector not in DETECTORS:
            return
        sure = change.open and finding.confirmed
        cause = f"{finding.detector}: {finding.summary}"
        keeper.apply(situation.Accused(cause=cause) if sure else situation.Acquitted())

    def check_last(self, name: str, hint: str) -> None:
        """Raise Conflict when an engine is the last that serves a route; NotFound."""
        if self._of(name).view.state is not EngineState.READY:
            return
        why_not = self._world.around.serving_others(name)
        if why_not is not None:
            raise Conflict(why_not, hint=hint)

    @property
    def specs(self) -> list[LaunchSpec]:
        """What would be started of each engine now."""
        return [keeper.spec for keeper in self._keepers.values()]

    def apply(self, specs: Iterable[LaunchSpec]) -> None:
        """Take a new configuration, whole or not at all.

        New engines are looked for and start when they start by themselves; a changed one is told at its next start.

        Raises:
            SuperviseError: an engine that is to go still runs.
        """
        wanted = {spec.name: spec for spec in specs}
        leaving = [name for name in self._keepers if name not in wanted]
        running = [name for name in leaving if self._keepers[name].holds]
        if running:
            raise SuperviseError(
                f"{', '.join(running)}: still running, cannot leave the configuration",
                hint=f"stop it first: opsboard engine stop {' '.join(running)}",
            )
        for name in leaving:
            self._task(self._keepers.pop(name).close())
        for name, spec in wanted.items():
            if name in self._keepers:
                self._keepers[name].change(spec)
            else:
                self._keepers[name] = self._keeper(spec)
                self._task(self._adopt(self._keepers[name]))

    async def take_over(self, spec: LaunchSpec) -> None:
        """Own an engine that runs already and whose life is written down in its bundle; it is wanted from now on."""
        self._world.on_wish(spec.name, "up")
        self._keepers[spec.name] = self._keeper(spec)
        await self._adopt(self._keepers[spec.name])

    def release(self, name: str) -> None:
        """Let go of an engine; what runs of it runs on. Raises NotFound, Conflict while something is under way."""
        keeper = self._of(name)
        if keeper.busy:
            raise Conflict(f"{name} is {keeper.view.state.word}", hint="wait until that is over")
        self._task(self._keepers.pop(name).close())

    def life(self, name: str) -> LifeView:
        """Return what is known of an engine. Raises NotFound."""
        return self._of(name).view

    def processes(self, name: str) -> list[int]:
        """Return the pids of an engine's processes now, the main one first; without its shim.

        Reads its bundle and /proc, from any thread. Raises NotFound, and OSError when they cannot be looked at.
        """
        return self._of(name).processes()

    def log_path(self, name: str) -> Path | None:
        """Return where an engine's output goes, be it there yet or not; None where nothing brings it here.

        Raises NotFound.
        """
        keeper = self._of(name)
        elsewhere = keeper.spec.runner == "command" and not keeper.spec.logs_command
        return None if elsewhere and not _size(keeper.log_path) else keeper.log_path

    async def close(self) -> None:
        """Let go of all engines, which run on."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(keeper.close() for keeper in self._keepers.values()))

    async def _adopt(self, keeper: Keeper) -> None:
        try:
            await keeper.adopt(self._wishes.get(keeper.spec.name))
        except Exception as error:  # noqa: BLE001  it must not keep the daemon from the others
            log.exception("engine %s: cannot be adopted", keeper.spec.name)
            text = f"cannot be adopted: {type(error).__name__}: {error}"
            self._world.tell(keeper.spec.name, "supervision_failed", text, Severity.ERROR)

    async def _tell_of_strangers(self) -> None:
        """Say so when an engine runs that the configuration does not name any more."""
        folders = await asyncio.to_thread(_folders, self._engines)
        for folder in folders:
            if folder.name in self._keepers:
                continue
            try:
                remains = await asyncio.to_thread(examine, folder)
            except OSError as error:
                text = f"is not in the configuration, and it cannot be found out whether it runs: {error}"
                self._world.tell(folder.name, "not_configured", text, Severity.WARNING)
                continue
            if remains is not None and remains.lives and not began(folder, "shim").replaces:
                pid = remains.main.pid if remains.main is not None else remains.others[0].pid
                text = f"runs as pid {pid} but is not in the configuration; it is left alone: name it again to stop it"
                self._world.tell(folder.name, "not_configured", text, Severity.WARNING)

    def _keeper(self, spec: LaunchSpec) -> Keeper:
        return Keeper(spec, self._engines / spec.name, self._world)

    async def _known(self, name: str, *, surely: bool = True) -> Keeper:
        """Return who has an engine when that has been looked for. Raises NotFound, and Conflict: not ``surely`` so."""
        await self._of(name).looked.wait()
        keeper = self._of(name)  # a reload may have let go of it meanwhile
        if surely and keeper.unsure:
            text = f"{name} may run, nobody knows: {keeper.view.message}"
            raise Conflict(text, hint=f"wait, or `opsboard engine stop {name}` ends what there is")
        return keeper

    def _of(self, name: str) -> Keeper:
        try:
            return self._keepers[name]
        except KeyError:
            raise no_engine(name, self._keepers) from None

    def _remember(self, on_wish: Callable[[str, Wish], None]) -> Callable[[str, Wish], None]:
        def remember(name: str, wish: Wish) -> None:
            self._wishes[name] = wish
            on_wish(name, wish)

        return remember

    def _task(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _begun(keeper: Keeper) -> None:
    await keeper.settled()
    if keeper.error is not None and keeper.view.state is not EngineState.BACKING_OFF:  # else it is tried again
        raise keeper.error


def _folders(path: Path) -> list[Path]:
    return sorted(folder for folder in path.iterdir() if folder.is_dir()) if path.is_dir() else []


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
