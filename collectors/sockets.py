"""The TCP sockets of our network namespace, from /proc: who listens where, and who is connected to whom."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import struct
from collections.abc import Collection, Iterator
from ipaddress import IPv4Address, IPv6Address

from collectors import procfs
from opsboard.core.model import Record

ESTABLISHED, LISTEN = b"01", b"0A"
"""States of include/net/tcp_states.h."""
LIST_BYTES = 4 << 20
"""So much of a list is read: 28,000 sockets."""


_ROW = re.compile(rb"^ *\d+: (\w+:\w+) (\w+:\w+) (\w\w) \S+ \S+ \S+ +\d+ +\d+ (\d+)", re.MULTILINE)

Row = tuple[bytes, bytes, bytes, bytes]
"""One socket as the kernel prints it: local and remote ``ADDRESS:PORT`` in hexadecimal, state, inode."""


class Listener(Record, frozen=True):
    """One listening TCP socket; ``inode`` is the number by which its holders know it."""

    address: IPv4Address | IPv6Address
    port: int
    inode: int

    @property
    def host(self) -> str:
        """The address to connect to from this machine, as it stands in a URL."""
        if self.address.is_unspecified:
            return "127.0.0.1"
        return f"[{self.address}]" if self.address.version == 6 else str(self.address)


def rows(proc_root: str = procfs.PROC) -> Iterator[Row]:
    """Yield all TCP sockets, IPv4 first; nothing where /proc does not tell. There may be very many."""
    for name in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for piece in procfs.lines(f"{proc_root}/net/{name}", LIST_BYTES):
                yield from _ROW.findall(piece)


def listeners(proc_root: str = procfs.PROC) -> list[Listener]:
    """Return all listening sockets, IPv4 first. Empty where /proc does not tell."""
    found = []
    for local, _, state, inode in rows(proc_root):
        if state == LISTEN:
            address, _, port = local.partition(b":")
            found.append(Listener(_address(address), int(port, 16), int(inode)))
    return found


def inodes_of(pid: int, proc_root: str = procfs.PROC) -> set[int] | None:
    """Return the sockets that a process holds; None when we may not see or it is gone."""
    folder = f"{proc_root}/{pid}/fd"
    try:
        links = os.listdir(folder)  # noqa: PTH208  names only
    except OSError:
        return None
    held = set()
    for link in links:
        try:
            target = os.readlink(f"{folder}/{link}")  # noqa: PTH115  many of them
        except OSError:
            continue
        if target.startswith("socket:["):
            held.add(int(target[8:-1]))
    return held


def holders(inodes: Collection[int], proc_root: str = procfs.PROC) -> dict[int, set[int]]:
    """Return who holds each of these sockets, by pid: all that we may see, which may be none.

    Reads the descriptors of every process: about 25 us each.
    """
    found: dict[int, set[int]] = {inode: set() for inode in inodes}
    for pid in procfs.pids(proc_root) if found else ():
        for inode in found.keys() & (inodes_of(pid, proc_root) or ()):
            found[inode].add(pid)
    return found


def network_of(pid: int | str, proc_root: str = procfs.PROC) -> str | None:
    """Return the name of the network namespace of a process ("self" for ours); None when we may not see it."""
    try:
        return os.readlink(f"{proc_root}/{pid}/ns/net")  # noqa: PTH115  a link to no file
    except OSError:
        return None


def _address(text: bytes) -> IPv4Address | IPv6Address:
    """Decode an address as the kernel prints it: 32-bit words in the byte order of the machine."""
    words = [int(text[place : place + 8], 16) for place in range(0, len(text), 8)]
    packed = struct.pack(f"={len(words)}I", *words)
    if len(words) == 1:
        return IPv4Address(packed)
    return IPv6Address(socket.inet_ntop(socket.AF_INET6, packed))
