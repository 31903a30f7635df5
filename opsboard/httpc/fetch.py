"""Bounded HTTP requests: in bytes on the wire, bytes after decompression, and time.

A body is whole or the request fails; redirects are not followed. Connections are kept for reads, as one scrape a second
is all one conversation.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import re
import socket
import ssl
import zlib
from collections.abc import Callable, Mapping
from functools import lru_cache
from urllib.parse import urlsplit

import h11

from opsboard.core.errors import FetchError
from opsboard.core.model import Record
from opsboard.core.secret import Secret
from opsboard.core.text import sanitise
from opsboard.httpc.connection import Answer, Connection, Limits, Place
from opsboard.httpc.proxy import Proxy, proxy_for, tunnel

__all__ = ["Body", "Fetcher", "Limits", "Reply", "bearer"]

_OUR_OWN = frozenset(
    {
        *(errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EADDRNOTAVAIL, errno.EAGAIN),
        *(socket.EAI_AGAIN, socket.EAI_MEMORY, socket.EAI_SYSTEM),
    }
)
"""Why a connection is not even tried: we lack descriptors, memory, ports, or an answer of the name service."""


class Body(Record, frozen=True, kw_only=True):
    """A whole answer with a 2xx status. ``body`` is decompressed; ``connect_s`` is None on a connection that was kept.

    ``delimited`` is False where the server just closed the connection at the end: a cut cannot be told from the end.
    """

    status: int
    body: bytes
    content_type: str | None
    duration_s: float
    connect_s: float | None
    wire_bytes: int
    delimited: bool


class Reply(Record, frozen=True, kw_only=True):
    """A whole answer, whatever its status. Names of ``headers`` are in lower case; ``body`` is decompressed."""

    status: int
    headers: dict[str, str]
    body: bytes


class Fetcher:
    """Requests of one event loop, many at a time. Close it when done."""

    def __init__(
        self,
        limits: Limits | None = None,
        tls: ssl.SSLContext | None = None,
        refused: Callable[[str], str | None] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Open nothing yet; ``tls`` replaces the system's certificates.

        ``refused(address)`` says why an IP address must not be connected to. With it names are looked up first and
        the address that was looked at is the one that is connected to. ``environment`` may name proxies for
        :meth:`send`; what they connect to is looked at only where it is written as an address.
        """
        self._limits = limits or Limits()
        self._tls = tls
        self._refused = refused
        self._environment = environment or {}
        self._idle: dict[Place, Connection] = {}

    async def get(self, url: str, *, headers: Mapping[str, str] | None = None, deadline_s: float | None = None) -> Body:
        """Return the answer of ``url``; any status but 2xx is a FetchError with reason ``status``.

        ``deadline_s`` replaces the limit for the whole. Raises FetchError: refused, unreachable, here, connect_timeout,
        timeout, protocol, too_large, truncated, encoding or status. Its message names host and port but no query, and
        what the server said is made harmless.
        """
        place, target = _parse(url)
        request = _request("GET", place, target, {"Accept": "text/plain;version=0.0.4, */*;q=0.5", **(headers or {})})
        return await self._exchange(place, request, b"", deadline_s, self._idle.pop(place, None))

    async def post(
        self,
        url: str,
        data: bytes,
        *,
        headers: Mapping[str, str] | None = None,
        deadline_s: float | None = None,
    ) -> Body:
        """Send JSON and return the answer, as :meth:`get` does.

        It goes out once, on a connection of its own: what a server does twice it may not do alike, and a server that
        takes no new connections is not hidden by an old one.
        """
        place, target = _parse(url)
        about = {"Content-Type": "application/json", "Content-Length": str(len(data)), "Connection": "close"}
        request = _request("POST", place, target, {"Accept": "application/json", **(headers or {}), **about})
        return await self._exchange(place, request, data, deadline_s, None)

    async def send(
        self,
        method: str,
        url: str,
        data: bytes = b"",
        *,
        headers: Mapping[str, str] | None = None,
        deadline_s: float | None = None,
    ) -> Reply:
        """Send a request once, on a connection of its own, and return the answer whatever its status.

        Raises FetchError as :meth:`get` does, but never with reason ``status``.
        """
        place, target = _parse(url)
        proxy = proxy_for(place, self._environment)
        about = {"Content-Length": str(len(data)), "Connection": "close"}
        if proxy is not None and not place.tls:
            target, about = f"http://{place}{target}", {**about, **proxy.headers}
        request = _request(method, place, target, {"Accept": "application/json", **(headers or {}), **about})
        answer, _ = await self._answer(place, request, data, deadline_s, None, proxy=proxy)
        fields = {name.decode("latin-1"): sanitise(value) for name, value in answer.fields.items()}
        return Reply(status=answer.status, headers=fields, body=_inflate(place, answer, self._limits))

    async def _exchange(
        self, place: Place, request: h11.Request, data: bytes, deadline_s: float | None, connection: Connection | None
    ) -> Body:
        clock = asyncio.get_running_loop().time
        started = clock()
        answer, connected = await self._answer(place, request, data, deadline_s, connection)
        if not 200 <= answer.status < 300:
            raise _refusal(place, answer)
        return Body(
            status=answer.status,
            body=_inflate(place, answer, self._limits),
            content_type=answer.fields.get(b"content-type"),
            duration_s=clock() - started,
            connect_s=connected,
            wire_bytes=len(answer.body),
            delimited=b"content-length" in answer.fields or b"transfer-encoding" in answer.fields,
        )

    async def _answer(
        self,
        place: Place,
        request: h11.Request,
        data: bytes,
        deadline_s: float | None,
        connection: Connection | None,
        *,
        proxy: Proxy | None = None,
    ) -> tuple[Answer, float | None]:
        """Return the answer and the seconds that connecting took, None on a connection that was kept."""
        total_s = self._limits.total_s if deadline_s is None else deadline_s
        clock = asyncio.get_running_loop().time
        started, connected = clock(), None
        try:
            async with asyncio.timeout(total_s):
                answer = await self._ask(connection, request, data) if connection is not None else None
                if answer is None:
                    connection = None
                    connection = await self._connect(place, proxy)
                    connected = clock() - started
                    answer = await self._ask(connection, request, data)
        except TimeoutError:
            if connection is None:
                raise _no_connection(place, total_s) from None
            got = f"{connection.received} bytes" if connection.received else "nothing"
            message = f"{place}: {got} came within {total_s:g} s"
            raise FetchError(message, reason="timeout") from None
        if answer is None:
            raise FetchError(f"{place} closed the connection without an answer", reason="unreachable")
        return answer, connected

    async def _ask(self, connection: Connection, request: h11.Request, data: bytes) -> Answer | None:
        try:
            answer = await connection.ask(request, data)
        finally:
            if connection.reusable and len(self._idle) < self._limits.idle_connections:
                replaced = self._idle.pop(connection.place, None)
                self._idle[connection.place] = connection
            else:
                replaced = connection
            if replaced is not None:
                replaced.close()
        return answer

    async def _connect(self, place: Place, proxy: Proxy | None) -> Connection:
        tls = None
        if place.tls:
            tls = self._tls = self._tls or ssl.create_default_context()
        try:
            async with asyncio.timeout(self._limits.connect_s):
                if proxy is not None:
                    reader, writer = await self._through(proxy, place, tls)
                else:
                    host = place.host if self._refused is None else await self._allowed(place)
                    name = place.host if tls is not None else None
                    reader, writer = await asyncio.open_connection(host, place.port, ssl=tls, server_hostname=name)
        except TimeoutError:
            raise _no_connection(place, self._limits.connect_s) from None
        except ssl.SSLError as error:
            raise FetchError(f"{place}: TLS: {sanitise(str(error), 200)}", reason="protocol") from None
        except (OSError, UnicodeError) as error:
            numbers = _errnos(error)
            if errno.ECONNREFUSED in numbers:
                raise FetchError(f"{place}: nothing listens there", reason="refused") from None
            if numbers & _OUR_OWN:
                raise FetchError(
                    f"{place} cannot be asked from here: {sanitise(str(error), 200)}", reason="here"
                ) from None
            raise FetchError(f"{place}: {sanitise(str(error), 200)}", reason="unreachable") from None
        return Connection(place, reader, writer, self._limits)

    async def _through(
        self, proxy: Proxy, place: Place, tls: ssl.SSLContext | None
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect to a proxy, and through it where what follows is TLS."""
        if self._refused is not None and _is_address(place.host) and (why := self._refused(place.host)) is not None:
            raise FetchError(f"{place} is not connected to: {why}", reason="refused_address")
        try:
            reader, writer = await asyncio.open_connection(proxy.place.host, proxy.place.port)
        except OSError as error:
            message = f"the proxy {proxy.place} of the environment: {sanitise(str(error), 200)}"
            raise FetchError(message, reason="unreachable") from None
        if tls is not None:
            try:
                await tunnel(reader, writer, proxy, place)
                await writer.start_tls(tls, server_hostname=place.host)
            except BaseException:
                writer.transport.abort()
                raise
        return reader, writer

    async def _allowed(self, place: Place) -> str:
        """Return an address of the host that may be connected to. Raises FetchError (refused_address), OSError."""
        loop, why = asyncio.get_running_loop(), "it has no address"
        for *_, address in await loop.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM):
            found = str(address[0])
            refused = self._refused(found) if self._refused is not None else None
            if refused is None:
                return found
            why = f"{found}: {refused}"
        raise FetchError(f"{place} is not connected to: {why}", reason="refused_address")

    async def close(self) -> None:
        """Close the connections that were kept."""
        for connection in self._idle.values():
            connection.close()
        self._idle.clear()
        await asyncio.sleep(0)  # lets the transports go


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def bearer(key: Secret | None) -> dict[str, str]:
    """Return the headers that carry an API key, none without one."""
    return {} if key is None else {"Authorization": f"Bearer {key.reveal()}"}


@lru_cache(maxsize=1024)
def _parse(url: str) -> tuple[Place, str]:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise FetchError(f"not a URL: {sanitise(str(error), 200)}", reason="protocol") from None
    if parts.scheme not in ("http", "https") or not host:
        raise FetchError("not an http:// or https:// URL with a host", reason="protocol")
    if parts.username is not None:
        raise FetchError(
            "a URL must not hold a user or a password", reason="protocol", hint="Use the engine's api_key settings."
        )
    tls = parts.scheme == "https"
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Place(host, port or (443 if tls else 80), tls), target


def _request(method: str, place: Place, target: str, headers: Mapping[str, str]) -> h11.Request:
    fields = {"Host": str(place), "User-Agent": "opsboard", "Accept-Encoding": "identity", **headers}
    try:
        return h11.Request(method=method, target=target, headers=list(fields.items()))
    except (h11.LocalProtocolError, UnicodeError) as error:
        raise FetchError(f"not a request: {sanitise(str(error), 200)}", reason="protocol") from None


def _inflate(place: Place, answer: Answer, limits: Limits) -> bytes:
    """Return the decompressed body. Never holds more than the limit, however well it was packed."""
    encoding = answer.fields.get(b"content-encoding", "identity").strip().lower()
    if encoding in ("identity", "") or not answer.body:
        return answer.body
    if encoding not in ("gzip", "x-gzip", "deflate"):
        message = f"{place} answers in {sanitise(encoding, 40)!r} although identity was asked for"
        raise FetchError(message, reason="encoding")
    inflater = zlib.decompressobj(zlib.MAX_WBITS | 32)  # 32: gzip or zlib by its first bytes
    try:
        data = inflater.decompress(answer.body, limits.body_bytes + 1)
    except zlib.error as error:
        raise FetchError(f"{place}: {encoding} body: {error}", reason="encoding") from None
    if limits.cut:
        return data[: limits.body_bytes]
    if len(data) > limits.body_bytes:
        message = f"{place} answers with {encoding} that grows beyond {limits.body_bytes} bytes"
        raise FetchError(message, reason="too_large")
    if not inflater.eof or inflater.unused_data:
        raise FetchError(f"{place}: the {encoding} body does not end where it should", reason="truncated")
    return data


def _no_connection(place: Place, seconds: float) -> FetchError:
    return FetchError(f"{place}: no connection within {seconds:g} s", reason="connect_timeout")


def _refusal(place: Place, answer: Answer) -> FetchError:
    said = sanitise(" ".join(answer.body.decode("utf-8", "replace").split()), 200)
    if 300 <= answer.status < 400:
        said = f"redirects are not followed: to {sanitise(answer.fields.get(b'location', 'nowhere'), 200)}"
    message = f"{place} answered {answer.status}" + (f": {said}" if said else "")
    return FetchError(message, reason="status", status=answer.status)


def _errnos(error: Exception) -> set[int]:
    """Return the errnos of a failed connect; asyncio tells those of several addresses only in its message."""
    own = getattr(error, "errno", None)
    return {own} if own else {int(number) for number in re.findall(r"\[Errno (\d+)\]", str(error))}
