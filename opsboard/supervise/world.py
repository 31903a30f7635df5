"""What all keepers share: the daemon around them, and tasks whose failures are not lost."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, TypeVar

from opsboard.core.clock import Clock
from opsboard.core.model import CanaryOutcome, CanaryReading, Event, LifeView, Record, Restart, Severity, Transaction
from opsboard.core.text import sanitise
from opsboard.supervise.launch import LaunchSpec
from opsboard.supervise.ledger import Ledger

log = logging.getLogger("opsboard.supervise")

Wish = Literal["up", "down"]
T = TypeVar("T")
Begins = Callable[[], None]
"""Called when nothing speaks against what is asked, before anything is done; what it raises calls it off."""
PHASES_DEADLINE_S = 2.0
AGAIN_S = 1.0


def nobody() -> None:
    """Stand for a :data:`Begins` that nobody waits for."""


async def _no_objection(_spec: LaunchSpec) -> None:
    """Start wherever there is a port."""


async def _nothing_holds(_pids: Collection[int], _gpus: Sequence[str] | None, _deadline_s: float) -> str | None:
    """Trust that the memory of processes that are gone is free."""
    return None


async def _cannot_ask(engine: str) -> CanaryReading:
    return CanaryReading(engine=engine, outcome=CanaryOutcome.UNABLE, seconds=0.0, error="nobody asks here")


async def _unwritten(_restart: Restart) -> None:
    """Count restarts in memory only."""


class Inflight(NamedTuple):
    """``requests`` running and waiting in an engine, by a reading taken at ``read`` (seconds, any steady clock)."""

    requests: float
    read: float


class Surroundings(Record, frozen=True, kw_only=True):
    """What supervision asks of the rest of the daemon. The defaults ask nothing and forbid nothing."""

    room: Callable[[LaunchSpec], Awaitable[None]] = _no_objection
    """Raises SuperviseError, with a ``verdict``, when an engine cannot be started now."""
    cleared: Callable[[Collection[int], Sequence[str] | None, float], Awaitable[str | None]] = _nothing_holds
    """``cleared(pids, gpus, deadline_s)``: None when these processes hold no GPU memory any more, else who holds it."""
    golden: Callable[[str], Awaitable[CanaryReading]] = _cannot_ask
    """Asks an engine the fixed question whose answer must not change."""
    inflight: Callable[[str], Inflight | None] = lambda _name: None
    """What is under way in an engine by a reading not older than 3 s; None: not known."""
    version: Callable[[str], str | None] = lambda _name: None
    """The version of what serves, as its page tells."""
    serving_others: Callable[[str], str | None] = lambda _name: None
    """None when an engine may be taken out of service, else the sentence that says why not."""
    wedged: Callable[[Sequence[str] | None], str | None] = lambda _gpus: None
    """What a person must do to one of these GPUs before anything can run on it; None: nothing is known."""
    on_restart: Callable[[Restart], Awaitable[None]] = _unwritten
    """Writes a restart down that nobody asked for; returns when it is on disk, raises when it cannot be."""
    on_taken_back: Callable[[Restart], None] = lambda _restart: None
    """Hears that a restart which was written down is not begun: it counts no more."""
    on_forgiven: Callable[[str], None] = lambda _name: None
    """Hears that a person started an engine that was parked: what was counted for it counts no more."""
    on_transaction: Callable[[Transaction], None] = lambda _transaction: None
    """Hears of every start and restart that is over, of the last one again when a daemon begins."""


class World(Record, frozen=True, kw_only=True):
    """The daemon, seen from below. The callbacks are called on the loop, must not block and must not raise."""

    runtime_dir: Path
    clock: Clock
    ready_probe: Callable[[str], Awaitable[bool]]
    on_life: Callable[[LifeView], None]
    on_event: Callable[[Event], None]
    on_wish: Callable[[str, Wish], None]
    phase_seconds: Callable[[str], Awaitable[Mapping[str, float]]]
    around: Surroundings
    ledger: Ledger

    def tell(self, engine: str, kind: str, text: str, severity: Severity = Severity.INFO) -> None:
        """Put a line on an engine's timeline."""
        now = self.clock.now().wall
        self.on_event(Event(t=now, subject=f"engine/{engine}", kind=kind, text=sanitise(text), severity=severity))

    async def last_phases(self, engine: str) -> Mapping[str, float]:
        """Return what each phase of the last start took in seconds; empty when nobody knows."""
        try:
            async with asyncio.timeout(PHASES_DEADLINE_S):
                return await self.phase_seconds(engine)
        except Exception as error:  # noqa: BLE001  the progress bar is only rougher without it
            log.warning("engine %s: no record of earlier starts: %s", engine, error)
            return {}


async def insist(engine: str, work: Callable[[], Awaitable[T]]) -> T:
    """Return what ``work`` returns, tried again each time it raises: a machine that waits for an answer must get it."""
    first = True
    while True:
        try:
            return await work()
        except Exception as error:
            log.warning("engine %s: tried again in %g s: %r", engine, AGAIN_S, error, exc_info=first)
        first = False
        await asyncio.sleep(AGAIN_S)


class Crew:
    """Tasks of one owner. One that fails is logged and told, and touches no other."""

    def __init__(self, engine: str, world: World) -> None:
        """Work for ``engine``."""
        self._engine = engine
        self._world = world
        self._tasks: set[asyncio.Task[None]] = set()

    def do(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """Run ``work`` beside everything else."""
        task = asyncio.get_running_loop().create_task(work, name=f"supervise:{self._engine}")
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def dismiss(self) -> list[asyncio.Task[None]]:
        """Cancel all, and return them for those who want to wait."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        return tasks

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("engine %s: supervision failed", self._engine, exc_info=error)
            self._world.tell(self._engine, "supervision_failed", f"{type(error).__name__}: {error}", Severity.ERROR)
