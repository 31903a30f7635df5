"""One engine in the hands of the daemon: its machine, and the commands that the machine gives carried out.

All of it runs on one event loop, and only :meth:`Keeper.apply` changes the situation: there is one writer.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Mapping
from pathlib import Path

from opsboard.core.errors import SuperviseError
from opsboard.core.model import EngineState, LifeView, Severity
from opsboard.core.text import sanitise
from opsboard.supervise import bundle, machine
from opsboard.supervise.adopt import Remains, Roster, examine, examine_within
from opsboard.supervise.launch import LaunchSpec, fingerprint, launch, rehearse
from opsboard.supervise.life import Life
from opsboard.supervise.machine import Body, Command, Found, Situation
from opsboard.supervise.startup import last_words
from opsboard.supervise.stopping import end_life
from opsboard.supervise.watching import exited
from opsboard.supervise.world import Crew, Wish, World, log

ADOPT_S = 2.0
ADOPT_AGAIN_S = 5.0
END_AGAIN_S = 1.0
CLOSE_S = 3.0


class Keeper:
    """Owns one engine. Made at daemon start or by a reload; :meth:`adopt` comes first."""

    def __init__(self, spec: LaunchSpec, directory: Path, world: World) -> None:
        """``directory`` is the engine's bundle."""
        self.spec = spec
        self.log_path = directory / bundle.LOG
        self.error: SuperviseError | None = None
        """Why the last launch failed, None when it did not."""
        self._directory = directory
        self._world = world
        self._situation = Situation(since=world.clock.now().wall)
        self._life: Life | None = None
        self._instance: str | None = None
        self._restarts = 0
        self._reason = ""
        self._told: LifeView | None = None
        self._roster = Roster(directory)
        self._crew = Crew(spec.name, world)
        self._launching: asyncio.Task[None] | None = None
        self._moved = asyncio.Event()

    # --- what others see ---

    @property
    def body(self) -> Body:
        """What there is of the engine."""
        return self._situation.body

    @property
    def view(self) -> LifeView:
        """What is known now."""
        situation, life = self._situation, self._life
        main = life.remains.main if life is not None and situation.body in {Body.ALIVE, Body.ENDING} else None
        start_up = life.start_up if life is not None else None
        starting = start_up if situation.state is EngineState.STARTING else None
        return LifeView(
            engine=self.spec.name,
            state=situation.state,
            since=situation.since,
            supervised=True,
            pid=main.pid if main else None,
            pgid=main.group if main else None,
            started=life.remains.started if life is not None and main else None,
            restarts=self._restarts,
            phase=starting.phase if starting else None,
            progress=starting.progress(self._world.clock.now().wall) if starting else None,
            phases=start_up.phases if start_up else (),
            message=self._message(),
            exit_code=situation.exit_code,
        )

    def processes(self) -> list[int]:
        """Return the pids of the engine's processes, the main one first; no shim. A new one takes a second to show."""
        if self.body is Body.NOTHING or self._life is None:
            return []
        main = self._life.remains.main
        pids = [process.pid for process in self._roster.living()]
        return sorted(pids, key=lambda pid: (main is None or pid != main.pid, pid))

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
            remains, found = None, Found(unsure=f"cannot be looked at: {error.strerror or error}; looking again")
        wanted = None if wish is None else wish == "up"
        if remains is not None and remains.again is not None:
            wanted = remains.again
        last_seconds = await self._world.last_phases(self.spec.name) if found.alive and not found.was_ready else None
        self._reason = "goes on with what was asked before the daemon restarted"
        situation, commands = machine.adopt(found, wanted=wanted, ready_timeout_s=self.spec.ready_timeout_s, now=now)
        if remains is not None and (found.alive or found.left):
            self._life = Life(self, self.spec, self._directory, self._world, remains=remains, last_seconds=last_seconds)
        self._know(remains)
        self._take(situation, commands)
        if self._life is not None:
            pid = (remains.main or remains.others[0]).pid if remains else None
            self._world.tell(self.spec.name, "adopted", f"found running as pid {pid}")
            self._life.watch()
        if found.unsure is not None:
            self._crew.do(self._adopt_later(wish))
        elif self.spec.autostart and wish != "down" and self.body in {Body.NOTHING, Body.LEFT}:
            self._reason = "autostart"
            self.apply(machine.Start())

    def wish(self, event: machine.Start | machine.Stop | machine.Restart, reason: str) -> None:
        """Decide what a wish means and remember it. Returns before anything is done; :meth:`settled` waits."""
        self._reason, self.error = reason, None
        self.apply(event)
        self._world.on_wish(self.spec.name, "down" if isinstance(event, machine.Stop) else "up")

    async def rehearse(self) -> None:
        """Raise SuperviseError when a new life could not begin now."""
        try:
            await asyncio.to_thread(rehearse, self.spec, self._directory, self._world.runtime_dir)
        except SuperviseError as error:
            message = f"left running, it could not be started again: {error.message}"
            raise SuperviseError(message, hint=error.hint, permanent=error.permanent) from error

    async def settled(self) -> None:
        """Return when the machine waits for nothing any more: no launch and no end is out."""
        while self.body in {Body.LAUNCHING, Body.ENDING}:
            self._moved.clear()
            await self._moved.wait()

    def change(self, spec: LaunchSpec) -> None:
        """Take a new configuration; what runs goes on with the old one until its next start."""
        self.spec = spec
        self.publish()

    async def close(self) -> None:
        """Stop looking. The engine and its shim go on; an end that is under way is finished by the shim."""
        if self._launching is not None:  # takes 0.05 s, and ends by itself
            await asyncio.wait([self._launching], timeout=CLOSE_S)
        tasks = self._crew.dismiss() + (self._life.close() if self._life is not None else [])
        await asyncio.gather(*tasks, return_exceptions=True)

    # --- the machine ---

    def apply(self, event: machine.Event) -> None:
        """Take in what happened."""
        self._take(*machine.step(self._situation, event, self._world.clock.now()))

    def publish(self) -> None:
        """Tell what is known if it has changed."""
        view = self.view
        if view != self._told:
            self._told = view
            self._world.on_life(view)

    def _take(self, situation: Situation, commands: list[Command]) -> None:
        self._situation = situation
        self._moved.set()
        if Command.LAUNCH in commands:
            self._instance = str(uuid.uuid4())
            self._launching = self._crew.do(self._launch(self.spec, self._instance))
        if Command.END in commands:
            self._crew.do(self._end(self._life.spec if self._life is not None else self.spec))
        self._remember_stop()
        self.publish()

    async def _launch(self, spec: LaunchSpec, instance: str) -> None:
        self._leave_life()
        if spec.warning is not None:
            self._world.tell(spec.name, "start_warning", spec.warning, Severity.WARNING)
        last_seconds = await self._world.last_phases(spec.name)
        try:
            before = await asyncio.to_thread(examine, self._directory)
            number = before.life + 1 if before else 1
            await launch(spec, self._directory, self._world.runtime_dir, instance=instance, life=number)
        except SuperviseError as error:
            self.error = error
        except Exception as error:  # noqa: BLE001  the machine waits for an answer, whatever happened
            log.exception("engine %s: start failed", spec.name)
            self.error = SuperviseError(f"{type(error).__name__}: {sanitise(str(error))}", permanent=False)
        remains = await self._look_at_the_launched()
        self._know(remains)
        if self.error is not None and (remains is None or not remains.lives):
            hint = f" ({self.error.hint})" if self.error.hint else ""
            self.apply(machine.LaunchFailed(f"{self.error.message}{hint}"))
        elif remains is not None:
            self._begin_life(spec, remains, last_seconds)

    async def _look_at_the_launched(self) -> Remains | None:
        """Return what is there after a launch; one that succeeded has left something, however slow the disk is."""
        while True:
            try:
                remains = await examine_within(self._directory, ADOPT_S)
            except (TimeoutError, OSError):
                remains = None
            if remains is not None or self.error is not None:
                return remains
            await asyncio.sleep(END_AGAIN_S)

    def _begin_life(self, spec: LaunchSpec, remains: Remains, last_seconds: Mapping[str, float]) -> None:
        self.error = None
        self._life = Life(self, spec, self._directory, self._world, remains=remains, last_seconds=last_seconds)
        self.apply(machine.Launched(spec.ready_timeout_s))
        self._life.watch()

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
        self.apply(exited(remains))
        self.apply(machine.Gone())

    def _survived(self, message: str) -> None:
        if self._situation.message != message:
            self._world.tell(self.spec.name, "survivors", message, Severity.ERROR)
        self.apply(machine.Survived(message))

    async def _adopt_later(self, wish: Wish | None) -> None:
        await asyncio.sleep(ADOPT_AGAIN_S)
        if self.body is Body.LEFT and self._life is None:
            await self.adopt(wish)

    def _found(self, remains: Remains | None) -> Found:
        """Put what was found into the machine's words."""
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
            since=known.ended if known is not None else remains.ready_since if remains.main is not None else None,
        )

    # --- what is remembered ---

    def _know(self, remains: Remains | None) -> None:
        if remains is not None:
            self._instance = remains.instance
            self._restarts = max(0, remains.life - 1)

    def _leave_life(self) -> None:
        if self._life is not None:
            self._life.close()
        self._life = None

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

    def _message(self) -> str | None:
        notes = [self._situation.message]
        if self._life is not None and self.body is Body.ALIVE:
            same_command = self._life.remains.argv_sha256 == fingerprint(self.spec.command)
            changed = self._life.spec != self.spec or not same_command
            notes += [self._life.note, "its configuration has changed: applies at the next start" if changed else None]
        return sanitise("; ".join(note for note in notes if note)) or None
