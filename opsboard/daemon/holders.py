"""The GPUs, and who holds memory of them besides the engines on the board."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

import msgspec

from opsboard.core.aside import Aside
from opsboard.core.clock import Clock
from opsboard.core.model import GpuProcess, GpuReading, Record
from opsboard.daemon.collecting import Gpus
from opsboard.supervise.orphans import ours
from opsboard.supervise.who import Who, who

AGAIN_S = 30.0
"""How often those that stay are looked up anew: a pid may be another's by then."""
ANSWER_S = 1.0
"""An account may come from a directory server: the reading does not wait longer for its name."""


class Found(Record, frozen=True):
    """Who was looked up, and whose last life left it behind."""

    who: Who
    left: str | None = None


class Holders:
    """Reads GPUs as the reader below does, and names the processes that are no engine's."""

    def __init__(
        self, gpus: Gpus, pids_by_engine: Callable[[], Mapping[str, Collection[int]]], engines: Path, clock: Clock
    ) -> None:
        """``engines`` is the directory of all bundles."""
        self._gpus = gpus
        self._pids_by_engine = pids_by_engine
        self._engines = engines
        self._clock = clock
        self._found: dict[int, Found] = {}
        self._looked = float("-inf")
        self._asked: frozenset[int] = frozenset()
        self._aside = Aside("holders")

    async def read(self) -> GpuReading:
        """Return what the driver says; never raises."""
        reading = await self._gpus.read()
        known = {pid for pids in self._pids_by_engine().values() for pid in pids}
        strange = frozenset(
            process.pid
            for gpu in reading.gpus
            for process in gpu.processes
            # A pid without memory may be one of another PID namespace.
            if process.memory_bytes is not None and process.pid not in known
        )
        await self._look_up(strange)
        if not strange & self._found.keys():
            return reading
        named = tuple(
            msgspec.structs.replace(gpu, processes=tuple(map(self._named, gpu.processes))) for gpu in reading.gpus
        )
        return msgspec.structs.replace(reading, gpus=named)

    async def _look_up(self, strange: frozenset[int]) -> None:
        mono = self._clock.now().mono
        self._found = {pid: found for pid, found in self._found.items() if pid in strange}
        if not strange or (strange == self._asked and mono - self._looked < AGAIN_S):
            return
        self._asked, self._looked = strange, mono
        with contextlib.suppress(TimeoutError, OSError):  # who they are is not known, then
            self._found = await self._aside.do(lambda: _found(strange, self._engines), ANSWER_S)

    def _named(self, process: GpuProcess) -> GpuProcess:
        found = self._found.get(process.pid) if process.memory_bytes is not None else None
        if found is None:
            return process
        return msgspec.structs.replace(process, name=found.who.name, user=found.who.user, left=found.left)


def _found(pids: Collection[int], engines: Path) -> dict[int, Found]:
    known = ours(engines)
    serving = {pid for of_one in known.serving.values() for pid in of_one}
    left = {orphan.pid: orphan.engine for orphan in known.left}
    return {pid: Found(who(pid), left.get(pid)) for pid in pids if pid not in serving}
