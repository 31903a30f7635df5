"""When targets are read, in virtual time."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from itertools import pairwise

import msgspec
import pytest

from opsboard.core.clock import SystemClock
from opsboard.core.model import (
    EngineReading,
    EngineState,
    EngineView,
    GpuReading,
    HostReading,
    HostView,
    LifeView,
    Outcome,
    ProcessReading,
)
from opsboard.daemon import collecting
from opsboard.daemon.collecting import PROCESSES_EVERY_S, SETTLES_S, Collecting, EngineTarget
from opsboard.daemon.connected import Connected
from opsboard.daemon.health import Health
from opsboard.daemon.pipeline import EngineSpec, PipelineState, Reading
from opsboard.daemon.recording import Recorders
from opsboard.daemon.tasks import TaskBook
from opsboard.daemon.taskset import TaskSet
from tests.support import virtual_time


class FakeScraper:
    """An engine that answers after ``delay`` seconds."""

    def __init__(self, name: str, delay: float = 0.001) -> None:
        self.name = name
        self.delay = delay
        self.pages = 0
        self.kind: str | None = None

    async def scrape(self, *, keep_page: bool = False) -> EngineReading:
        await asyncio.sleep(self.delay)
        self.pages += keep_page
        self.kind = "vllm"
        page = b"up 1\n" if keep_page else None
        return EngineReading(engine=self.name, outcome=Outcome.OK, view=EngineView(kind="vllm"), page=page)


class FakeGpus:
    async def read(self) -> GpuReading:
        return GpuReading(outcome=Outcome.NO_DATA)


class FakeHost:
    def read(self) -> HostReading:
        return HostReading(outcome=Outcome.FAILED)


def target(scraper: FakeScraper, life: LifeView | None = None) -> EngineTarget:
    async def pids() -> Sequence[int]:
        return ()

    return EngineTarget(scraper.name, scraper, pids=pids, role_of=lambda _n, _a: None, life=lambda: life)


def collecting_of(
    targets: Sequence[EngineTarget], feed: Callable[[Reading], None], recorders: Recorders | None = None
) -> Collecting:
    clock = virtual_time.LoopClock()
    state = PipelineState("h", [EngineSpec(name=one.name) for one in targets])
    return Collecting(
        clock=clock,
        state=state,
        feed=feed,
        recorders=recorders or Recorders(),
        health=Health(10.0),
        interval_s=1.0,
        connected=Connected(state, clock, feed),
    )


def collect(seconds: float, *targets: EngineTarget, recorders: Recorders | None = None) -> list[tuple[float, Reading]]:
    """Run the collecting tasks for so long and return what they read and when."""
    seen: list[tuple[float, Reading]] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        reads = collecting_of(targets, lambda reading: seen.append((loop.time(), reading)), recorders)
        async with asyncio.TaskGroup() as group:
            tasks = TaskSet(group, TaskBook())
            factories = reads.tasks(targets, FakeGpus(), FakeHost())
            # The host is read in a thread, which takes no part in virtual time.
            tasks.replace("collect:", {name: make for name, make in factories.items() if "host" not in name})
            await asyncio.sleep(seconds)
            await tasks.close()

    virtual_time.run(main())
    return seen


def times(seen: list[tuple[float, Reading]], name: str) -> list[float]:
    return [t for t, reading in seen if isinstance(reading, EngineReading) and reading.engine == name]


def looks(seen: list[tuple[float, Reading]]) -> list[float]:
    return [t for t, reading in seen if isinstance(reading, ProcessReading)]


def test_no_two_targets_wake_in_the_same_millisecond() -> None:
    seen = collect(0.99, *(target(FakeScraper(f"e{n}")) for n in range(8)))
    firsts = sorted(times(seen, f"e{n}")[0] for n in range(8))
    assert all(later - earlier > 0.0009 for earlier, later in pairwise(firsts))
    assert firsts[-1] < 1.0


def test_many_targets_still_share_the_interval() -> None:
    seen = collect(1.99, *(target(FakeScraper(f"e{n}")) for n in range(200)))
    assert all(len(times(seen, f"e{n}")) >= 1 for n in range(200))


def test_a_slow_engine_delays_only_itself() -> None:
    seen = collect(10.5, target(FakeScraper("slow", delay=3.5)), target(FakeScraper("quick")))
    assert len(times(seen, "quick")) == 11
    assert len(times(seen, "slow")) == 2


def test_processes_are_read_often_at_first_and_then_less_often_than_pages() -> None:
    seen = collect(PROCESSES_EVERY_S * 4 + SETTLES_S + 0.5, target(FakeScraper("a")))
    found = [round(t) for t in looks(seen)]
    assert found[:4] == [0, 1, 2, 3], "its first page, too, has told something: what it is"
    assert all(later - earlier in {5, 6} for earlier, later in pairwise(found[4:]))
    assert len(found) <= 9


def test_processes_are_read_the_moment_an_engine_serves() -> None:
    life = LifeView(engine="a", state=EngineState.STARTING, since=0.0, supervised=True, started=1.0)
    seen: list[Reading] = []

    async def main() -> None:
        lives = [life]
        one = target(FakeScraper("a"))
        one.life = lambda: lives[-1]
        reads = collecting_of([one], seen.append)
        reads.tasks([one], FakeGpus(), FakeHost())
        reads.hear(life)
        await asyncio.sleep(0.1)
        assert seen == [], "it does not serve yet"
        lives.append(msgspec.structs.replace(life, state=EngineState.READY))
        reads.hear(lives[-1])
        reads.hear(msgspec.structs.replace(life, engine="stranger"))
        await asyncio.sleep(0.1)
        await reads.close()

    virtual_time.run(main())
    assert [type(reading) for reading in seen] == [ProcessReading]


def test_while_somebody_records_pages_and_processes_are_kept_every_time() -> None:
    recorders, scraper = Recorders(), FakeScraper("a")
    recorders._queues[asyncio.Queue(1)] = 0
    seen = collect(4.5, target(scraper), recorders=recorders)
    assert scraper.pages == 5
    assert len(looks(seen)) == 5
    assert recorders.dropped == 4


def test_an_engine_that_is_not_up_is_not_asked() -> None:
    def life(state: EngineState) -> LifeView:
        return LifeView(engine="a", state=state, since=0.0, supervised=True)

    for state, asked, looked in (
        (EngineState.STOPPED, 0, 0),
        (EngineState.FAILED, 0, 0),
        (EngineState.STARTING, 0, 3),
        (EngineState.READY, 3, 3),
        (EngineState.STOPPING, 3, 3),
    ):
        seen = collect(2.5, target(FakeScraper("a"), life(state)))
        assert (len(times(seen, "a")), len(looks(seen))) == (asked, looked), state


def test_a_disk_that_hangs_hides_the_host_but_starves_no_watchdog(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collecting, "HOST_S", 0.02)
    answer, looks = threading.Event(), []

    class HangingHost:
        def read(self) -> HostReading:
            looks.append(1)
            answer.wait(10)
            return HostReading(outcome=Outcome.OK, host=HostView(load1=1.0))

    async def main() -> None:
        seen: list[Reading] = []
        health = Health(10.0)
        state = PipelineState("h")
        collect = Collecting(
            clock=SystemClock(),
            state=state,
            feed=seen.append,
            recorders=Recorders(),
            health=health,
            interval_s=1.0,
            connected=Connected(state, SystemClock(), seen.append),
        )
        for _ in range(3):
            await collect._host(HangingHost())
        assert health.healthy(SystemClock().now())
        assert len(looks) == 1
        hosts = [reading for reading in seen if isinstance(reading, HostReading)]
        assert [reading.outcome for reading in hosts] == [Outcome.FAILED] * 3
        answer.set()
        monkeypatch.setattr(collecting, "HOST_S", 10.0)
        await collect._host(HangingHost())
        assert isinstance(seen[-1], HostReading)
        assert seen[-1].outcome is Outcome.OK

    asyncio.run(main())
