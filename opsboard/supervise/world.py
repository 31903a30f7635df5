"""What all keepers share: the daemon around them, and tasks whose failures are not lost."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from pathlib import Path
from typing import Literal

from opsboard.core.clock import Clock
from opsboard.core.model import Event, LifeView, Record, Severity
from opsboard.core.text import sanitise

log = logging.getLogger("opsboard.supervise")

Wish = Literal["up", "down"]
PHASES_DEADLINE_S = 2.0


class World(Record, frozen=True, kw_only=True):
    """The daemon, seen from below. The callbacks are called on the loop, must not block and must not raise."""

    runtime_dir: Path
    clock: Clock
    ready_probe: Callable[[str], Awaitable[bool]]
    on_life: Callable[[LifeView], None]
    on_event: Callable[[Event], None]
    on_wish: Callable[[str, Wish], None]
    phase_seconds: Callable[[str], Awaitable[Mapping[str, float]]]

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
