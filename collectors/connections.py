"""Who is connected to an engine's port, and since when: what a page that has frozen at 0 requests cannot tell.

An open connection need not carry a request. It says only that somebody may be waiting.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping

from collectors import procfs
from collectors.sockets import ESTABLISHED, LISTEN, inodes_of, rows

KEPT = 64
"""So many are told of a port, the youngest: whoever has waited longer than those was told of before."""

_MAPPED = -len(b"0100007F:1F90")
"""An IPv4 peer of an IPv6 socket is printed as ::ffff:ADDRESS; its end is the same either way."""


class ConnectionReader:
    """Reads the connections of ports of this machine; remembers when each was first seen. Used by one thread."""

    def __init__(self, proc_root: str = procfs.PROC) -> None:
        """Nothing is seen yet."""
        self._root = proc_root
        self._seen: dict[int, dict[bytes, float]] = {}

    def read(self, ports: Collection[int], mono: float) -> Mapping[int, tuple[float, ...]]:
        """Return since when others were seen to be connected to each of ``ports``, the latest first; now is ``mono``.

        A port that nobody listens on in our network namespace is missing: nothing is known of it. Connections of this
        process itself do not count. Of 64 and more the latest 64 are told.
        """
        wanted = {b"%04X" % port: port for port in ports}
        open_to: dict[int, set[bytes]] = {port: set() for port in ports}
        listened: set[int] = set()
        clients: list[tuple[bytes, bytes]] = []
        for local, remote, state, inode in rows(self._root):
            port = wanted.get(local[-4:])
            if port is not None and state == LISTEN:
                listened.add(port)
            elif port is not None and state == ESTABLISHED:
                open_to[port].add(remote[_MAPPED:])
            elif state == ESTABLISHED and remote[-4:] in wanted:
                clients.append((local[_MAPPED:], inode))
        ours = self._ours(clients)
        return {port: self._since(port, open_to[port] - ours, mono) for port in listened}

    def _ours(self, clients: Collection[tuple[bytes, bytes]]) -> set[bytes]:
        held = (inodes_of(os.getpid(), self._root) or set()) if clients else set()
        return {local for local, inode in clients if int(inode) in held}

    def _since(self, port: int, peers: set[bytes], mono: float) -> tuple[float, ...]:
        before = self._seen.get(port, {})
        seen = self._seen[port] = {peer: before.get(peer, mono) for peer in peers}
        return tuple(sorted(seen.values(), reverse=True)[:KEPT])
