"""The daemon's side of an end: asked of the shim, or done by hand where it is gone; over when everybody is gone."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from opsboard.core.errors import SuperviseError
from opsboard.supervise.adopt import Remains, examine, survivors
from opsboard.supervise.ending import Ending
from opsboard.supervise.launch import LaunchSpec
from opsboard.supervise.processes import Process, inside, send
from opsboard.supervise.shim_client import ask
from opsboard.supervise.watching import ended

_PATIENCE_S = 10.0
"""What KILL may take before somebody is told: freeing 80 GB of pinned memory takes seconds, a hung driver for ever."""
BROKEN_S = 5.0
"""What TERM may take when it is sure that a life does not work: its requests will not end, and a longer
``stop_timeout`` is for them. vLLM waits as long for its own processes before it kills them."""
_STEP_S = 0.1
_ASK_S = 1.0
_REFUSALS = 3
"""After so many in a row a shim gets a signal instead, and is taken for deaf when that does not help either."""


def in_haste(spec: LaunchSpec) -> LaunchSpec:
    """Return how a life that does not work is ended."""
    return msgspec.structs.replace(spec, stop_timeout_s=min(spec.stop_timeout_s, BROKEN_S))


async def end_life(directory: Path, grace_s: float, by: str, tell: Callable[[str], None]) -> None:
    """End the life of a bundle; return when every process of it is gone. ``tell`` hears what takes too long.

    ``by`` is who wants it and why, for the exit record. TERM to all, KILL after ``grace_s`` seconds. Goes on for ever:
    a process that waits in the driver cannot be killed, and nothing may be started beside it.
    """
    loop = asyncio.get_running_loop()
    began, refusals = loop.time(), 0
    while (remains := await asyncio.to_thread(examine, directory)) is not None and _runs(remains):
        late = loop.time() - began > grace_s + _PATIENCE_S
        if remains.shim is None or (late and refusals >= _REFUSALS):
            await _end_without_shim(remains, grace_s, tell)
            continue
        try:
            await ask(remains.socket, "stop", grace_s=max(0.0, grace_s - (loop.time() - began)), by=by)
            refusals = 0
        except SuperviseError:
            refusals += 1
            if refusals == _REFUSALS:  # deaf, but alive: TERM it cannot miss, or only as long as it is stopped
                send(remains.shim, signal.SIGTERM)
                send(remains.shim, signal.SIGCONT)
        await _wait_for(remains.shim, _ASK_S)
        if late and not refusals:
            tell(stuck([process for process in (remains.main, *remains.others) if process] or [remains.shim]))


def _runs(remains: Remains) -> bool:
    return remains.lives or remains.shim is not None


async def _wait_for(process: Process, seconds: float) -> bool:
    """Wait until a process is gone, as a shim is when everybody is, at most ``seconds``; tell whether it is."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await ended(process)
            return True
    return False


async def _end_without_shim(remains: Remains, grace_s: float, tell: Callable[[str], None]) -> None:
    """Do the work of a shim that is gone or deaf, and end the deaf one when it is nobody's parent any more."""
    shim = remains.shim
    if shim is not None and remains.lives:
        tell(f"its shim (pid {shim.pid}, state {shim.state}) does not answer: it is ended without it")
    if remains.lives:
        await wait_for_end(remains, grace_s, tell)
    elif shim is not None:
        send(shim, signal.SIGKILL)
        if not await _wait_for(shim, _ASK_S):
            tell(stuck([shim]))


async def wait_for_end(
    remains: Remains, grace_s: float, tell: Callable[[str], None], *, asked: bool = False, cgroup: str | None = None
) -> None:
    """Wait until nobody of a life without a shim is left: TERM unless they were ``asked`` otherwise, KILL at last.

    ``cgroup`` is the directory of a control group that is theirs alone.
    """
    loop = asyncio.get_running_loop()
    began = loop.time()
    ending = Ending(remains.group or 0, grace_s, began)
    known = {process.pid: process for process in (remains.main, *remains.others) if process is not None}
    while True:
        left = await asyncio.to_thread(_left, tuple(known.values()), cgroup)
        if not left:
            return
        known |= {process.pid: process for process in left}
        if not asked or loop.time() >= began + grace_s:
            ending.step(left, loop.time())
        if ending.killed_at is not None and loop.time() - ending.killed_at > _PATIENCE_S:
            tell(stuck(left))
        await asyncio.sleep(_STEP_S)


def _left(known: Iterable[Process], cgroup: str | None) -> list[Process]:
    found = {process.pid: process for process in (*survivors(known), *inside(cgroup))}
    return list(found.values())


def stuck(left: list[Process]) -> str:
    """Say whom KILL does not end."""
    names = ", ".join(f"pid {process.pid} ({process.name}, state {process.state})" for process in left[:4])
    return f"KILL does not end {names}: a process in state D waits in the kernel, often for the GPU driver"
