"""What detectors remember of an engine, as bytes and back.

It counts only for what it is about: a detector with the same parameters and the same shape of memory, the same version
of opsboard, the same boot (instants are of its monotonic clock) and, but for detectors whose memory is
:attr:`~alerts.base.Detector.lasting`, the same life of the engine. What does not fit is forgotten.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import cache
from hashlib import blake2b
from typing import Any, NamedTuple, Protocol, Self, runtime_checkable

import msgspec
from msgspec.inspect import type_info

from alerts.base import Detector
from opsboard.core.clock import Now
from opsboard.core.lives import PROCESS_START_SLACK_S
from opsboard.core.model import Record
from opsboard.core.version import __version__
from opsboard.daemon.engine_track import EngineTrack


@runtime_checkable
class Packed(Protocol):
    """Something in a detector's memory that is no record."""

    def packed(self) -> Any:
        """Return it as numbers, texts and bytes."""

    @classmethod
    def unpacked(cls, found: Any) -> Self:
        """Return it as it was. Raises ValueError."""


class Life(Record, frozen=True, kw_only=True):
    """Which life of an engine: Unix seconds, as supervision knows it and as its page tells. None: unknown."""

    started: float | None = None
    process_start: float | None = None

    def same(self, other: Life) -> bool:
        """Tell whether it surely is the same."""
        if self.process_start is not None and other.process_start is not None:
            return abs(self.process_start - other.process_start) <= PROCESS_START_SLACK_S
        return self.started is not None and self.started == other.started


def life_of(track: EngineTrack) -> Life:
    """Return which life of an engine was read last."""
    started = None if track.life is None else track.life.started
    return Life(started=started, process_start=None if track.view is None else track.view.process_start)


class Mind(NamedTuple):
    """A detector at work on an engine, and what it remembers of that."""

    detector: Detector
    params: Any
    state: Any


class _Part(Record, frozen=True, kw_only=True):
    detector: str
    form: bytes
    state: bytes


class _Memory(Record, frozen=True, kw_only=True):
    version: str
    boot: str
    mono: float
    life: Life
    parts: tuple[_Part, ...]


class Recalled(NamedTuple):
    """What an earlier daemon knew. ``states`` by detector; of another ``life`` only the ``lasting`` ones count."""

    life: Life
    states: dict[str, Any]
    lasting: frozenset[str]

    def of(self, life: Life) -> dict[str, Any]:
        """Return what of it is true of an engine in ``life``."""
        same = self.life.same(life)
        return {name: state for name, state in self.states.items() if same or name in self.lasting}


def pack(minds: Iterable[Mind], life: Life, boot: str, now: Now) -> bytes:
    """Return a memory as bytes. A detector from elsewhere whose memory cannot be written down is left out."""
    parts = []
    for detector, params, state in minds:
        try:
            part = _Part(detector=detector.name, form=_form(params, type(state)), state=_encoder.encode(state))
        except Exception:  # noqa: BLE001, S112  foreign code must not stop the others
            continue
        parts.append(part)
    return _encoder.encode(_Memory(version=__version__, boot=boot, mono=now.mono, life=life, parts=tuple(parts)))


def prepare(known: Mapping[str, tuple[Detector, Any]]) -> None:
    """Work out the shapes of all memories: some ms each, which would stop the daemon's loop."""
    for detector, params in known.values():
        with suppress(Exception):  # foreign code must not stop the others
            _form(params, type(detector.begin(params)))


def unpack(data: bytes, known: Mapping[str, tuple[Detector, Any]], boot: str, now: Now) -> Recalled | None:
    """Return what ``data`` says of the detectors that are ``known``, with their parameters; None: it says nothing."""
    try:
        memory = _decoder.decode(data)
    except (msgspec.MsgspecError, ValueError):
        return None
    if (memory.version, memory.boot) != (__version__, boot) or memory.mono > now.mono:
        return None
    states = {}
    for part in memory.parts:
        if part.detector not in known:
            continue
        detector, params = known[part.detector]
        kind = type(detector.begin(params))
        try:
            if part.form == _form(params, kind):
                states[part.detector] = msgspec.msgpack.decode(part.state, type=kind, dec_hook=_object)
        except Exception:  # noqa: BLE001, S112  likewise
            continue
    lasting = frozenset(name for name, (detector, _) in known.items() if detector.lasting)
    return Recalled(memory.life, states, lasting)


def _form(params: Any, kind: type) -> bytes:
    """Return what tells whether a memory can still be used."""
    return blake2b(_shape(kind) + _encoder.encode(params), digest_size=16).digest()


@cache
def _shape(kind: type) -> bytes:
    """Return all names and types of a memory."""
    return blake2b(repr(type_info(kind)).encode(), digest_size=16).digest()


def _plain(value: Any) -> Any:
    """Return what msgspec does not know by itself as something that it knows."""
    if isinstance(value, Packed):
        return value.packed()
    if isinstance(value, float | int):  # durations and sizes as people write them
        return float(value) if isinstance(value, float) else int(value)
    raise TypeError(f"{type(value).__name__} cannot be remembered")


def _object(kind: type, found: Any) -> Any:
    if issubclass(kind, Packed):
        return kind.unpacked(found)
    if issubclass(kind, float | int):
        return kind(found)
    raise TypeError(f"{kind.__name__} cannot be remembered")


_encoder = msgspec.msgpack.Encoder(enc_hook=_plain)
_decoder = msgspec.msgpack.Decoder(_Memory)
