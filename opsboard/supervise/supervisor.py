"""The engines of this host that opsboard starts and stops, each in the hands of its keeper."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path

from opsboard.core.clock import Clock
from opsboard.core.errors import NotFound, SuperviseError
from opsboard.core.model import EngineState, Event, LifeView, Severity
from opsboard.supervise import machine
from opsboard.supervise.adopt import examine
from opsboard.supervise.keeper import Keeper
from opsboard.supervise.launch import LaunchSpec
from opsboard.supervise.machine import Body
from opsboard.supervise.world import Surroundings, Wish, World

__all__ = ["LaunchSpec", "Supervisor", "Wish"]


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
    ) -> None:
        """Bundles lie in ``state_dir/engines/NAME``, sockets in ``runtime_dir``.

        ``ready_probe(url)`` tells whether an engine serves; ``on_life`` hears of every change, ``on_event`` of what a
        change of state does not tell; ``on_wish`` remembers what operators want and ``wishes`` is what they wanted
        before; ``phase_seconds(name)`` is how long each phase of the last start took. Callbacks run on the loop: they
        must not block and must not raise.
        """
        self._engines = state_dir / "engines"
        self._wishes = dict(wishes)
        self._world = World(
            runtime_dir=runtime_dir,
            clock=clock,
            ready_probe=ready_probe,
            on_life=on_life,
            on_event=on_event,
            on_wish=self._remember(on_wish),
            phase_seconds=phase_seconds,
            around=around or Surroundings(),
        )
        self._keepers = {spec.name: self._keeper(spec) for spec in specs}
        self._tasks: set[asyncio.Task[None]] = set()

    async def adopt_all(self) -> None:
        """Find out what runs, all engines at once, 2 s each at most; then start what starts by itself. Call it once."""
        await asyncio.gather(*(self._adopt(keeper) for keeper in self._keepers.values()))
        await self._tell_of_strangers()

    async def start(self, name: str, reason: str) -> None:
        """Start an engine; return when its process runs, which may be after the end of its last one.

        Raises:
            NotFound: no such engine.
            SuperviseError: it could not be started, and why.
        """
        keeper = self._of(name)
        life = keeper.view
        if keeper.body is Body.ALIVE and life.state is EngineState.FAILED:
            raise SuperviseError(f"{name} still runs as pid {life.pid}", hint=f"opsboard engine restart {name}")
        keeper.wish(machine.Start(), reason)
        await _begun(keeper)

    async def stop(self, name: str, reason: str) -> None:
        """Stop an engine; return when no process of it is left. Raises NotFound."""
        keeper = self._of(name)
        keeper.wish(machine.Stop(), reason)
        await keeper.settled()

    async def restart(self, name: str, reason: str) -> None:
        """Stop an engine, then start it; return when the new process runs. Raises as :meth:`start`.

        An engine that runs is not stopped when it is clear that it could not be started again.
        """
        keeper = self._of(name)
        if keeper.body is Body.ALIVE:
            await keeper.rehearse()
        keeper.wish(machine.Restart(), reason)
        await _begun(keeper)

    def apply(self, specs: Iterable[LaunchSpec]) -> None:
        """Take a new configuration, whole or not at all.

        New engines are looked for and start when they start by themselves; a changed one is told at its next start.

        Raises:
            SuperviseError: an engine that is to go still runs.
        """
        wanted = {spec.name: spec for spec in specs}
        leaving = [name for name in self._keepers if name not in wanted]
        running = [name for name in leaving if self._keepers[name].body is not Body.NOTHING]
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

    def life(self, name: str) -> LifeView:
        """Return what is known of an engine. Raises NotFound."""
        return self._of(name).view

    def processes(self, name: str) -> list[int]:
        """Return the pids of an engine's processes now, the main one first; without its shim. Raises NotFound."""
        return self._of(name).processes()

    def log_path(self, name: str) -> Path:
        """Return where an engine's output goes; the file may not be there yet. Raises NotFound."""
        return self._of(name).log_path

    async def close(self) -> None:
        """Let go of all engines, which run on."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(keeper.close() for keeper in self._keepers.values()))

    async def _adopt(self, keeper: Keeper) -> None:
        await keeper.adopt(self._wishes.get(keeper.spec.name))

    async def _tell_of_strangers(self) -> None:
        """Say so when an engine runs that the configuration does not name any more."""
        folders = await asyncio.to_thread(_folders, self._engines)
        for folder in folders:
            if folder.name in self._keepers:
                continue
            remains = await asyncio.to_thread(examine, folder)
            if remains is not None and remains.lives:
                pid = remains.main.pid if remains.main is not None else remains.others[0].pid
                text = f"runs as pid {pid} but is not in the configuration; it is left alone: name it again to stop it"
                self._world.tell(folder.name, "not_configured", text, Severity.WARNING)

    def _keeper(self, spec: LaunchSpec) -> Keeper:
        return Keeper(spec, self._engines / spec.name, self._world)

    def _of(self, name: str) -> Keeper:
        try:
            return self._keepers[name]
        except KeyError:
            raise NotFound(f"no supervised engine is called {name}", hint="`opsboard engine list` shows them") from None

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
    if keeper.error is not None:
        raise keeper.error


def _folders(path: Path) -> list[Path]:
    return sorted(folder for folder in path.iterdir() if folder.is_dir()) if path.is_dir() else []
