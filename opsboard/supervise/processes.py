"""Processes as the kernel shows them: who descends from whom, who carries our mark; and signals that hit no stranger.

Standard library only: the shim uses it too. A pid alone names nobody, since pids are used again; a pid together with
its start time (clock ticks since boot) names one process of this boot.
"""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

from opsboard.core.procstat import parse

PROC = "/proc"
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
TAG = "OPSBOARD_INSTANCE"
"""Environment variable that every process of a life inherits; its value is the life's unique id."""
_NOBODY = (FileNotFoundError, ProcessLookupError, PermissionError)  # under hidepid=1 a stranger's stat is forbidden
Identity = tuple[int, int]
"""What names one process of this boot for ever: its pid and its ``start_ticks``."""
_FULL_LOOK_EVERY = 30  # a pid used again between two looks is found this many looks later at the latest


class Process(NamedTuple):
    """One living process: ``start_ticks`` since boot in clock ticks, ``name`` as the kernel cuts it (15 bytes)."""

    pid: int
    start_ticks: int
    parent: int
    group: int
    state: str
    name: str

    def record(self) -> dict[str, Any]:
        """Return how a bundle names this process."""
        return {"pid": self.pid, "start_ticks": self.start_ticks, "group": self.group, "name": self.name}

    def same_as(self, other: Process | None) -> bool:
        """Tell whether ``other`` is this very process, not a later one under its pid."""
        return other is not None and (other.pid, other.start_ticks) == (self.pid, self.start_ticks)


def look(pid: int) -> Process | None:
    """Return who lives under ``pid``: None for nobody, for a zombie (only an exit status), for who may not be seen.

    Raises OSError when that cannot be found out, which is not the same as nobody.
    """
    try:
        with open(f"{PROC}/{pid}/stat", "rb", buffering=0) as file:  # noqa: PTH123  pathlib costs the shim 1 MB
            data = file.read(4096)
    except _NOBODY:
        return None
    line = parse(data)
    if line is None or line.ended:
        return None
    return Process(pid, line.start_ticks, line.parent, line.group, line.state, line.comm)


def alive(pid: int | None, start_ticks: int | None) -> bool:
    """Tell whether the process that began at ``start_ticks`` under ``pid`` still lives. Raises OSError as look."""
    found = look(pid) if pid else None
    return found is not None and found.start_ticks == start_ticks


def gone(process: Process) -> bool:
    """Tell whether a process has surely ended; False when it cannot be found out."""
    try:
        return not process.same_as(look(process.pid))
    except OSError:
        return False


def age_s(pid: int | None) -> float | None:
    """Return how long (s) the process under ``pid`` has run, by the clock since boot, which nobody sets; None: unknown.

    ``start_ticks`` are of that clock, too (proc(5)).
    """
    try:
        found = look(pid) if pid else None
    except OSError:
        return None
    return None if found is None else time.clock_gettime(time.CLOCK_BOOTTIME) - found.start_ticks / _TICKS_PER_SECOND


def not_used_again(known: Iterable[Identity]) -> list[int]:
    """Return the pids of ``known`` processes, living or not, that name no other process by now."""
    return sorted({pid for pid, start_ticks in known if not _used_again(pid, start_ticks)})


def _used_again(pid: int, start_ticks: int) -> bool:
    try:
        found = look(pid)
    except OSError:
        return False
    return found is not None and found.start_ticks != start_ticks


def boot_id() -> str:
    """Return the kernel's random id of this boot."""
    with open(f"{PROC}/sys/kernel/random/boot_id", encoding="ascii") as file:  # noqa: PTH123  see look
        return file.read().strip()


def everybody() -> dict[int, Process]:
    """Return all living processes of our PID namespace. Costs about 15 us for each. Raises OSError as look."""
    found = (look(pid) for pid in _pids())
    return {process.pid: process for process in found if process is not None}


def below(roots: Collection[int], table: Mapping[int, Process]) -> list[Process]:
    """Return the descendants of ``roots`` in ``table``, without the roots."""
    family = set(roots)
    found: list[Process] = []
    rest = [process for process in table.values() if process.pid not in family]
    while joined := [process for process in rest if process.parent in family]:
        family.update(process.pid for process in joined)
        found += joined
        rest = [process for process in rest if process.pid not in family]
    return found


def tagged(instance: str) -> list[Process]:
    """Return the processes that carry the mark of a life in their environment.

    Processes that rewrite their title (setproctitle) lose their mark, and other users' are unreadable: an addition to
    the record of descendants, never its replacement.
    """
    mark = f"{TAG}={instance}".encode()
    found = []
    for pid in _pids():
        try:
            with open(f"{PROC}/{pid}/environ", "rb", buffering=0) as file:  # noqa: PTH123  see look
                data = file.read(1 << 20) or b""
        except OSError:
            continue
        if mark in data.split(b"\0") and (process := look(pid)) is not None:
            found.append(process)
    return found


def inside(cgroup: object) -> list[Process]:
    """Return the living processes of a control group and of those below it; ``cgroup`` is its directory.

    Raises OSError when that cannot be found out.
    """
    found: list[Process] = []
    for folder, _, _ in os.walk(cgroup, onerror=_unless_gone) if isinstance(cgroup, str) and cgroup else ():
        try:
            with open(f"{folder}/cgroup.procs", encoding="ascii") as file:  # noqa: PTH123  see look
                pids = [int(line) for line in file]
        except OSError as error:
            _unless_gone(error)
            continue
        found += [process for pid in pids if (process := look(pid)) is not None]
    return found


def _unless_gone(error: OSError) -> None:
    """Raise what says more of a control group than that it is removed, or has only threads of another one."""
    if error.errno not in {errno.ENOENT, errno.ENODEV, errno.EOPNOTSUPP}:
        raise error


def send(process: Process, number: signal.Signals) -> bool:
    """Signal exactly this process; False when it is gone. Raises OSError: it is another user's, or cannot be looked at.

    A pidfd holds on to the process between the check and the signal; kernels before 5.3 have none and keep a gap of
    microseconds.
    """
    try:
        fd = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return False
    except OSError:
        fd = -1
    try:
        if not process.same_as(look(process.pid)):
            return False
        if fd >= 0:
            signal.pidfd_send_signal(fd, number)
        else:
            os.kill(process.pid, number)
    except ProcessLookupError:
        return False
    finally:
        if fd >= 0:
            os.close(fd)
    return True


class Family:
    """The living descendants of one process, kept current once a second for little: only new pids are looked at.

    A vLLM process has hundreds of threads, so walking /proc/PID/task/*/children would cost more than it tells.
    """

    def __init__(self, root: int) -> None:
        """Watch the descendants of ``root``."""
        self.members: dict[int, Process] = {}
        self._root = root
        self._known: set[int] = set()
        self._looks = 0

    def refresh(self, *, full: bool = False) -> bool:
        """Look again; tell whether somebody came, left or was renamed. Nobody has where it cannot be looked."""
        before = self.members
        again = full or self._looks % _FULL_LOOK_EVERY == 0
        try:
            present = set(_pids())
            table = _look_at((present if again else present - self._known) - before.keys())
            kept = {pid: now for pid, old in before.items() if (now := look(pid)) is not None and now.same_as(old)}
        except OSError:
            self._looks = 0
            return False
        self._looks += 1
        self._known = present
        # A member is one for good: the kernel hands orphans to the nearest subreaper, which is the root.
        joined = below({self._root, *kept}, table)
        self.members = kept | {process.pid: process for process in joined}
        return _names(before) != _names(self.members)


def _names(members: Mapping[int, Process]) -> set[tuple[int, int, str]]:
    return {(process.pid, process.start_ticks, process.name) for process in members.values()}


def _look_at(pids: Iterable[int]) -> dict[int, Process]:
    return {pid: process for pid in pids if (process := look(pid)) is not None}


def _pids() -> list[int]:
    return [int(name) for name in os.listdir(PROC) if name.isdigit()]  # noqa: PTH208  see look
