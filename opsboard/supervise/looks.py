"""Looks at what there is of an engine: when a daemon begins, and after a launch."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from opsboard.core.clock import Clock
from opsboard.core.text import sanitise
from opsboard.supervise import bundle
from opsboard.supervise.adopt import Remains
from opsboard.supervise.inventory import found
from opsboard.supervise.launch import call_off
from opsboard.supervise.memo import Notes
from opsboard.supervise.processes import age_s
from opsboard.supervise.situation import Found
from opsboard.supervise.startup import last_words
from opsboard.supervise.world import log

Look = Callable[[], Awaitable[Remains | None]]
"""Returns what there is of an engine. Raises TimeoutError, OSError: it is not known."""
NOTES_S = 2.0
"""What a few small files may take."""
AGAIN_S = 1.0
OTHERS_S = 5.0
"""How often it is looked for what others begin, where they may."""
NOTHING_LOOKS = 10
"""So often a bundle may be seen empty after a launch that succeeded: then somebody removes what is written there."""


async def take_stock(
    directory: Path, look: Look, read_notes: Callable[[], Notes], clock: Clock
) -> tuple[Remains | None, Found, Notes]:
    """Return what there is, in the machine's words too, and what the last daemon wrote beside it into ``directory``.

    What that was about to start is called off first. What cannot be found out may run: it is ``unsure``.
    """
    try:
        async with asyncio.timeout(NOTES_S):
            await asyncio.to_thread(call_off, directory)
        remains = await look()
        async with asyncio.timeout(NOTES_S):
            notes = await asyncio.to_thread(read_notes)
        wall, age = clock.now().wall, age_s(remains.main.pid) if remains is not None and remains.main else None
        there = found(remains, notes, wall, lambda offset: last_words(directory / bundle.LOG, offset), age)
        return remains, there, notes
    except TimeoutError:
        return None, Found(unsure="could not be looked at in time; looking again"), Notes()
    except Exception as error:  # noqa: BLE001  whatever it is, it may run
        why = sanitise(getattr(error, "strerror", None) or str(error))
        return None, Found(unsure=f"cannot be looked at: {why}; looking again"), Notes()


async def what_began(engine: str, look: Look, *, failed: bool) -> Remains | None:
    """Return what is there of an engine after a launch, None when nothing is.

    A launch that succeeded has left something, however slow the disk is. One that ``failed`` may have left a shim that
    is only slow: nothing is known as long as one holds the bundle. So this looks again until it knows.
    """
    empty = 0
    while True:
        try:
            remains = await look()
        except Exception as error:  # noqa: BLE001  the machine waits for an answer, whatever happened
            log.warning("engine %s: cannot see what its start has left: %s", engine, str(error) or "no answer")
        else:
            empty += remains is None
            if remains is not None or failed or empty == NOTHING_LOOKS:
                return remains
        await asyncio.sleep(AGAIN_S)


async def already(engine: str, look: Look) -> Remains | None:
    """Return what runs though none of ours began it, None when nothing does or nobody can tell."""
    try:
        return await look()
    except Exception as error:  # noqa: BLE001  then it is begun, and what is in the way tells
        log.warning("engine %s: cannot see whether it runs already: %s", engine, str(error) or "no answer")
        return None


async def look_out(engine: str, look: Look, nothing: Callable[[], bool], take: Callable[[Remains], None]) -> None:
    """``take`` what others begin of an engine while there is ``nothing`` of it, as long as it is ours to watch."""
    while True:
        await asyncio.sleep(OTHERS_S)
        if nothing() and (found := await already(engine, look)) is not None and found.alive and nothing():
            take(found)
