"""The asynchronous client, for the board: requests, streamed lines, and :func:`watch`, which reconnects by itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from pathlib import Path

import msgspec

from opsboard.client.replies import HEADERS, MAX_REPLY_BYTES, check, decode, target, unreachable
from opsboard.core.errors import ControlError, NotReachable
from opsboard.core.model import Record
from opsboard.core.wire import (
    PROTOCOL_HEADER,
    ActionAccepted,
    ActionRequest,
    EngineDetail,
    History,
    Incident,
    IncidentDetail,
    IncidentRequest,
    Status,
)

LINE_BYTES = 16 * 1024 * 1024
FIRST_RETRY_S, LAST_RETRY_S = 0.25, 2.0
SILENCE_S = 15.0
"""A stream of states says something every few seconds; one that is silent this long is broken."""

Sockets = Path | Sequence[Path]


class Disconnected(Record, frozen=True, kw_only=True):
    """There is no state to show: why, for how many seconds already, and how the client goes on."""

    message: str
    hint: str | None = None
    for_s: float = 0.0
    retry_s: float = 0.0
    denied: bool = False
    """True when trying again will not help."""


class AsyncClient:
    """Speaks with the first daemon that answers on ``sockets``; errors as :class:`opsboard.client.sync.Client`."""

    def __init__(self, sockets: Sockets, timeout: float = 10.0) -> None:
        """``timeout`` in seconds is for connecting and for a whole reply; streams may be silent for longer."""
        self._sockets = [sockets] if isinstance(sockets, Path) else list(sockets)
        self._timeout = timeout

    async def status(self) -> Status:
        """Return the board."""
        return decode(await self._call("GET", "/v1/status"), Status)

    async def engine(self, name: str) -> EngineDetail:
        """Return all that is known of one engine."""
        return decode(await self._call("GET", target("/v1/engines", name)), EngineDetail)

    async def action(
        self,
        name: str,
        kind: str,
        reason: str | None = None,
        idempotency_key: str | None = None,
        *,
        now: bool = False,
        then: Sequence[str] = (),
    ) -> ActionAccepted:
        """Ask for an action; returns when it has begun. Raises Conflict with what refuses it.

        ``kind``, ``now`` and ``then`` as in :class:`ActionRequest`.
        """
        body = msgspec.json.encode(
            ActionRequest(kind=kind, reason=reason, idempotency_key=idempotency_key, now=now, then=tuple(then))
        )
        return decode(await self._call("POST", target("/v1/engines", name, "actions"), body), ActionAccepted)

    async def incidents(self, *, every: bool = False, subject: str | None = None, limit: int = 100) -> list[Incident]:
        """Return what is open, or with ``every`` the newest ones, newest first; of one ``subject``, or of all."""
        query: dict[str, str | int | float | None] = {"all": int(every), "subject": subject, "limit": limit}
        return decode(await self._call("GET", target("/v1/incidents", query=query)), list[Incident])

    async def incident(self, name: str) -> IncidentDetail:
        """Return one incident with its timeline and evidence, by its number or its uid."""
        return decode(await self._call("GET", target("/v1/incidents", name)), IncidentDetail)

    async def tell_incident(self, name: str, verb: str, text: str | None = None, by: str | None = None) -> Incident:
        """``ack``, ``note`` or ``resolve`` an incident; returns when it is written down. Raises Conflict."""
        body = msgspec.json.encode(IncidentRequest(text=text, by=by))
        return decode(await self._call("POST", target("/v1/incidents", name, verb), body), Incident)

    async def history(
        self, series: str, start: float | None = None, end: float | None = None, step: float | None = None
    ) -> History:
        """Return one series between two Unix times; the daemon chooses what is left out."""
        query: dict[str, str | int | float | None] = {"series": series, "from": start, "to": end, "step": step}
        return decode(await self._call("GET", target("/v1/history", query=query)), History)

    async def logs(self, name: str, lines: int = 100, *, follow: bool = False) -> AsyncGenerator[str, None]:
        """Yield an engine's last log lines, and with ``follow`` new ones until the daemon goes away."""
        query: dict[str, str | int | float | None] = {"lines": lines, "follow": 1 if follow else None}
        async with aclosing(self._lines(target("/v1/engines", name, "logs", query=query), None)) as stream:
            async for line in stream:
                yield line.decode("utf-8", "replace")

    async def events(self, silence_s: float | None = SILENCE_S) -> AsyncGenerator[Status, None]:
        """Yield the board whenever it changes, the newest state only; NotReachable when the daemon goes away."""
        async with aclosing(self._lines("/v1/events", silence_s)) as lines:
            async for line in lines:
                yield decode(line, Status)
        raise NotReachable("the daemon ended the stream", hint="it may be restarting")

    # --- the wire ---------------------------------------------------------------------------------------------------

    async def _call(self, method: str, where: str, body: bytes = b"") -> bytes:
        try:
            async with asyncio.timeout(self._timeout), self._request(method, where, body) as (reader, head):
                return await _whole_body(reader, head)
        except TimeoutError as error:
            raise NotReachable(f"the daemon did not answer within {self._timeout:.0f} s") from error

    async def _lines(self, where: str, silence_s: float | None) -> AsyncGenerator[bytes, None]:
        async with self._request("GET", where, b"") as (reader, head):
            if head.status != 200:
                await _whole_body(reader, head)
            buffer = bytearray()
            while True:
                try:
                    async with asyncio.timeout(silence_s):
                        chunk = await _chunk(reader)
                except TimeoutError as error:
                    raise NotReachable(f"the daemon has been silent for {silence_s:.0f} s") from error
                if not chunk:
                    return
                buffer += chunk
                if len(buffer) > LINE_BYTES:
                    raise ControlError("a line of the stream is too long")
                *lines, rest = buffer.split(b"\n")
                buffer = rest
                for line in lines:
                    yield bytes(line)

    @asynccontextmanager
    async def _request(self, method: str, where: str, body: bytes) -> AsyncIterator[tuple[asyncio.StreamReader, _Head]]:
        reader, writer = await self._connect()
        try:
            head = [f"{method} {where} HTTP/1.1", *(f"{key}: {value}" for key, value in HEADERS.items())]
            if body:
                head += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
            writer.write("\r\n".join([*head, "", ""]).encode("ascii") + body)
            async with asyncio.timeout(self._timeout):
                await writer.drain()
                reply = await _read_head(reader)
            yield reader, reply
        except TimeoutError as error:
            raise NotReachable(f"the daemon did not answer within {self._timeout:.0f} s") from error
        except (ConnectionError, asyncio.IncompleteReadError) as error:
            raise NotReachable("the daemon closed the connection", hint="it may be restarting") from error
        except (ValueError, asyncio.LimitOverrunError) as error:
            raise ControlError(f"what answers on the socket is no daemon of ours: {error}") from error
        finally:
            writer.close()
            with suppress(OSError, TimeoutError):
                async with asyncio.timeout(1.0):
                    await writer.wait_closed()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        failures: list[tuple[Path, OSError]] = []
        for path in self._sockets:
            try:
                async with asyncio.timeout(self._timeout):
                    return await asyncio.open_unix_connection(path)
            except OSError as error:  # TimeoutError is one
                failures.append((path, error))
        raise unreachable(failures)


class _Head(Record, frozen=True, kw_only=True):
    status: int
    headers: dict[str, str]


async def _read_head(reader: asyncio.StreamReader) -> _Head:
    raw = await reader.readuntil(b"\r\n\r\n")
    first, *rest = raw.decode("latin-1").rstrip("\r\n").split("\r\n")
    version, status, *_ = first.split(" ", 2)
    if not version.startswith("HTTP/1."):
        raise ValueError(f"expected HTTP/1.1, found {version[:20]!r}")
    pairs = (line.partition(":") for line in rest)
    return _Head(status=int(status), headers={key.strip().lower(): value.strip() for key, _, value in pairs})


async def _whole_body(reader: asyncio.StreamReader, head: _Head) -> bytes:
    """Read a body to its end and raise what a refusal means."""
    if head.headers.get("transfer-encoding", "").lower() == "chunked":
        body = b""
        while chunk := await _chunk(reader):
            body += chunk
            if len(body) > MAX_REPLY_BYTES:
                raise ControlError("the reply is too large")
    else:
        length = int(head.headers.get("content-length", "0"))
        if length > MAX_REPLY_BYTES:
            raise ControlError("the reply is too large")
        body = await reader.readexactly(length)
    check(head.status, head.headers.get(PROTOCOL_HEADER), body)
    return body


async def _chunk(reader: asyncio.StreamReader) -> bytes:
    """Return the next chunk of a chunked body, empty at its end."""
    size = int((await reader.readuntil(b"\r\n")).split(b";")[0], 16)
    if size > MAX_REPLY_BYTES:
        raise ControlError("a chunk of the stream is too large")
    data = await reader.readexactly(size)
    await reader.readexactly(2)
    return data


async def watch(
    sockets: Sockets, *, timeout: float = 10.0, silence_s: float = SILENCE_S
) -> AsyncGenerator[Status | Disconnected, None]:
    """Yield the board for ever: each newest state, and in between why there is none. Reconnects by itself."""
    client = AsyncClient(sockets, timeout)
    loop = asyncio.get_running_loop()
    lost, retry_s = loop.time(), FIRST_RETRY_S
    while True:
        try:
            async with aclosing(client.events(silence_s)) as states:
                async for status in states:
                    retry_s = FIRST_RETRY_S
                    yield status
                    lost = loop.time()
        except ControlError as error:
            yield Disconnected(
                message=error.message,
                hint=error.hint,
                for_s=loop.time() - lost,
                retry_s=retry_s,
                denied=not isinstance(error, NotReachable),
            )
        await asyncio.sleep(retry_s)
        retry_s = min(LAST_RETRY_S, retry_s * 2)
