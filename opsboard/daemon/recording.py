"""Readings for recorders: the lines of CONTRACT "Recording", as they are collected."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import msgspec

from opsboard.core.clock import Now
from opsboard.core.connections import ConnectionReading
from opsboard.core.model import EngineReading, HostView, ProcessView
from opsboard.core.text import sanitise
from opsboard.core.wire import Gpu

QUEUE_LINES = 256
QUEUE_CHARS = 16 << 20
"""Of pages that wait for one recorder; a line that passes it is the last one until some were read."""


class _Process(msgspec.Struct, frozen=True, omit_defaults=True):
    pid: int
    name: str
    rss_anon: int | None = None
    swap: int | None = None
    rss: int | None = None


class _Host(msgspec.Struct, frozen=True, omit_defaults=True):
    memory_total: int | None = None
    memory_available: int | None = None
    cgroup_limit: int | None = None


class _Line(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    t: float
    engine: str
    kind: str | None = None
    metrics: str | None = None
    error: str | None = None
    processes: tuple[_Process, ...] | None = None
    gpus: tuple[Gpu, ...] | None = None
    host: _Host | None = None
    connections: tuple[float, ...] | None = None
    dropped: int = 0


def recording_line(
    reading: EngineReading,
    now: Now,
    *,
    processes: tuple[ProcessView, ...] = (),
    gpus: tuple[Gpu, ...] = (),
    host: HostView | None = None,
    connections: ConnectionReading | None = None,
    kind: str | None = None,
) -> _Line:
    """Return one reading as a recording keeps it: the raw page, or why there is none."""
    page = None if reading.page is None else reading.page.decode("utf-8", "replace")
    return _Line(
        t=now.wall,
        engine=reading.engine,
        kind=kind,
        metrics=page,
        error=None if page is not None else sanitise(reading.error or reading.outcome.value),
        processes=tuple(_Process(p.pid, p.name, p.rss_anon_bytes, p.swap_bytes, p.rss_bytes) for p in processes),
        gpus=gpus,
        host=None if host is None else _host(host),
        connections=None if connections is None else _ages(connections),
    )


def _ages(connections: ConnectionReading) -> tuple[float, ...]:
    return tuple(round(connections.looked - since, 3) for since in connections.since or ())


def _host(host: HostView) -> _Host:
    return _Host(host.memory_total_bytes, host.memory_available_bytes, host.cgroup_limit_bytes)


class _Lines(asyncio.Queue[_Line]):
    """Lines that wait for one recorder, bounded in number and in size (a page may have 4 MiB)."""

    def _init(self, maxsize: int) -> None:
        super()._init(maxsize)
        self._chars = 0

    def _put(self, item: _Line) -> None:
        super()._put(item)
        self._chars += len(item.metrics or "")

    def _get(self) -> _Line:
        item = super()._get()
        self._chars -= len(item.metrics or "")
        return item

    def full(self) -> bool:
        """Tell whether there is no room for another line."""
        return super().full() or self._chars >= QUEUE_CHARS


class Recorders:
    """Every connected recorder with a bounded queue. One that reads too slowly loses lines and is told how many."""

    def __init__(self) -> None:
        self._queues: dict[asyncio.Queue[_Line], int] = {}
        self.dropped = 0

    @property
    def active(self) -> bool:
        """Whether anybody records: pages are kept only then."""
        return bool(self._queues)

    def offer(self, line: _Line) -> None:
        """Hand a line to every recorder."""
        for queue, dropped in self._queues.items():
            if queue.full():
                self._queues[queue] += 1
                self.dropped += 1
            else:
                queue.put_nowait(msgspec.structs.replace(line, dropped=dropped) if dropped else line)
                self._queues[queue] = 0

    async def stream(self) -> AsyncGenerator[bytes, None]:
        """Yield lines until the caller stops. ``dropped`` in a line says how many are missing before it."""
        queue = _Lines(QUEUE_LINES)
        self._queues[queue] = 0
        try:
            while True:
                yield msgspec.json.encode(await queue.get()) + b"\n"
        finally:
            del self._queues[queue]
