"""Who serves an engine that somebody else started: the process that listens on its port."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from ipaddress import ip_address
from urllib.parse import urlsplit

from collectors import procfs, sockets
from collectors.process import ProcessIdentity, alive, identity
from opsboard.core.aside import Aside
from opsboard.core.clock import Clock

LOOK_S = 30.0
"""A look reads the names of every process and the descriptors of engines: so seldom, and for all engines at once."""

WITHIN_S = 5.0
"""What a look may take: the arguments of a process whose memory is locked cannot be read."""


class Listening:
    """Which engine's process listens on which port of this machine."""

    def __init__(self, is_engine: Callable[[int], bool], clock: Clock, proc_root: str = procfs.PROC) -> None:
        """``is_engine`` tells engines from what merely forwards a port (a container's proxy)."""
        self._is_engine = is_engine
        self._clock = clock
        self._proc = proc_root
        self._looked = -math.inf
        self._owners: dict[int, ProcessIdentity] = {}
        self._looking = Aside("ports")

    async def owner(self, port: int) -> ProcessIdentity | None:
        """Return who listens on ``port``, as of the last look; None when no engine of this machine was seen to."""
        mono = self._clock.now().mono
        if mono - self._looked >= LOOK_S:
            self._looked = mono
            with contextlib.suppress(TimeoutError):  # then who was seen last, as long as he lives
                self._owners = await self._looking.do(self._look, WITHIN_S)
        return self._owners.get(port)

    def alive(self, known: ProcessIdentity) -> bool:
        """Return whether ``known`` still runs."""
        return alive(known, self._proc)

    def _look(self) -> dict[int, ProcessIdentity]:
        ports = {listener.inode: listener.port for listener in sockets.listeners(self._proc)}
        owners: dict[int, ProcessIdentity] = {}
        # Names first: the descriptors of one process cost more than the names of ten.
        for pid in filter(self._is_engine, procfs.pids(self._proc) if ports else ()):
            known = identity(pid, self._proc)
            if known is None:
                continue
            for inode in (sockets.inodes_of(pid, self._proc) or set()) & ports.keys():
                # Further API servers share the socket of the first one, and are its children.
                owners[ports[inode]] = min(owners.get(ports[inode], known), known, key=_age)
        return owners


class Owner:
    """The serving process of one URL, kept as long as it lives."""

    def __init__(self, url: str, listening: Listening) -> None:
        """``listening`` is shared by all engines."""
        self._port = local_port(url)
        self._listening = listening
        self._known: ProcessIdentity | None = None

    async def pid(self) -> int | None:
        """Return the root of the engine's process tree; None when it is not on this machine or not to be seen."""
        if self._port is None:
            return None
        if self._known is None or not self._listening.alive(self._known):
            found = await self._listening.owner(self._port)
            self._known = found if found is not None and self._listening.alive(found) else None
        return None if self._known is None else self._known.pid


def _age(known: ProcessIdentity) -> tuple[int, int]:
    return known.start_ticks, known.pid


def local_port(url: str) -> int | None:
    """Return the port of a URL that leads to this machine, None for any other."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    try:
        local = host == "localhost" or ip_address(host).is_loopback or ip_address(host).is_unspecified
    except ValueError:
        local = False
    return (parts.port or (443 if parts.scheme == "https" else 80)) if local else None
