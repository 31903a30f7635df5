"""The client's side of one HTTP/1.1 connection: h11 over asyncio streams."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import h11

_READ_BYTES = 65_536


class Wire:
    """One connection. Use: :meth:`open`, then :meth:`send` and all of :meth:`parts`, again while :attr:`reusable`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str) -> None:
        """Take over an open connection."""
        self._reader = reader
        self._writer = writer
        self._host = host
        self._http = h11.Connection(h11.CLIENT)

    @classmethod
    async def open(cls, host: str, port: int) -> Wire:
        """Connect. Raises OSError; the deadline is the caller's."""
        return cls(*await asyncio.open_connection(host, port), f"{host}:{port}")

    @property
    def reusable(self) -> bool:
        """True when a whole reply was read and the server keeps the connection."""
        return self._http.states == {h11.CLIENT: h11.DONE, h11.SERVER: h11.DONE} and not self._reader.at_eof()

    async def send(self, method: str, path: str, body: bytes) -> int:
        """Send a request and return the status of the reply. Raises OSError and h11.ProtocolError."""
        if self._http.our_state is h11.DONE:
            self._http.start_next_cycle()
        headers = [("host", self._host), ("content-type", "application/json"), ("content-length", str(len(body)))]
        head = self._http.send(h11.Request(method=method, target=path, headers=headers)) or b""
        rest = self._http.send(h11.Data(data=body)) if body else b""
        self._writer.write(head + (rest or b"") + (self._http.send(h11.EndOfMessage()) or b""))
        await self._writer.drain()
        while True:
            event = await self._event()
            if isinstance(event, h11.Response):
                return event.status_code
            if isinstance(event, h11.ConnectionClosed):
                raise ConnectionResetError("the server closed the connection before it replied")

    async def parts(self) -> AsyncIterator[bytes]:
        """Yield the body as it comes. Raises h11.RemoteProtocolError when it breaks off."""
        while True:
            event = await self._event()
            if isinstance(event, h11.Data):
                yield bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                return

    def close(self) -> None:
        """Hang up at once."""
        self._writer.transport.abort()

    async def _event(self) -> h11.Event | type[h11.NEED_DATA | h11.PAUSED]:
        event = self._http.next_event()
        while event is h11.NEED_DATA:
            self._http.receive_data(await self._reader.read(_READ_BYTES))
            event = self._http.next_event()
        return event
