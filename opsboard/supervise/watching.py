"""The end of a life: noticed at once, and told how it came."""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path

from collectors.phases import verdict
from opsboard.core.model import FatalVerdict
from opsboard.supervise import bundle
from opsboard.supervise.adopt import Remains, examine
from opsboard.supervise.processes import Process, gone
from opsboard.supervise.situation import Exited

log = logging.getLogger("opsboard.supervise")

_POLL_S = 0.5  # where the kernel has no pidfd (before 5.3)
_STEP_S = 0.02
_RECORD_S = 3.0
"""What the shim may take to write down an exit that we saw at the same moment."""
_SETTLE_S = 1.0
"""Helpers of an engine (resource trackers, workers) notice its end a moment later: only then they count as left."""


async def ended(process: Process) -> None:
    """Return when the process has ended, whoever's child it is."""
    try:
        fd = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return
    except OSError:
        while not gone(process):  # noqa: ASYNC110  the kernel tells nobody
            await asyncio.sleep(_POLL_S)
        return
    loop = asyncio.get_running_loop()
    over = loop.create_future()
    try:
        if gone(process):
            return
        loop.add_reader(fd, _tell, over)
        try:
            await over
        finally:
            loop.remove_reader(fd)
    finally:
        os.close(fd)


async def how_it_ended(directory: Path, last_words: str | None) -> Exited:
    """Return how the life whose main process has just ended came to it, and who is left of it.

    It waits for a disk that cannot be read: who is left must not be taken for gone.
    """
    loop = asyncio.get_running_loop()
    began = loop.time()
    remains = await _examined(directory)
    while remains is not None and remains.shim is not None and remains.exit is None:
        if loop.time() - began > _RECORD_S:
            break
        await asyncio.sleep(_STEP_S)
        remains = await _examined(directory)
    while remains is not None and remains.others and loop.time() - began < _SETTLE_S:
        await asyncio.sleep(_STEP_S * 5)
        remains = await _examined(directory)
    return exited(remains, last_words)


async def all_gone(directory: Path) -> None:
    """Return when nothing of the bundle's life runs any more."""
    while (remains := await _examined(directory)) is not None and remains.lives:  # noqa: ASYNC110
        await asyncio.sleep(_POLL_S)


async def _examined(directory: Path) -> Remains | None:
    """Examine off the loop, again until it can be found out."""
    told = False
    while True:
        try:
            return await asyncio.to_thread(examine, directory)
        except OSError as error:
            if not told:
                log.warning("%s: cannot be looked at: %s; looking again", directory, error)
            told = True
        await asyncio.sleep(_POLL_S)


def _tell(over: asyncio.Future[None]) -> None:
    if not over.done():
        over.set_result(None)


def exited(remains: Remains | None, last_words: str | None = None) -> Exited:
    """Return what is known of the end of a life."""
    if remains is None:
        return Exited(last_words=last_words)
    return Exited(
        code=remains.exit.code if remains.exit else None,
        left=tuple(process.pid for process in remains.others),
        asked_by=remains.exit.asked_by if remains.exit else None,
        last_words=last_words,
        result=remains.exit.result if remains.exit else None,
        verdict=(verdict(last_words) if last_words else None) or FatalVerdict.RETRY,
    )


def record_for_the_shim(directory: Path) -> Remains | None:
    """Do what a living shim would: write down the processes of the life. Returns what there is now. Raises OSError."""
    remains = examine(directory)
    if remains is not None and remains.shim is None and remains.lives:
        found = [process.record() for process in (remains.main, *remains.others) if process is not None]
        record = {"protocol": bundle.PROTOCOL, "instance": remains.instance, "state": "running", "processes": found}
        bundle.write(str(directory), bundle.STATUS, record)
    return remains


def remember_ready(directory: Path, instance: str, since: float) -> None:
    """Write down that a life is ready ``since`` (Unix s). Raises OSError."""
    bundle.write(str(directory), bundle.READY, {"protocol": bundle.PROTOCOL, "instance": instance, "since": since})
