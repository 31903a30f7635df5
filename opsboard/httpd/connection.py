"""One HTTP/1.1 connection on h11, from accept to close.

It is one task: read a request within its limits, call the handler, send what it returns, go round. A client that goes
away cancels the handler, and a stream's ``chunks`` are closed whatever happens. The end of a client's input counts as
going away, as in uvicorn: HTTP clients do not half-close, and nothing else tells that they left.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Protocol, cast
from urllib.parse import parse_qsl, unquote

import h11

from opsboard.core.errors import OpsboardError
from opsboard.core.text import sanitise
from opsboard.httpd.messages import (
    Broken,
    Handler,
    Limits,
    Peer,
    Request,
    Response,
    StreamResponse,
    error_response,
    refusal,
)

_log = logging.getLogger(__name__)
_REASONS = {int(status): status.phrase.encode() for status in HTTPStatus}
_PIPELINE_BYTES = 64 * 1024
"""What a client may send ahead while its request is being answered; more waits in the kernel."""
_SO_PEERGROUPS = 59
"""asm-generic/socket.h, Linux 4.13; the socket module has no name for it."""
_GROUPS_BYTES = 1024
"""The most that CPython's getsockopt takes: 256 groups."""
_LINGER_S = 1.0
"""How long a refused client's input is read and thrown away, unless it leaves by itself."""


class Owner(Protocol):
    """What a connection needs of its server."""

    handler: Handler
    limits: Limits
    closing: bool
    connections: set[Connection]


class _Refused(Exception):
    """The request itself is not acceptable: answer and close."""

    def __init__(self, response: Response) -> None:
        super().__init__(response.status)
        self.response = response


_Event = h11.Event | type[h11.NEED_DATA | h11.PAUSED]


class Connection(asyncio.Protocol):
    """One client: bytes in and out by callbacks, everything else in the task ``_serve``."""

    def __init__(self, server: Owner) -> None:
        self._server = server
        self._limits = server.limits
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=server.limits.head_bytes)
        self._transport: asyncio.Transport
        self._peer: Peer | None = None
        self._remote = ""
        self._data: asyncio.Future[None] | None = None
        self._writable: asyncio.Future[None] | None = None
        self._write_paused = False
        self._lost = False
        self._ahead = 0
        self._closer: asyncio.TimerHandle | None = None
        self._deaf = False
        self._waits = server.limits.head_timeout
        self.busy = False
        self.task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin: the task reads from now on."""
        self._transport = cast("asyncio.Transport", transport)
        self._peer = _peer_of(self._transport.get_extra_info("socket"))
        name = self._transport.get_extra_info("peername")
        self._remote = f"{name[0]}:{name[1]}" if isinstance(name, tuple) else ""
        self._server.connections.add(self)
        self.task = asyncio.get_running_loop().create_task(self._serve(), name="httpd connection")

    def data_received(self, data: bytes) -> None:
        """Feed h11; a client that sends too far ahead waits."""
        if self._deaf:
            return
        self._http.receive_data(data)
        if self.busy:
            self._ahead += len(data)
            if self._ahead > _PIPELINE_BYTES:
                self._transport.pause_reading()
        _wake(self._data)

    def pause_writing(self) -> None:
        """Note that the client reads too slowly."""
        self._write_paused = True

    def resume_writing(self) -> None:
        """Note that the client reads again."""
        self._write_paused = False
        _wake(self._writable)

    def connection_lost(self, _error: Exception | None) -> None:
        """End: whatever is being done for this client is cancelled."""
        self._lost = True
        self._server.connections.discard(self)
        if self._closer is not None:
            self._closer.cancel()
        if self.task is not None and not self.task.done():
            self.task.cancel()

    # -- the life of a connection

    def cancel(self) -> None:
        """Drop the client now."""
        self._transport.abort()

    async def _serve(self) -> None:
        try:
            if len(self._server.connections) > self._limits.connections:
                await self._refuse(refusal(503, "busy", "too many connections"))
                return
            while await self._one_request():
                pass
        except (asyncio.CancelledError, TimeoutError):
            self._transport.abort()
        except Exception:  # noqa: BLE001  one connection's trouble is not the server's
            _log.exception("a connection was dropped")
            self._transport.abort()
        finally:
            if not self._lost:
                # What is buffered may still go out, but not for ever.
                self._transport.close()
                loop = asyncio.get_running_loop()
                self._closer = loop.call_later(self._limits.write_timeout, self._transport.abort)

    async def _refuse(self, reply: Response) -> None:
        """Answer and close. Unread input is thrown away first: closing on it would reset what we just sent."""
        self._deaf = True
        await self._send(reply, head_only=False, close=True)
        if self._transport.can_write_eof():
            self._transport.write_eof()
        await asyncio.sleep(_LINGER_S)

    async def _one_request(self) -> bool:
        """Answer one request; False when the connection is at its end."""
        try:
            request = await self._read_request()
        except _Refused as refused:
            await self._refuse(refused.response)
            return False
        if request is None:
            return False
        self.busy = True
        try:
            reply = await self._call(request)
            await self._send(reply, head_only=request.method == "HEAD", close=self._server.closing)
        finally:
            self.busy = False
        if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
            return False
        self._http.start_next_cycle()
        self._waits = self._limits.idle_timeout
        if self._ahead > _PIPELINE_BYTES:
            self._transport.resume_reading()
        self._ahead = 0
        return True

    async def _call(self, request: Request) -> Response | StreamResponse:
        try:
            return await self._server.handler(request)
        except OpsboardError as error:
            return error_response(error)
        except Exception:  # noqa: BLE001  whatever a handler does, the client gets an answer
            _log.exception("%s %s failed", sanitise(request.method), sanitise(request.path))
            return refusal(500, "internal", "the server failed to answer; its log says why")

    # -- reading

    async def _read_request(self) -> Request | None:
        try:
            head = await self._read_head()
            if head is None:
                return None
            body = await self._read_body(head)
        except h11.RemoteProtocolError as error:
            raise _Refused(refusal(error.error_status_hint, "protocol", str(error))) from error
        raw_path, _, query = head.target.decode("ascii", "replace").partition("?")
        return Request(
            method=head.method.decode("ascii"),
            path=unquote(raw_path),
            query=dict(parse_qsl(query, keep_blank_values=True)) if query else {},
            headers={name.decode("latin-1"): value.decode("latin-1") for name, value in head.headers},
            body=body,
            peer=self._peer,
            remote=self._remote,
        )

    async def _read_head(self) -> h11.Request | None:
        event = self._http.next_event()
        if event is h11.NEED_DATA and self._http.trailing_data[0] == b"":
            try:
                async with asyncio.timeout(self._waits):
                    event = await self._more()
            except TimeoutError:
                return None
        if event is h11.NEED_DATA:
            try:
                async with asyncio.timeout(self._limits.head_timeout):
                    event = await self._event()
            except TimeoutError:
                raise _Refused(refusal(408, "timeout", "the request took too long to arrive")) from None
        return event if isinstance(event, h11.Request) else None

    async def _read_body(self, head: h11.Request) -> bytes:
        # h11 holds its limit only against heads that come in several reads.
        if sum(len(name) + len(value) + 4 for name, value in head.headers) > self._limits.head_bytes:
            raise _Refused(refusal(431, "too_large", f"the headers are larger than {self._limits.head_bytes} bytes"))
        length = next((value for name, value in head.headers if name == b"content-length"), b"0")
        if int(length) > self._limits.body_bytes:
            raise _Refused(self._too_large())
        if self._http.they_are_waiting_for_100_continue:
            self._write(h11.InformationalResponse(status_code=100, headers=[]))
        event = self._http.next_event()
        if isinstance(event, h11.EndOfMessage):
            return b""
        body = bytearray()
        try:
            async with asyncio.timeout(self._limits.body_timeout):
                while not isinstance(event, h11.EndOfMessage):
                    if isinstance(event, h11.Data):
                        body += event.data
                        if len(body) > self._limits.body_bytes:
                            raise _Refused(self._too_large())
                    event = await self._event()
        except TimeoutError:
            raise _Refused(refusal(408, "timeout", "the body took too long to arrive")) from None
        return bytes(body)

    def _too_large(self) -> Response:
        return refusal(413, "too_large", f"the body is larger than {self._limits.body_bytes} bytes")

    async def _event(self) -> _Event:
        """Return h11's next event, waiting for as many bytes as it needs."""
        event = self._http.next_event()
        while event is h11.NEED_DATA:
            event = await self._more()
        return event

    async def _more(self) -> _Event:
        self._data = asyncio.get_running_loop().create_future()
        await self._data
        return self._http.next_event()

    # -- writing

    async def _send(self, reply: Response | StreamResponse, *, head_only: bool, close: bool) -> None:
        if isinstance(reply, Response):
            framing = ("content-length", str(len(reply.body)))
        else:
            framing = ("transfer-encoding", "chunked")
        headers = [("content-type", reply.content_type), framing, *reply.headers]
        if close:
            headers.append(("connection", "close"))
        head = (
            self._http.send(
                h11.Response(status_code=reply.status, reason=_REASONS.get(reply.status, b""), headers=headers)
            )
            or b""
        )
        if isinstance(reply, Response):
            body = b"" if head_only else self._http.send(h11.Data(data=reply.body)) or b""
            self._transport.write(head + body + (self._http.send(h11.EndOfMessage()) or b""))
            await self._drain()
            return
        self._transport.write(head)
        await self._send_chunks(reply.chunks, head_only=head_only)

    async def _send_chunks(self, chunks: AsyncIterator[bytes], *, head_only: bool) -> None:
        try:
            if not head_only:
                async for chunk in chunks:
                    if chunk:
                        self._write(h11.Data(data=chunk))
                        await self._drain()
            self._write(h11.EndOfMessage())
        except (asyncio.CancelledError, TimeoutError):
            raise
        except Exception as error:  # noqa: BLE001  the same for what makes the chunks
            if not isinstance(error, Broken):
                _log.exception("a stream broke off")
            self._http.send_failed()
            self._transport.abort()
        finally:
            close = getattr(chunks, "aclose", None)
            if close is not None:
                await close()

    def _write(self, event: h11.Event) -> None:
        self._transport.write(self._http.send(event) or b"")

    async def _drain(self) -> None:
        """Wait until the client has read enough; TimeoutError when it does not."""
        if self._write_paused:
            self._writable = asyncio.get_running_loop().create_future()
            async with asyncio.timeout(self._limits.write_timeout):
                await self._writable


def _wake(future: asyncio.Future[None] | None) -> None:
    if future is not None and not future.done():
        future.set_result(None)


def _peer_of(sock: socket.socket) -> Peer | None:
    if sock.family != socket.AF_UNIX:
        return None
    pid, uid, gid = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
    return Peer(pid=pid, uid=uid, gid=gid, groups=_groups_of(sock))


def _groups_of(sock: socket.socket) -> tuple[int, ...]:
    try:
        raw = sock.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _GROUPS_BYTES)
    except OSError:  # an older kernel, or more groups than getsockopt hands out
        return ()
    return struct.unpack(f"{len(raw) // 4}I", raw)
