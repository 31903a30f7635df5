"""Which process is an engine's main one, from the address it serves or from any pid of it."""

from __future__ import annotations

from collections.abc import Iterable

from collectors import procfs, sockets
from collectors.base import Dialect
from opsboard.core.errors import SuperviseError
from opsboard.core.procstat import Stat
from opsboard.core.registry import dialects as registered_dialects
from opsboard.core.text import sanitise
from opsboard.supervise import ports

_FORWARDERS = frozenset({"docker-proxy", "rootlessport", "slirp4netns", "pasta"})
_DEEPEST = 64


class Finder:
    """Looks below ``proc_root`` for engines of ``dialects`` (default: the registered ones)."""

    def __init__(self, dialects: Iterable[Dialect] | None = None, proc_root: str = procfs.PROC) -> None:
        """Take what is known of engines."""
        self._dialects = tuple(registered_dialects().found.values() if dialects is None else dialects)
        self._root = proc_root

    def at(self, url: str) -> int:
        """Return the main process of the engine that listens at ``url``. Looks at every process that we may see.

        Raises:
            SuperviseError: not on this machine, nobody listens, somebody who is no engine, or we may not see who.
        """
        port = ports.port_of(url)
        if port is None:
            raise SuperviseError(f"{url} is not on this machine", hint="run opsboard where the engine runs")
        inodes = {listener.inode for listener in sockets.listeners(self._root) if listener.port == port}
        if not inodes:
            raise SuperviseError(f"nobody listens on port {port}", hint="give the pid of an engine that is starting")
        holders = [pid for pid in procfs.pids(self._root) if inodes & (sockets.inodes_of(pid, self._root) or set())]
        if not holders:
            raise SuperviseError(f"who listens on port {port} may not be seen", hint="run the daemon as root")
        mains = sorted({self.main_of(pid) for pid in holders if self._role(pid) is not None})
        if len(mains) == 1:
            return mains[0]
        who = ", ".join(f"pid {pid} ({self._name(pid)})" for pid in mains or holders)
        if mains:
            raise SuperviseError(f"several engines share port {port}: {who}", hint="name one by its pid")
        if any(self._name(pid) in _FORWARDERS for pid in holders):
            raise SuperviseError(
                f"port {port} is forwarded into a container by {who}",
                hint="the container engine starts and stops it: docker restart NAME",
            )
        raise SuperviseError(
            f"{who} listens on port {port} and is no engine that opsboard knows",
            hint="if it is one, name it by its pid",
        )

    def main_of(self, pid: int) -> int:
        """Return the main process of the engine that ``pid`` belongs to; ``pid`` itself where it is of no known kind.

        Raises:
            SuperviseError: no such process, or the engine's main process is gone.
        """
        if self._stat(pid) is None:
            raise SuperviseError(f"no process has the pid {pid}")
        role = self._role(pid)
        if role is None:
            return pid
        main = pid
        for _ in range(_DEEPEST):
            line = self._stat(main)
            above = None if line is None else self._role(line.parent)
            if line is None or above is None:
                break
            main, role = line.parent, above
        if role != "api_server":
            raise SuperviseError(
                f"pid {main} ({self._name(main)}) is what an engine left: its main process is gone",
                hint=f"end it (kill {main}) and start the engine again",
            )
        return main

    def _role(self, pid: int) -> str | None:
        line = self._stat(pid) if pid > 1 else None
        if line is None:
            return None
        argv = procfs.argv(pid, self._root)
        roles = (dialect.process_role(line.comm, argv) for dialect in self._dialects)
        return next((role for role in roles if role is not None), None)

    def _stat(self, pid: int) -> Stat | None:
        try:
            line = procfs.stat(pid, self._root)
        except OSError:
            return None
        return None if line is None or line.ended else line

    def _name(self, pid: int) -> str:
        line = self._stat(pid)
        return sanitise(line.comm, 80) if line is not None else "gone"


def find(target: str, finder: Finder | None = None) -> int:
    """Return the main process of the engine that ``target``, a URL or a pid, means. Blocks; raises SuperviseError."""
    finder = finder or Finder()
    return finder.main_of(int(target)) if target.isdigit() else finder.at(target)
