"""What goes in and out of a handler, what one client may cost, and how errors are told."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import TypeVar

import msgspec

from opsboard.core.errors import (
    ConfigError,
    Conflict,
    Denied,
    NotFound,
    NotReachable,
    OpsboardError,
    SuperviseError,
    UsageError,
)
from opsboard.core.wire import ErrorBody, ErrorReply

JSON = "application/json"
_T = TypeVar("_T")


class Peer(msgspec.Struct, frozen=True):
    """The process at the other end of a unix socket, as the kernel tells it (SO_PEERCRED, at the time of connect).

    ``groups`` are its supplementary groups (SO_PEERGROUPS).
    """

    pid: int
    uid: int
    gid: int
    groups: tuple[int, ...] = ()


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """One request: ``path`` percent-decoded, ``query`` with the last value of a key, ``headers`` with lower-case names.

    ``peer`` is None on TCP.
    """

    method: str
    path: str
    query: Mapping[str, str] = {}
    headers: Mapping[str, str] = {}
    body: bytes = b""
    peer: Peer | None = None
    remote: str = ""
    """The client's ``host:port`` on TCP."""

    def json(self, type: type[_T]) -> _T:
        """Decode the body as ``type``; raises UsageError (a 400) saying what is wrong with it."""
        try:
            return msgspec.json.decode(self.body, type=type)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise UsageError(f"the body of {self.method} {self.path} is not as expected: {error}") from error


class Response(msgspec.Struct, frozen=True):
    """A whole reply."""

    status: int = 200
    body: bytes = b""
    content_type: str = "text/plain; charset=utf-8"
    headers: tuple[tuple[str, str], ...] = ()


class StreamResponse(msgspec.Struct, frozen=True):
    """A reply in pieces, each sent at once. An exception in ``chunks`` breaks the connection: the client sees it."""

    status: int
    content_type: str
    chunks: AsyncIterator[bytes]
    headers: tuple[tuple[str, str], ...] = ()


class Broken(Exception):
    """Raised by ``chunks`` that want the connection to break: nothing is logged."""


Handler = Callable[[Request], Awaitable[Response | StreamResponse]]


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What clients may cost, in bytes and seconds. The timeouts of head and body are for the whole, not for a byte."""

    head_bytes: int = 16 * 1024
    body_bytes: int = 1024 * 1024
    connections: int = 128
    head_timeout: float = 10.0
    body_timeout: float = 30.0
    idle_timeout: float = 75.0
    write_timeout: float = 10.0
    """How long a client may read nothing before it is dropped."""


def json_response(value: object, status: int = 200, headers: tuple[tuple[str, str], ...] = ()) -> Response:
    """Return ``value`` as a JSON reply."""
    return Response(status, msgspec.json.encode(value), JSON, headers)


_STATUS: tuple[tuple[type[OpsboardError], int], ...] = (
    (UsageError, 400),
    (ConfigError, 400),
    (Denied, 403),
    (NotFound, 404),
    (Conflict, 409),
    (SuperviseError, 409),
    (NotReachable, 503),
)


def error_response(error: OpsboardError) -> Response:
    """Return the ``{"error": ...}`` reply of a deliberate error."""
    status = next((status for kind, status in _STATUS if isinstance(error, kind)), 500 if error.permanent else 503)
    return json_response(ErrorReply(error=ErrorBody(code=error.code, message=error.message, hint=error.hint)), status)


def refusal(status: int, code: str, message: str) -> Response:
    """Return the ``{"error": ...}`` reply of the server itself."""
    return json_response(ErrorReply(error=ErrorBody(code=code, message=message)), status)
