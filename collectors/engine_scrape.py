"""One scrape of one engine: fetch its page, parse it, read it by its dialect. Whatever happens, there is a reading."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import msgspec

from collectors.base import METRICS_PATH, Page, base_url
from collectors.engine_page import PageReader
from collectors.exposition import Limits
from opsboard.core.errors import ExpositionError, FetchError, OpsboardError
from opsboard.core.model import EngineReading, EngineView, Outcome
from opsboard.core.text import sanitise
from opsboard.httpc.fetch import Body, Fetcher

OFF_LOOP_BYTES = 256 * 1024
"""A page above this is parsed in a thread: on the loop it would hold up every other target."""
VERSION_TRIES = 3


class EngineScraper:
    """The readings of one engine. ``url`` is its base, with or without the metrics path; ``kind`` None: by its page."""

    def __init__(
        self,
        name: str,
        url: str,
        kind: str | None,
        fetcher: Fetcher,
        *,
        headers: Mapping[str, str] | None = None,
        limits: Limits | None = None,
    ) -> None:
        """Fetch nothing yet. ``headers`` go with every request."""
        self._name = name
        self._reader = PageReader(kind, limits)
        self._base = base_url(url, self._reader.dialect)
        self._fetcher = fetcher
        self._headers = headers
        self._life = _Life()

    @property
    def kind(self) -> str | None:
        """The kind that is configured or was recognised; None while nobody knows."""
        return self._reader.kind

    async def scrape(self, keep_page: bool = False) -> EngineReading:
        """Return what the engine says now, OK, NO_DATA or FAILED with one line of why; the page too if asked.

        Never raises for what the engine or the network does.
        """
        if self._reader.unreadable:
            return self._reading(Outcome.NO_DATA, error=self._reader.unreadable)
        clock = asyncio.get_running_loop().time
        started = clock()
        body: Body | None = None
        try:
            body = await self._page()
            page = await self._parsed(body)
            view = self._reader.view(page)
        except OpsboardError as error:
            if isinstance(error, FetchError):
                self._life = _Life()  # who answers next may be another process
            size = len(body.body) if body else 0
            reason = error.reason if isinstance(error, FetchError) else "page"
            return self._reading(
                Outcome.FAILED, error=error.message, reason=reason, duration_s=clock() - started, size_bytes=size
            )
        duration_s = clock() - started
        fetched = {"duration_s": duration_s, "size_bytes": len(body.body), "page": body.body if keep_page else None}
        if view is None:
            return self._reading(Outcome.NO_DATA, error=self._reader.nothing, **fetched)
        return self._reading(Outcome.OK, view=await self._with_version(view), **fetched)

    async def _page(self) -> Body:
        dialect = self._reader.dialect
        path = dialect.metrics_path if dialect else METRICS_PATH
        body = await self._fetcher.get(self._base + path, headers=self._headers)
        if not body.delimited:
            message = "the server does not say where its page ends (no Content-Length): a cut one would look whole"
            raise ExpositionError(message)
        return body

    async def _parsed(self, body: Body) -> Page:
        if len(body.body) > OFF_LOOP_BYTES:
            return await asyncio.to_thread(self._reader.parse, body.body, body.content_type)
        return self._reader.parse(body.body, body.content_type)

    async def _with_version(self, view: EngineView) -> EngineView:
        """Return the view with the version that the server tells, asked once a life."""
        if self._life.ended(view):
            self._life = _Life()
        life = self._life
        life.last = view
        path = self._reader.dialect.version_path if self._reader.dialect else None
        if view.version is not None or path is None:
            return view
        if life.version is None and life.tries < VERSION_TRIES:
            life.tries += 1
            try:
                body = await self._fetcher.get(self._base + path, headers=self._headers)
                life.version = sanitise(msgspec.json.decode(body.body, type=_Version).version, 64)
            except FetchError as error:
                if error.status is not None:
                    life.tries = VERSION_TRIES  # it answered, and has none
            except (msgspec.DecodeError, UnicodeDecodeError):
                life.tries = VERSION_TRIES
        return view if life.version is None else msgspec.structs.replace(view, version=life.version)

    def _reading(self, outcome: Outcome, **fields: Any) -> EngineReading:
        return EngineReading(engine=self._name, outcome=outcome, **fields)


class _Version(msgspec.Struct):
    version: str


class _Life:
    """What was learnt of the process that answers now."""

    def __init__(self) -> None:
        self.version: str | None = None
        self.tries = 0
        self.last: EngineView | None = None

    def ended(self, view: EngineView) -> bool:
        """Return whether ``view`` is of a later process than the last one: another start, or a counter went down."""
        if self.last is None:
            return False
        if view.process_start != self.last.process_start:
            return True
        before = self.last.counters
        return any(count < before.get(name, 0.0) for name, count in view.counters.items())
