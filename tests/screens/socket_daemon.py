"""``python -m tests.screens.socket_daemon SOCKET [BOARD]``: a control socket that plays a board of boards.py at 1 Hz.

A process of its own, spoken to by the real client, so that what is measured in the board's process is the board.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TypeVar

import msgspec
from msgspec.structs import replace

from opsboard.core.errors import Conflict
from opsboard.core.wire import PROTOCOL, PROTOCOL_HEADER, ActionAccepted, EngineDetail, Status
from opsboard.httpd import Request, Response, StreamResponse, error_response, serve
from tests.screens import boards, troubles

T = TypeVar("T")
VILE = (
    "VILE\x1b[6666m\x1b[?6666h\x1b]0;6666\x07\x1b]52;c;NjY2Ng==\x1b\\\x1b]8;;http://6666/\x1b\\\x1bP+q6666\x1b\\"
    "\x1b_G6666\x1b\\\x1bc\x1b(0\x9b6666m\x9d0;6666\x9c\x90q\x9c\x05\x07\x08\x0b\x0c\x0e\x7f\u200f\u202e\u2066\u2028"
    "[red]r[/] [@click=app.quit]q[/] [/x"
)
"""What takes a terminal over, each piece to be known by its number; and what is markup elsewhere."""
HEADERS = ((PROTOCOL_HEADER, PROTOCOL),)


class Player:
    """Answers as a daemon does."""

    def __init__(self, board: str) -> None:
        self._board = "troubles" if board == "vile" else board
        self._vile = board == "vile"
        self._began = time.time()

    def status(self) -> Status:
        t = round(time.time() - self._began, 3)
        make = troubles.board if self._board == "troubles" else getattr(boards, self._board)
        state: Status = make(t=t) if self._board in ("busy", "steady", "troubles") else make()
        state = replace(state, time=boards.T0 + t)
        return self._told(state) if self._vile else state

    def _told(self, value: T) -> T:
        """Return it with something vile at the end of every text but the names of engines, which are configured."""
        keep = (*boards.KEEP, "detector", "subject")
        made = msgspec.convert(boards.poison(msgspec.to_builtins(value), VILE, keep), type(value))
        if isinstance(made, Status):
            named = [replace(one, name=one.name.removesuffix(VILE)) for one in made.engines]
            return replace(made, engines=tuple(named))
        if isinstance(made, EngineDetail):
            return replace(made, engine=replace(made.engine, name=made.engine.name.removesuffix(VILE)))
        return made

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
        if request.method == "POST" and self._vile:
            return replace(error_response(Conflict(VILE, hint=VILE)), headers=HEADERS)
        if path.endswith("/actions"):
            return reply(ActionAccepted(id="a1", kind="restart", engine=path.split("/")[3]))
        if path.startswith("/v1/engines/"):
            state = self.status()
            engine = next(e for e in state.engines if e.name == path.removeprefix("/v1/engines/"))
            detail = boards.detail(engine, state.time - boards.T0)
            return reply(self._told(detail) if self._vile else detail)
        if path == "/v1/incidents":
            return reply(self.status().incidents)
        if path.startswith("/v1/incidents/"):
            number = path.removeprefix("/v1/incidents/")
            known = troubles.detail(next(one for one in self.status().incidents if str(one.id) == number))
            return reply(self._told(known) if self._vile else known)
        return reply(self.status())

    async def _events(self) -> AsyncIterator[bytes]:
        while True:
            yield msgspec.json.encode(self.status()) + b"\n"
            await asyncio.sleep(1.0 - time.time() % 1.0)

    async def _log(self) -> AsyncIterator[bytes]:
        for line in boards.LOG:
            yield (VILE * self._vile + line).encode() + b"\n"
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
