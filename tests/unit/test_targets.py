"""Where an engine is read: where its life listens, whatever the configuration says by now."""

from __future__ import annotations

import asyncio
import threading
from typing import cast

import pytest

from collectors.engine_scrape import EngineScraper
from opsboard.core.clock import SystemClock
from opsboard.core.model import EngineReading, EngineState, EngineView, LifeView, Outcome
from opsboard.daemon import targets
from opsboard.daemon.pipeline import EngineSpec, PipelineState, feed
from opsboard.daemon.targets import LifeScraper, engine_targets
from opsboard.httpc.fetch import Fetcher, Limits
from opsboard.supervise.supervisor import Supervisor

CONFIGURED = "http://127.0.0.1:2"


class Page:
    """A scraper that says which address it was made for."""

    def __init__(self, url: str) -> None:
        self.kind = url

    async def scrape(self, *, keep_page: bool = False) -> EngineReading:
        return EngineReading(engine="a", outcome=Outcome.OK, error=f"{self.kind} {keep_page}")


def test_a_page_is_read_where_the_life_listens() -> None:
    made: list[str] = []
    lives: list[LifeView | None] = [None]

    def make(url: str) -> EngineScraper:
        made.append(url)
        return cast("EngineScraper", Page(url))

    def read(url: str | None) -> str | None:
        lives.append(LifeView(engine="a", state=EngineState.READY, since=0.0, supervised=True, url=url))
        return asyncio.run(scraper.scrape(keep_page=True)).error

    scraper = LifeScraper(make, CONFIGURED, lambda: lives[-1])
    first = asyncio.run(scraper.scrape(keep_page=True)).error
    old = "http://127.0.0.1:1"
    expected = [CONFIGURED, old, old, CONFIGURED, CONFIGURED]
    assert [first, read(old), read(old), read(None), read(CONFIGURED)] == [f"{url} True" for url in expected]
    assert scraper.kind == CONFIGURED
    assert made == [CONFIGURED, old, CONFIGURED], "what was learnt of a page is kept as long as it is that one"


def test_a_state_directory_that_hangs_hides_the_processes_and_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "WITHIN_S", 0.02)
    answer = threading.Event()

    class Hangs:
        def processes(self, _name: str) -> list[int]:
            answer.wait(10)
            return [7]

        def life(self, name: str) -> LifeView:
            return LifeView(engine=name, state=EngineState.READY, since=0.0, supervised=True)

    async def story() -> None:
        specs = [EngineSpec(name=name, url=CONFIGURED, supervised=True) for name in "abcdef"]
        read = engine_targets(specs, Fetcher(Limits()), cast("Supervisor", Hangs()), SystemClock())
        for target in read:
            with pytest.raises(OSError, match="not read within"):  # collecting takes it for: not known
                await target.pids()
        answer.set()
        monkeypatch.setattr(targets, "WITHIN_S", 10.0)
        assert [await target.pids() for target in read] == [[7]] * 6

    asyncio.run(story())


def test_processes_have_roles_from_the_first_look_of_a_reload_on() -> None:
    """A look without roles would make the detectors forget who belongs to the engine."""
    state = PipelineState("h", [EngineSpec(name="a", url=CONFIGURED)])
    page = EngineReading(engine="a", outcome=Outcome.OK, view=EngineView(kind="vllm"))

    def role() -> str | None:
        (target,) = engine_targets(state.specs.values(), Fetcher(Limits()), None, SystemClock(), state.kind_of)
        return target.role_of("VLLM::EngineCore", ("VLLM::EngineCore",))

    assert role() is None, "nobody knows yet what it is"
    feed(state, page, SystemClock().now())
    state.configure([EngineSpec(name="a", url=CONFIGURED)])
    assert role() == "engine_core"
