"""How the daemon itself is doing: its CPU, its memory, how long its event loop was away."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

from opsboard.core.clock import Now
from opsboard.daemon.pipeline import SelfReading
from opsboard.daemon.tasks import Lag

PROBE_S = 0.5
STALE_INTERVALS, STALE_LEAST_S = 10, 15.0
"""Nothing collected for so many intervals, and at least so many seconds: the watchdog is not fed."""
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_STATM = Path("/proc/self/statm")


class Health:
    """Measures the daemon. ``stale_s``: how long nothing may be collected before the watchdog goes hungry."""

    def __init__(self, stale_s: float) -> None:
        self.gaps = Lag()
        """How late timers come: a loop that was blocked for a second makes one of them a second late."""
        self.stale_s = stale_s
        self._beat: float | None = None
        self._cpu: tuple[float, float] | None = None
        self.last = SelfReading()

    async def probe(self) -> None:
        """Measure the loop's gaps for ever."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + PROBE_S
            await asyncio.sleep(PROBE_S)
            woke = loop.time()
            self.gaps.note(woke, woke - due)

    def read(self, now: Now) -> SelfReading:
        """Return what the daemon used since the last call, and count this as a sign of life of the collection."""
        self._beat = now.mono
        cpu, before = time.process_time(), self._cpu
        self._cpu = (now.mono, cpu)
        ratio = None if before is None or now.mono <= before[0] else (cpu - before[1]) / (now.mono - before[0])
        self.last = SelfReading(cpu_ratio=ratio, rss_bytes=_rss_bytes(), loop_gap_s=self.gaps.worst_s)
        return self.last

    def healthy(self, now: Now) -> bool:
        """Return whether collection goes on: a loop that turns while nothing is read is as bad as one that stands."""
        return self._beat is not None and now.mono - self._beat <= self.stale_s


def _rss_bytes() -> int | None:
    try:
        return int(_STATM.read_text().split()[1]) * _PAGE_BYTES
    except (OSError, ValueError, IndexError):
        return None


def stale_s(interval_s: float) -> float:
    """Return how long nothing may be collected."""
    return max(STALE_LEAST_S, STALE_INTERVALS * interval_s)
