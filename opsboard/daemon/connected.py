"""Looks at who is connected to engines whose pages show no request: a hang freezes a page, and they still wait."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from functools import partial
from time import thread_time

from collectors.connections import ConnectionReader
from opsboard.core.aside import Aside
from opsboard.core.clock import Clock
from opsboard.core.connections import ConnectionReading
from opsboard.daemon.observed import local_port
from opsboard.daemon.pipeline import PipelineState, Reading

log = logging.getLogger("opsboard.daemon")

IDLE_S = 2.0
"""Pages without a request for so long: sooner nobody has waited long enough to be asked about."""
EVERY_S = 1.9
"""Every other second; a little less, because ticks are not exact."""
YOUNG_S = 10.0
"""While somebody has been connected for less than this, it is looked at every tick: it is about to be asked about."""
SHARE = 0.02
"""Of one core that looks may take. One costs 4 to 8 ms of the kernel's time, whoever is connected (it walks a table as
large as the machine), and 40 to 80 ms with 10,000 connections."""
WITHIN_S = 10.0
"""What one may take; who is connected is not known then."""


class Connected:
    """One look for all engines of this machine."""

    def __init__(self, state: PipelineState, clock: Clock, feed: Callable[[Reading], None]) -> None:
        """``feed`` takes what was seen, on the loop."""
        self._state = state
        self._clock = clock
        self._feed = feed
        self._reader = ConnectionReader()
        self._looking = Aside("connections")
        self._due = -math.inf
        self._told = False

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
        try:
            found, cost_s = await self._looking.do(partial(self._read, frozenset(ports.values()), began), WITHIN_S)
        except TimeoutError:
            if not self._told:
                log.warning("who is connected to engines could not be found out within %g s", WITHIN_S)
            self._told = True
            return
        came = max((since[0] for since in found.values() if since), default=-math.inf)
        self._due = began + max(cost_s / SHARE, 0.0 if began - came < YOUNG_S else EVERY_S)
        for name, port in ports.items():
            self._feed(ConnectionReading(engine=name, looked=began, since=found.get(port)))

    def _read(self, ports: frozenset[int], mono: float) -> tuple[Mapping[int, tuple[float, ...]], float]:
        """Read, and return the seconds of a core that it cost: on a busy machine it takes far longer."""
        began = thread_time()
        return self._reader.read(ports, mono), thread_time() - began
