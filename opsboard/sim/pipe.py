"""What the front end and EngineCore say to each other: length-prefixed msgpack over a socket pair."""

from __future__ import annotations

import select
import socket

import msgspec

from opsboard.sim.model import Request, Stats, StepResult


class Add(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Queue a request that arrived at ``at`` (monotonic seconds)."""

    request: Request
    at: float


class Abort(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """The client of a request went away."""

    id: int


class SetFault(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Begin a fault."""

    name: str
    value: float


class ClearFault(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """End one fault, or all of them."""

    name: str | None


class Utility(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """A call that the busy loop answers between two steps: one of the development endpoints, by name."""

    id: int
    name: str
    mode: str
    level: int


class Ready(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Start-up is done."""


class Stepped(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """One engine step."""

    result: StepResult


class Emptied(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """The scheduler after an abort left it without work."""

    stats: Stats


class Returned(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """The answer to a :class:`Utility`."""

    id: int
    value: bool


ToCore = Add | Abort | SetFault | ClearFault | Utility
FromCore = Ready | Stepped | Emptied | Returned

encode = msgspec.msgpack.Encoder().encode
decode_to_core = msgspec.msgpack.Decoder(ToCore).decode
decode_from_core = msgspec.msgpack.Decoder(FromCore).decode
_PREFIX = 4


def frame(message: ToCore | FromCore) -> bytes:
    """Return ``message`` as it goes over the wire."""
    body = encode(message)
    return len(body).to_bytes(_PREFIX, "big") + body


class Frames:
    """Takes bytes as they come and hands out whole messages."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """Return the bodies that are complete now."""
        self._buffer += data
        bodies: list[bytes] = []
        at = 0
        while len(self._buffer) - at >= _PREFIX:
            end = at + _PREFIX + int.from_bytes(self._buffer[at : at + _PREFIX], "big")
            if end > len(self._buffer):
                break
            bodies.append(bytes(self._buffer[at + _PREFIX : end]))
            at = end
        del self._buffer[:at]
        return bodies


class CoreEnd:
    """EngineCore's end of the pipe, blocking."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._frames = Frames()
        self.orphaned = False
        """True once the front end is gone."""

    def receive(self, timeout: float | None) -> list[ToCore]:
        """Return the messages that are there, waiting up to ``timeout`` seconds (None: for ever) for the first."""
        messages: list[ToCore] = []
        while not self.orphaned and select.select([self._sock], [], [], timeout)[0]:
            try:
                data = self._sock.recv(65536)
            except ConnectionError:
                data = b""
            self.orphaned = not data
            messages += map(decode_to_core, self._frames.feed(data))
            timeout = 0.0
        return messages

    def send(self, message: FromCore) -> None:
        """Tell the front end, if there still is one."""
        try:
            self._sock.sendall(frame(message))
        except OSError:
            self.orphaned = True
