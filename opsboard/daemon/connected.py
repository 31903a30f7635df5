"""Looks at who is connected to engines whose pages show no request: a hang freezes a page, and they still wait."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

from collectors.connections import ConnectionReader
from opsboard.core.clock import Clock
from opsboard.core.model import ConnectionReading
from opsboard.daemon.observed import local_port
from opsboard.daemon.pipeline import PipelineState, Reading

IDLE_S = 2.0
"""Pages without a request for so long: sooner nobody has waited long enough to be asked about."""
SHARE = 0.05
"""Of one core that looks may take: 10,000 connections cost 40 to 80 ms, a few dozen less than one."""


class Connected:
    """One look for all engines of this machine."""

    def __init__(self, state: PipelineState, clock: Clock, feed: Callable[[Reading], None]) -> None:
        """``feed`` takes what was seen, on the loop."""
        self._state = state
        self._clock = clock
        self._feed = feed
        self._reader = ConnectionReader(clock=clock)
        self._due = -math.inf

    async def look(self) -> None:
        """Look, in a thread, if any engine needs it and the last look was cheap or long ago."""
        began = self._clock.now().mono
        ports = {
            track.name: port
            for track in self._state.engines.values()
            if track.idle_since is not None
            and began - track.idle_since >= IDLE_S
            and (port := local_port(track.url or "")) is not None
        }
        if not ports or began < self._due:
            return
        found = await asyncio.to_thread(self._reader.read, frozenset(ports.values()))
        ended = self._clock.now().mono
        self._due = ended + (ended - began) / SHARE
        for name, port in ports.items():
            self._feed(ConnectionReading(engine=name, since=found.get(port)))
