"""A server that takes no more connections although it lives: its queue of them is full, so that connects time out."""

from __future__ import annotations

import asyncio
import contextlib
import socket

from opsboard import httpd
from opsboard.sim.faults import Faults

NAME = "saturated"
_FILLERS = 4
"""The kernel queues one connection more than the backlog of 0; the others wait for ever."""


class Saturation:
    """The fault at one server. Connections that were accepted before go on."""

    def __init__(self, server: httpd.Server, faults: Faults) -> None:
        """``server`` takes connections."""
        self._server = server
        self._faults = faults
        self._listener: socket.socket | None = None
        self._fillers: list[socket.socket] = []
        self._end: asyncio.Task[None] | None = None

    async def follow(self) -> None:
        """Begin or end as the faults say now; it ends by itself after the fault's seconds."""
        if NAME in self._faults and self._listener is None:
            self._begin()
            self._end = asyncio.create_task(self._end_after(self._faults.value(NAME)))
        elif NAME not in self._faults and self._listener is not None:
            self.close()
            listener, self._listener = self._listener, None
            await self._server.listen(listener)

    def close(self) -> None:
        """Leave the queue; nobody listens to it."""
        if self._end is not None and self._end is not asyncio.current_task():
            self._end.cancel()
        for filler in self._fillers:
            filler.close()
        self._fillers.clear()

    def _begin(self) -> None:
        self._listener = listener = self._server.stop_accepting()
        listener.listen(0)
        for _ in range(_FILLERS):
            filler = socket.socket(listener.family)
            filler.setblocking(False)
            with contextlib.suppress(OSError):
                filler.connect_ex(listener.getsockname())
            self._fillers.append(filler)

    async def _end_after(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        self._faults.clear(NAME)
        await self.follow()
