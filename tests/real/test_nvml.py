"""The GPU collector on a real card. With OPSBOARD_SAVE_FIXTURE=FILE what the card said is kept there as JSON."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import msgspec
import pytest

from collectors.nvml import GpuReader
from opsboard.core.model import GpuReading, Outcome

SAVE_TO = os.environ.get("OPSBOARD_SAVE_FIXTURE")  # asked now: tests run without the user's variables
pytestmark = pytest.mark.gpu


async def settled(reader: GpuReader) -> GpuReading:
    """Read until the driver has woken its cards."""
    reading = await reader.read()
    for _ in range(30):
        if "is starting" not in (reading.error or ""):
            break
        reading = await reader.read()
    return reading


@pytest.fixture(scope="module")
def readings() -> list[GpuReading]:
    async def story() -> list[GpuReading]:
        reader = GpuReader()
        try:
            return [await settled(reader), await reader.read(), await reader.read()]
        finally:
            await reader.close()

    found = asyncio.run(story())
    if found[0].outcome is Outcome.NO_DATA:
        pytest.skip(f"NO NVIDIA CARD: the GPU collector was not run on a real one ({found[0].error})")
    return found


def test_every_reading_of_a_real_card_is_whole(readings: list[GpuReading]) -> None:
    if SAVE_TO:
        Path(SAVE_TO).write_bytes(msgspec.json.format(msgspec.json.encode(readings[-1]), indent=2) + b"\n")
    for reading in readings:
        assert reading.outcome is Outcome.OK, reading.error
        assert reading.driver
        for gpu in reading.gpus:
            if gpu.lost or gpu.mig:
                continue
            assert gpu.uuid.startswith("GPU-")
            assert gpu.name
            assert gpu.memory_used_bytes is not None
            assert gpu.memory_total_bytes is not None
            assert 0 <= gpu.memory_used_bytes <= gpu.memory_total_bytes
            assert gpu.memory_total_bytes > 1 << 30
            assert gpu.utilization is None or 0 <= gpu.utilization <= 1
            assert gpu.power_w is None or 0 < gpu.power_w < 2000
            assert gpu.power_limit_w is None or 0 < gpu.power_limit_w < 2000
            assert gpu.temperature_c is None or 0 < gpu.temperature_c < 120
            assert gpu.sm_clock_mhz is None or 0 < gpu.sm_clock_mhz < 5000


def test_what_never_changes_does_not_change(readings: list[GpuReading]) -> None:
    same = {
        tuple((gpu.index, gpu.uuid, gpu.name, gpu.memory_total_bytes, gpu.power_limit_w) for gpu in reading.gpus)
        for reading in readings
    }
    assert len(same) == 1
