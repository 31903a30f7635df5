"""Which engines are to sleep: those an operator put to sleep, and standbys whenever they have become ready.

The last wish counts and outlives every daemon. While an engine sleeps it is out of service for its supervisor too, so
that no daemon, however it ended, takes it for one that serves.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Coroutine, Sequence
from pathlib import Path
from typing import Any, Protocol

import msgspec

from collectors.sleeping import CannotSleep
from opsboard.core.clock import Clock
from opsboard.core.errors import Conflict, NotFound, OpsboardError
from opsboard.core.model import EngineState, LifeView, Severity, Transaction
from opsboard.core.text import sanitise
from opsboard.daemon.pipeline import PipelineState
from opsboard.daemon.sleeper import SERVES, Asked, Engines, Log, Sleeper
from opsboard.supervise import rest
from opsboard.supervise.rest import NOTHING, Rest
from opsboard.supervise.transaction import OK
from opsboard.supervise.world import Begins, Inflight, nobody

log = logging.getLogger("opsboard.daemon")

STANDBY_S = 1.0
"""How often it looks whether an engine is to be put to sleep, besides every time that one is heard of."""
_BY_ITSELF = "standby: asleep until `opsboard engine wake`"
_FALLS_ASLEEP = "goes to sleep when nothing is under way; `opsboard engine wake` calls that off"
_WAKES = "it is being woken"
_GOES_ON = "goes on with what was asked before the daemon restarted"


class Past(Log, Protocol):
    """The store."""

    async def transactions(self, engine: str, limit: int = 20, *, kinds: Sequence[str]) -> list[Transaction]:
        """Return the newest of these kinds. Raises StoreError."""


class Standby:
    """Takes wishes of operators, and puts to sleep by itself what is to sleep."""

    def __init__(
        self,
        clock: Clock,
        state: PipelineState,
        directory: Path,
        *,
        engines: Engines,
        asked: Asked,
        standbys: Callable[[], Collection[str]],
        inflight: Callable[[str], Inflight | None],
        tell: Callable[[str, str, Severity, str], None],
        past: Past,
    ) -> None:
        """``directory`` holds the bundles; ``standbys()`` are those of the configuration.

        ``tell(kind, text, severity, subject)`` puts a line on a timeline.
        """
        self._state = state
        self._directory = directory
        self._engines = engines
        self._asked = asked
        self._standbys = standbys
        self._tell_line = tell
        self._past = past
        self._sleeper = Sleeper(clock, state, directory, engines=engines, asked=asked, inflight=inflight, past=past)
        self._rests: dict[str, Rest] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._wake_s: dict[str, float] = {}
        self._doing: dict[str, str | None] = {}
        self._tried: dict[str, float | None] = {}
        """The life of each engine that it was tried to put to sleep: once is enough."""
        self._told: dict[str, str] = {}
        self._ran: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    # --- what operators want

    async def sleep(self, name: str, reason: str, *, now: bool = False, begins: Begins = nobody) -> None:
        """Take an engine out of service and put it to sleep; return when it says that it sleeps.

        ``begins`` is called when nothing speaks against it, before anything is done.
        Raises NotFound; Conflict: it does not serve, or is the last that does (and not ``now``), or is woken meanwhile;
        CannotSleep; FetchError and CollectError: it did not, and is back in service.
        """
        life, before = self._engines.life(name), self._rest(name)
        if life.state not in SERVES:
            raise Conflict(f"{name} is {life.state.word}: only an engine that serves can be put to sleep")
        try:
            await self._asked.check_sleep(name)
        except CannotSleep as error:
            raise CannotSleep(f"{name} cannot be put to sleep: {error.message}", hint=error.hint) from error
        if not now:
            self._engines.check_last(name, f"opsboard engine sleep {name} --now")
        begins()
        self._keep(name, Rest(wish="asleep", life=before.life))
        async with self._lock(name):
            self._keep(name, self._rest(name), _FALLS_ASLEEP)
            try:
                await self._take_out(name, reason, now=now)
            except Conflict as error:  # the others have left service since
                self._change(name, wish=before.wish)
                raise Conflict(error.message, hint=f"opsboard engine sleep {name} --now") from error
            try:
                await self._put_to_sleep(name, reason, automatic=False)
            except Conflict:
                self._change(name)
                raise
            except OpsboardError:
                self._change(name, wish=before.wish)
                if life.state is EngineState.READY:
                    await self._engines.undrain(name, "it could not be put to sleep")
                raise

    async def wake(self, name: str, reason: str, *, begins: Begins = nobody) -> None:
        """Wake an engine, or start it where it is stopped; return when it has answered and serves.

        Raises NotFound; SuperviseError: it does not start, or does not answer as it should; FetchError, CollectError:
        it does not wake.
        """
        self._engines.life(name)
        begins()
        self._keep(name, Rest(wish="awake", unfinished=True, life=self._rest(name).life), _WAKES)
        async with self._lock(name):
            try:
                steps = await self._sleeper.wake(name, reason, serves=lambda: not self._sleeps(name))
            except Exception:  # whatever it is: tried again for ever it would be a loop
                self._change(name, unfinished=False)
                raise
            if steps is not None:
                self._wake_s[name] = steps.seconds
            self._change(name, unfinished=False, life=None)
        said = "is awake and serves already" if steps is None else f"woke in {steps.seconds:.1f} s ({steps.told()})"
        self._tell(name, "woke", said)

    # --- what is done by itself

    def hear(self, life: LifeView) -> None:
        """Hear what became of an engine."""
        if life.engine in self._rests:
            self._consider(life.engine, life)

    async def look(self) -> None:
        """Put to sleep what is awake and shall not be, and go on with what another daemon began."""
        for name in [name for name, spec in self._state.specs.items() if spec.supervised]:
            if name not in self._rests and not await self._recall(name):
                continue
            try:
                self._consider(name, self._engines.life(name))
            except NotFound:
                continue
            self._show(name)

    async def close(self) -> None:
        """Let go; the next daemon goes on."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _consider(self, name: str, life: LifeView) -> None:
        if self._lock(name).locked():
            return
        kept = self._rest(name)
        if life.pid is not None:
            self._ran.add(name)
        if life.state is EngineState.STOPPED and name in self._ran:  # its next start is another matter
            self._ran.discard(name)
            self._keep(name, NOTHING)
        elif kept.unfinished and kept.wish == "awake":
            self._change(name, unfinished=False)
            self._do(self.wake(name, _GOES_ON))
        elif self._sleeps(name) and _awake(life, kept, self._tried.get(name)):
            self._tried[name] = life.started
            self._do(self._by_itself(name))

    async def _by_itself(self, name: str) -> None:
        async with self._lock(name):
            self._keep(name, self._rest(name), _FALLS_ASLEEP)
            try:
                await self._take_out(name, _BY_ITSELF, now=True)
                await self._sleeper.known(name)
                await self._asked.check_sleep(name)
                await self._put_to_sleep(name, _BY_ITSELF, automatic=True)
            except CannotSleep as error:
                await self._cannot(name, error)
            except Conflict as error:
                log.info("engine %s: %s", name, error.message)
            except OpsboardError as error:
                text = f"could not be put to sleep: {error.message}; it stays out of service"
                more = f"`opsboard engine sleep {name}` tries again, `opsboard engine wake {name}` lets it serve"
                self._tell(name, "sleep_failed", f"{text}: {more}", Severity.ERROR)
            finally:
                self._change(name)

    async def _cannot(self, name: str, error: CannotSleep) -> None:
        """Stop a standby that has no sleep; leave one that was put to sleep by hand out of service."""
        standby = name in self._standbys()
        then = "so this standby is stopped" if standby else "so it stays out of service"
        text = f"cannot be put to sleep: {error.message}; {then}: `opsboard engine wake {name}` lets it serve"
        if self._told.get(name) != text:
            self._told[name] = text
            more = f" ({error.hint})" if error.hint else ""
            self._tell(name, "cannot_sleep", text + more, Severity.WARNING)
        if standby:
            await self._engines.stop(name, f"standby: {error.message}")

    async def _take_out(self, name: str, reason: str, *, now: bool) -> None:
        """Take an engine out of service, unless it is: whatever doubt there is about its answers stays."""
        life = self._engines.life(name)
        if life.state is EngineState.READY or life.until is not None:
            await self._engines.drain(name, reason, now=now)

    async def _put_to_sleep(self, name: str, reason: str, *, automatic: bool) -> None:
        life = self._engines.life(name)
        self._tried[name] = life.started

        def why_not() -> str | None:
            return self._why_not(name, life)

        steps = await self._sleeper.put_to_sleep(name, reason, automatic=automatic, why_not=why_not)
        self._change(name, life=life.started)
        self._tell(name, "slept", f"asleep in {steps.seconds:.1f} s ({steps.told()})")

    def _why_not(self, name: str, before: LifeView) -> str | None:
        """Say why an engine is not to be put to sleep any more; None while it is."""
        life = self._engines.life(name)
        if not self._sleeps(name):
            return f"{name} is not put to sleep: it was woken meanwhile"
        if life.state is EngineState.READY:
            self._keep(name, Rest(wish="awake"))
            return f"{name} is not put to sleep: it was brought back into service meanwhile"
        if life.state not in SERVES or life.started != before.started:
            return f"{name} is {life.state.word} now: it is put to sleep when it serves again"
        return None

    # --- what is remembered, and shown

    async def _recall(self, name: str) -> bool:
        """Learn what was wished before; False when that cannot be read now."""
        try:
            kept = await asyncio.to_thread(rest.read, self._directory / name)
        except OSError as error:
            log.warning("engine %s: whether it is to sleep is not known: %s", name, error)
            return False
        try:
            last = [one for one in await self._past.transactions(name, 1, kinds=("wake",)) if one.outcome == OK]
        except OpsboardError as error:
            log.warning("engine %s: what its last waking took is not known: %s", name, error.message)
        else:
            if last:
                self._wake_s[name] = sum(step.seconds or 0.0 for step in last[0].steps)
        self._rests.setdefault(name, kept)
        return True

    def _rest(self, name: str) -> Rest:
        return self._rests.get(name, NOTHING)

    def _sleeps(self, name: str) -> bool:
        return self._rest(name).sleeps(standby=name in self._standbys())

    def _change(self, name: str, **changes: Any) -> None:
        self._keep(name, msgspec.structs.replace(self._rest(name), **changes))

    def _keep(self, name: str, kept: Rest, doing: str | None = None) -> None:
        """Remember a wish, and say on the board what is being done for it."""
        self._doing[name] = doing
        if kept != self._rests.get(name):
            self._rests[name] = kept
            try:
                rest.write(self._directory / name, kept)
            except OSError as error:
                text = f"that it is to {'sleep' if self._sleeps(name) else 'serve'} cannot be written down: {error}"
                self._tell(name, "not_remembered", text, Severity.WARNING)
        self._show(name)

    def _show(self, name: str) -> None:
        track = self._state.engines.get(name)
        if track is not None and track.life is not None:
            kept, life = self._rest(name), track.life
            slept = kept.life is not None and kept.life == life.started
            track.rest(
                standby=self._sleeps(name), slept=slept, wake_s=self._wake_s.get(name), doing=self._doing.get(name)
            )

    def _lock(self, name: str) -> asyncio.Lock:
        return self._locks.setdefault(name, asyncio.Lock())

    def _tell(self, name: str, kind: str, text: str, severity: Severity = Severity.INFO) -> None:
        self._tell_line(kind, sanitise(text), severity, f"engine/{name}")

    def _do(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("standby: %s", error, exc_info=None if isinstance(error, OpsboardError) else error)


def _awake(life: LifeView, kept: Rest, tried: float | None) -> bool:
    """Tell whether a life serves, drains for no restart, and was not put to sleep so far."""
    serves = life.state in SERVES and life.until is None
    return serves and life.started not in {None, kept.life, tried}
