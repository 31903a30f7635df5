"""A daemon's control socket in a test: the real handler on a real unix socket, with what lies behind it faked."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from concurrent.futures import Future
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from opsboard.core.clock import ManualClock
from opsboard.core.deliveries import ChannelHealth
from opsboard.core.errors import OpsboardError
from opsboard.core.model import (
    EngineReading,
    EngineState,
    EngineView,
    Event,
    Outcome,
    Rolling,
    Step,
    Transaction,
    Transition,
)
from opsboard.core.wire import ActionAccepted, ActionRequest, DaemonInfo, History, HistoryPoint, Status
from opsboard.daemon.actions import Actions, Crew
from opsboard.daemon.board import status
from opsboard.daemon.control import Control
from opsboard.daemon.incident_desk import Desk
from opsboard.daemon.keys import Keys
from opsboard.daemon.pipeline import EngineSpec, PipelineState, feed
from opsboard.daemon.recording import Recorders
from opsboard.daemon.rights import Right
from opsboard.daemon.silence_desk import SilenceDesk
from opsboard.daemon.subscribers import Newest
from opsboard.daemon.telling_desk import TellingDesk
from opsboard.httpd import Limits, Peer, serve
from opsboard.store.state import AuditEntry
from opsboard.supervise.world import Begins
from tests.support.kept_incidents import FakeKept
from tests.support.memory_outbox import MemoryOutbox

T = TypeVar("T")
ALL = Right.READ | Right.OPERATE
DEADLINE_S = 10.0


STEP = Step(name="launch", started=1.0, seconds=0.1, outcome="ok")


class FakePast:
    """A store that knows one series, one start of every engine, and no events."""

    async def history(self, series: str, start: float, end: float, step: float) -> History:
        return History(series=series, step=step, points=(HistoryPoint(t=start, mean=1, min=1, max=1, count=1),))

    async def series(self) -> list[str]:
        return ["engine/a/running"]

    async def events(self, subject: str | None = None, limit: int = 100) -> list[Event]:
        return []

    async def transitions(self, engine: str, limit: int = 100) -> list[Transition]:
        return [Transition(t=1.0, engine=engine, state=EngineState.READY, reason="asked by hand")][:limit]

    async def transactions(self, engine: str, limit: int = 20) -> list[Transaction]:
        return [Transaction(id="t1", engine=engine, kind="start", began=1.0, steps=(STEP,), outcome="ok")][:limit]


class FakeHands:
    """A supervisor that notes what it is told."""

    def __init__(self) -> None:
        self.done: list[tuple[str, str, str]] = []
        self.refusal: Exception | None = None
        """Raised before anything is done."""
        self.error: Exception | None = None
        self.hold = asyncio.Event()
        self.hold.set()

    async def _do(self, kind: str, name: str, reason: str, begins: Begins) -> None:
        if self.refusal:
            raise self.refusal
        begins()
        await self.hold.wait()
        if self.error:
            raise self.error
        self.done.append((kind, name, reason))

    async def start(self, name: str, reason: str, *, begins: Begins) -> None:
        await self._do("start", name, reason, begins)

    async def stop(self, name: str, reason: str, *, begins: Begins) -> None:
        await self._do("stop", name, reason, begins)

    async def restart(self, name: str, reason: str, *, now: bool = False, begins: Begins) -> None:
        await self._do("restart now" if now else "restart", name, reason, begins)

    async def run(
        self, names: Iterable[str], reason: str, *, id: str, now: bool, uid: int | None, begins: Begins
    ) -> None:
        assert id
        assert uid == os.getuid()
        await self._do("rolling now" if now else "rolling", " ".join(names), reason, begins)

    def cancel(self, who: str) -> Rolling:
        return Rolling(
            id="r1", engines=("a", "a2"), reason="weekly", began=1.0, changed=1.0, outcome="cancelled", error=who
        )

    async def drain(self, name: str, reason: str, *, now: bool = False, begins: Begins) -> None:
        await self._do("drain now" if now else "drain", name, reason, begins)

    async def undrain(self, name: str, reason: str, *, begins: Begins) -> None:
        await self._do("undrain", name, reason, begins)

    async def sleep(self, name: str, reason: str, *, now: bool = False, begins: Begins) -> None:
        await self._do("sleep now" if now else "sleep", name, reason, begins)

    async def wake(self, name: str, reason: str, *, begins: Begins) -> None:
        await self._do("wake", name, reason, begins)


class FakeDaemon:
    """Everything behind the socket, with what cannot be had in a unit test faked."""

    def __init__(self, path: Path, *, right: Right = ALL, looks_only: bool = False) -> None:
        self.path = path
        self.clock = ManualClock()
        self.state = PipelineState(
            "gpu-a",
            [
                EngineSpec(name="a", url="http://127.0.0.1:1", supervised=True),
                EngineSpec(name="b", url="http://x:1"),
                EngineSpec(name="a2", url="http://127.0.0.1:2", supervised=True),
            ],
        )
        self.hands = FakeHands()
        self.events: list[Event] = []
        self.asked: list[AuditEntry] = []
        self.log = path.with_name("engine.log")
        self.reload_error: OpsboardError | None = None
        self.right = right
        self.peer: Peer | None = None
        self.recorders = Recorders()
        self.newest = Newest(lambda: json_line(self.status()))
        self.keys: dict[str, str] = {}
        """What is on the disk of idempotency keys."""
        self.crew = None if looks_only else Crew(hands=self.hands, beds=self.hands, rolls=self.hands)
        self.actions = self.new_actions()
        self.kept = FakeKept()
        self.outbox = MemoryOutbox(self.clock, ChannelHealth(name="oncall", kind="pagerduty"))
        self.control = Control(
            clock=self.clock,
            state=self.state,
            status=self.status,
            past=FakePast(),
            newest=self.newest,
            recorders=self.recorders,
            desk=Desk(
                self.clock,
                self.state,
                self.kept,
                self.kept.carry_out,
                SilenceDesk(self.clock, self.state.silences, self.kept),
            ),
            telling=TellingDesk(self.clock, self.outbox, self.outbox, self.kept),
            act=self.ask,
            rolling=lambda: None,
            cancel_rolling=self.actions.cancel_rolling,
            adopting=None,
            log_path={"a": self.log}.get,
            reload=lambda peer: self.actions.reload(self.reload, peer),
            healthy=lambda: True,
            rights=self.rights,
        )

    async def ask(self, name: str, request: ActionRequest, peer: Peer | None) -> ActionAccepted:
        return await self.actions.ask(name, request, peer)

    def new_actions(self) -> Actions:
        """Return those of another daemon with the same disk."""

        def keep(key: str, answer: str) -> Future[None]:
            self.keys[key] = answer
            written: Future[None] = Future()
            written.set_result(None)
            return written

        keys = Keys(self.keys, keep)
        return Actions(self.clock, self.state.specs, self.crew, self.events.append, self.asked.append, keys=keys)

    def status(self) -> Status:
        return status(self.state, DaemonInfo(version="0", pid=1, started=0.0), self.clock.now())

    def read(self, running: float) -> None:
        view = EngineView(kind="vllm", running=running)
        feed(self.state, EngineReading(engine="a", outcome=Outcome.OK, view=view), self.clock.advance(1.0))
        self.newest.publish()

    def rights(self, peer: Peer | None) -> Right:
        self.peer = peer
        return self.right if peer is not None and peer.pid == os.getpid() else Right.NONE

    async def reload(self) -> None:
        if self.reload_error:
            raise self.reload_error


def json_line(value: Status) -> bytes:
    return msgspec.json.encode(value) + b"\n"


@asynccontextmanager
async def running(path: Path, **options: Any) -> AsyncIterator[FakeDaemon]:
    daemon = FakeDaemon(path, **options)
    server = await serve(daemon.control.handle, unix=path, limits=Limits(write_timeout=0.5))
    try:
        yield daemon
    finally:
        await daemon.actions.close()
        await server.close(grace=0.0)


def socket_path() -> Path:
    """Return a path short enough for a socket."""
    return Path(os.environ["XDG_RUNTIME_DIR"]) / "opsboard.sock"


def with_daemon(path: Path, test: Callable[[FakeDaemon], Awaitable[T]], **options: Any) -> T:
    async def main() -> T:
        async with asyncio.timeout(DEADLINE_S), running(path, **options) as daemon:
            return await test(daemon)

    return asyncio.run(main())


async def in_thread(call: Callable[[], T]) -> T:
    return await asyncio.to_thread(call)


async def plain(path: Path, request: str) -> tuple[str, dict[str, str], Any]:
    """What curl would see."""
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(request.replace("\n", "\r\n").encode())
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    first, *rest = head.decode().split("\r\n")
    headers = {key.lower(): value.strip() for key, _, value in (line.partition(":") for line in rest)}
    return first, headers, json.loads(body) if body.strip() else None
