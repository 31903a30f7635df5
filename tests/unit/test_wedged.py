"""GPUs that only a person can bring back, and how the daemon answers supervision about GPUs."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from opsboard.core.clock import ManualClock
from opsboard.core.errors import NoRoom
from opsboard.core.model import EngineReading, EngineView, GpuReading, GpuView, Outcome
from opsboard.daemon.gpu_room import GpuRoom
from opsboard.daemon.pipeline import EngineSpec, PipelineState, feed
from opsboard.supervise.launch import LaunchSpec
from opsboard.supervise.wedged import RECENT_S, wedged

if TYPE_CHECKING:
    from pathlib import Path

NOW = 1_700_000_000.0
GIB = 1 << 30


def card(index: int = 0, **changes: object) -> GpuView:
    return GpuView(index=index, uuid=f"GPU-{index}", **changes)  # type: ignore[arg-type]


def test_a_lost_card_and_an_xid_that_needs_a_reset() -> None:
    assert wedged([card(lost=True)], None, NOW) == "GPU 0 does not answer the driver: reset it or restart the host"
    assert wedged([card(xid=79, xid_time=NOW - 1)], None, NOW) == (
        "GPU 0: Xid 79, the GPU has fallen off the bus: reset it or restart the host"
    )


@pytest.mark.parametrize(
    "healthy",
    [
        card(),
        card(xid=31, xid_time=NOW),  # a page fault of a program: a restart cures it
        card(xid=79, xid_time=NOW - RECENT_S - 1),
        card(xid=79),
    ],
)
def test_what_a_restart_may_cure(healthy: GpuView) -> None:
    assert wedged([healthy], None, NOW) is None


def test_only_the_cards_of_the_engine_count() -> None:
    cards = [card(0, lost=True), card(1)]
    assert wedged(cards, ("GPU-1",), NOW) is None
    assert wedged(cards, None, NOW) is None, "it may run on the other one"
    assert wedged(cards, (), NOW) is None
    assert wedged(cards, ("0",), NOW) is not None
    assert wedged([card(1), card(1, lost=True, parent="GPU-1", mig="1g.10gb")], ("GPU-1",), NOW) is not None


class Driver:
    def __init__(self, *gpus: GpuView) -> None:
        self.reading = GpuReading(outcome=Outcome.OK, gpus=gpus)

    async def read(self) -> GpuReading:
        return self.reading


def test_the_daemon_answers_from_its_driver_and_its_board(tmp_path: Path) -> None:
    clock = ManualClock(wall=NOW)
    state = PipelineState("host", [EngineSpec(name="chat", kind="vllm", url="http://192.0.2.1:1")])
    busy = card(memory_used_bytes=7 * GIB, memory_total_bytes=80 * GIB)  # 91 % are free
    driver = Driver(busy)
    answers = GpuRoom(driver, state, tmp_path, clock)
    spec = LaunchSpec(name="chat", command=("vllm", "serve", "m"), url="http://192.0.2.1:1")

    asyncio.run(answers.room(spec))
    assert answers.wedged(None) is None
    view = EngineView(kind="vllm", version="0.32.0")
    feed(state, EngineReading(engine="chat", outcome=Outcome.OK, view=view), clock.now())
    with pytest.raises(NoRoom, match="GPU 0 has 73"):  # the default of this version is 92 %
        asyncio.run(answers.room(spec))
    assert asyncio.run(answers.cleared([1], None, 10.0)) is None
    feed(state, GpuReading(outcome=Outcome.OK, gpus=(card(lost=True),)), clock.now())
    assert answers.wedged(None) is not None
