"""How a reply of the control socket becomes a value or an error; shared by both clients."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote, urlencode

import msgspec

from opsboard.core.errors import BadRequest, Conflict, ControlError, Denied, NotFound, NotReachable
from opsboard.core.text import sanitise
from opsboard.core.wire import PROTOCOL, PROTOCOL_HEADER, ErrorReply

T = TypeVar("T")

HEADERS = {PROTOCOL_HEADER: PROTOCOL, "Host": "opsboard"}
MAX_REPLY_BYTES = 64 * 1024 * 1024
"""A reply larger than this is no reply of a daemon of ours."""
_OK = 300

_ERRORS: dict[int, type[ControlError]] = {
    HTTPStatus.BAD_REQUEST: BadRequest,
    HTTPStatus.FORBIDDEN: Denied,
    HTTPStatus.NOT_FOUND: NotFound,
    HTTPStatus.CONFLICT: Conflict,
}


def target(path: str, *parts: str, query: dict[str, str | int | float | None] | None = None) -> str:
    """Return a request target: ``path`` with quoted ``parts`` appended, and the query without what is None."""
    whole = "/".join([path, *(quote(part, safe="") for part in parts)])
    known = {key: value for key, value in (query or {}).items() if value is not None}
    return f"{whole}?{urlencode(known)}" if known else whole


def check(status: int, protocol: str | None, body: bytes) -> None:
    """Raise what a refusal means: BadRequest, Denied, NotFound, Conflict, or ControlError for all else."""
    # What the server itself refuses, before it knows who asks, carries no version.
    if protocol != PROTOCOL and not (protocol is None and status >= _OK):
        said = "no opsboard protocol" if protocol is None else f"protocol {sanitise(protocol, 16)}"
        raise ControlError(
            f"what answers on the socket speaks {said}, this opsboard speaks {PROTOCOL}",
            hint="use the same version on both sides: restart the daemon after an upgrade",
        )
    if status < _OK:
        return
    kind = _ERRORS.get(status, ControlError)
    try:
        error = msgspec.json.decode(body, type=ErrorReply).error
    except msgspec.MsgspecError:
        raise kind(f"the daemon refused (HTTP {status})") from None
    hint = None if error.hint is None else sanitise(error.hint)
    raise kind(sanitise(error.message), hint=hint)


def decode(body: bytes, type: type[T]) -> T:
    """Decode a reply's body. Raises ControlError when it is not what this version expects."""
    try:
        return msgspec.json.decode(body, type=type)
    except msgspec.MsgspecError as error:
        raise ControlError(f"the daemon's reply makes no sense: {error}", hint="is it the same version?") from error


def unreachable(failures: Sequence[tuple[Path, OSError]]) -> ControlError:
    """Return the error that says why no socket could be reached: Denied when one is there and closed to us."""
    for path, error in failures:
        if isinstance(error, PermissionError):
            return Denied(
                f"{path}: no permission to connect",
                hint="the daemon's user, root, and members of [control] read_group or operate_group may",
            )
    tried = "; ".join(f"{path}: {_why(error)}" for path, error in failures)
    hint = "`opsboard daemon` starts one; --socket names another place"
    return NotReachable(f"no daemon answers ({tried})", hint=hint)


def _why(error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such socket"
    if isinstance(error, ConnectionRefusedError):
        return "nobody listens"
    return error.strerror or str(error) or type(error).__name__
