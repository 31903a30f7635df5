"""Who holds memory of a GPU besides the engines: looked up, named, told."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from opsboard.core.clock import ManualClock
from opsboard.core.holders import strangers
from opsboard.core.model import GpuProcess, GpuReading, GpuView, Outcome
from opsboard.core.wire import Gpu
from opsboard.daemon import holders
from opsboard.daemon.holders import Holders
from opsboard.supervise.orphans import Orphan, Ours
from opsboard.supervise.who import Who
from tests.support.in_loop import in_loop

GIB = 1 << 30
HELD = (
    GpuProcess(pid=os.getpid(), memory_bytes=GIB),
    GpuProcess(pid=77, memory_bytes=2 * GIB),
    GpuProcess(pid=9, memory_bytes=60 * GIB),
    GpuProcess(pid=12),
)


class Driver:
    def __init__(self) -> None:
        self.processes: tuple[GpuProcess, ...] = HELD

    async def read(self) -> GpuReading:
        return GpuReading(outcome=Outcome.OK, gpus=(GpuView(index=3, uuid="GPU-3", processes=self.processes),))


def shown(reading: GpuReading) -> list[str]:
    return strangers([Gpu(index=gpu.index, uuid=gpu.uuid, processes=gpu.processes) for gpu in reading.gpus])


@in_loop
async def test_strangers_and_what_is_left_are_named_and_engines_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def bob(pid: int) -> Who:
        asked.append(pid)
        return Who(pid=pid, name="python3", user="bob")

    left = Orphan(engine="chat", pid=77, name="VLLM::EngineCor", proof="")
    monkeypatch.setattr(holders, "who", bob)
    monkeypatch.setattr(holders, "ours", lambda _engines: Ours(serving={}, left=(left,)))
    clock, driver = ManualClock(), Driver()
    named = Holders(driver, lambda: {"a": [os.getpid()]}, tmp_path, clock)
    for _ in range(2):
        theirs, ours = shown(await named.read())
        assert theirs == "GPU 3: 60.0 GiB by pid 9 (python3, user bob), not ours"
        assert ours.startswith("GPU 3: 2.0 GiB by pid 77 (python3, user bob), left of the last life of chat: ")
    assert sorted(asked) == [9, 77], "those that stay are not looked up at every reading"
    clock.advance(holders.AGAIN_S)
    await named.read()
    assert sorted(asked) == [9, 9, 77, 77]
    driver.processes = HELD[:1]
    assert shown(await named.read()) == []


@in_loop
async def test_who_is_not_of_this_machine_is_not_called_a_stranger(tmp_path: Path) -> None:
    driver = Driver()
    driver.processes = (GpuProcess(pid=2**22 + 5, memory_bytes=GIB),)  # the kernel gives no such pid
    assert shown(await Holders(driver, dict, tmp_path, ManualClock()).read()) == []
