"""``python -m tests.screens.socket_daemon SOCKET [BOARD]``: a control socket that plays a board of boards.py at 1 Hz.

A process of its own, spoken to by the real client, so that what is measured in the board's process is the board.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec

from opsboard.core.wire import PROTOCOL, PROTOCOL_HEADER, ActionAccepted, Status
from opsboard.httpd import Request, Response, StreamResponse, serve
from tests.screens import boards, troubles

HEADERS = ((PROTOCOL_HEADER, PROTOCOL),)


class Player:
    """Answers as a daemon does."""

    def __init__(self, board: str) -> None:
        self._board = board
        self._began = time.time()

    def status(self) -> Status:
        t = round(time.time() - self._began, 3)
        make = troubles.board if self._board == "troubles" else getattr(boards, self._board)
        state: Status = make(t=t) if self._board in ("busy", "steady", "troubles") else make()
        return msgspec.structs.replace(state, time=boards.T0 + t)

    async def handle(self, request: Request) -> Response | StreamResponse:
        path = request.path
        query = dict(request.query)
        if path == "/v1/events":
            return StreamResponse(200, "application/x-ndjson", self._events(), HEADERS)
        if path == "/v1/history":
            start, end, step = (float(query[name]) for name in ("from", "to", "step"))
            played = troubles if self._board == "troubles" else boards
            return reply(played.history(query["series"], start, end, step))
        if path.endswith("/logs"):
            return StreamResponse(200, "text/plain", self._log(), HEADERS)
        if path.endswith("/actions"):
            return reply(ActionAccepted(id="a1", kind="restart", engine=path.split("/")[3]))
        if path.startswith("/v1/engines/"):
            state = self.status()
            engine = next(e for e in state.engines if e.name == path.removeprefix("/v1/engines/"))
            return reply(boards.detail(engine, state.time - boards.T0))
        if path == "/v1/incidents":
            return reply(self.status().incidents)
        if path.startswith("/v1/incidents/"):
            number = path.removeprefix("/v1/incidents/")
            return reply(troubles.detail(next(one for one in self.status().incidents if str(one.id) == number)))
        return reply(self.status())

    async def _events(self) -> AsyncIterator[bytes]:
        while True:
            yield msgspec.json.encode(self.status()) + b"\n"
            await asyncio.sleep(1.0 - time.time() % 1.0)

    async def _log(self) -> AsyncIterator[bytes]:
        for line in boards.LOG:
            yield line.encode() + b"\n"
        await asyncio.Event().wait()


def reply(value: object) -> Response:
    """Return ``value`` as JSON with the version handshake."""
    return Response(200, msgspec.json.encode(value), "application/json", HEADERS)


async def main(socket: str, board: str = "steady") -> None:
    """Serve until killed."""
    await serve(Player(board).handle, unix=Path(socket))
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
