"""A service that is told things: keeps every request, answers by a script, in a process' own loop on a thread."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from opsboard.httpd import Request, Response, StreamResponse, bind_tcp, serve


class Receiver:
    """What came; ``answer(request)`` decides what to say. Lists only grow, so that other threads may look."""

    def __init__(self, answer: Callable[[Request], Response | StreamResponse]) -> None:
        self.answer = answer
        self.requests: list[Request] = []
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    @property
    def bodies(self) -> list[dict[str, Any]]:
        return [json.loads(one.body) for one in list(self.requests)]

    async def handle(self, request: Request) -> Response | StreamResponse:
        self.requests.append(request)
        return self.answer(request)


@contextmanager
def receiver(
    answer: Callable[[Request], Response | StreamResponse] = lambda _request: Response(200),
) -> Iterator[Receiver]:
    """Run one on a free port of 127.0.0.1."""
    one = Receiver(answer)
    loop = asyncio.new_event_loop()
    ready, ended = threading.Event(), asyncio.Event()

    async def main() -> None:
        server = await serve(one.handle, sock=bind_tcp("127.0.0.1", 0))
        one.port = server.port or 0
        ready.set()
        await ended.wait()
        await server.close()

    thread = threading.Thread(target=lambda: loop.run_until_complete(main()), daemon=True)
    thread.start()
    assert ready.wait(5)
    try:
        yield one
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join(5)
        loop.close()
