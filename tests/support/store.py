"""Opening stores in tests, so that none is left open."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from opsboard.core.clock import Clock, ManualClock
from opsboard.core.model import Sample
from opsboard.store.retention import StoreLimits
from opsboard.store.store import Store
from tests.support.waiting import wait_until_async

WALL = 1_699_999_200.0
"""A whole hour."""
RUNNING = "engine/a/running"


@contextlib.asynccontextmanager
async def opened(
    state_dir: Path, clock: Clock | None = None, limits: StoreLimits | None = None
) -> AsyncIterator[Store]:
    store = Store.open(state_dir, clock or ManualClock(wall=WALL), limits, host="gpu-a")
    try:
        yield store
    finally:
        await store.close()


def fill(store: Store, seconds: int, start: float = WALL) -> None:
    """One engine with a gauge and a counter, at 1 Hz."""
    for at in range(seconds):
        store.append(start + at, [Sample(RUNNING, float(at % 7)), Sample("engine/a/generation_tokens", 10.0 * at)])


async def stored(store: Store) -> None:
    """Wait until all that was appended is on disk."""
    await wait_until_async(lambda: store.health().series > 0 and not store._series.log.waiting(), what="stored")
