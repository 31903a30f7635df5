"""The HTTP server against raw bytes: limits, keep-alive, pipelining, streams, clients that leave or stop reading."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import msgspec
import pytest

from opsboard import httpd
from opsboard.core.errors import Conflict, Denied, NotFound, NotReachable, StateDirLocked, StoreError, UsageError

DEADLINE = 10.0
Use = Callable[[httpd.Server], Awaitable[None]]


def run(use: Use, handler: httpd.Handler, limits: httpd.Limits | None = None) -> None:
    async def main() -> None:
        server = await httpd.serve(handler, limits=limits)
        try:
            async with asyncio.timeout(DEADLINE):
                await use(server)
        finally:
            await server.close()

    asyncio.run(main())


async def exchange(server: httpd.Server, data: bytes) -> bytes:
    """Send ``data`` and return all that comes back until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        writer.write(data)
        return await reader.read()
    finally:
        await hang_up(writer)


async def hang_up(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


def get(path: str, *headers: str, close: bool = True) -> bytes:
    lines = [f"GET {path} HTTP/1.1", "Host: x", *headers, *(["Connection: close"] if close else [])]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


async def echo(request: httpd.Request) -> httpd.Response:
    return httpd.json_response(
        {"method": request.method, "path": request.path, "query": dict(request.query), "body": request.body.decode()}
    )


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.005)


def status(reply: bytes) -> int:
    return int(reply.split(b" ", 2)[1])


def body(reply: bytes) -> dict[str, object]:
    decoded = msgspec.json.decode(reply.split(b"\r\n\r\n", 1)[1])
    assert isinstance(decoded, dict)
    return decoded


def test_path_query_and_body_reach_the_handler() -> None:
    async def use(server: httpd.Server) -> None:
        reply = await exchange(
            server, b"POST /a%20b?x=1&x=2&y= HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi"
        )
        assert status(reply) == 200
        assert body(reply) == {"method": "POST", "path": "/a b", "query": {"x": "2", "y": ""}, "body": "hi"}

    run(use, echo)


def test_keep_alive_and_pipelining_answer_in_order() -> None:
    async def use(server: httpd.Server) -> None:
        reply = await exchange(server, get("/1", close=False) + get("/2", close=False) + get("/3"))
        assert [reply.count(b"HTTP/1.1 200"), reply.index(b"/1") < reply.index(b"/2") < reply.index(b"/3")] == [3, True]

    run(use, echo)


def test_a_client_that_sends_far_ahead_waits_and_is_answered_in_full() -> None:
    count = 1500

    async def use(server: httpd.Server) -> None:
        reply = await exchange(server, get("/", f"X: {'y' * 100}", close=False) * count + get("/last"))
        assert reply.count(b"HTTP/1.1 200") == count + 1
        assert reply.endswith(b'"/last","query":{},"body":""}')

    run(use, echo)


def test_a_request_in_single_bytes_is_read() -> None:
    async def use(server: httpd.Server) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        for byte in get("/slow"):
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0)
        assert b"/slow" in await reader.read()
        await hang_up(writer)

    run(use, echo)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),  # no Host
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 3000 + b"\r\n\r\n", 431),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 101\r\n\r\n" + b"a" * 101, 413),
        (
            b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n65\r\n" + b"a" * 101 + b"\r\n0\r\n\r\n",
            413,
        ),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400),
    ],
)
def test_bad_and_oversized_requests_are_refused_and_closed(data: bytes, expected: int) -> None:
    async def use(server: httpd.Server) -> None:
        reply = await exchange(server, data)
        assert status(reply) == expected
        assert b"connection: close" in reply.lower()

    run(use, echo, httpd.Limits(head_bytes=2048, body_bytes=100))


def test_slow_heads_and_bodies_time_out_with_408_and_silent_clients_are_dropped() -> None:
    async def use(server: httpd.Server) -> None:
        assert status(await exchange(server, b"GET / HTT")) == 408
        assert status(await exchange(server, b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nab")) == 408
        assert await exchange(server, b"") == b""
        assert (await exchange(server, get("/", close=False))).count(b"HTTP/1.1") == 1

    run(use, echo, httpd.Limits(head_timeout=0.05, body_timeout=0.05, idle_timeout=0.05))


def test_one_connection_too_many_is_told_so() -> None:
    async def use(server: httpd.Server) -> None:
        held = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(2)]
        await until(lambda: len(server.connections) == 2)
        assert status(await exchange(server, b"")) == 503
        for _, writer in held:
            await hang_up(writer)
        await until(lambda: not server.connections)
        assert status(await exchange(server, get("/"))) == 200

    run(use, echo, httpd.Limits(connections=2))


@pytest.mark.parametrize(
    ("error", "expected", "code"),
    [
        (UsageError("no", hint="try yes"), 400, "usage"),
        (Denied("no"), 403, "denied"),
        (NotFound("no"), 404, "not_found"),
        (Conflict("no"), 409, "conflict"),
        (NotReachable("no"), 503, "not_reachable"),
        (StoreError("no"), 500, "store"),
        (StoreError("no", permanent=False), 503, "store"),
    ],
)
def test_deliberate_errors_keep_code_message_and_hint(error: Exception, expected: int, code: str) -> None:
    async def handler(request: httpd.Request) -> httpd.Response:
        raise error

    async def use(server: httpd.Server) -> None:
        reply = await exchange(server, get("/"))
        assert status(reply) == expected
        told = body(reply)["error"]
        assert isinstance(told, dict)
        assert (told["code"], told["message"]) == (code, "no")

    run(use, handler)


def test_other_exceptions_show_nothing_of_the_inside() -> None:
    async def handler(request: httpd.Request) -> httpd.Response:
        raise RuntimeError("the password is 1234")

    async def use(server: httpd.Server) -> None:
        reply = await exchange(server, get("/", close=False) + get("/"))
        assert reply.count(b"500 ") == 2, "the connection goes on"
        assert b"1234" not in reply

    run(use, handler)


def test_a_wrong_json_body_is_a_usage_error() -> None:
    async def handler(request: httpd.Request) -> httpd.Response:
        return httpd.json_response(request.json(dict[str, int]))

    async def use(server: httpd.Server) -> None:
        post = b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s"
        assert body(await exchange(server, post % (7, b'{"a":1}'))) == {"a": 1}
        assert status(await exchange(server, post % (9, b'{"a":"x"}'))) == 400
        assert status(await exchange(server, post % (3, b"\xff\xfe{"))) == 400

    run(use, handler)


def test_head_has_the_length_and_no_body() -> None:
    async def use(server: httpd.Server) -> None:
        reply = await exchange(server, b"HEAD / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert b"content-length: " in reply.lower()
        assert reply.endswith(b"\r\n\r\n")

    run(use, echo)


class Stream:
    """Chunks made on demand that remember how they ended."""

    def __init__(self, chunk: bytes = b"x", fail_after: int | None = None, count: int | None = None) -> None:
        self.chunk, self.fail_after, self.count = chunk, fail_after, count
        self.made = 0
        self.closed = False

    async def handler(self, request: httpd.Request) -> httpd.StreamResponse:
        return httpd.StreamResponse(200, "text/plain", self.chunks())

    async def chunks(self) -> AsyncIterator[bytes]:
        try:
            while self.count is None or self.made < self.count:
                self.made += 1
                if self.made == self.fail_after:
                    raise RuntimeError("broken inside")
                yield self.chunk
                await asyncio.sleep(0.001)
        finally:
            self.closed = True


def test_a_stream_arrives_chunked_and_the_connection_goes_on() -> None:
    stream = Stream(b"abc", count=3)

    async def use(server: httpd.Server) -> None:
        reply = await exchange(server, get("/", close=False) + get("/"))
        assert reply.count(b"3\r\nabc\r\n") == 3
        assert reply.count(b"0\r\n\r\n") == 2
        assert stream.closed

    run(use, stream.handler)


def test_a_client_that_leaves_ends_the_stream() -> None:
    stream = Stream()

    async def use(server: httpd.Server) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(get("/"))
        await reader.readuntil(b"x")
        await hang_up(writer)
        await until(lambda: stream.closed)
        await until(lambda: not server.connections)

    run(use, stream.handler)


def test_a_client_that_leaves_cancels_a_waiting_handler() -> None:
    ended = asyncio.Event()

    async def handler(request: httpd.Request) -> httpd.Response:
        try:
            await asyncio.sleep(3600)
        finally:
            ended.set()
        return httpd.Response()

    async def use(server: httpd.Server) -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(get("/"))
        await until(lambda: any(connection.busy for connection in server.connections))
        await hang_up(writer)
        await ended.wait()

    run(use, handler)


def test_a_client_that_stops_reading_is_dropped_after_the_write_timeout() -> None:
    stream = Stream(b"x" * 65536)

    async def use(server: httpd.Server) -> None:
        with socket.create_connection(("127.0.0.1", server.port or 0)) as client:
            client.sendall(get("/"))
            await until(lambda: stream.closed)
            await until(lambda: not server.connections)
        assert stream.made < 1000, "what it did not read was not made either"

    run(use, stream.handler, httpd.Limits(write_timeout=0.1))


def test_a_stream_that_fails_is_cut_not_ended() -> None:
    stream = Stream(b"abc", fail_after=2)

    async def use(server: httpd.Server) -> None:
        try:
            reply = await exchange(server, get("/"))
        except ConnectionResetError:
            return
        assert not reply.endswith(b"0\r\n\r\n")

    run(use, stream.handler)


def test_close_ends_streams_and_idle_clients_quickly() -> None:
    stream = Stream()

    async def main() -> None:
        server = await httpd.serve(stream.handler)
        idle = await asyncio.open_connection("127.0.0.1", server.port)
        busy = await asyncio.open_connection("127.0.0.1", server.port)
        busy[1].write(get("/"))
        await busy[0].readuntil(b"x")
        port = server.port
        async with asyncio.timeout(DEADLINE):
            await server.close(grace=0.01)
        assert stream.closed
        assert not server.connections
        for _, writer in (idle, busy):
            await hang_up(writer)
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)

    asyncio.run(main())


def test_close_lets_a_request_in_flight_finish() -> None:
    started, go = asyncio.Event(), asyncio.Event()

    async def handler(request: httpd.Request) -> httpd.Response:
        started.set()
        await go.wait()
        return httpd.Response(200, b"done")

    async def main() -> None:
        server = await httpd.serve(handler)
        answer = asyncio.create_task(exchange(server, get("/", close=False)))
        await started.wait()
        closing = asyncio.create_task(server.close(grace=DEADLINE))
        await asyncio.sleep(0)
        go.set()
        assert (await answer).endswith(b"done")
        await closing

    asyncio.run(main())


def test_a_unix_socket_knows_its_peer_and_its_rights(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    seen: list[httpd.Peer | None] = []

    async def handler(request: httpd.Request) -> httpd.Response:
        seen.append(request.peer)
        return httpd.Response()

    async def main() -> None:
        server = await httpd.serve(handler, unix=path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert server.port is None
        reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(get("/"))
        assert status(await reader.read()) == 200
        await hang_up(writer)
        with pytest.raises(StateDirLocked, match="another process serves"):
            await httpd.serve(handler, unix=path)
        await server.close()
        assert not path.exists()

    asyncio.run(main())
    assert seen == [httpd.Peer(os.getpid(), os.getuid(), os.getgid())]


def test_a_dead_servers_socket_is_replaced_and_a_newer_ones_is_left(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))

    async def main() -> None:
        server = await httpd.serve(echo, unix=path, mode=0o660)
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        path.unlink()
        path.write_text("somebody else's")
        await server.close()
        assert path.exists()

    asyncio.run(main())


def test_a_file_in_the_place_of_the_socket_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    path.write_text("precious")

    async def main() -> None:
        with pytest.raises(OSError, match="in use"):
            await httpd.serve(echo, unix=path)

    asyncio.run(main())
    assert path.read_text() == "precious"


def test_a_taken_port_is_an_oserror() -> None:
    async def use(server: httpd.Server) -> None:
        with pytest.raises(OSError, match="in use"):
            await httpd.serve(echo, port=server.port or 0)

    run(use, echo)
