"""Who serves an engine that somebody else started: the process that listens on its port."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from ipaddress import ip_address
from urllib.parse import urlsplit

from collectors import procfs, sockets
from collectors.process import ProcessIdentity, alive, identity
from opsboard.core.clock import Clock

SEARCH_S, SEARCH_MOST_S = 30.0, 300.0
"""A search looks at every process, so an engine that is not found is searched for ever more seldom."""


class Owner:
    """Finds the serving process of one URL, and keeps to it as long as it lives."""

    def __init__(self, url: str, is_engine: Callable[[int], bool], clock: Clock, proc_root: str = procfs.PROC) -> None:
        """``is_engine`` tells engines from what merely forwards the port (a container's proxy)."""
        self._port = local_port(url)
        self._is_engine = is_engine
        self._clock = clock
        self._proc = proc_root
        self._known: ProcessIdentity | None = None
        self._due = -math.inf
        self._wait = SEARCH_S

    async def pid(self) -> int | None:
        """Return the root of the engine's process tree; None when it is not on this machine or not to be seen."""
        if self._known is not None and alive(self._known, self._proc):
            return self._known.pid
        if self._known is not None:
            self._known, self._wait = None, SEARCH_S
        mono = self._clock.now().mono
        if self._port is None or mono < self._due:
            return None
        self._due, self._wait = mono + self._wait, min(2 * self._wait, SEARCH_MOST_S)
        self._known = await asyncio.to_thread(self._search, self._port)
        return None if self._known is None else self._known.pid

    def _search(self, port: int) -> ProcessIdentity | None:
        wanted = {listener.inode for listener in sockets.listeners(self._proc) if listener.port == port}
        # Names first: the descriptors of one process cost more than the names of ten.
        engines = filter(self._is_engine, procfs.pids(self._proc) if wanted else ())
        holders = (pid for pid in engines if wanted & (sockets.inodes_of(pid, self._proc) or set()))
        found = [known for pid in holders if (known := identity(pid, self._proc))]
        # Further API servers share the socket of the first one, and are its children.
        return min(found, key=lambda known: (known.start_ticks, known.pid), default=None)


def local_port(url: str) -> int | None:
    """Return the port of a URL that leads to this machine, None for any other."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    try:
        local = host == "localhost" or ip_address(host).is_loopback or ip_address(host).is_unspecified
    except ValueError:
        local = False
    return (parts.port or (443 if parts.scheme == "https" else 80)) if local else None
