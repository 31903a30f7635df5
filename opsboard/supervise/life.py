"""One life of an engine, watched from its launch (or its adoption) to its end.

What is seen goes to the owner's machine; nothing here decides. Where the shim is gone its work is done here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from typing import Protocol

from opsboard.core.aside import Aside
from opsboard.core.model import Severity
from opsboard.supervise import bundle, ports
from opsboard.supervise.adopt import Remains, survivors
from opsboard.supervise.launch import LaunchSpec, fingerprint
from opsboard.supervise.processes import Process, gone, tagged
from opsboard.supervise.rotate import rotate
from opsboard.supervise.runners.base import Place
from opsboard.supervise.runners.registry import named
from opsboard.supervise.situation import Answers, Body, Event, Gone
from opsboard.supervise.startup import StartUp, last_words
from opsboard.supervise.watching import all_gone, ended, record_for_the_shim
from opsboard.supervise.world import Crew, World, insist, log

LOOK_S = 0.25
READ_S = 2.0
PROBE_S = 0.5
PROBE_DEADLINE_S = 5.0
WITHOUT_SHIM_S = 5.0
_VISIBLE = 0.01  # progress that moves by less is not told
_NO_SHIM = "its shim is gone: how it ends will not be known; the next start gives it a new one"


class Owner(Protocol):
    """Whose life it is."""

    @property
    def body(self) -> Body:
        """What the machine believes there is."""
        ...

    def apply(self, event: Event) -> None:
        """Take in what was seen."""
        ...

    def reborn(self, remains: Remains) -> None:
        """Take the life that others began when this one had ended."""
        ...

    def publish(self) -> None:
        """Tell people if what they see has changed."""
        ...


class Life:
    """What is known of the present life, and the tasks that find it out."""

    def __init__(
        self,
        owner: Owner,
        spec: LaunchSpec,
        place: Place,
        world: World,
        *,
        remains: Remains,
        last_seconds: Mapping[str, float] | None,
    ) -> None:
        """``spec`` is what it was launched with; ``last_seconds`` by phase, None for a life that has been ready."""
        self.spec = spec
        self.remains = remains
        self.thief: str | None = None
        """Who answers at its port in its place."""
        self._note: str | None = None
        self.start_up: StartUp | None = None
        self._owner = owner
        self._place = place
        self._runner = named(remains.runner)
        self._attending: asyncio.Task[None] | None = None
        self._directory = directory = place.bundle
        self._log = directory / bundle.LOG
        self._world = world
        self._crew = Crew(spec.name, world)
        self._reading = Aside(f"log of {spec.name}")
        if last_seconds is not None:
            self.start_up = StartUp(self._log, remains.log_offset, last_seconds, remains.started)

    @property
    def note(self) -> str | None:
        """What people should know as long as it lives."""
        return "; ".join(filter(None, (self.thief, self._note))) or None

    def differs_from(self, spec: LaunchSpec) -> str | None:
        """Say so when the next life will be another one, as ``spec`` says; None when it will be like this one."""
        url = self.remains.url or spec.url
        same = (
            self.remains.argv_sha256 == fingerprint(spec.command)
            and (ports.port_of(url) or url) == (ports.port_of(spec.url) or spec.url)
            and self._runner.name == spec.runner
        )
        return None if same and self.spec == spec else "its configuration has changed: applies at the next start"

    def watch(self) -> None:
        """Begin."""
        if self._owner.body is Body.LEFT:
            self._crew.do(self._wait_for_the_left())
            return
        if self.start_up is not None:
            self._crew.do(self._see_it_start(self.start_up))
        self._crew.do(self._see_it_end())
        if self.remains.shim is not None:
            self._crew.do(self._see_shim_end(self.remains.shim))
        elif self._runner.name != "shim":
            tell = partial(self._world.tell, self.spec.name)
            attend = partial(self._runner.attend, self.spec, self._place, self.remains, tell)
            self._attending = self._crew.do(insist(self.spec.name, attend))
        elif self.remains.main is not None:
            self._go_on_without_shim()

    def close(self) -> list[asyncio.Task[None]]:
        """Stop watching; return the tasks that end now."""
        if self.start_up is not None:
            self.start_up.close()
        return self._crew.dismiss()

    # --- the start ---

    async def _see_it_start(self, start_up: StartUp) -> None:
        """Look at the log and ask the engine until it serves."""
        clock, probed, shown = self._world.clock, float("-inf"), (start_up.phase, 0.0, self.thief)
        while self._owner.body is Body.ALIVE:
            now = clock.now()
            await self._read(start_up)
            if now.mono - probed >= PROBE_S:
                probed = now.mono
                if await self._serves():
                    await self._read(start_up)  # what it said until it served
                    self._has_begun(start_up)
                    return
            seen = (start_up.phase, start_up.progress(now.wall), self.thief)
            if (seen[0], seen[2]) != (shown[0], shown[2]) or seen[1] - shown[1] >= _VISIBLE:
                shown = seen
                self._owner.publish()
            await asyncio.sleep(LOOK_S)

    async def _read(self, start_up: StartUp) -> None:
        try:
            await self._reading.do(partial(start_up.look, self._world.clock.now().wall), READ_S)
        except TimeoutError:
            log.debug("engine %s: its log was not read within %g s", self.spec.name, READ_S)
        except Exception:  # noqa: BLE001  the log only tells, the probe decides
            log.exception("engine %s: its log is not understood", self.spec.name)

    async def _serves(self) -> bool:
        url = self.remains.url or self.spec.url
        try:
            async with asyncio.timeout(PROBE_DEADLINE_S):
                answers = await self._world.ready_probe(url)
        except Exception as error:  # noqa: BLE001  a probe that fails says: not ready
            log.debug("engine %s: probe failed: %s", self.spec.name, error)
            answers = False
        thief = await self._thief_at(url) if answers else None
        if thief is not None and thief != self.thief:
            self._world.tell(self.spec.name, "port_taken", thief, Severity.WARNING)
        self.thief = thief
        return answers and thief is None

    async def _thief_at(self, url: str) -> str | None:
        remains = self.remains
        known = [one for one in (remains.main, remains.shim, *remains.others) if one is not None]
        try:
            async with asyncio.timeout(PROBE_DEADLINE_S):
                return await asyncio.to_thread(
                    ports.stranger_at, url, lambda: [*survivors(known), *tagged(remains.instance)]
                )
        except Exception as error:  # noqa: BLE001  what cannot be found out refuses nothing
            log.debug("engine %s: who answers at %s: %s", self.spec.name, url, error)
            return None

    def _has_begun(self, start_up: StartUp) -> None:
        if self._owner.body is not Body.ALIVE:
            return
        start_up.ready(self._world.clock.now().wall)
        self._owner.apply(Answers())

    # --- the end ---

    async def _see_it_end(self) -> None:
        await insist(self.spec.name, lambda: self._runner.over(self.spec, self._place, self.remains))
        if self._owner.body is Body.ENDING:
            return  # who ends it looks for himself what there is, and writes down who wanted it
        event = await insist(
            self.spec.name, lambda: self._runner.how_it_ended(self.spec, self._place, self._last_words)
        )
        if isinstance(event, Remains):
            self._owner.reborn(event)
            return
        self._owner.apply(event)
        if self._owner.body is Body.LEFT:
            await self._wait_for_the_left()
        elif self._attending is not None and self._owner.body is Body.NOTHING:
            self._attending.cancel()

    async def _wait_for_the_left(self) -> None:
        await insist(self.spec.name, lambda: all_gone(self._directory))
        if self._owner.body is Body.LEFT:
            self._owner.apply(Gone())
        if self._attending is not None:
            self._attending.cancel()

    def _last_words(self) -> str | None:
        try:
            if self.start_up is None:
                return last_words(self._log, self.remains.log_offset)
            self.start_up.look(self._world.clock.now().wall)
            return self.start_up.last_words()
        except Exception:  # noqa: BLE001  that it ended is worth more than why
            log.exception("engine %s: its log is not understood", self.spec.name)
            return None

    # --- the shim ---

    async def _see_shim_end(self, shim: Process) -> None:
        await insist(self.spec.name, lambda: ended(shim))
        main = self.remains.main
        if self._owner.body is Body.ALIVE and main is not None and not gone(main):
            self._go_on_without_shim()

    def _go_on_without_shim(self) -> None:
        if self.remains.by_hand:
            self._note = f"started by hand: its log is {self.remains.output or 'not known'} until it is restarted"
        else:
            self._note = _NO_SHIM
            self._world.tell(self.spec.name, "shim_gone", _NO_SHIM, Severity.WARNING)
        self._crew.do(self._stand_in_for_the_shim())
        self._owner.publish()

    async def _stand_in_for_the_shim(self) -> None:
        """Keep the log small and the record of processes true."""
        while self._owner.body is not Body.NOTHING:
            try:
                await asyncio.to_thread(rotate, str(self._log), self.spec.log_bytes, self.spec.log_files)
                await asyncio.to_thread(record_for_the_shim, self._directory)
            except Exception as error:  # noqa: BLE001  the engine goes on, and so does this
                log.warning("engine %s: no shim, and its work cannot be done: %s", self.spec.name, error)
            await asyncio.sleep(WITHOUT_SHIM_S)
