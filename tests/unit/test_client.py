"""The clients: logs, recordings, and sockets that are not as they should be."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from opsboard.client.stream import AsyncClient
from opsboard.client.sync import Client
from opsboard.core.clock import ManualClock
from opsboard.core.errors import ControlError, Denied, NotReachable, StateDirLocked
from opsboard.core.model import EngineReading, EngineView, Outcome
from opsboard.daemon import recording
from opsboard.daemon.recording import Recorders
from opsboard.httpd import serve
from opsboard.recording.lines import line
from tests.support.control_daemon import DEADLINE_S, FakeDaemon, in_thread, socket_path, with_daemon


@pytest.fixture
def path() -> Path:
    return socket_path()


# --- logs and recordings ----------------------------------------------------------------------------------------------


def test_logs_tail_and_follow(path: Path) -> None:
    async def test(daemon: FakeDaemon) -> None:
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
    async def test(daemon: FakeDaemon) -> None:
        assert await in_thread(lambda: list(Client(path).logs("a"))) == []

    with_daemon(path, test)


def test_recorders_get_every_reading(path: Path) -> None:
    def first(lines: Iterator[bytes], n: int) -> list[Any]:
        return [json.loads(next(lines)) for _ in range(n)]

    async def test(daemon: FakeDaemon) -> None:
        lines = Client(path).record()
        got = asyncio.create_task(in_thread(lambda: first(lines, 2)))
        while not daemon.recorders.active:
            await asyncio.sleep(0.01)
        good = EngineReading(engine="a", outcome=Outcome.OK, page=b"up 1\n", view=EngineView(kind="vllm"))
        bad = EngineReading(engine="a", outcome=Outcome.FAILED, error="refused")
        for reading in (good, bad):
            daemon.recorders.offer(line(reading, daemon.clock.now().wall, kind="vllm"))
        t = daemon.clock.now().wall
        assert await got == [
            {"t": t, "engine": "a", "kind": "vllm", "metrics": "up 1\n"},
            {"t": t, "engine": "a", "kind": "vllm", "error": "refused"},
        ]

    with_daemon(path, test)


def test_a_recording_ends_in_time_though_nothing_is_read(path: Path) -> None:
    async def test(daemon: FakeDaemon) -> None:
        assert await in_thread(lambda: list(Client(path).record(0.2))) == []
        assert not daemon.recorders.dropped

    with_daemon(path, test)


def test_a_slow_recorder_is_told_what_it_lost() -> None:
    async def main() -> list[Any]:
        recorders, clock = Recorders(), ManualClock()
        stream = recorders.stream()
        first = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)
        for n in range(300):
            reading = EngineReading(engine=str(n), outcome=Outcome.FAILED, error="x")
            recorders.offer(line(reading, clock.now().wall))
        lines = [await first] + [await anext(stream) for _ in range(255)]
        recorders.offer(line(EngineReading(engine="last", outcome=Outcome.FAILED), clock.now().wall))
        lines.append(await anext(stream))
        await stream.aclose()
        assert recorders.dropped == 44
        assert not recorders.active
        return [json.loads(line) for line in lines]

    lines = asyncio.run(main())
    assert [line["engine"] for line in lines] == [*map(str, range(256)), "last"]
    assert lines[-1]["dropped"] == 44


def test_large_pages_do_not_pile_up_for_a_slow_recorder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "QUEUE_CHARS", 1000)
    page = EngineReading(engine="a", outcome=Outcome.OK, page=b"x" * 300)

    async def main() -> None:
        recorders, clock = Recorders(), ManualClock()
        stream = recorders.stream()
        first = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)
        for _ in range(10):
            recorders.offer(line(page, clock.now().wall))
        assert recorders.dropped == 6
        await first
        recorders.offer(line(page, clock.now().wall))
        assert recorders.dropped == 6
        lines = [json.loads(await anext(stream)) for _ in range(4)]
        assert [line.get("dropped", 0) for line in lines] == [0, 0, 0, 6]
        await stream.aclose()

    asyncio.run(main())


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
    async def test(daemon: FakeDaemon) -> None:
        assert (await in_thread(Client([path.with_name("own.sock"), path]).status)).host == "gpu-a"

    with_daemon(path, test)


def test_a_live_daemon_is_not_replaced_and_a_dead_one_is(path: Path) -> None:
    async def test(daemon: FakeDaemon) -> None:
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
