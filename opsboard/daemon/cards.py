"""GPUs of the configuration become uuids as soon as the driver names them, which may be long after the daemon began."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from opsboard.core.model import GpuReading, Outcome
from opsboard.supervise.launch import LaunchSpec

CARDS_S = 5.0
"""How often it is looked; a driver that is not there is asked once a minute."""


class Cards:
    """Looks whether engines that would get their GPUs by number can have them by uuid now."""

    def __init__(
        self,
        *,
        reading: Callable[[], GpuReading | None],
        now: Callable[[], Iterable[LaunchSpec]],
        anew: Callable[[GpuReading], Iterable[LaunchSpec]],
        apply: Callable[[Iterable[LaunchSpec]], object],
        lock: asyncio.Lock,
    ) -> None:
        """``now()`` is what would be started, ``anew(reading)`` what that is by the configuration and a reading.

        ``lock`` is held by whoever changes the configuration.
        """
        self._reading = reading
        self._now = now
        self._anew = anew
        self._apply = apply
        self._lock = lock

    async def look(self) -> None:
        """Change what can be better told; what runs goes on as it is until its next start."""
        reading = self._reading()
        if reading is None or reading.outcome is not Outcome.OK:
            return
        async with self._lock:
            before = list(self._now())
            if all(spec.warning is None for spec in before):
                return
            sure = {spec.name: spec for spec in self._anew(reading) if spec.warning is None}
            after = [spec if spec.warning is None else sure.get(spec.name, spec) for spec in before]
            if after != before:
                self._apply(after)
