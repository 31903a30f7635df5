"""What a launch has begun, whatever it said itself."""

from __future__ import annotations

import asyncio
from pathlib import Path

from opsboard.supervise.adopt import Remains, examine_within
from opsboard.supervise.world import log

LOOK_S = 2.0
AGAIN_S = 1.0
NOTHING_LOOKS = 10
"""So often a bundle may be seen empty after a launch that succeeded: then somebody removes what is written there."""


async def what_began(engine: str, directory: Path, *, failed: bool) -> Remains | None:
    """Return what is there of an engine after a launch, None when nothing is.

    A launch that succeeded has left something, however slow the disk is. One that ``failed`` may have left a shim that
    is only slow: nothing is known as long as one holds the bundle. So this looks again until it knows.
    """
    empty = 0
    while True:
        try:
            remains = await examine_within(directory, LOOK_S)
        except Exception as error:  # noqa: BLE001  the machine waits for an answer, whatever happened
            log.warning("engine %s: cannot see what its start has left: %s", engine, str(error) or "no answer")
        else:
            empty += remains is None
            if remains is not None or failed or empty == NOTHING_LOOKS:
                return remains
        await asyncio.sleep(AGAIN_S)
