"""How an engine is put to sleep and woken, step by step. Whether it is to sleep is for others to know.

To sleep: out of service, nothing under way any more, then the engine's own sleep. To wake: the engine's own waking (or
a start, where it is stopped), the golden question, then back in service.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Literal, Protocol

from opsboard.core.clock import Clock
from opsboard.core.errors import Conflict, OpsboardError, SuperviseError
from opsboard.core.model import CanaryReading, EngineState, LifeView, Transaction
from opsboard.daemon.pipeline import PipelineState
from opsboard.daemon.steps import Steps
from opsboard.daemon.supervising import heed
from opsboard.supervise import bundle, errands, golden
from opsboard.supervise.golden import Proof
from opsboard.supervise.world import Inflight

log = logging.getLogger("opsboard.daemon")

SERVES = frozenset({EngineState.READY, EngineState.DRAINING})
POLL_S = 0.25
KIND_S = 15.0
"""How long it may take to read the first page, which says what kind of engine it is."""
_BEGINS = frozenset({EngineState.STARTING, EngineState.STOPPING, EngineState.BACKING_OFF})


class Engines(Protocol):
    """What can start and stop engines and take them out of service: the supervisor."""

    def life(self, name: str) -> LifeView:
        """Return what is known of an engine. Raises NotFound."""

    def check_last(self, name: str, hint: str) -> None:
        """Raise Conflict when it is the last that serves a route."""

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

    async def golden(self, name: str) -> CanaryReading:
        """Ask it the question whose answer must not change."""


class Log(Protocol):
    """Where transactions are kept: the store."""

    def transaction(self, transaction: Transaction) -> Future[None]:
        """Keep one that is over."""


class Sleeper:
    """Puts engines to sleep and wakes them, one call at a time an engine."""

    def __init__(
        self,
        clock: Clock,
        state: PipelineState,
        directory: Path,
        *,
        engines: Engines,
        asked: Asked,
        inflight: Callable[[str], Inflight | None],
        past: Log,
    ) -> None:
        """``directory`` holds the bundles; ``inflight(name)`` is what is under way, where that is known."""
        self._clock = clock
        self._state = state
        self._directory = directory
        self._engines = engines
        self._asked = asked
        self._inflight = inflight
        self._past = past

    async def put_to_sleep(self, name: str, cause: str, *, automatic: bool, why_not: Callable[[], str | None]) -> Steps:
        """Wait until an engine that is out of service has nothing under way, and put it to sleep.

        ``why_not()`` says why it is not to sleep any more. Raises Conflict with that; FetchError and CollectError: it
        did not, and was told to go on.
        """
        with self._steps(name, "sleep", cause, automatic=automatic) as steps:
            steps.at("drain")
            await self._quiet(name, steps, why_not)
            steps.at("sleep")
            if not await self._asked.asleep(name):
                await self._sleep_or_go_on(name)
        return steps

    async def wake(self, name: str, cause: str, *, serves: Callable[[], bool]) -> Steps | None:
        """Wake or start an engine, ask it, and bring it back into service if ``serves()`` then.

        Returns None where it serves already.

        Raises SuperviseError: it does not start, or does not answer as it should and stays out of service; FetchError,
        CollectError: it does not wake.
        """
        life = self._engines.life(name)
        asleep = life.state in SERVES and await self._asked.asleep(name)
        if life.state is EngineState.READY and not asleep:
            return None
        with self._steps(name, "wake", cause, automatic=False) as steps:
            if life.state not in SERVES:
                steps.at("start")
                await self._start(name, cause, life)
            elif asleep:
                steps.at("wake")
                if life.state is EngineState.READY:  # an `undrain` does not wake
                    await self._engines.drain(name, cause, now=True)
                await self._asked.wake(name)
            if self._engines.life(name).state is not EngineState.READY:  # where it is, a start has asked it
                steps.at("canary")
                await self._prove(name, steps)
                steps.at("serving")
                if serves():
                    await self._engines.undrain(name, cause)
        return steps

    async def known(self, name: str) -> None:
        """Return when it is known what kind of engine it is, or cannot be found out."""
        end = self._clock.now().mono + KIND_S
        while self._clock.now().mono < end:
            track = self._state.engines.get(name)
            if track is None or track.known_kind:
                return
            await asyncio.sleep(POLL_S)

    async def _quiet(self, name: str, steps: Steps, why_not: Callable[[], str | None]) -> None:
        spec = self._state.specs.get(name)
        end = self._clock.now().mono + ((spec.drain_timeout_s if spec is not None else None) or 0.0)

        def waits() -> bool:
            if (text := why_not()) is not None:
                raise Conflict(text)
            return self._clock.now().mono < end

        await errands.quiet(lambda: self._inflight(name), waits, steps.say)
        waits()  # it may have been woken in the last moment

    async def _sleep_or_go_on(self, name: str) -> None:
        """Put it to sleep; one that is not in time may have stopped to take requests, and is told to go on."""
        try:
            await self._asked.sleep(name)
        except OpsboardError:
            try:
                await self._asked.wake(name)
            except OpsboardError as error:
                log.warning("engine %s: not told to go on: %s", name, error.message)
            raise

    async def _start(self, name: str, cause: str, life: LifeView) -> None:
        if life.state is not EngineState.STARTING:
            await self._engines.start(name, cause)
        while (life := self._engines.life(name)).state in _BEGINS:  # noqa: ASYNC110  it has a ready_timeout of its own
            await asyncio.sleep(POLL_S)
        if life.state not in SERVES:
            raise SuperviseError(f"{name} is {life.state.word}: {life.message or 'no reason known'}")

    async def _prove(self, name: str, steps: Steps) -> None:
        """Raise SuperviseError when it does not answer, or not as it did: weights come back from host memory."""
        place, track = self._directory / name, self._state.engines[name]
        try:
            identity = await asyncio.to_thread(bundle.read, str(place), bundle.IDENTITY) or {}
            proof = await golden.prove(
                place,
                lambda: self._asked.golden(name),
                command=str(identity.get("argv_sha256")),
                version=None if track.view is None else track.view.version,
            )
        except OSError as error:  # a disk that keeps no answer keeps no engine out of service
            proof = Proof(text=f"its answer cannot be kept: {error.strerror or error}", asked=False)
        steps.say(proof.text, errands.outcome_of(proof))
        if proof.failed or proof.doubt:
            raise SuperviseError(
                f"{name} is awake, but {proof.text}; it stays out of service",
                hint=f"opsboard engine undrain {name} lets it serve all the same",
            )

    def _steps(self, name: str, kind: Literal["sleep", "wake"], cause: str, *, automatic: bool) -> Steps:
        return Steps(
            self._clock, self._keep_steps, self._show_steps, engine=name, kind=kind, cause=cause, automatic=automatic
        )

    def _keep_steps(self, whole: Transaction) -> None:
        heed(self._past.transaction(whole))

    def _show_steps(self, whole: Transaction) -> None:
        if (track := self._state.engines.get(whole.engine)) is not None:
            track.rested = whole
