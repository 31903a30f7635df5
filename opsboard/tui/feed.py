"""Where the board's facts come from: the control socket of a daemon, behind a Protocol that tests can play."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Protocol

from opsboard.client.person import me
from opsboard.client.stream import AsyncClient, Disconnected, watch
from opsboard.core.errors import ControlError
from opsboard.core.wire import ActionAccepted, EngineDetail, History, Incident, IncidentDetail, Status

News = Status | Disconnected
_AT_ONCE = 4
"""Requests for history that may be under way together."""


class Feed(Protocol):
    """What the board asks for. Errors are ControlError, or a leaf of it."""

    def watch(self) -> AsyncIterator[News]:
        """Yield the newest state whenever it changes, and in between why there is none; for ever."""
        ...

    async def detail(self, name: str) -> EngineDetail:
        """Return all that is known of one engine."""
        ...

    async def history(self, series: Sequence[str], start: float, end: float, step: float) -> list[History]:
        """Return the past of those ``series`` that are known between two Unix times, ``step`` in seconds."""
        ...

    def logs(self, name: str, lines: int) -> AsyncIterator[str]:
        """Yield the last ``lines`` of an engine's log, then new ones as they come."""
        ...

    async def act(self, name: str, kind: str, reason: str, *, now: bool = False) -> ActionAccepted:
        """Ask for an action on an engine; ``now``: without draining, and whatever it takes away."""
        ...

    async def incidents(self, subject: str | None, limit: int) -> list[Incident]:
        """Return the newest incidents, those that are resolved too, newest first; of one ``subject``, or of all."""
        ...

    async def incident(self, number: int) -> IncidentDetail:
        """Return one incident with its timeline and the series kept with it."""
        ...

    async def tell(self, number: int, verb: str, text: str | None) -> Incident:
        """``ack``, ``note`` or ``resolve`` an incident in the name of the person at this terminal."""
        ...


class ClientFeed:
    """The feed of a real daemon."""

    def __init__(self, sockets: Path | Sequence[Path]) -> None:
        """``sockets``: the first one that answers is used, anew at each connection."""
        self._sockets = sockets
        self._client = AsyncClient(sockets)
        self._slots = asyncio.Semaphore(_AT_ONCE)

    def watch(self) -> AsyncIterator[News]:
        """Follow the daemon's states, reconnecting by itself."""
        return watch(self._sockets)

    async def detail(self, name: str) -> EngineDetail:
        """Ask the daemon about one engine."""
        return await self._client.engine(name)

    async def history(self, series: Sequence[str], start: float, end: float, step: float) -> list[History]:
        """Ask for each series, a few at a time."""

        async def one(name: str) -> History | None:
            with contextlib.suppress(ControlError):
                async with self._slots:
                    return await self._client.history(name, start, end, step)
            return None

        return [found for found in await asyncio.gather(*(one(name) for name in series)) if found is not None]

    def logs(self, name: str, lines: int) -> AsyncIterator[str]:
        """Follow an engine's log."""
        return self._client.logs(name, lines, follow=True)

    async def act(self, name: str, kind: str, reason: str, *, now: bool = False) -> ActionAccepted:
        """Hand an action to the daemon."""
        return await self._client.action(name, kind, reason, now=now)

    async def incidents(self, subject: str | None, limit: int) -> list[Incident]:
        """Ask for those of the past, too."""
        return await self._client.incidents(every=True, subject=subject, limit=limit)

    async def incident(self, number: int) -> IncidentDetail:
        """Ask for one whole."""
        return await self._client.incident(str(number))

    async def tell(self, number: int, verb: str, text: str | None) -> Incident:
        """Hand it to the daemon."""
        return await self._client.tell_incident(str(number), verb, text, me())
