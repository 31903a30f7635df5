"""A feed that tests play: states are handed in by hand, questions are answered from boards.py, actions are kept."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import msgspec

from opsboard.core.errors import ControlError, NotFound
from opsboard.core.wire import ActionAccepted, EngineDetail, EventInfo, History, Incident, IncidentDetail, Status
from opsboard.tui.feed import News
from tests.screens import boards, troubles


class ScriptedFeed:
    """Implements the Feed of the board."""

    def __init__(self, *news: News) -> None:
        self._queue: asyncio.Queue[News] = asyncio.Queue(100)
        for one in news:
            self._queue.put_nowait(one)
        self.last: Status | None = None
        self.acted: list[tuple[str, str, str]] = []
        self.asked: list[str] = []
        self.events: tuple[EventInfo, ...] = ()
        self.refuses: ControlError | None = None
        self.past: list[Incident] = []
        self.told: list[tuple[int, str, str | None]] = []
        self.asked_incidents = 0
        self.log: list[str] = list(boards.LOG)
        self.more_log: asyncio.Queue[str] = asyncio.Queue(100)

    def say(self, news: News) -> None:
        """Hand in what the daemon says next."""
        self._queue.put_nowait(news)

    async def watch(self) -> AsyncIterator[News]:
        while True:
            news = await self._queue.get()
            if isinstance(news, Status):
                self.last = news
            yield news

    async def detail(self, name: str) -> EngineDetail:
        engine = next((e for e in self.last.engines if e.name == name), None) if self.last else None
        if engine is None or self.last is None:
            raise NotFound(f"no engine {name!r}")
        known = boards.detail(engine, self.last.time - boards.T0)
        return msgspec.structs.replace(known, events=self.events) if self.events else known

    async def history(self, series: Sequence[str], start: float, end: float, step: float) -> list[History]:
        self.asked += series
        known = self.last is not None and bool(self.last.incidents)
        return [(troubles if known else boards).history(one, start, end, step) for one in series]

    async def logs(self, name: str, lines: int) -> AsyncIterator[str]:
        for line in self.log[-lines:]:
            yield line
        while True:
            yield await self.more_log.get()

    async def act(self, name: str, kind: str, reason: str, *, now: bool = False) -> ActionAccepted:
        if self.refuses is not None:
            raise self.refuses
        self.acted.append((f"{kind} now" if now else kind, name, reason))
        return ActionAccepted(id="a1", kind=kind, engine=name)

    async def incidents(self, subject: str | None, limit: int) -> list[Incident]:
        if self.refuses is not None:
            raise self.refuses
        known = [*self.past, *(self.last.incidents if self.last else ())]
        return [one for one in known if subject in {None, one.subject}][:limit]

    async def incident(self, number: int) -> IncidentDetail:
        self.asked_incidents += 1
        one = next((one for one in await self.incidents(None, 100) if one.id == number), None)
        if one is None:
            raise NotFound(f"there is no incident {number}")
        return troubles.detail(one)

    async def tell(self, number: int, verb: str, text: str | None) -> Incident:
        if self.refuses is not None:
            raise self.refuses
        self.told.append((number, verb, text))
        return (await self.incident(number)).incident
