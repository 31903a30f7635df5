"""Engines that wait asleep: put to sleep and woken by hand, and standbys put to sleep after each of their starts.

To sleep: out of service, nothing under way any more, then the engine's own sleep. To wake: the engine's own waking (or
a start, where it is stopped), one token, then back in service. While it sleeps it stays out of service, so that no
daemon, however it ended, takes it for one that serves.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Coroutine, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Literal, Protocol

import msgspec

from collectors.sleeping import CannotSleep
from opsboard.core.clock import Clock
from opsboard.core.errors import Conflict, NotFound, OpsboardError, SuperviseError
from opsboard.core.model import CanaryOutcome, CanaryReading, EngineState, LifeView, Severity, Transaction
from opsboard.core.text import sanitise
from opsboard.daemon.pipeline import PipelineState
from opsboard.daemon.steps import Steps
from opsboard.daemon.supervising import heed
from opsboard.supervise import errands, rest
from opsboard.supervise.rest import NOTHING, Rest
from opsboard.supervise.transaction import OK
from opsboard.supervise.world import Inflight

log = logging.getLogger("opsboard.daemon")

STANDBY_S = 1.0
"""How often it looks whether a standby is to be put to sleep."""
POLL_S = 0.25
_SERVES = frozenset({EngineState.READY, EngineState.DRAINING})
_BEGINS = frozenset({EngineState.STARTING, EngineState.STOPPING, EngineState.BACKING_OFF})
_BY_ITSELF = "standby: asleep until `opsboard engine wake`"
_NO_TOKEN = frozenset({CanaryOutcome.TIMEOUT, CanaryOutcome.REFUSED, CanaryOutcome.ASLEEP})


class Engines(Protocol):
    """What can start and stop engines and take them out of service: the supervisor."""

    def life(self, name: str) -> LifeView:
        """Return what is known of an engine. Raises NotFound."""

    async def start(self, name: str, reason: str) -> None:
        """Start an engine; returns when it was begun."""

    async def stop(self, name: str, reason: str) -> None:
        """Stop an engine; returns when no process of it is left."""

    async def drain(self, name: str, reason: str, *, now: bool = False) -> None:
        """Take an engine out of service; ``now``: whatever that takes away. Raises Conflict."""

    async def undrain(self, name: str, reason: str) -> None:
        """Bring it back. Raises Conflict."""


class Asked(Protocol):
    """What asks engines themselves: the canaries."""

    async def check_sleep(self, name: str) -> None:
        """Raise CannotSleep where an engine cannot be put to sleep, FetchError when it does not answer."""

    async def asleep(self, name: str) -> bool:
        """Tell whether it says that it sleeps. Raises FetchError."""

    async def sleep(self, name: str) -> float:
        """Put it to sleep and see that it does. Raises FetchError, CollectError."""

    async def wake(self, name: str) -> float:
        """Wake it and see that it is. Raises FetchError, CollectError."""

    async def one_token(self, name: str) -> CanaryReading:
        """Ask it for one token."""


class Past(Protocol):
    """The store."""

    def transaction(self, transaction: Transaction) -> Future[None]:
        """Keep what a sleep or a waking took."""

    async def transactions(self, engine: str, limit: int = 20, *, kinds: Sequence[str]) -> list[Transaction]:
        """Return the newest of these kinds. Raises StoreError."""


class Standby:
    """Puts engines to sleep and wakes them. What operators wished is kept beside each engine."""

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
        self._clock = clock
        self._state = state
        self._directory = directory
        self._engines = engines
        self._asked = asked
        self._standbys = standbys
        self._inflight = inflight
        self._tell_line = tell
        self._past = past
        self._rests: dict[str, Rest] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._wake_s: dict[str, float] = {}
        self._tried: dict[str, float | None] = {}
        self._told: dict[str, str] = {}
        self._ran: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    # --- what operators want

    async def sleep(self, name: str, reason: str, *, now: bool = False) -> None:
        """Take an engine out of service and put it to sleep; return when it says that it sleeps.

        Raises NotFound; Conflict: it does not serve, or is the last that does (and not ``now``), or is woken meanwhile;
        CannotSleep; FetchError and CollectError: it did not, and is back in service.
        """
        life, before = self._engines.life(name), self._rest(name)
        if life.state not in _SERVES:
            raise Conflict(f"{name} is {life.state.value}: only an engine that serves can be put to sleep")
        await self._asked.check_sleep(name)
        try:
            await self._engines.drain(name, reason, now=now)
        except Conflict as error:
            raise Conflict(error.message, hint=f"opsboard engine sleep {name} --now") from error
        self._keep(name, Rest(wish="asleep", life=before.life))
        async with self._lock(name):
            self._tried[name] = life.started
            try:
                await self._lie_down(name, reason, automatic=False)
            except Conflict:
                raise
            except OpsboardError:
                self._keep(name, before)
                if life.state is EngineState.READY:
                    await self._engines.undrain(name, "it could not be put to sleep")
                raise

    async def wake(self, name: str, reason: str) -> None:
        """Wake an engine, or start it where it is stopped; return when it has given one token and serves.

        Raises NotFound; SuperviseError: it does not start, or gives no token; FetchError, CollectError: it does not
        wake; Conflict: it is put to sleep meanwhile.
        """
        self._engines.life(name)
        self._keep(name, Rest(wish="awake", unfinished=True, life=self._rest(name).life))
        async with self._lock(name):
            try:
                await self._get_up(name, reason)
            finally:
                if not _cancelled():
                    self._change(name, unfinished=False)

    # --- what is done by itself

    async def look(self) -> None:
        """Put to sleep what woke up by being started, and go on with what another daemon began."""
        for name, spec in self._state.specs.items():
            if not spec.supervised:
                continue
            try:
                life = self._engines.life(name)
            except NotFound:
                continue
            if name not in self._rests:
                await self._recall(name)
            if not self._lock(name).locked():
                self._consider(name, life)
            self._show(name)

    def _consider(self, name: str, life: LifeView) -> None:
        kept, track = self._rest(name), self._state.engines[name]
        if life.state is EngineState.STOPPED and name in self._ran:  # its next start is another matter
            self._ran.discard(name)
            self._keep(name, NOTHING)
        if life.pid is not None:
            self._ran.add(name)
        if kept.unfinished and kept.wish == "awake":
            self._do(self.wake(name, "goes on with what was asked before the daemon restarted"))
        elif not self._sleeps(name) or life.state not in _SERVES or life.until is not None:
            return
        elif life.started not in {None, kept.life, self._tried.get(name)} and (track.kind or track.view):
            self._do(self._by_itself(name, life))

    async def _by_itself(self, name: str, life: LifeView) -> None:
        async with self._lock(name):
            self._tried[name] = life.started
            try:
                await self._engines.drain(name, _BY_ITSELF, now=True)
                await self._asked.check_sleep(name)
                await self._lie_down(name, _BY_ITSELF, automatic=True)
            except CannotSleep as error:
                await self._cannot(name, error)
            except Conflict as error:
                log.info("engine %s: not put to sleep: %s", name, error.message)
            except OpsboardError as error:
                text = f"could not be put to sleep: {error.message}; it stays out of service"
                more = f"`opsboard engine sleep {name}` tries again, `opsboard engine wake {name}` lets it serve"
                self._tell(name, "sleep_failed", f"{text}: {more}", Severity.ERROR)

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

    async def close(self) -> None:
        """Let go; the next daemon goes on."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # --- both ways

    async def _lie_down(self, name: str, reason: str, *, automatic: bool) -> None:
        life = self._engines.life(name)
        with self._steps(name, "sleep", reason, automatic=automatic) as steps:
            steps.at("drain")
            await self._quiet(name, life, steps)
            steps.at("sleep")
            if not await self._asked.asleep(name):
                await self._sleep_or_resume(name)
        self._change(name, life=life.started)
        self._tell(name, "slept", f"asleep in {steps.seconds:.1f} s ({steps.told()})")

    async def _sleep_or_resume(self, name: str) -> None:
        """Put it to sleep; one that is not in time may have stopped to take requests, and is told to go on."""
        try:
            await self._asked.sleep(name)
        except OpsboardError:
            try:
                await self._asked.wake(name)
            except OpsboardError as error:
                log.warning("engine %s: not resumed: %s", name, error.message)
            raise

    async def _quiet(self, name: str, life: LifeView, steps: Steps) -> None:
        """Wait until nothing is under way, ``drain_timeout`` at most. Raises Conflict when it shall not sleep now."""
        spec = self._state.specs.get(name)
        end = self._clock.now().mono + ((spec.drain_timeout_s if spec is not None else None) or 0.0)

        def waits() -> bool:
            return self._still(name, life) is None and self._clock.now().mono < end

        await errands.quiet(lambda: self._inflight(name), waits, steps.say)
        if (why_not := self._still(name, life)) is not None:
            raise Conflict(why_not)

    def _still(self, name: str, before: LifeView) -> str | None:
        """Say why an engine is not to be put to sleep any more; None while it is."""
        life = self._engines.life(name)
        if not self._sleeps(name):
            return f"{name} is not put to sleep: it was woken meanwhile"
        if life.state is EngineState.READY:
            self._keep(name, Rest(wish="awake"))
            return f"{name} is not put to sleep: it was brought back into service meanwhile"
        if life.state not in _SERVES or life.started != before.started:
            return f"{name} is {life.state.value} now: it is put to sleep when it serves again"
        return None

    async def _get_up(self, name: str, reason: str) -> None:
        life = self._engines.life(name)
        asleep = life.state in _SERVES and await self._asked.asleep(name)
        if life.state is EngineState.READY and not asleep:
            self._change(name, life=None)
            self._tell(name, "woke", "is awake and serves already")
            return
        with self._steps(name, "wake", reason, automatic=False) as steps:
            if life.state not in _SERVES:
                steps.at("start")
                await self._start(name, reason, life)
            elif asleep:
                steps.at("wake")
                await self._asked.wake(name)
            self._change(name, life=None)
            steps.at("canary")
            reading = await self._asked.one_token(name)
            if reading.outcome in _NO_TOKEN:
                why = reading.error or reading.outcome.value
                raise SuperviseError(f"{name} is awake and gives no token: {why}; it stays out of service")
            steps.at("serving")
            if not self._sleeps(name):
                await self._engines.undrain(name, reason)
        self._wake_s[name] = steps.seconds
        self._show(name)
        self._tell(name, "woke", f"woke in {steps.seconds:.1f} s ({steps.told()})")

    async def _start(self, name: str, reason: str, life: LifeView) -> None:
        if life.state is not EngineState.STARTING:
            await self._engines.start(name, reason)
        while (life := self._engines.life(name)).state in _BEGINS:  # noqa: ASYNC110  a start tells no third party
            await asyncio.sleep(POLL_S)
        if life.state not in _SERVES:
            raise SuperviseError(f"{name} is {life.state.value}: {life.message or 'no reason known'}")

    # --- what is remembered, and shown

    async def _recall(self, name: str) -> None:
        kept = await asyncio.to_thread(rest.read, self._directory / name)
        try:
            last = [one for one in await self._past.transactions(name, 1, kinds=("wake",)) if one.outcome == OK]
        except OpsboardError as error:
            log.warning("engine %s: what its last waking took is not known: %s", name, error.message)
        else:
            if last:
                self._wake_s[name] = sum(step.seconds or 0.0 for step in last[0].steps)
        self._rests.setdefault(name, kept)

    def _rest(self, name: str) -> Rest:
        return self._rests.get(name, NOTHING)

    def _sleeps(self, name: str) -> bool:
        return self._rest(name).sleeps(standby=name in self._standbys())

    def _change(self, name: str, **changes: Any) -> None:
        self._keep(name, msgspec.structs.replace(self._rest(name), **changes))

    def _keep(self, name: str, kept: Rest) -> None:
        if kept == self._rests.get(name):
            return
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
            track.rest(standby=self._sleeps(name), slept=slept, wake_s=self._wake_s.get(name))

    def _steps(self, name: str, kind: Literal["sleep", "wake"], cause: str, *, automatic: bool) -> Steps:
        return Steps(self._clock, self._keep_steps, engine=name, kind=kind, cause=cause, automatic=automatic)

    def _keep_steps(self, whole: Transaction) -> None:
        heed(self._past.transaction(whole))

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


def _cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
