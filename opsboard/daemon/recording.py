"""Who records: the lines of a recording as they come, with bounded queues (CONTRACT "Recording")."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator

import msgspec

from opsboard.core.clock import Now
from opsboard.core.model import CanaryReading, Event, LifeView
from opsboard.recording.lines import Line, canary_line, life_line

QUEUE_LINES = 256
QUEUE_CHARS = 16 << 20
"""Of pages that wait for one recorder; a line that passes it is the last one until some were read."""

EVENTS_KEPT = 256
"""Lines of timelines that wait for their engine's next reading."""


class _Lines(asyncio.Queue[Line]):
    """Lines that wait for one recorder, bounded in number and in size (a page may have 4 MiB)."""

    def _init(self, maxsize: int) -> None:
        super()._init(maxsize)
        self._chars = 0

    def _put(self, item: Line) -> None:
        super()._put(item)
        self._chars += len(item.metrics or "")

    def _get(self) -> Line:
        item = super()._get()
        self._chars -= len(item.metrics or "")
        return item

    def full(self) -> bool:
        """Tell whether there is no room for another line."""
        return super().full() or self._chars >= QUEUE_CHARS


class Recorders:
    """Every connected recorder with a bounded queue. One that reads too slowly loses lines and is told how many."""

    def __init__(self) -> None:
        self._queues: dict[asyncio.Queue[Line], int] = {}
        self.dropped = 0
        self._events: deque[Event] = deque(maxlen=EVENTS_KEPT)
        self._lives: dict[str, LifeView] = {}

    @property
    def active(self) -> bool:
        """Whether anybody records: pages are kept only then."""
        return bool(self._queues)

    def hear(self, reading: CanaryReading | LifeView | Event, now: Now) -> None:
        """Take in what no page tells. Lives and canaries have lines of their own, events go with the next reading.

        What follows from readings, as what detectors claim does, is not recorded: it follows again.
        """
        if not self.active:
            return
        match reading:
            case LifeView():
                before = self._lives.get(reading.engine)
                if before is None or (before.state, before.started) != (reading.state, reading.started):
                    self.offer(life_line(reading, now.wall))
                self._lives[reading.engine] = reading
            case CanaryReading():
                self.offer(canary_line(reading, now.wall))
            case Event():
                self.dropped += len(self._events) == EVENTS_KEPT
                self._events.append(reading)

    def news(self, engine: str) -> tuple[Event, ...]:
        """Return what was told since an engine's last reading, of it or of no engine."""
        events: list[Event] = []
        others: list[Event] = []
        for event in self._events:
            kind, _, name = event.subject.partition("/")
            (others if kind == "engine" and name != engine else events).append(event)
        self._events.clear()
        self._events.extend(others)
        return tuple(events)

    def offer(self, line: Line) -> None:
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
            if not self._queues:
                for kept in (self._events, self._lives):
                    kept.clear()
