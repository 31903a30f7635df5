"""The requests that this daemon itself makes: one token for the detectors, the golden question after a start, sleep.

A detector that suspects an engine names it; at most one such question is out to an engine at a time, and what comes
back is a reading like any other.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping

import msgspec

from collectors import sleeping
from collectors.base import Dialect
from collectors.canary import golden, one_token
from collectors.engine_scrape import EngineScraper
from opsboard.core.model import CanaryOutcome, CanaryReading
from opsboard.core.registry import dialects
from opsboard.daemon.pipeline import PipelineState
from opsboard.httpc.fetch import Fetcher
from opsboard.httpc.fetch import Limits as FetchLimits

log = logging.getLogger("opsboard.daemon")

CONNECT_S = 2.0
TOKEN_S = 5.0
"""What one token may take: the stall detector's 15 s from hang to verdict count on it."""
GOLDEN_S = 60.0
"""What the golden answer may take: the first request of a life may have to compile."""
SLEEP_S = 120.0
"""What going to sleep and waking may take: 140 GB of weights over PCIe, and what is still under way."""


class Canaries:
    """Asks engines. ``headers(name)`` are those that its key needs; ``hear`` takes what came back."""

    def __init__(
        self,
        state: PipelineState,
        headers: Callable[[str], Mapping[str, str]],
        hear: Callable[[CanaryReading], None],
    ) -> None:
        """Ask nothing yet."""
        self._state = state
        self._headers = headers
        self._hear = hear
        self._fetcher = Fetcher(FetchLimits(connect_s=CONNECT_S, total_s=GOLDEN_S))
        self._pages = Fetcher(FetchLimits(connect_s=CONNECT_S, total_s=TOKEN_S))
        self._out: dict[str, asyncio.Task[None]] = {}

    def ask(self, names: Iterable[str]) -> None:
        """Ask engines for one token, each that may be asked and has no question out to it already. Returns at once."""
        for name in names:
            spec = self._state.specs.get(name)
            if spec is not None and spec.canary and name not in self._out:
                self._out[name] = asyncio.get_running_loop().create_task(self._one_token(name))

    async def golden(self, name: str) -> CanaryReading:
        """Ask an engine the fixed question; never raises for what the engine does.

        Its page is read for it: nobody else has read one of an engine that has just started.
        """
        url, dialect = self._place(name)
        if url is None:
            return CanaryReading(engine=name, outcome=CanaryOutcome.UNABLE, seconds=0.0, error="it has no address")
        scraper = EngineScraper(name, url, dialect.kind if dialect else self._state.specs[name].kind, self._pages)
        view = (await scraper.scrape()).view
        dialect = dialect or dialects().found.get(scraper.kind or "")
        reading = await golden(
            self._fetcher, url, engine=name, dialect=dialect, headers=self._headers(name), deadline_s=GOLDEN_S
        )
        return reading if view is None else msgspec.structs.replace(reading, version=view.version)

    async def check_sleep(self, name: str) -> None:
        """Raise CannotSleep where an engine has no sleep to be put to, and FetchError when it does not answer."""
        url, dialect = self._place(name)
        command = self._state.specs[name].command if name in self._state.specs else None
        headers = self._headers(name)
        await sleeping.check(
            self._fetcher, url or "", dialect, command=command, headers=headers, deadline_s=sleeping.CONFIRM_S
        )

    async def asleep(self, name: str) -> bool:
        """Tell whether an engine says that it sleeps or is paused. Raises FetchError."""
        url, dialect = self._place(name)
        if url is None or dialect is None:
            return False
        deadline_s = sleeping.CONFIRM_S
        headers = self._headers(name)
        return await sleeping.asleep(self._fetcher, url, dialect, headers=headers, deadline_s=deadline_s) is not None

    async def sleep(self, name: str) -> float:
        """Put an engine to sleep, see that it does, and return the seconds. Raises FetchError, CollectError."""
        return await self._call(sleeping.sleep, name)

    async def wake(self, name: str) -> float:
        """Wake an engine, see that it is, and return the seconds. Raises FetchError, CollectError."""
        return await self._call(sleeping.wake, name)

    async def close(self) -> None:
        """Ask no more."""
        tasks = list(self._out.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._fetcher.close()
        await self._pages.close()

    async def _one_token(self, name: str) -> None:
        url, dialect = self._place(name)
        try:
            if url is not None:
                self._hear(
                    await one_token(
                        self._fetcher,
                        url,
                        engine=name,
                        dialect=dialect,
                        headers=self._headers(name),
                        deadline_s=TOKEN_S,
                        reset=self._resets(name),
                    )
                )
        except Exception:
            log.exception("engine %s: its canary failed", name)
        finally:
            self._out.pop(name, None)

    def _resets(self, name: str) -> bool:
        """Tell whether it is idle, uses blocks all the same, and may be asked to empty its prefix cache."""
        spec, track = self._state.specs.get(name), self._state.engines.get(name)
        view = None if track is None else track.view
        if spec is None or not spec.reset or view is None or view.kv_connectors:
            return False
        return view.running == 0 and view.waiting == 0 and bool(view.kv_usage)

    async def _call(self, call: Callable[..., Awaitable[float]], name: str) -> float:
        url, dialect = self._place(name)
        if url is None or dialect is None:
            raise sleeping.CannotSleep("it is not known what kind of engine it is, so not how it sleeps and wakes")
        return await call(self._fetcher, url, dialect, headers=self._headers(name), deadline_s=SLEEP_S)

    def _place(self, name: str) -> tuple[str | None, Dialect | None]:
        spec, track = self._state.specs.get(name), self._state.engines.get(name)
        if spec is None:
            return None, None
        kind = spec.kind if track is None else track.known_kind
        return spec.url if track is None else track.url, dialects().found.get(kind or "")
