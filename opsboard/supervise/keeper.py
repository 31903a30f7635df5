"""One engine in the hands of the daemon: its machine, and the tasks that carry out what the machine decides.

All of it runs on one event loop, and only :meth:`Keeper._apply` changes the situation: there is one writer.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from pathlib import Path
from typing import Literal

from opsboard.core.clock import Clock
from opsboard.core.errors import SuperviseError
from opsboard.core.model import EngineState, Event, LifeView, Record, Severity
from opsboard.core.text import sanitise
from opsboard.supervise import bundle, machine
from opsboard.supervise.adopt import Remains, Roster, examine, examine_within
from opsboard.supervise.launch import LaunchSpec, launch
from opsboard.supervise.machine import Body, Command, Found, Situation
from opsboard.supervise.processes import Process, look
from opsboard.supervise.rotate import rotate
from opsboard.supervise.startup import StartUp, last_words
from opsboard.supervise.stopping import end_life
from opsboard.supervise.watching import (
    all_gone,
    ended,
    exited,
    how_it_ended,
    record_for_the_shim,
    remember_ready,
)

log = logging.getLogger("opsboard.supervise")

Wish = Literal["up", "down"]
LOOK_S = 0.25
PROBE_S = 0.5
PROBE_DEADLINE_S = 5.0
PHASES_DEADLINE_S = 2.0
WITHOUT_SHIM_S = 5.0
ADOPT_S = 2.0
ADOPT_AGAIN_S = 5.0
END_AGAIN_S = 1.0
CLOSE_S = 3.0
_VISIBLE = 0.01  # progress that moves by less is not told


class World(Record, frozen=True, kw_only=True):
    """What all keepers share. The callbacks are called on the loop, must not block and must not raise."""

    runtime_dir: Path
    clock: Clock
    ready_probe: Callable[[str], Awaitable[bool]]
    on_life: Callable[[LifeView], None]
    on_event: Callable[[Event], None]
    on_wish: Callable[[str, Wish], None]
    phase_seconds: Callable[[str], Awaitable[Mapping[str, float]]]


class Keeper:
    """Owns one engine. Made at daemon start or by a reload; :meth:`adopt` comes first."""

    def __init__(self, spec: LaunchSpec, directory: Path, world: World) -> None:
        """``directory`` is the engine's bundle."""
        self.spec = spec
        self.log_path = directory / bundle.LOG
        self._directory = directory
        self._world = world
        self._situation = Situation(since=world.clock.now().wall)
        self._roster = Roster(directory)
        self._running: LaunchSpec | None = None
        self._remains: Remains | None = None
        self._start_up: StartUp | None = None
        self._note: str | None = None
        self._reason = ""
        self._error: SuperviseError | None = None
        self._instance: str | None = None
        self._restarts = 0
        self._told: LifeView | None = None
        self._launching: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._life: list[asyncio.Task[None]] = []
        self._moved = asyncio.Event()

    # --- what others see ---

    @property
    def body(self) -> Body:
        """What there is of the engine."""
        return self._situation.body

    @property
    def view(self) -> LifeView:
        """What is known now."""
        now = self._world.clock.now().wall
        situation, remains, start_up = self._situation, self._remains, self._start_up
        main = remains.main if remains is not None and situation.body in {Body.ALIVE, Body.ENDING} else None
        starting = start_up if situation.state is EngineState.STARTING else None
        return LifeView(
            engine=self.spec.name,
            state=situation.state,
            since=situation.since,
            supervised=True,
            pid=main.pid if main else None,
            pgid=main.group if main else None,
            started=remains.started if remains is not None and main else None,
            restarts=self._restarts,
            phase=starting.phase if starting else None,
            progress=starting.progress(now) if starting else None,
            phases=start_up.phases if start_up else (),
            message=self._message(),
            exit_code=situation.exit_code,
        )

    def processes(self) -> list[int]:
        """Return the pids of the engine's processes now, the main one first; no shim. Costs a few file reads."""
        if self.body is Body.NOTHING or self._remains is None:
            return []
        main = self._remains.main.pid if self._remains.main is not None else None
        return sorted((process.pid for process in self._roster.living()), key=lambda pid: (pid != main, pid))

    # --- what others do ---

    async def adopt(self, wish: Wish | None) -> None:
        """Find out what there is of the engine and go on from there.

        Starts it when it is not there, is to start by itself, and no operator stopped it.
        """
        now = self._world.clock.now()
        try:
            remains = await examine_within(self._directory, ADOPT_S)
            found = self._found(remains)
        except TimeoutError:
            remains, found = None, Found(unsure=f"could not be looked at within {ADOPT_S:g} s; looking again")
        except OSError as error:
            remains, found = None, Found(unsure=f"cannot be looked at: {error.strerror or error}")
        self._hold(remains)
        wanted = None if wish is None else wish == "up"
        if remains is not None and remains.again is not None:
            wanted = remains.again
        last_seconds = await self._phase_seconds() if found.alive and not found.was_ready else {}
        self._reason = "goes on with what was asked before the daemon restarted"
        self._take(*machine.adopt(found, wanted=wanted, ready_timeout_s=self.spec.ready_timeout_s, now=now))
        if found.alive and remains is not None and remains.main is not None:
            self._running = self.spec
            self._event("adopted", f"found running as pid {remains.main.pid}")
            self._follow(remains, None if found.was_ready else last_seconds)
        elif found.left:
            self._live(self._wait_for_the_left())
        elif found.unsure is not None:
            self._live(self._adopt_later(wish))
            return
        if self.spec.autostart and wish != "down" and self.body in {Body.NOTHING, Body.LEFT}:
            self._reason = "autostart"
            self._apply(machine.Start())

    def wish(self, event: machine.Start | machine.Stop | machine.Restart, reason: str) -> None:
        """Decide what a wish means and remember it. Returns before anything is done; :meth:`settled` waits."""
        self._reason, self._error = reason, None
        self._apply(event)
        self._world.on_wish(self.spec.name, "down" if isinstance(event, machine.Stop) else "up")

    async def settled(self) -> None:
        """Return when the machine waits for nothing any more: no launch and no end is out.

        Raises:
            SuperviseError: a launch failed.
        """
        while self.body in {Body.LAUNCHING, Body.ENDING}:
            self._moved.clear()
            await self._moved.wait()
        if self._error is not None:
            raise self._error

    def change(self, spec: LaunchSpec) -> None:
        """Take a new configuration; what runs goes on with the old one until its next start."""
        self.spec = spec
        self._publish()

    async def close(self) -> None:
        """Stop looking. The engine and its shim go on; an end that is under way is finished by the shim."""
        if self._launching is not None:  # takes 0.05 s, and ends by itself
            await asyncio.wait([self._launching], timeout=CLOSE_S)
        tasks = [*self._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._start_up is not None:
            self._start_up.close()

    # --- the machine ---

    def _apply(self, event: machine.Event) -> None:
        situation, commands = machine.step(self._situation, event, self._world.clock.now())
        self._take(situation, commands)

    def _take(self, situation: Situation, commands: list[Command]) -> None:
        self._situation = situation
        self._moved.set()
        if Command.LAUNCH in commands:
            self._instance = str(uuid.uuid4())
        self._remember_stop()
        for command in commands:
            if command is Command.LAUNCH:
                self._running = self.spec
                self._launching = self._task(self._launch(self.spec, self._instance or ""))
            else:
                self._task(self._end(self._running or self.spec))
        self._publish()

    async def _launch(self, spec: LaunchSpec, instance: str) -> None:
        self._leave_life()
        last_seconds = await self._phase_seconds()
        try:
            before = await asyncio.to_thread(examine, self._directory)
            life = before.life + 1 if before else 1
            await launch(spec, self._directory, self._world.runtime_dir, instance=instance, life=life)
        except SuperviseError as error:
            self._error = error
        except Exception as error:  # the machine waits for an answer, whatever happened
            log.exception("engine %s: start failed", spec.name)
            self._error = SuperviseError(f"{type(error).__name__}: {sanitise(str(error))}", permanent=False)
        remains = await self._look_again()
        self._hold(remains)
        if self._error is not None and (remains is None or not remains.lives):
            hint = f" ({self._error.hint})" if self._error.hint else ""
            self._apply(machine.LaunchFailed(f"{self._error.message}{hint}"))
        elif remains is not None:
            self._error = None
            self._apply(machine.Launched(spec.ready_timeout_s))
            self._follow(remains, last_seconds)

    async def _look_again(self) -> Remains | None:
        """Return what is there after a launch; one that succeeded has left something, however slow the disk is."""
        while True:
            try:
                remains = await examine_within(self._directory, ADOPT_S)
            except (TimeoutError, OSError):
                remains = None
            if remains is not None or self._error is not None:
                return remains
            await asyncio.sleep(END_AGAIN_S)

    async def _end(self, spec: LaunchSpec) -> None:
        remains = None
        while True:
            try:
                await end_life(self._directory, spec.stop_timeout_s, self._reason, self._survived)
                remains = await asyncio.to_thread(examine, self._directory)
                break
            except OSError as error:  # nothing may be started before this has worked
                self._survived(f"cannot be stopped: {error}")
                await asyncio.sleep(END_AGAIN_S)
        self._leave_life()
        self._apply(exited(remains))
        self._apply(machine.Gone())

    def _survived(self, message: str) -> None:
        if self._situation.message != message:
            self._event("survivors", message, Severity.ERROR)
        self._apply(machine.Survived(message))

    # --- one life ---

    def _follow(self, remains: Remains, last_seconds: Mapping[str, float] | None) -> None:
        """Begin to watch a life; ``last_seconds`` None means that it has been ready."""
        if self.body not in {Body.ALIVE, Body.ENDING}:
            return
        if last_seconds is not None:
            self._start_up = StartUp(self.log_path, remains.log_offset, last_seconds, remains.started)
            self._live(self._see_it_start(remains, self._start_up))
        self._live(self._see_it_end(remains))
        if remains.shim is not None:
            self._live(self._see_shim_end(remains.shim))
        elif remains.main is not None:
            self._without_shim()

    async def _see_it_start(self, remains: Remains, start_up: StartUp) -> None:
        """Look at the log and ask the engine until it serves."""
        clock, probed, shown = self._world.clock, float("-inf"), (start_up.phase, 0.0)
        while self.body is Body.ALIVE:
            now = clock.now()
            start_up.look(now.wall)
            if now.mono - probed >= PROBE_S:
                probed = now.mono
                if await self._probe():
                    self._has_begun(remains, start_up)
                    return
                self._apply(machine.Tick())
            seen = (start_up.phase, start_up.progress(now.wall))
            if seen[0] != shown[0] or seen[1] - shown[1] >= _VISIBLE:
                shown = seen
                self._publish()
            await asyncio.sleep(LOOK_S)

    def _has_begun(self, remains: Remains, start_up: StartUp) -> None:
        if self.body is not Body.ALIVE:
            return
        start_up.ready(self._world.clock.now().wall)
        try:
            remember_ready(self._directory, remains.instance)
        except OSError as error:
            log.warning("engine %s: cannot remember that it was ready: %s", self.spec.name, error)
        self._apply(machine.Ready())

    async def _probe(self) -> bool:
        url = (self._running or self.spec).url
        try:
            async with asyncio.timeout(PROBE_DEADLINE_S):
                return await self._world.ready_probe(url)
        except Exception as error:  # noqa: BLE001  a probe that fails says: not ready
            log.debug("engine %s: probe failed: %s", self.spec.name, error)
            return False

    async def _see_it_end(self, remains: Remains) -> None:
        if remains.main is not None:
            await ended(remains.main)
        words = await asyncio.to_thread(self._last_words, remains)
        event = await how_it_ended(self._directory, words)
        self._apply(event)
        if self.body is Body.LEFT:
            await self._wait_for_the_left()

    async def _wait_for_the_left(self) -> None:
        await all_gone(self._directory)
        if self.body is Body.LEFT:
            self._apply(machine.Gone())

    async def _see_shim_end(self, shim: Process) -> None:
        await ended(shim)
        if self.body is Body.ALIVE and self._remains is not None and self._remains.main is not None:
            main = self._remains.main
            if main.same_as(look(main.pid)):
                self._without_shim()

    def _without_shim(self) -> None:
        """Go on alone: the shim is gone, the engine is not."""
        self._note = "its shim is gone: how it ends will not be known; the next start gives it a new one"
        self._event("shim_gone", self._note, Severity.WARNING)
        self._live(self._stand_in_for_the_shim())
        self._publish()

    async def _stand_in_for_the_shim(self) -> None:
        """Keep the log small and the record of processes true."""
        while self.body is not Body.NOTHING:
            spec = self._running or self.spec
            try:
                await asyncio.to_thread(rotate, str(self.log_path), spec.log_bytes, spec.log_files)
                self._hold(await asyncio.to_thread(record_for_the_shim, self._directory))
            except OSError as error:
                log.warning("engine %s: no shim, and its work cannot be done: %s", self.spec.name, error)
            await asyncio.sleep(WITHOUT_SHIM_S)

    async def _adopt_later(self, wish: Wish | None) -> None:
        await asyncio.sleep(ADOPT_AGAIN_S)
        self._life.clear()  # this task is the only one of a life that nobody knows
        if self.body is Body.LEFT:
            await self.adopt(wish)

    def _last_words(self, remains: Remains) -> str | None:
        if self._start_up is not None:
            self._start_up.look(self._world.clock.now().wall)
            return self._start_up.last_words()
        return last_words(self.log_path, remains.log_offset)

    async def _phase_seconds(self) -> Mapping[str, float]:
        try:
            async with asyncio.timeout(PHASES_DEADLINE_S):
                return await self._world.phase_seconds(self.spec.name)
        except Exception as error:  # noqa: BLE001  the bar is only rougher without it
            log.warning("engine %s: no record of earlier starts: %s", self.spec.name, error)
            return {}

    def _found(self, remains: Remains | None) -> Found:
        if remains is None:
            return Found()
        known = remains.exit
        over = remains.same_boot and not remains.lives
        crashed = over and (known is None or known.message is None)
        words = last_words(self.log_path, remains.log_offset) if crashed else None
        return Found(
            alive=remains.main is not None,
            left=tuple(process.pid for process in remains.others) if remains.main is None else (),
            ending=remains.ending,
            was_ready=remains.was_ready,
            age_s=max(0.0, self._world.clock.now().wall - remains.started),
            ended=exited(remains, words) if crashed or remains.lives else None,
            never_began=known.message if over and known is not None else None,
            ended_by_us=over and remains.again is not None,
        )

    def _remember_stop(self) -> None:
        """Keep beside the life that it is to end: a daemon that is killed now must not lose an operator's stop."""
        situation = self._situation
        to_end = situation.body is Body.ENDING or (situation.body is Body.LAUNCHING and not situation.wanted)
        try:
            if to_end and self._instance is not None:
                record = {"protocol": bundle.PROTOCOL, "instance": self._instance, "again": situation.wanted}
                bundle.write(str(self._directory), bundle.STOP, record)
            elif situation.body is Body.LAUNCHING:
                bundle.remove(str(self._directory), bundle.STOP)
        except OSError as error:
            log.warning("engine %s: cannot write down that it is to stop: %s", self.spec.name, error)

    # --- telling ---

    def _message(self) -> str | None:
        notes = [self._situation.message]
        if self._situation.body is Body.ALIVE:
            notes.append(self._note)
            if self._running is not None and self._running != self.spec:
                notes.append("its configuration has changed: applies at the next start")
        return sanitise("; ".join(note for note in notes if note)) or None

    def _publish(self) -> None:
        view = self.view
        if view != self._told:
            self._told = view
            self._world.on_life(view)

    def _event(self, kind: str, text: str, severity: Severity = Severity.INFO) -> None:
        now = self._world.clock.now().wall
        subject = f"engine/{self.spec.name}"
        self._world.on_event(Event(t=now, subject=subject, kind=kind, text=sanitise(text), severity=severity))

    # --- tasks ---

    def _hold(self, remains: Remains | None) -> None:
        self._remains = remains
        if remains is not None:
            self._instance = remains.instance
            self._restarts = max(0, remains.life - 1)

    def _task(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work, name=f"supervise:{self.spec.name}")
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("engine %s: supervision failed", self.spec.name, exc_info=error)
            self._event("supervision_failed", f"{type(error).__name__}: {error}", Severity.ERROR)

    def _live(self, work: Coroutine[None, None, None]) -> None:
        """Run a task that ends with the life."""
        self._life.append(self._task(work))

    def _leave_life(self) -> None:
        for task in self._life:
            task.cancel()
        self._life.clear()
        if self._start_up is not None:
            self._start_up.close()
        self._start_up, self._note, self._remains = None, None, None
