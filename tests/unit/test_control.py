"""The control socket and its clients, over a real unix socket."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest

from opsboard.client.stream import AsyncClient, Disconnected, watch
from opsboard.client.sync import Client
from opsboard.core.clock import ManualClock
from opsboard.core.errors import Conflict, ControlError, Denied, NotFound, NotReachable, StateDirLocked
from opsboard.core.model import EngineReading, EngineView, Event, Outcome
from opsboard.core.wire import DaemonInfo, History, HistoryPoint, Status
from opsboard.daemon.actions import Actions
from opsboard.daemon.board import status
from opsboard.daemon.control import Control
from opsboard.daemon.pipeline import EngineSpec, PipelineState, feed
from opsboard.daemon.recording import Recorders, recording_line
from opsboard.daemon.rights import Right
from opsboard.daemon.subscribers import Newest
from opsboard.httpd import Limits, serve
from opsboard.store.state import AuditEntry

T = TypeVar("T")
ALL = Right.READ | Right.OPERATE
DEADLINE_S = 10.0


class FakePast:
    """A store that knows one series and no events."""

    async def history(self, series: str, start: float, end: float, step: float) -> History:
        return History(series=series, step=step, points=(HistoryPoint(t=start, mean=1, min=1, max=1, count=1),))

    async def series(self) -> list[str]:
        return ["engine/a/running"]

    async def events(self, subject: str | None = None, limit: int = 100) -> list[Event]:
        return []


class FakeHands:
    """A supervisor that notes what it is told."""

    def __init__(self) -> None:
        self.done: list[tuple[str, str, str]] = []
        self.error: Exception | None = None
        self.hold = asyncio.Event()
        self.hold.set()

    async def _do(self, kind: str, name: str, reason: str) -> None:
        await self.hold.wait()
        if self.error:
            raise self.error
        self.done.append((kind, name, reason))

    async def start(self, name: str, reason: str) -> None:
        await self._do("start", name, reason)

    async def stop(self, name: str, reason: str) -> None:
        await self._do("stop", name, reason)

    async def restart(self, name: str, reason: str) -> None:
        await self._do("restart", name, reason)


class Daemon:
    """Everything behind the socket, with what cannot be had in a unit test faked."""

    def __init__(self, path: Path, *, right: Right = ALL, looks_only: bool = False) -> None:
        self.path = path
        self.clock = ManualClock()
        self.state = PipelineState(
            "gpu-a",
            [EngineSpec(name="a", url="http://127.0.0.1:1", supervised=True), EngineSpec(name="b", url="http://x:1")],
        )
        self.hands = FakeHands()
        self.events: list[Event] = []
        self.asked: list[AuditEntry] = []
        self.log = path.with_name("engine.log")
        self.reload_error: ControlError | None = None
        self.recorders = Recorders()
        self.newest = Newest(lambda: json_line(self.status()))
        self.actions = Actions(
            self.clock, self.state.specs.get, None if looks_only else self.hands, self.events.append, self.asked.append
        )
        self.control = Control(
            clock=self.clock,
            state=self.state,
            status=self.status,
            past=FakePast(),
            newest=self.newest,
            recorders=self.recorders,
            act=self.actions.ask,
            log_path={"a": self.log}.get,
            reload=self.reload,
            healthy=lambda: True,
            rights=lambda peer: right if peer is not None and peer.pid == os.getpid() else Right.NONE,
        )

    def status(self) -> Status:
        return status(self.state, DaemonInfo(version="0", pid=1, started=0.0), self.clock.now())

    def read(self, running: float) -> None:
        view = EngineView(kind="vllm", running=running)
        feed(self.state, EngineReading(engine="a", outcome=Outcome.OK, view=view), self.clock.advance(1.0))
        self.newest.publish()

    async def reload(self) -> None:
        if self.reload_error:
            raise self.reload_error


def json_line(value: Status) -> bytes:
    return msgspec.json.encode(value) + b"\n"


@asynccontextmanager
async def running(path: Path, **options: Any) -> AsyncIterator[Daemon]:
    daemon = Daemon(path, **options)
    server = await serve(daemon.control.handle, unix=path, limits=Limits(write_timeout=0.5))
    try:
        yield daemon
    finally:
        await daemon.actions.close()
        await server.close(grace=0.0)


@pytest.fixture
def path() -> Path:
    return Path(os.environ["XDG_RUNTIME_DIR"]) / "opsboard.sock"


def with_daemon(path: Path, test: Callable[[Daemon], Awaitable[T]], **options: Any) -> T:
    async def main() -> T:
        async with asyncio.timeout(DEADLINE_S), running(path, **options) as daemon:
            return await test(daemon)

    return asyncio.run(main())


async def in_thread(call: Callable[[], T]) -> T:
    return await asyncio.to_thread(call)


# --- what it says -----------------------------------------------------------------------------------------------------


def test_the_board_the_detail_the_history(path: Path) -> None:
    async def test(daemon: Daemon) -> None:
        daemon.read(3)
        client = Client(path)
        assert await in_thread(client.status) == daemon.status()
        assert await AsyncClient(path).status() == daemon.status()
        assert [engine.name for engine in await in_thread(client.engines)] == ["a", "b"]
        assert (await in_thread(lambda: client.engine("a"))).engine.running == 3
        assert (await AsyncClient(path).engine("a")).log_path == str(daemon.log)
        assert (await in_thread(lambda: client.engine("b"))).engine.name == "b"
        history = await in_thread(lambda: client.history("engine/a/running", 0, 60, 5))
        assert (history.series, history.step, history.points[0].t) == ("engine/a/running", 5.0, 0.0)
        hour = await AsyncClient(path).history("engine/a/running")
        assert hour.step == 12.0
        assert await in_thread(client.series) == ["engine/a/running"]

    with_daemon(path, test)


def test_the_socket_is_for_its_owner_only(path: Path) -> None:
    async def test(daemon: Daemon) -> int:
        return path.stat().st_mode & 0o777

    assert with_daemon(path, test) == 0o600
    assert not path.exists()


@pytest.mark.parametrize(
    ("right", "looks", "operates"), [(Right.NONE, False, False), (Right.READ, True, False), (ALL, True, True)]
)
def test_rights(path: Path, right: Right, looks: bool, operates: bool) -> None:
    async def test(daemon: Daemon) -> tuple[bool, bool]:
        async def may(call: Callable[[], object]) -> bool:
            try:
                await in_thread(call)
            except Denied:
                return False
            return True

        client = Client(path)
        return await may(client.status), await may(lambda: client.action("a", "start"))

    assert with_daemon(path, test, right=right) == (looks, operates)


async def plain(path: Path, request: str) -> tuple[str, dict[str, str], Any]:
    """What curl would see."""
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(request.replace("\n", "\r\n").encode())
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    first, *rest = head.decode().split("\r\n")
    headers = {key.lower(): value.strip() for key, _, value in (line.partition(":") for line in rest)}
    return first, headers, json.loads(body)


@pytest.mark.parametrize(
    ("target", "status", "code"),
    [
        ("GET /v1/nothing", "404", "not_found"),
        ("GET /v1/engines/c", "404", "not_found"),
        ("GET /v1/engines/a/x", "404", "not_found"),
        ("DELETE /v1/engines/a", "404", "not_found"),
        ("POST /v1/status", "404", "not_found"),
        ("GET /v1/engines/b/logs", "409", "conflict"),
        ("GET /v1/engines/c/logs", "404", "not_found"),
        ("GET /v1/engines/a/logs?lines=many", "400", "usage"),
        ("GET /v1/engines/a/logs?lines=-1", "400", "usage"),
        ("GET /v1/history", "400", "usage"),
        ("GET /v1/history?series=x&from=nan", "400", "usage"),
        ("GET /v1/history?series=x&from=2&to=1", "400", "usage"),
        ("GET /v1/history?series=x&from=0&to=1000000&step=1", "400", "usage"),
        ("GET /v1/history?series=x&step=0", "400", "usage"),
    ],
)
def test_refusals(path: Path, target: str, status: str, code: str) -> None:
    async def test(daemon: Daemon) -> None:
        first, headers, body = await plain(path, f"{target} HTTP/1.1\nHost: x\nConnection: close\n\n")
        assert first.split()[1] == status
        assert headers["opsboard-protocol"] == "1"
        assert body["error"]["code"] == code
        assert body["error"]["message"]

    with_daemon(path, test)


def test_curl_needs_no_version_but_another_version_is_refused(path: Path) -> None:
    async def test(daemon: Daemon) -> None:
        first, _, body = await plain(path, "GET /healthz HTTP/1.1\nHost: x\nConnection: close\n\n")
        assert (first.split()[1], body) == ("200", {"status": "ok"})
        strange = "GET /v1/status HTTP/1.1\nHost: x\nConnection: close\nOpsboard-Protocol: 2\n\n"
        first, _, body = await plain(path, strange)
        assert first.split()[1] == "400"
        assert "protocol 2" in body["error"]["message"]

    with_daemon(path, test)


# --- the stream -------------------------------------------------------------------------------------------------------


def test_subscribers_get_the_newest_state_and_no_backlog(path: Path) -> None:
    async def test(daemon: Daemon) -> None:
        stream = AsyncClient(path).events()
        assert (await anext(stream)).engines[0].running is None
        for n in range(100):
            daemon.read(n)
        assert (await anext(stream)).engines[0].running == 99
        later = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)
        assert not later.done()
        daemon.read(7)
        assert (await later).engines[0].running == 7
        await stream.aclose()
        while daemon.newest.count:
            await asyncio.sleep(0.01)

    with_daemon(path, test)


def test_a_stalled_subscriber_is_dropped_and_delays_nobody(path: Path) -> None:
    async def test(daemon: Daemon) -> None:
        with closing(socket.socket(socket.AF_UNIX)) as stalled:
            stalled.connect(str(path))
            stalled.sendall(b"GET /v1/events HTTP/1.1\r\nHost: x\r\n\r\n")
            stream = AsyncClient(path).events()
            await anext(stream)
            while daemon.newest.count < 2:
                await asyncio.sleep(0.01)
            seen, n = -1.0, 0
            while daemon.newest.count == 2:
                n += 1
                daemon.read(n)
                seen = (await anext(stream)).engines[0].running or 0
                assert seen == n
            assert daemon.newest.count == 1
            await stream.aclose()

    with_daemon(path, test)


def test_no_state_is_made_while_nobody_listens() -> None:
    made = 0

    def make() -> bytes:
        nonlocal made
        made += 1
        return b"x\n"

    async def main() -> None:
        newest = Newest(make)
        newest.publish()
        newest.publish_soon()
        await asyncio.sleep(0)

    asyncio.run(main())
    assert made == 0


def test_watch_reconnects_by_itself(path: Path) -> None:
    async def main() -> list[str]:
        seen: list[str] = []
        async with asyncio.timeout(DEADLINE_S):
            states = watch(path)
            first = await anext(states)
            assert isinstance(first, Disconnected)
            assert "no such socket" in first.message
            assert not first.denied
            for _ in range(2):
                async with running(path) as daemon:
                    while isinstance(await anext(states), Disconnected):
                        pass
                    seen.append(f"{daemon.newest.count} connected")
                while not isinstance(gone := await anext(states), Disconnected):
                    pass
                seen.append(gone.message)
            await states.aclose()
        return seen

    seen = asyncio.run(main())
    assert [line for line in seen if line.endswith("connected")] == ["1 connected"] * 2


# --- actions ----------------------------------------------------------------------------------------------------------


def test_an_action_is_taken_on_carried_out_and_told(path: Path) -> None:
    async def test(daemon: Daemon) -> None:
        client = Client(path)
        accepted = await in_thread(lambda: client.action("a", "restart", "leak\x1b[31m"))
        assert (accepted.kind, accepted.engine) == ("restart", "a")
        while not daemon.hands.done:
            await asyncio.sleep(0.01)
        assert daemon.hands.done == [("restart", "a", "leak\N{REPLACEMENT CHARACTER}[31m")]
        (asked,) = daemon.asked
        assert (asked.action, asked.subject, asked.uid, asked.pid) == ("restart", "engine/a", os.getuid(), os.getpid())
        (event,) = daemon.events
        assert event.subject == "engine/a"
        assert event.text.startswith(f"restart asked by uid {os.getuid()} (pid {os.getpid()}): leak")

    with_daemon(path, test)


def test_the_same_key_does_it_once(path: Path) -> None:
    async def test(daemon: Daemon) -> None:
        client = AsyncClient(path)
        first = await client.action("a", "stop", idempotency_key="k1")
        assert await client.action("a", "stop", idempotency_key="k1") == first
        with pytest.raises(Conflict, match="idempotency key"):
            await client.action("a", "start", idempotency_key="k1")
        assert (await client.action("a", "stop")).id != first.id
        while len(daemon.hands.done) < 2:
            await asyncio.sleep(0.01)
        assert len(daemon.hands.done) == len(daemon.asked) == 2

    with_daemon(path, test)


def test_what_an_action_may_not_be(path: Path) -> None:
    async def test(daemon: Daemon) -> None:
        client = AsyncClient(path)
        with pytest.raises(NotFound, match="no engine is called 'c'"):
            await client.action("c", "start")
        with pytest.raises(Conflict, match="did not start it"):
            await client.action("b", "stop")
        with pytest.raises(ControlError, match="no action is called 'explode'"):
            await client.action("a", "explode")
        assert daemon.asked == []

    with_daemon(path, test)


def test_a_body_that_makes_no_sense(path: Path) -> None:
    async def test(daemon: Daemon) -> None:
        for body in ("{}", '{"kind": 5}', '{"kind": "stop", "force": true}', "not json"):
            head = f"POST /v1/engines/a/actions HTTP/1.1\nHost: x\nConnection: close\nContent-Length: {len(body)}\n\n"
            first, _, reply = await plain(path, head + body)
            assert first.split()[1] == "400", body
            assert reply["error"]["code"] == "usage"

    with_daemon(path, test)


def test_a_daemon_that_only_looks(path: Path) -> None:
    async def test(daemon: Daemon) -> None:
        with pytest.raises(Denied, match="only looks"):
            await AsyncClient(path).action("a", "stop")

    with_daemon(path, test, looks_only=True)


@pytest.mark.parametrize("error", [ControlError("port 1 is taken", hint="by pid 5"), ValueError("boom")])
def test_an_action_that_fails_is_told(path: Path, error: Exception) -> None:
    async def test(daemon: Daemon) -> None:
        daemon.hands.error = error
        await AsyncClient(path).action("a", "start")
        while len(daemon.events) < 2:
            await asyncio.sleep(0.01)
        assert daemon.events[1].severity == "error"
        assert str(error) in daemon.events[1].text

    with_daemon(path, test)


def test_a_slow_action_delays_nobody(path: Path) -> None:
    async def test(daemon: Daemon) -> None:
        daemon.hands.hold.clear()
        client = AsyncClient(path)
        await client.action("a", "stop")
        await client.status()
        assert daemon.hands.done == []

    with_daemon(path, test)


def test_a_reload_that_is_refused(path: Path) -> None:
    async def test(daemon: Daemon) -> None:
        await in_thread(Client(path).reload)
        daemon.reload_error = Conflict("engine a runs", hint="stop it first")
        with pytest.raises(Conflict, match="engine a runs") as caught:
            await in_thread(Client(path).reload)
        assert caught.value.hint == "stop it first"

    with_daemon(path, test)


# --- logs and recordings ----------------------------------------------------------------------------------------------


def test_logs_tail_and_follow(path: Path) -> None:
    async def test(daemon: Daemon) -> None:
        daemon.log.write_text("".join(f"line {n}\n" for n in range(500)) + "\x1b[31mred\x1b[0m\n")
        client = Client(path)
        assert await in_thread(lambda: list(client.logs("a", 3))) == ["line 498", "line 499", "red"]
        stream = AsyncClient(path).logs("a", 1, follow=True)
        assert await anext(stream) == "red"
        with daemon.log.open("a") as log:
            log.write("one\ntwo\n")
        assert [await anext(stream), await anext(stream)] == ["one", "two"]
        await stream.aclose()

    with_daemon(path, test)


def test_an_engine_that_never_started_has_an_empty_log(path: Path) -> None:
    async def test(daemon: Daemon) -> None:
        assert await in_thread(lambda: list(Client(path).logs("a"))) == []

    with_daemon(path, test)


def test_recorders_get_every_reading(path: Path) -> None:
    def first(lines: Iterator[bytes], n: int) -> list[Any]:
        return [json.loads(next(lines)) for _ in range(n)]

    async def test(daemon: Daemon) -> None:
        lines = Client(path).record()
        got = asyncio.create_task(in_thread(lambda: first(lines, 2)))
        while not daemon.recorders.active:
            await asyncio.sleep(0.01)
        good = EngineReading(engine="a", outcome=Outcome.OK, page=b"up 1\n", view=EngineView(kind="vllm"))
        bad = EngineReading(engine="a", outcome=Outcome.FAILED, error="refused")
        for reading in (good, bad):
            daemon.recorders.offer(recording_line(reading, daemon.clock.now(), kind="vllm"))
        t = daemon.clock.now().wall
        assert await got == [
            {"t": t, "engine": "a", "kind": "vllm", "metrics": "up 1\n", "processes": [], "gpus": []},
            {"t": t, "engine": "a", "kind": "vllm", "error": "refused", "processes": [], "gpus": []},
        ]

    with_daemon(path, test)


def test_a_slow_recorder_is_told_what_it_lost() -> None:
    async def main() -> list[Any]:
        recorders, clock = Recorders(), ManualClock()
        stream = recorders.stream()
        first = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)
        for n in range(300):
            reading = EngineReading(engine=str(n), outcome=Outcome.FAILED, error="x")
            recorders.offer(recording_line(reading, clock.now()))
        lines = [await first] + [await anext(stream) for _ in range(255)]
        recorders.offer(recording_line(EngineReading(engine="last", outcome=Outcome.FAILED), clock.now()))
        lines.append(await anext(stream))
        await stream.aclose()
        assert recorders.dropped == 44
        assert not recorders.active
        return [json.loads(line) for line in lines]

    lines = asyncio.run(main())
    assert [line["engine"] for line in lines] == [*map(str, range(256)), "last"]
    assert lines[-1]["dropped"] == 44


# --- clients and sockets that are not as they should be ------------------------------------------------------------


def test_no_daemon(path: Path) -> None:
    with pytest.raises(NotReachable, match="no such socket") as caught:
        Client(path).status()
    assert caught.value.exit_code == 3
    with closing(socket.socket(socket.AF_UNIX)) as dead:
        dead.bind(str(path))
    with pytest.raises(NotReachable, match="nobody listens"):
        Client([path, path.with_name("other.sock")]).status()
    with pytest.raises(NotReachable, match="nobody listens"):
        asyncio.run(AsyncClient(path).status())


@pytest.mark.skipif(os.getuid() == 0, reason="root may connect to everything")
def test_a_socket_closed_to_us(path: Path) -> None:
    path.parent.chmod(0)
    try:
        with pytest.raises(Denied, match="no permission"):
            Client(path).status()
    finally:
        path.parent.chmod(0o700)


def test_the_second_socket_answers(path: Path) -> None:
    async def test(daemon: Daemon) -> None:
        assert (await in_thread(Client([path.with_name("own.sock"), path]).status)).host == "gpu-a"

    with_daemon(path, test)


def test_a_live_daemon_is_not_replaced_and_a_dead_one_is(path: Path) -> None:
    async def test(daemon: Daemon) -> None:
        with pytest.raises(StateDirLocked):
            await serve(daemon.control.handle, unix=path)
        assert (await AsyncClient(path).status()).host == "gpu-a"

    with_daemon(path, test)
    with closing(socket.socket(socket.AF_UNIX)) as dead:
        dead.bind(str(path))
    assert with_daemon(path, lambda daemon: AsyncClient(path).status()).host == "gpu-a"


@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nOpsboard-Protocol: 1\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nOpsboard-Protocol: 9\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 500 Oops\r\nContent-Length: 4\r\n\r\nbang",
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n\r\n",
        b"",
        b"HTTP/1.1 200 OK\r\nOpsboard-Protocol: 1\r\nContent-Length: 99\r\n\r\n{",
    ],
)
def test_something_else_answers(path: Path, reply: bytes) -> None:
    async def strange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(reply)
        writer.close()

    async def main() -> None:
        server = await asyncio.start_unix_server(strange, path)
        async with server, asyncio.timeout(DEADLINE_S):
            with pytest.raises(ControlError):
                await in_thread(Client(path).status)
            with pytest.raises(ControlError):
                await AsyncClient(path).status()

    asyncio.run(main())
