"""A server on loopback that answers exactly what a test says, however rude."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

Script = Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]
"""Gets the head of one request and writes what it likes; raise ConnectionError to hang up."""


class Loopback:
    """What the server saw."""

    def __init__(self) -> None:
        self.url = ""
        self.requests: list[bytes] = []
        self.connections = 0


@asynccontextmanager
async def serving(script: Script) -> AsyncIterator[Loopback]:
    """Run a server on an ephemeral port for as long as the block lasts."""
    seen = Loopback()
    tasks: set[asyncio.Task[None]] = set()

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.connections += 1
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                seen.requests.append(head)
                await script(head, writer)
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort()
            tasks.discard(task)

    server = await asyncio.start_server(converse, "127.0.0.1", 0)
    seen.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield seen
    finally:
        server.close()
        for task in tuple(tasks):
            task.cancel()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2):
                await server.wait_closed()
                while tasks:
                    await asyncio.sleep(0)


def answer(body: bytes, *fields: str, status: str = "200 OK", length: int | None = None) -> bytes:
    """Return an HTTP/1.1 answer; ``length`` is a lie about the body's."""
    head = "".join(f"{line}\r\n" for line in (f"HTTP/1.1 {status}", *fields))
    return f"{head}Content-Length: {len(body) if length is None else length}\r\n\r\n".encode() + body


@contextmanager
def full_queue() -> Iterator[int]:
    """Yield a port whose server takes no connection and whose queue of them is full."""
    with contextlib.ExitStack() as open_sockets:
        listener = open_sockets.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):  # the kernel queues one more than the backlog
            client = open_sockets.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


def says(data: bytes, *, then_close: bool = False) -> Script:
    """Answer every request with these bytes, and hang up if told to."""

    async def script(head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        if then_close:
            await writer.drain()
            writer.write_eof()
            raise ConnectionError

    return script
