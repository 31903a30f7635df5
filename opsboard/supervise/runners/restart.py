"""An engine that is only observed, and one command that restarts it: nothing of it is ours to start or to end.

Who listens at its address is its main process. Where that is not to be seen (another host, another user), it is asked
whether anybody takes connections there.
"""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import Callable
from urllib.parse import urlsplit

import msgspec

from opsboard.core.errors import SuperviseError
from opsboard.supervise import bundle, ports
from opsboard.supervise.adopt import Remains, examine
from opsboard.supervise.launch import LaunchSpec, environment, program_of
from opsboard.supervise.processes import TAG, Process, gone
from opsboard.supervise.runners import record
from opsboard.supervise.runners.base import LastWords, Place, Tell
from opsboard.supervise.runners.commands import run, shown
from opsboard.supervise.situation import Exited
from opsboard.supervise.watching import ended, how_it_ended

LOOK_S = 2.0
SETTLE_S = 0.5
"""After an end: what those who run it may take to start it again, before it is called one."""
_CONNECT_S = 2.0
_AGAIN_S = 0.25
"""A look at all sockets costs 5 to 10 ms, and one at who holds them as much again."""
_MISSES = 2


class RestartRunner:
    """Its start ends what runs; its end does nothing."""

    name = "restart"
    restarts_itself = True
    replaces = True

    async def rehearse(self, spec: LaunchSpec, _place: Place) -> None:
        """See :class:`Runner`."""
        await asyncio.to_thread(program_of, spec, _environment(spec))

    async def start(self, spec: LaunchSpec, place: Place, *, instance: str, life: int) -> None:
        """Run the command and wait for a process, or for a connection, that was not there before."""
        before = await asyncio.to_thread(examine, place.bundle)
        old = before.main if before is not None else None
        fresh = asyncio.ensure_future(_fresh(spec, old))
        try:
            said = await run(spec.command, deadline_s=spec.ready_timeout_s, env=_environment(spec))
            if not said.ok:
                raise SuperviseError(f"restart_command {said}", hint=f"it is: {shown(spec.command)}", permanent=False)
            async with asyncio.timeout(spec.ready_timeout_s):
                process = await fresh
        except TimeoutError:
            left = "nothing shows that it began anew" if old is None or gone(old) else f"pid {old.pid} runs on"
            raise SuperviseError(
                f"restart_command ended with 0, and {left} after {spec.ready_timeout_s:g} s", permanent=False
            ) from None
        finally:
            fresh.cancel()
        if process is None or record.is_news(place.bundle, before, process):  # else it was found before we had
            record.begin(place.bundle, spec, instance=instance, life=life, process=process)

    async def find(self, spec: LaunchSpec, place: Place, budget_s: float) -> Remains | None:
        """See :class:`Runner`."""
        remains = await asyncio.to_thread(examine, place.bundle)
        if remains is not None and remains.main is not None:
            return remains
        async with asyncio.timeout(budget_s):
            process = await _listener(spec)
            if process is None and not await _connects(spec):
                return remains
            process = process or await _listener(spec)  # it may have begun to listen between the two
        if remains is not None and process is None and _is_open(remains):
            return msgspec.structs.replace(remains, running=True)
        life = 1 if remains is None else remains.life + 1
        if record.is_news(place.bundle, remains, process):
            record.begin(place.bundle, spec, instance=str(uuid.uuid4()), life=life, process=process)
        found = await asyncio.to_thread(examine, place.bundle)
        return found and msgspec.structs.replace(found, running=process is None)

    async def attend(self, _spec: LaunchSpec, _place: Place, _remains: Remains, _tell: Tell) -> None:
        """Do nothing: its processes and its log are those who run it's."""

    async def over(self, spec: LaunchSpec, _place: Place, remains: Remains) -> None:
        """See :class:`Runner`."""
        if remains.main is not None:
            await ended(remains.main)
            return
        misses = 0 if remains.running else _MISSES
        while misses < _MISSES:
            await asyncio.sleep(LOOK_S)
            misses = 0 if await _connects(spec) else misses + 1

    async def how_it_ended(self, spec: LaunchSpec, place: Place, last_words: LastWords) -> Exited | Remains:
        """See :class:`Runner`."""
        loop = asyncio.get_running_loop()
        end = loop.time() + SETTLE_S
        before = bundle.read(str(place.bundle), bundle.IDENTITY) or {}
        while loop.time() < end:
            found = await self.find(spec, place, _CONNECT_S)
            if found is not None and found.alive and found.instance != before.get("instance"):
                return found
            await asyncio.sleep(_AGAIN_S)
        record.ended(place.bundle, str(before.get("instance")), result="only those who run it know more")
        return await how_it_ended(place.bundle, await asyncio.to_thread(last_words))

    async def end(self, spec: LaunchSpec, place: Place, by: str, tell: Tell, stuck: Callable[[str], None]) -> None:
        """Do nothing: the command that begins the next life ends this one."""


async def _fresh(spec: LaunchSpec, old: Process | None) -> Process | None:
    """Return who listens when ``old`` has ended; None when connections are taken again, after a pause."""
    if old is not None:
        await ended(old)
    paused = old is not None or not await _connects(spec)
    while True:
        process = await _listener(spec)
        if process is not None and paused:
            return process
        if process is None:
            connects = await _connects(spec)
            if connects and paused:
                return await _listener(spec)  # it may have begun to listen between the two
            paused = paused or not connects
        await asyncio.sleep(_AGAIN_S)


async def _listener(spec: LaunchSpec) -> Process | None:
    return await asyncio.to_thread(ports.listener, spec.url)


async def _connects(spec: LaunchSpec) -> bool:
    """Tell whether anybody takes connections at its address."""
    parts = urlsplit(spec.url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        async with asyncio.timeout(_CONNECT_S):
            _, writer = await asyncio.open_connection(parts.hostname or "127.0.0.1", port)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True


def _is_open(remains: Remains) -> bool:
    return remains.same_boot and remains.exit is None and remains.group is None and not remains.by_hand


def _environment(spec: LaunchSpec) -> dict[str, str]:
    env = environment(spec, "", os.environ)
    del env[TAG]
    return env
