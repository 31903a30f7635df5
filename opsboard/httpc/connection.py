"""One HTTP/1.1 connection and the conversation on it: h11 on asyncio streams, bounded in bytes.

(A client library costs several times the CPU of everything else in a scrape: docs/dependencies.md.)
"""

from __future__ import annotations

import asyncio
from typing import NamedTuple

import h11

from opsboard.core.errors import FetchError
from opsboard.core.model import Record
from opsboard.core.text import sanitise

_READ = 128 * 1024


class Limits(Record, frozen=True, kw_only=True):
    """What one read may cost."""

    body_bytes: int = 4 * 1024 * 1024
    """Of the body, on the wire and again after decompression."""
    cut: bool = False
    """A longer body is cut there, instead of refused: only its beginning is wanted."""
    header_bytes: int = 64 * 1024
    error_bytes: int = 2048
    """How much of the body of a refusal is read."""
    connect_s: float = 1.0
    total_s: float = 3.0
    """From the call to the last byte, connecting included."""
    idle_connections: int = 64


class Place(NamedTuple):
    """Where to connect."""

    host: str
    port: int
    tls: bool

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Answer(NamedTuple):
    """A whole answer as it came; header names in lower case, the last of several with one name."""

    status: int
    fields: dict[bytes, str]
    body: bytes


class Connection:
    """Asks and answers in turn."""

    def __init__(
        self, place: Place, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, limits: Limits
    ) -> None:
        """Take over an open connection."""
        self.place = place
        self.received = 0
        """Bytes of the present answer, its head included."""
        self._reader, self._writer, self._limits = reader, writer, limits
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=limits.header_bytes)
        self._kept = False

    @property
    def reusable(self) -> bool:
        """Whether another question may be asked."""
        return self._http.our_state is h11.IDLE and self._kept

    def close(self) -> None:
        """Drop it at once."""
        self._writer.transport.abort()

    async def ask(self, request: h11.Request, data: bytes = b"") -> Answer | None:
        """Send the request with its body and return the answer.

        None when the server closed without one, as it may at any time on a kept connection.
        Raises FetchError: truncated, too_large or protocol.
        """
        self.received = 0
        try:
            events = (request, h11.Data(data=data), h11.EndOfMessage()) if data else (request, h11.EndOfMessage())
            self._writer.write(b"".join(self._http.send(event) or b"" for event in events))
            head = await self._head()
            if head is None or (self._kept and head.status_code == 408):  # 408: it had meant to close
                return None
            body = await self._body(head)
        except h11.RemoteProtocolError as error:
            raise self._broken(error) from None
        except OSError as error:
            if not self.received:
                return None
            raise FetchError(f"{self.place} broke off: {sanitise(str(error), 200)}", reason="truncated") from None
        if self._http.trailing_data[0]:
            raise FetchError(f"{self.place} sent more than it announced", reason="protocol")
        if self._http.our_state is self._http.their_state is h11.DONE:
            self._http.start_next_cycle()
            self._kept = True
        fields = {bytes(name): bytes(value).decode("latin-1") for name, value in head.headers}
        return Answer(head.status_code, fields, body)

    async def _head(self) -> h11.Response | None:
        while True:
            event = self._http.next_event()
            if isinstance(event, h11.Response):
                return event
            if event is h11.NEED_DATA and not await self._receive() and not self.received:
                return None

    async def _body(self, head: h11.Response) -> bytes:
        whole = 200 <= head.status_code < 300 and not self._limits.cut
        limit = self._limits.body_bytes if whole else self._limits.error_bytes
        announced = next((int(value) for name, value in head.headers if name == b"content-length"), 0)
        if whole and announced > limit:
            raise self._too_large(announced)
        chunks: list[bytes] = []
        size = 0
        while True:
            event = self._http.next_event()
            if isinstance(event, h11.Data):
                chunks.append(event.data)
                size += len(event.data)
                if size > limit and whole:
                    raise self._too_large()
                if size > limit:
                    break  # enough of it; the rest is not worth keeping the connection
            elif event is h11.NEED_DATA:
                await self._receive()
            else:
                break
        return b"".join(chunks)

    async def _receive(self) -> bool:
        data = await self._reader.read(_READ)
        self.received += len(data)
        if self.received > 2 * self._limits.body_bytes + self._limits.header_bytes + _READ:  # mostly framing
            raise self._too_large()
        if data or self.received:
            self._http.receive_data(data)
        return bool(data)

    def _too_large(self, announced: int | None = None) -> FetchError:
        """Say so without what came so far: that differs each time, and nobody can do more with it."""
        size = "more" if announced is None else f"{announced} bytes, more"
        message = f"{self.place} answers with {size} than the {self._limits.body_bytes} bytes that are allowed"
        return FetchError(message, reason="too_large")

    def _broken(self, error: h11.RemoteProtocolError) -> FetchError:
        text = sanitise(str(error), 200)
        if error.error_status_hint == 431:
            return FetchError(f"{self.place}: headers beyond {self._limits.header_bytes} bytes", reason="too_large")
        if "closed connection" in text:
            return FetchError(f"{self.place}: the answer is cut: {text}", reason="truncated")
        return FetchError(f"{self.place} does not speak HTTP/1.1: {text}", reason="protocol")
