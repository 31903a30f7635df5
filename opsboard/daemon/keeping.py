"""Keeps what detectors remember for the next daemon: written now and then and at the end, taken up at the start."""

from __future__ import annotations

import logging
from contextlib import AsyncExitStack
from pathlib import Path
from typing import NamedTuple

from opsboard.core.aside import Aside
from opsboard.core.clock import Clock
from opsboard.core.errors import StoreError
from opsboard.core.text import sanitise
from opsboard.daemon.memory import Recalled, life_of, pack, prepare, unpack
from opsboard.daemon.pipeline import PipelineState
from opsboard.daemon.tasks import on_grid
from opsboard.daemon.taskset import TaskSet
from opsboard.store.memory_files import MemoryFiles
from opsboard.supervise.processes import boot_id

log = logging.getLogger("opsboard.daemon")

KEEP_S = 60.0
"""What a killed daemon loses at most; counters of the engines go on, so that what they counted is not lost."""
LOOK_S = 2.0
"""A claim that was opened or closed is written so soon: a killed daemon neither forgets it nor makes it again."""
DISK_S = 5.0
"""How long a disk is waited for, at the start, at the end, and for one engine."""


class Written(NamedTuple):
    """What is in an engine's file: monotonic s of its last page and of the writing, and which detectors claimed."""

    read: float
    at: float
    claims: frozenset[str]


class Keeper:
    """Writes what detectors remember of each engine that was read since."""

    def __init__(self, clock: Clock, state: PipelineState, files: MemoryFiles) -> None:
        """Nothing was written yet."""
        self._clock = clock
        self._state = state
        self._files = files
        self._aside = Aside("memory")
        self._boot = boot_id()
        self._written: dict[str, Written] = {}
        self._failed = False

    async def recall(self) -> None:
        """Take up what the last daemon left. One that cannot be read in time is forgotten."""
        engines = list(self._state.engines)
        known, now = self._state.judging.known(), self._clock.now()

        def read() -> dict[str, Recalled | None]:
            prepare(known)
            self._files.keep(engines)
            return {name: unpack(data, known, self._boot, now) for name, data in self._files.read(engines)}

        try:
            found = await self._aside.do(read, DISK_S)
        except TimeoutError:
            log.warning("the disk does not answer: detectors begin anew")
            return
        for engine, recalled in found.items():
            if recalled is None:
                log.info("engine %s: what detectors remembered is of another boot or version: they begin anew", engine)
            else:
                self._state.judging.recall(engine, recalled)

    async def look(self) -> None:
        """Write what is due."""
        await self.keep(KEEP_S)

    async def keep(self, older_s: float = 0.0) -> None:
        """Write what has changed and is older than that, or claims something else. What fails is told once."""
        names = set(self._state.engines)
        gone = self._written.keys() - names
        self._written = {name: written for name, written in self._written.items() if name in names}
        try:
            for name in names:
                await self._keep(name, older_s)
            if gone:
                await self._aside.do(lambda: self._files.keep(names), DISK_S)
        except (StoreError, TimeoutError) as error:
            if not self._failed:
                why = sanitise(error.message if isinstance(error, StoreError) else "the disk does not answer")
                log.warning("what detectors remember cannot be kept for the next daemon: %s", why)
            self._failed = True
        else:
            self._failed = False

    async def _keep(self, name: str, older_s: float) -> None:
        track, judging, now = self._state.engines.get(name), self._state.judging, self._clock.now()
        if track is None or track.good_mono is None or judging.recalls(name):
            return
        claims = frozenset(finding.detector for finding in judging.claims(name))
        new, old = Written(track.good_mono, now.mono, claims), self._written.get(name)
        if old is not None and old.claims == claims and (old.read == new.read or now.mono - old.at < older_s):
            return
        data = pack(judging.minds(name), life_of(track), self._boot, now)
        await self._aside.do(lambda: self._files.write(name, data), DISK_S)
        self._written[name] = new


async def open_keeper(
    clock: Clock, state: PipelineState, state_dir: Path, tasks: TaskSet, ending: AsyncExitStack
) -> None:
    """Go on with what the last daemon's detectors knew, and keep it for the next one."""
    keeper = Keeper(clock, state, MemoryFiles(state_dir))
    await keeper.recall()
    tasks.add("memory", lambda: on_grid(LOOK_S, keeper.look))
    ending.push_async_callback(keeper.keep)
