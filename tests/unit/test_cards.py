"""An engine gets its GPUs by uuid as soon as the driver names them."""

from __future__ import annotations

import asyncio

from opsboard.core.model import GpuReading, GpuView, Outcome
from opsboard.daemon.cards import Cards
from opsboard.supervise.launch import LaunchSpec
from tests.support.in_loop import in_loop

BY_NUMBER = LaunchSpec(name="a", command=("x",), url="http://x", gpus=("0",), warning="gpus = [0]: by number")
BY_UUID = LaunchSpec(name="a", command=("x",), url="http://x", gpus=("GPU-0",))
PLAIN = LaunchSpec(name="b", command=("x",), url="http://x:2", warning="told at every start")
NOTHING = GpuReading(outcome=Outcome.NO_DATA)
CARD = GpuReading(outcome=Outcome.OK, gpus=(GpuView(index=0, uuid="GPU-0"),))


@in_loop
async def test_what_was_told_by_number_is_told_by_uuid_when_the_driver_comes_back() -> None:
    reading: list[GpuReading | None] = [None]
    specs = [[BY_NUMBER, PLAIN]]
    lock = asyncio.Lock()
    cards = Cards(
        reading=lambda: reading[-1],
        now=lambda: specs[-1],
        anew=lambda known: [BY_UUID if known.gpus else BY_NUMBER, PLAIN],
        apply=lambda changed: specs.append(list(changed)),
        lock=lock,
    )
    await cards.look()
    reading.append(NOTHING)
    await cards.look()
    assert len(specs) == 1
    reading.append(CARD)
    async with lock:  # a reload is under way
        waits = asyncio.create_task(cards.look())
        await asyncio.sleep(0)
        assert len(specs) == 1
    await waits
    assert specs[1:] == [[BY_UUID, PLAIN]]
    await cards.look()
    assert len(specs) == 2, "nothing is better known than it was"
