"""/proc, read straight: one process's stat line, memory and arguments, and who its children are.

psutil does not tell RssAnon, and swap only by a walk through the page tables of the process (smaps).
Every function takes the root of the proc file system, so that tests bring their own. A process that is gone is None.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Generator, Iterator
from contextlib import closing

from opsboard.core.model import Record
from opsboard.core.procstat import Stat, parse

PROC = "/proc"
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_MEMORY = re.compile(rb"^(VmRSS|RssAnon|VmSwap):\s+(\d+) kB", re.MULTILINE)
_GONE = (FileNotFoundError, ProcessLookupError, NotADirectoryError)


class Memory(Record, frozen=True):
    """Memory of one process in bytes; None where the kernel does not say (a kernel thread, a sandboxed kernel)."""

    rss: int | None = None
    rss_anon: int | None = None
    swap: int | None = None


def read_bytes(path: str, limit: int = 1 << 16, *, whole: bool = False) -> bytes | None:
    """Return the first ``limit`` bytes of a file of /proc, None when its process is gone. Raises OSError.

    One read is enough for files about one process; lists come in pieces of a page: say ``whole`` for them.
    """
    try:
        with closing(_pieces(path, limit)) as pieces:
            return b"".join(pieces) if whole else next(pieces, b"")
    except _GONE:
        return None


def lines(path: str, limit: int) -> Iterator[bytes]:
    """Yield the first ``limit`` bytes of a long list of /proc in pieces of whole lines. Raises OSError.

    A piece is what the kernel hands out at once: whoever works on them one by one holds no lock for long.
    """
    rest = b""
    for piece in _pieces(path, limit):
        whole, newline, rest = (rest + piece).rpartition(b"\n")
        yield whole + newline
    yield rest


def _pieces(path: str, limit: int) -> Generator[bytes, None, None]:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        while limit > 0 and (piece := os.read(fd, limit)):
            limit -= len(piece)
            yield piece
    finally:
        os.close(fd)


def stat(pid: int, root: str = PROC) -> Stat | None:
    """Return the stat line of a process, None when there is no such process. Raises OSError when /proc forbids it."""
    data = read_bytes(f"{root}/{pid}/stat", 4096)
    return None if data is None else parse(data)


def memory(pid: int, root: str = PROC) -> Memory | None:
    """Return resident, anonymous resident and swapped bytes of a process, None when it is gone."""
    data = read_bytes(f"{root}/{pid}/status", 8192)
    if not data:
        return None
    kib = {name: int(value) << 10 for name, value in _MEMORY.findall(data)}
    return Memory(kib.get(b"VmRSS"), kib.get(b"RssAnon"), kib.get(b"VmSwap"))


def argv(pid: int, root: str = PROC) -> tuple[str, ...]:
    """Return the arguments of a process; empty when it is gone, a zombie, a kernel thread or forbidden to us."""
    try:
        data = read_bytes(f"{root}/{pid}/cmdline")
    except PermissionError:
        return ()
    if not data:
        return ()
    return tuple(part.decode("utf-8", "replace") for part in data.rstrip(b"\0").split(b"\0"))


def pids(root: str = PROC) -> list[int]:
    """Return every process id of our PID namespace, ascending."""
    return sorted(int(name) for name in os.listdir(root) if name.isdigit())  # noqa: PTH208  names only, no Path objects


def boot_id(root: str = PROC) -> str:
    """Return the kernel's random id of this boot. Raises OSError when /proc has none."""
    return (read_bytes(f"{root}/sys/kernel/random/boot_id") or b"").decode("ascii", "replace").strip()


def boot_time(root: str = PROC) -> float:
    """Return the Unix time of boot, the zero of ``start_ticks``. 0.0 when /proc does not tell."""
    found = re.search(rb"^btime (\d+)", read_bytes(f"{root}/stat", 1 << 20) or b"", re.MULTILINE)
    return float(found[1]) if found else 0.0


def descendants(pid: int, root: str = PROC) -> list[int]:
    """Return all processes below ``pid``, parents before children, without ``pid`` itself; zombies are among them.

    Costs one small read a thread of the tree; a kernel without ``children`` files (CONFIG_PROC_CHILDREN) costs one a
    process of the machine instead.
    """
    by_parent: dict[int, list[int]] | None = None
    found: list[int] = []
    seen = {pid}
    queue = [pid]
    while queue:
        parent = queue.pop(0)
        below = None if by_parent is not None else _children(parent, root)
        if below is None:
            by_parent = by_parent if by_parent is not None else _all_children(root)
            below = by_parent.get(parent, [])
        fresh = [child for child in below if child not in seen]
        seen.update(fresh)
        found += fresh
        queue += fresh
    return found


def _children(pid: int, root: str) -> list[int] | None:
    """Children of all threads (a child belongs to the thread that forked it); None: this kernel does not list them."""
    try:
        threads = os.listdir(f"{root}/{pid}/task")  # noqa: PTH208  names only
    except _GONE:
        return []
    found: list[int] = []
    listed = False
    for thread in threads:
        data = read_bytes(f"{root}/{pid}/task/{thread}/children", whole=True)
        if data is not None:
            listed = True
            found += map(int, data.split())
    return found if listed or not threads or not _exists(pid, root) else None


def _exists(pid: int, root: str) -> bool:
    return os.path.exists(f"{root}/{pid}")  # noqa: PTH110  called for every process of a tree


def _all_children(root: str) -> dict[int, list[int]]:
    by_parent: dict[int, list[int]] = defaultdict(list)
    for pid, parent in _parents(root):
        by_parent[parent].append(pid)
    return by_parent


def _parents(root: str) -> Iterator[tuple[int, int]]:
    for pid in pids(root):
        line = stat(pid, root)
        if line is not None:
            yield pid, line.parent
