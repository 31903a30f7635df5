"""The end of an engine's parts, heard from the kernel: an EngineCore that dies is known before its page fails."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from opsboard.core.model import ProcessView
from opsboard.supervise.processes import look
from opsboard.supervise.watching import ended

PARTS = frozenset({"api_server", "engine_core", "worker"})
"""Roles without which an engine does not serve."""


class Parts:
    """Waits for the ends of processes. ``gone(engine)`` is called once for each, on the loop."""

    def __init__(self, gone: Callable[[str], None]) -> None:
        """Wait for nobody yet."""
        self._gone = gone
        self._waits: dict[str, dict[int, asyncio.Task[None]]] = {}

    def follow(self, engine: str, processes: Iterable[ProcessView]) -> None:
        """Wait for the parts among ``processes``, which are all that the engine has now."""
        waits = self._waits.setdefault(engine, {})
        present = {process.pid for process in processes if process.role in PARTS}
        for pid in [pid for pid, wait in waits.items() if wait.done() or pid not in present]:
            waits.pop(pid).cancel()
        for pid in present - waits.keys():
            waits[pid] = asyncio.get_running_loop().create_task(self._wait(engine, pid))

    async def _wait(self, engine: str, pid: int) -> None:
        try:
            process = look(pid)
        except OSError:  # the next look at the engine brings it here again
            return
        if process is not None:
            await ended(process)
        self._gone(engine)

    async def close(self) -> None:
        """Wait for nobody any more."""
        waits = [wait for waits in self._waits.values() for wait in waits.values()]
        self._waits.clear()
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
