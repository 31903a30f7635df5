"""An engine of cardboard that can be put to sleep, in virtual time: what is done to it is noted."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from pathlib import Path

import msgspec

from collectors.sleeping import CannotSleep
from opsboard.core.errors import CollectError, Conflict, NotFound, StoreError
from opsboard.core.model import CanaryOutcome, CanaryReading, EngineState, LifeView, Severity, Transaction
from opsboard.daemon.pipeline import EngineSpec, PipelineState
from opsboard.daemon.standby import Standby
from opsboard.supervise import rest
from opsboard.supervise.rest import Rest
from opsboard.supervise.world import Inflight
from tests.support.virtual_time import LoopClock, run

READY, DRAINING, STOPPED, STARTING = (
    EngineState.READY, EngineState.DRAINING, EngineState.STOPPED, EngineState.STARTING,
)  # fmt: skip
ANSWER, OTHER = "the answer", "another one"


class House:
    """One engine ``a`` in a supervisor, a store and an HTTP face of cardboard, and what is done to it."""

    def __init__(self, directory: Path, *, standby: bool = False, state: EngineState = READY) -> None:
        (directory / "a").mkdir(exist_ok=True)
        self.directory = directory
        self.clock = LoopClock()
        spec = EngineSpec(name="a", kind="vllm", url="http://x:1", supervised=True, drain_timeout_s=10.0)
        self.board = PipelineState("h", [spec])
        self.view = LifeView(engine="a", state=STOPPED, since=0.0, supervised=True)
        self.done: list[str] = []
        self.told: list[tuple[str, Severity, str]] = []
        self.kept: list[Transaction] = []
        self.past_error: StoreError | None = None
        self.sleeps = False
        self.requests: float | None = 0.0
        self.answer = ANSWER
        self.outcome = CanaryOutcome.OK
        self.cannot: str | None = None
        self.error: CollectError | None = None
        self.last_target = False
        self.starts_as = READY
        self.standbys = {"a"} if standby else set()
        self.standby = self.daemon()
        if state is not STOPPED:
            self.begin_life(state)

    def daemon(self) -> Standby:
        """Begin another daemon's part; what the last one was about is forgotten."""
        return Standby(
            self.clock, self.board, self.directory, engines=self, asked=self, standbys=lambda: self.standbys,
            inflight=self.inflight, tell=self.tell, past=self,
        )  # fmt: skip

    def begin_life(self, state: EngineState) -> None:
        self.sleeps = False
        self.become(state, started=(self.view.started or 0.0) + 1.0, pid=7)

    def become(self, state: EngineState, **more: object) -> None:
        self.view = msgspec.structs.replace(self.view, state=state, **more)
        self.board.engines["a"].live(self.view)
        self.standby.hear(self.view)

    def tell(self, kind: str, text: str, severity: Severity, subject: str) -> None:
        assert subject == "engine/a"
        self.told.append((kind, severity, text))

    def texts(self, kind: str) -> list[str]:
        return [text for one, _, text in self.told if one == kind]

    def steps(self) -> list[tuple[str, str | None, list[str]]]:
        return [(one.kind, one.outcome, [step.name for step in one.steps]) for one in self.kept]

    def remembered(self) -> Rest:
        return rest.read(self.directory / "a")

    async def until(self, holds: Callable[[], bool], what: str) -> None:
        for _ in range(1000):
            if holds():
                return
            await self.standby.look()
            await asyncio.sleep(0.2)
        raise AssertionError(what)

    # --- the supervisor

    def life(self, name: str) -> LifeView:
        if name != "a":
            raise NotFound(name)
        return self.view

    def check_last(self, name: str, hint: str) -> None:
        if self.last_target and self.view.state is READY:
            raise Conflict(f"{name} is the last healthy target of route chat", hint=hint)

    async def start(self, name: str, _reason: str) -> None:
        self.done.append(f"start {name}")
        self.become(STARTING, pid=None, started=None)
        self.view = msgspec.structs.replace(self.view, started=len(self.done) + 100.0)
        asyncio.get_running_loop().call_later(3.0, lambda: self.begin_life(self.starts_as))

    async def stop(self, name: str, reason: str) -> None:
        self.done.append(f"stop {name}: {reason}")
        self.become(STOPPED, pid=None, started=None)

    async def drain(self, name: str, _reason: str, *, now: bool = False) -> None:
        if self.last_target and not now:
            raise Conflict("a is the last healthy target of route chat", hint="opsboard engine drain a --now")
        self.done.append(f"drain {name}")
        self.become(DRAINING)

    async def undrain(self, name: str, _reason: str) -> None:
        self.done.append(f"undrain {name}")
        self.become(READY)

    # --- the engine over HTTP

    async def check_sleep(self, _name: str) -> None:
        if self.cannot is not None:
            raise CannotSleep(self.cannot, hint="give it the flag")

    async def asleep(self, _name: str) -> bool:
        return self.sleeps

    async def sleep(self, name: str) -> float:
        self.done.append(f"sleep {name}")
        await asyncio.sleep(2.0)
        if self.error is not None:
            raise self.error
        self.sleeps = True
        return 2.0

    async def wake(self, name: str) -> float:
        self.done.append(f"wake {name}")
        await asyncio.sleep(1.0)
        self.sleeps = False
        return 1.0

    async def golden(self, name: str) -> CanaryReading:
        digest = hashlib.sha256(self.answer.encode()).hexdigest() if self.outcome is CanaryOutcome.OK else None
        return CanaryReading(engine=name, outcome=self.outcome, seconds=0.1, output=self.answer, output_sha256=digest)

    # --- the board and the store

    def inflight(self, _name: str) -> Inflight | None:
        return None if self.requests is None else Inflight(self.requests, self.clock.now().mono)

    def transaction(self, transaction: Transaction) -> Future[None]:
        self.kept.append(transaction)
        written: Future[None] = Future()
        written.set_result(None)
        return written

    async def transactions(self, engine: str, limit: int = 20, *, kinds: Sequence[str]) -> list[Transaction]:
        if self.past_error is not None:
            raise self.past_error
        return [one for one in self.kept if one.engine == engine and one.kind in kinds][-limit:]


def in_house(
    main: Callable[[House], Awaitable[None]], directory: Path, *, standby: bool = False, state: EngineState = READY
) -> House:
    async def go() -> House:
        house = House(directory, standby=standby, state=state)
        await house.standby.look()
        await main(house)
        await house.standby.close()
        return house

    return run(go())
