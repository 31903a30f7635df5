"""One engine in the hands of the daemon: its machine, and the commands that the machine gives carried out.

All of it runs on one event loop, and only :meth:`Keeper.apply` changes the situation: there is one writer.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from opsboard.core.clock import Now
from opsboard.core.errors import StillThere, SuperviseError
from opsboard.core.model import EngineState, FatalVerdict, LifeView, Severity
from opsboard.core.text import sanitise
from opsboard.supervise import bundle, errands, golden, machine, transaction, viewing
from opsboard.supervise.adopt import Remains, Roster
from opsboard.supervise.adopting import adopt
from opsboard.supervise.budget import Spent
from opsboard.supervise.chronicle import Chronicle
from opsboard.supervise.launch import LaunchSpec
from opsboard.supervise.life import Life
from opsboard.supervise.looks import already, look_out, take_stock, what_began
from opsboard.supervise.moves import because
from opsboard.supervise.processes import Identity, gone, not_used_again
from opsboard.supervise.runners.base import Place
from opsboard.supervise.runners.registry import RUNNERS, begin, end, find, rehearse
from opsboard.supervise.situation import (
    Accused,
    Body,
    Command,
    Event,
    Gone,
    Launched,
    LaunchFailed,
    Ready,
    Reborn,
    Restart,
    Situation,
    Start,
    Stop,
    Survived,
    Terms,
    Tick,
    Undrain,
)
from opsboard.supervise.situation import Wish as Wished
from opsboard.supervise.stopping import in_haste
from opsboard.supervise.watching import exited
from opsboard.supervise.world import Begins, Crew, Wish, World, log

ADOPT_S = 2.0
ADOPT_AGAIN_S = 5.0
CLOSE_S = 3.0


class Keeper:
    """Owns one engine. Made at daemon start or by a reload; :meth:`adopt` comes first."""

    def __init__(self, spec: LaunchSpec, directory: Path, world: World) -> None:
        """``directory`` is the engine's bundle."""
        self.spec = spec
        self.log_path = directory / bundle.LOG
        self.error: SuperviseError | None = None
        """Why the last launch failed, None when it did not."""
        self.looked = asyncio.Event()
        """Set when it has been looked for: no wish may come before."""
        self._directory = directory
        self._place = Place(directory, world.runtime_dir)
        self._world = world
        self._situation = Situation(since=world.clock.now().wall)
        self._life: Life | None = None
        self._instance: str | None = None
        self._restarts = 0
        self._reason = ""
        self._told: LifeView | None = None
        self._roster = Roster(directory)
        self._chronicle = Chronicle(spec.name, directory, world)
        self._last: frozenset[Identity] = frozenset()
        self._crew = Crew(spec.name, world)
        self._launching: asyncio.Task[None] | None = None
        self._preparing: asyncio.Task[None] | None = None
        self._proving: asyncio.Task[None] | None = None
        self._outlook: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._moved = asyncio.Event()
        self._rehearsing = asyncio.Lock()

    # --- what others see ---

    @property
    def body(self) -> Body:
        """What there is of the engine."""
        return self._situation.body

    @property
    def holds(self) -> bool:
        """True while something of it runs that is ours to end."""
        return self.body is not Body.NOTHING and not RUNNERS[self.spec.runner].replaces

    @property
    def unsure(self) -> bool:
        """True when it may run, and could not be looked at so far."""
        return self.body is Body.LEFT and self._life is None

    @property
    def busy(self) -> bool:
        """True while an operator's wish is being carried out: a launch, an end or a drain is out."""
        return self._situation.busy

    @property
    def sound(self) -> bool:
        """True when it serves, or would if it had not been taken out of service."""
        return self._situation.sound

    @property
    def view(self) -> LifeView:
        """What is known now."""
        now, course = self._world.clock.now(), self._chronicle.transaction
        return viewing.view(self.spec, self._situation, self._life, now, restarts=self._restarts, course=course)

    def processes(self) -> list[int]:
        """Return the pids of the engine's processes, the main one first; for any thread. Raises OSError."""
        life = self._life
        if self.body is Body.NOTHING or life is None:
            return []
        main = life.remains.main
        first = [] if main is None or gone(main) else [main.pid]
        return first + sorted({process.pid for process in self._roster.living()}.difference(first))

    # --- what others do ---

    async def adopt(self, wish: Wish | None) -> None:
        """Find out what there is of the engine and go on from there.

        Starts it when it is not there, is to start by itself, and no operator stopped it.
        """
        try:
            await self._adopt(wish)
        finally:
            self.looked.set()
        self._look_out()

    async def _adopt(self, wish: Wish | None) -> None:
        before = self._situation
        read_notes = self._chronicle.read
        remains, there, notes = await take_stock(self._directory, self._look, read_notes, self._world.clock)
        wanted = (self.spec.wanted or None) if wish is None else wish == "up"
        if remains is not None and remains.again is not None:
            wanted = remains.again
        last_seconds = await self._world.last_phases(self.spec.name) if there.alive and not there.was_ready else None
        if self._situation is not before:
            self._come_too_late(remains)
            return
        self._reason = "goes on with what was asked before the daemon restarted"
        now = self._world.clock.now()
        situation, commands = adopt(
            there, wanted=wanted, ready_timeout_s=self.spec.ready_timeout_s, now=now, terms=self._terms(now)
        )
        if remains is not None and (there.alive or there.left):
            self._life = Life(self, self.spec, self._place, self._world, remains=remains, last_seconds=last_seconds)
        self._know(remains)
        self._chronicle.resume(notes.transaction)
        self._take(situation, commands, sure=there.unsure is None)
        if self._life is not None:
            self._world.tell(self.spec.name, "adopted", f"found running {self._life.remains.who}")
            self._life.watch()
        if there.unsure is not None:
            self._crew.do(self._adopt_later(wish))
        elif self.spec.autostart and wish != "down" and situation.state is EngineState.STOPPED:
            self._reason = "autostart"
            self.apply(Start(self._reason))

    def _come_too_late(self, remains: Remains | None) -> None:
        """Leave it to the stop that came while we looked, and write down what that is to end."""
        if self._instance is None:
            self._know(remains)
            self._take(self._situation, [])

    def wish(self, event: Wished, reason: str) -> None:
        """Decide what a wish means and remember it. Returns before anything is done; :meth:`settled` waits."""
        self._reason, self.error = reason, None
        if isinstance(event, Start | Restart) and self._situation.state is EngineState.PARKED:
            self._world.ledger.forgive(self.spec.name)
            self._world.around.on_forgiven(self.spec.name)
        doubted = self.body is Body.ALIVE and self._situation.state is EngineState.DRAINING
        if isinstance(event, Start | Undrain) and doubted and self._situation.doubt is not None:
            self._crew.do(self._accept())
        self.apply(event)
        if isinstance(event, Start | Stop | Restart):
            self._world.on_wish(self.spec.name, "down" if isinstance(event, Stop) else "up")

    async def renew(self, reason: str, begins: Begins) -> None:
        """Restart it because it is time to, drained and counted; raises SuperviseError, or what ``begins`` raises."""
        if not self._situation.wanted:
            raise SuperviseError(f"{self.spec.name} is not restarted: nobody asked it to run", hint="start it once")

        def begin() -> bool:
            begins()
            self._reason, before = reason, self._situation
            self.apply(Accused(cause=reason, planned=True))
            return self._situation is not before

        await errands.planned(self._world, self.spec, because(self._situation, reason), begin)

    async def rehearse(self) -> None:
        """Raise SuperviseError when a new life could not begin now."""
        try:
            await self._rehearse()
        except SuperviseError as error:
            message = f"left running, it could not be started again: {error.message}"
            raise SuperviseError(message, hint=error.hint, permanent=error.permanent) from error

    async def _rehearse(self) -> None:
        async with self._rehearsing:
            await rehearse(self.spec, self._place)

    async def settled(self) -> None:
        """Return when no launch, no end and no drain is out."""
        while self.busy:
            await self._change_of_situation()

    async def begun(self) -> None:
        """Return when it serves, or when it does not and only time or a person can change that."""
        while self.busy or self._situation.state is EngineState.STARTING:
            await self._change_of_situation()

    def change(self, spec: LaunchSpec) -> None:
        """Take a new configuration; what runs goes on with the old one until its next start."""
        self.spec = spec
        if self.looked.is_set():
            self._look_out()
        self.publish()

    async def close(self) -> None:
        """Stop looking. The engine and its shim go on; an end that is under way is finished by the shim."""
        if self._timer is not None:
            self._timer.cancel()
        if self._launching is not None:  # takes 0.05 s, and ends by itself
            await asyncio.wait([self._launching], timeout=CLOSE_S)
        tasks = self._crew.dismiss() + (self._life.close() if self._life is not None else [])
        await asyncio.gather(*tasks, return_exceptions=True)

    # --- the machine ---

    def apply(self, event: Event) -> None:
        """Take in what happened."""
        now = self._world.clock.now()
        self._take(*machine.step(self._situation, event, now, self._terms(now)))

    def publish(self) -> None:
        """Tell what is known if it has changed."""
        view = self.view
        if view != self._told:
            self._told = view
            self._world.on_life(view)

    def _take(self, situation: Situation, commands: list[Command], *, sure: bool = True) -> None:
        self._situation = situation
        self._moved.set()
        if Command.LAUNCH in commands:
            self._instance = str(uuid.uuid4())
        if self._preparing is not None and not situation.preparing:  # what comes of it is too late
            self._preparing.cancel()
            self._preparing = None
        try:
            self._chronicle.follow(situation, self._instance, clears=bool(self._last), sure=sure)
        except Exception:  # noqa: BLE001  what is to be done is done all the same
            log.exception("engine %s: this is not written down: %s", self.spec.name, situation)
        for command in commands:
            self._carry_out(command)
        self._set_timer()
        self.publish()

    def _carry_out(self, command: Command) -> None:
        match command:
            case Command.LAUNCH:
                assert self._instance is not None  # noqa: S101  _take has named it
                self._launching = self._crew.do(self._launch(self.spec, self._instance))
            case Command.END:
                spec = self._life.spec if self._life is not None else self.spec
                self._crew.do(self._end(in_haste(spec) if self._situation.broken else spec))
            case Command.DRAIN:
                self._crew.do(self._drain())
            case Command.PROVE:
                self._proving = self._crew.do(self._prove())
            case Command.PREPARE:
                self._preparing = self._crew.do(self._prepare())

    def _terms(self, now: Now) -> Terms:
        spec, ledger = self.spec, self._world.ledger
        wedged = self._world.around.wedged(spec.gpus)
        spent = None if wedged is None else Spent(which="wedged", text=wedged)
        return Terms(
            restart=spec.restart,
            drain_timeout_s=spec.drain_timeout_s,
            decision=spent or ledger.decide(spec.name, spec.gpus or (), now.mono, self._situation.served(now.mono)),
            not_before=ledger.not_before,
        )

    # --- its commands ---

    async def _launch(self, spec: LaunchSpec, instance: str) -> None:
        self._leave_life()
        runner = RUNNERS[spec.runner]
        if (
            not runner.replaces
            and runner.restarts_itself
            and (found := await already(spec.name, self._look))
            and found.alive
        ):
            await self._take_what_others_began(found)
            return
        try:
            await self._make_room(spec)
        except SuperviseError as error:
            self._not_launched(error)
            return
        except Exception as error:  # noqa: BLE001  the machine waits for an answer, whatever happened
            log.exception("engine %s: no room could be made", spec.name)
            self._not_launched(SuperviseError(f"{type(error).__name__}: {sanitise(str(error))}", permanent=False))
            return
        if spec.warning is not None:
            self._world.tell(spec.name, "start_warning", spec.warning, Severity.WARNING)
        last_seconds = await self._world.last_phases(spec.name)
        self.error = await begin(spec, self._place, instance)
        remains = await what_began(spec.name, self._look, failed=self.error is not None)
        self._know(remains)
        if remains is not None and (self.error is None or (remains.lives and not runner.replaces)):
            self._begin_life(spec, remains, last_seconds)
        else:
            lost = f"it began, and {self._directory} is removed again and again: look for what runs of {instance}"
            self._not_launched(self.error or SuperviseError(lost))

    async def _make_room(self, spec: LaunchSpec) -> None:
        """Wait until nothing of the last life is in the way; raise SuperviseError when something is."""
        replaces = RUNNERS[spec.runner].replaces
        if self._last and not replaces:
            await errands.clear(self._world, await asyncio.to_thread(not_used_again, self._last), spec.gpus)
            self._last = frozenset()
        self._begin_step(transaction.LAUNCH)
        if not replaces:
            await errands.room(self._world, spec)
        if not self._situation.wanted:
            raise SuperviseError("called off: it was stopped before it had begun")

    def _not_launched(self, error: SuperviseError) -> None:
        self.error = error
        verdict, left = errands.verdict_of(error, FatalVerdict.RETRY), isinstance(error, StillThere)
        self.apply(LaunchFailed(errands.said(error), verdict, left))

    def reborn(self, remains: Remains) -> None:
        """Take the life that others began when the last one had ended."""
        self._crew.do(self._take_what_others_began(remains))

    async def _take_what_others_began(self, remains: Remains) -> None:
        if self.body is Body.ENDING:  # the end that came meanwhile ends this one, too
            return
        self._leave_life()
        self._world.tell(self.spec.name, "began_elsewhere", f"runs {remains.who}, begun by somebody else")
        self._know(remains)
        self._begin_life(self.spec, remains, {}, Reborn(self.spec.ready_timeout_s))

    def _begin_life(
        self, spec: LaunchSpec, remains: Remains, last_seconds: Mapping[str, float], event: Event | None = None
    ) -> None:
        self.error = None
        self._roster.forget()
        self._life = Life(self, spec, self._place, self._world, remains=remains, last_seconds=last_seconds)
        self.apply(event or Launched(spec.ready_timeout_s))
        self._life.watch()

    async def _end(self, spec: LaunchSpec) -> None:
        self._note_pids()
        by = f"{'opsboard' if self._situation.automatic else 'operator'}: {self._reason}"
        tell = partial(self._world.tell, self.spec.name)
        known = None if self._life is None else self._life.remains
        remains = await end(spec, self._place, by, tell, self._survived, known=known)
        self._leave_life()
        self.apply(exited(remains))
        self.apply(Gone())

    def _survived(self, message: str) -> None:
        if message not in (self._situation.message or ""):
            self._world.tell(self.spec.name, "survivors", message, Severity.ERROR)
        self.apply(Survived(message))

    async def _drain(self) -> None:
        event = await errands.drain(self.spec.name, self._world, lambda: self._situation, self._tell_step)
        if event is not None:
            self.apply(event)

    async def _prepare(self) -> None:
        situation = self._situation
        self._reason = errands.cause_of(situation)
        event = await errands.prepare(self._world, self.spec, self._rehearse, situation)
        if (text := errands.waits_anew(situation, event)) is not None:
            self._world.tell(self.spec.name, "waits", text, Severity.WARNING)
        self._preparing = None
        self.apply(event)

    async def _prove(self) -> None:
        assert self._life is not None  # noqa: S101  only what lives is asked
        command = self._life.remains.argv_sha256
        try:
            event = await errands.prove(self.spec.name, self._world, self._directory, command, self._tell_step)
        except Exception:  # noqa: BLE001  it answers, and what went wrong is ours
            log.exception("engine %s: what its canary said is not understood", self.spec.name)
            event = Ready()
        self.apply(event)

    async def _accept(self) -> None:
        if await asyncio.to_thread(golden.accept, self._directory):
            self._world.tell(self.spec.name, "golden_accepted", "its new answer is the golden one now")

    def _look_out(self) -> None:
        """Look for what others begin of it from now on, where they may."""
        if self._outlook is None and RUNNERS[self.spec.runner].restarts_itself:
            work = look_out(self.spec.name, self._look, lambda: self.body is Body.NOTHING, self.reborn)
            self._outlook = self._crew.do(work)

    async def _adopt_later(self, wish: Wish | None) -> None:
        await asyncio.sleep(ADOPT_AGAIN_S)
        if self.unsure:
            await self.adopt(wish)

    # --- time, and what people see of it ---

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if (due := self._situation.due) is not None:
            seconds = max(0.01, due - self._world.clock.now().mono)
            self._timer = asyncio.get_running_loop().call_later(seconds, self.apply, Tick())

    async def _change_of_situation(self) -> None:
        self._moved.clear()
        await self._moved.wait()

    def _begin_step(self, name: str) -> None:
        self._chronicle.begin_step(name)
        self.publish()

    def _tell_step(self, text: str, outcome: str) -> None:
        self._chronicle.tell_step(text, outcome)
        self.publish()

    # --- what is remembered ---

    async def _look(self) -> Remains | None:
        return await find(self.spec, self._place, ADOPT_S)

    def _know(self, remains: Remains | None) -> None:
        if remains is not None:
            self._instance = remains.instance
            self._restarts = max(0, remains.life - 1)

    def _leave_life(self) -> None:
        if self._life is not None:
            self._note_pids()
            self._life.close()
        if self._proving is not None:
            self._proving.cancel()
        self._life = self._proving = None

    def _note_pids(self) -> None:
        """Keep who belonged to the life, to prove later that they hold no GPU memory."""
        if self._life is not None:
            remains = self._life.remains
            known = [(process.pid, process.start_ticks) for process in (remains.main, *remains.others) if process]
            self._last = self._last.union(known, self._roster.recorded())
