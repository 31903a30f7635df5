"""What supervision hears of this daemon: what is under way, which version serves, and what is written down."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from opsboard.core.clock import ManualClock
from opsboard.core.model import (
    CanaryOutcome,
    CanaryReading,
    EngineReading,
    EngineView,
    GpuReading,
    Outcome,
    Restart,
    Transaction,
)
from opsboard.daemon.canaries import Canaries
from opsboard.daemon.gpu_room import GpuRoom
from opsboard.daemon.pipeline import EngineSpec, PipelineState, feed
from opsboard.daemon.supervising import FRESH_S, surroundings
from opsboard.store.store import Store
from opsboard.supervise.world import Inflight, Surroundings
from tests.support.herd import free_port
from tests.support.in_loop import in_loop
from tests.support.store import WALL, opened
from tests.support.waiting import wait_until_async


class NoGpus:
    """A machine without a driver."""

    async def read(self) -> GpuReading:
        return GpuReading(outcome=Outcome.NO_DATA)


@asynccontextmanager
async def around(tmp_path: Path, state: PipelineState, clock: ManualClock) -> AsyncIterator[tuple[Surroundings, Store]]:
    canaries = Canaries(state, lambda _: {}, lambda _: None)
    async with opened(tmp_path / "state") as store:
        space = GpuRoom(NoGpus(), state, tmp_path, clock)
        yield (
            surroundings(state, store, clock, space=space, canaries=canaries, serving_others=lambda _: "no"),
            store,
        )
    await canaries.close()


@in_loop
async def test_what_is_under_way_is_told_as_long_as_it_is_true(tmp_path: Path) -> None:
    clock = ManualClock()
    state = PipelineState("host", [EngineSpec(name="a", url="http://127.0.0.1:1", supervised=True)])
    async with around(tmp_path, state, clock) as (here, _):
        assert here.inflight("a") is here.inflight("nobody") is None
        assert here.version("a") is None
        view = EngineView(kind="vllm", version="0.32.0", running=2.0, waiting=3.0)
        now = clock.advance(1.0)
        feed(state, EngineReading(engine="a", outcome=Outcome.OK, view=view), now)
        assert here.inflight("a") == Inflight(5.0, now.mono)
        assert here.version("a") == "0.32.0"
        clock.advance(FRESH_S + 0.1)
        assert here.inflight("a") is None
        unknown = EngineView(kind="vllm", waiting=3.0)
        feed(state, EngineReading(engine="a", outcome=Outcome.OK, view=unknown), clock.now())
        assert here.inflight("a") is None, "missing is not none"


@in_loop
async def test_what_automation_does_is_on_the_disk_before_it_is_done(tmp_path: Path) -> None:
    state = PipelineState("host")
    async with around(tmp_path, state, ManualClock()) as (here, store):
        await here.on_restart(Restart(engine="a", t=WALL, cause="killed"))
        (restart,) = await store.restarts(0.0)
        assert (restart.engine, restart.forgiven) == ("a", False)
        here.on_forgiven("a")
        here.on_transaction(Transaction(id="x", engine="a", kind="restart", began=WALL, outcome="ok"))
        await wait_until_async(lambda: store.health().lag_s == 0.0)
        assert (await store.restarts(0.0))[0].forgiven
        assert [one.id for one in await store.transactions("a")] == ["x"]


@in_loop
async def test_one_question_at_a_time_to_each_engine() -> None:
    """What came back is a reading; an engine that nobody knows, or that may not be asked, is not asked."""
    heard: list[CanaryReading] = []
    specs = [
        EngineSpec(name=name, kind="vllm", url=f"http://127.0.0.1:{free_port()}", canary=name != "c") for name in "abc"
    ]
    canaries = Canaries(PipelineState("host", specs), lambda _: {}, heard.append)
    canaries.ask(["a", "b", "c", "a", "nobody"])
    canaries.ask(["a"])
    await wait_until_async(lambda: len(heard) == 2)
    await asyncio.sleep(0)
    assert sorted((one.engine, one.outcome) for one in heard) == [
        ("a", CanaryOutcome.REFUSED),
        ("b", CanaryOutcome.REFUSED),
    ]
    canaries.ask(["a"])
    await wait_until_async(lambda: len(heard) == 3)
    await canaries.close()
