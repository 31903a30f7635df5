"""What a process hands down to its children besides arguments and environment: umask, priority, cores, limits.

Read from one process and handed to a copy of it. Standard library only: the shim
uses it too.
"""

from __future__ import annotations

import contextlib
import os
import re
from typing import Any, NamedTuple

PROC = "/proc"
UNLIMITED = -1  # RLIM_INFINITY as Python has it
LIMITS = {
    "Max cpu time": "RLIMIT_CPU",
    "Max file size": "RLIMIT_FSIZE",
    "Max data size": "RLIMIT_DATA",
    "Max stack size": "RLIMIT_STACK",
    "Max core file size": "RLIMIT_CORE",
    "Max processes": "RLIMIT_NPROC",
    "Max open files": "RLIMIT_NOFILE",
    "Max locked memory": "RLIMIT_MEMLOCK",
    "Max address space": "RLIMIT_AS",
    "Max pending signals": "RLIMIT_SIGPENDING",
    "Max msgqueue size": "RLIMIT_MSGQUEUE",
    "Max nice priority": "RLIMIT_NICE",
    "Max realtime priority": "RLIMIT_RTPRIO",
    "Max realtime timeout": "RLIMIT_RTTIME",
}
"""Names of /proc/PID/limits, and of getrlimit(2). Left out: limits that Linux has not enforced since 2.4."""
_LIMIT = re.compile(r"^(Max [a-z ]*?[a-z]) {2,}(\w+) +(\w+)", re.MULTILINE)
_UMASK = re.compile(r"^Umask:\s+([0-7]+)$", re.MULTILINE)


class Manners(NamedTuple):
    """None is what the kernel did not tell. ``limits`` are (soft, hard) by name, -1 for none, in the kernel's units."""

    umask: int | None = None
    nice: int | None = None
    affinity: tuple[int, ...] | None = None
    """The cores it may use."""
    oom_score_adj: int | None = None
    """-1000 (never killed for memory) to 1000 (first)."""
    limits: dict[str, tuple[int, int]] = {}

    def record(self) -> dict[str, Any]:
        """Return it as JSON holds it."""
        return self._asdict()


def read(pid: int | str, proc_root: str = PROC) -> Manners:
    """Return the manners of a process, "self" being us. What cannot be read is None."""
    umask = _UMASK.search(_text(f"{proc_root}/{pid}/status"))
    number = 0 if pid == "self" else int(pid)
    adjusted = _text(f"{proc_root}/{pid}/oom_score_adj").strip()
    try:
        nice, affinity = os.getpriority(os.PRIO_PROCESS, number), tuple(sorted(os.sched_getaffinity(number)))
    except OSError:
        nice, affinity = None, None
    return Manners(
        umask=int(umask[1], 8) if umask else None,
        nice=nice,
        affinity=affinity,
        oom_score_adj=int(adjusted) if adjusted.lstrip("-").isdigit() else None,
        limits=parse_limits(_text(f"{proc_root}/{pid}/limits")),
    )


def parse_limits(text: str) -> dict[str, tuple[int, int]]:
    """Return what /proc/PID/limits says (proc_pid_limits(5)), by the names of :data:`LIMITS`."""
    return {LIMITS[name]: (_value(soft), _value(hard)) for name, soft, hard in _LIMIT.findall(text) if name in LIMITS}


def parse(record: object) -> Manners:
    """Return manners from their JSON; what is missing or damaged there is None."""
    if not isinstance(record, dict):
        return Manners()
    limits = record.get("limits")
    affinity = record.get("affinity")
    return Manners(
        umask=_whole(record.get("umask")),
        nice=_whole(record.get("nice")),
        affinity=tuple(map(int, affinity)) if isinstance(affinity, list | tuple) else None,
        oom_score_adj=_whole(record.get("oom_score_adj")),
        limits={str(name): (int(soft), int(hard)) for name, (soft, hard) in limits.items()}
        if isinstance(limits, dict)
        else {},
    )


def make_room(wanted: Manners) -> list[str]:
    """Raise our own limits so far that a child can keep to its own; return what could not be had, in words.

    A child cannot raise them itself once it has changed its user. Higher ones cost us nothing, lower ones would: a
    limit of CPU time or of files would end the parent some day.
    """
    import resource  # noqa: PLC0415  only a copy of another process needs it

    failed: list[str] = []
    for number, name, (soft, hard) in _known(wanted):
        ours_soft, ours = resource.getrlimit(number)
        try:
            resource.setrlimit(number, (_higher(soft, ours_soft), _higher(hard, ours)))
        except (OSError, ValueError):
            resource.setrlimit(number, (_higher(_lower(soft, ours), ours_soft), ours))
            failed.append(f"{name} stays at {ours}, {hard} was wanted")
    return failed


def keep_to(wanted: Manners) -> None:
    """Take on the limits, as far as we may: for a child, before its program starts and reads them."""
    import resource  # noqa: PLC0415  see make_room, which has imported it

    for number, _, (soft, hard) in _known(wanted):
        ours = resource.getrlimit(number)[1]
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(number, (_lower(soft, ours), _lower(hard, ours)))


def _known(wanted: Manners) -> list[tuple[int, str, tuple[int, int]]]:
    """Return the limits that this kernel has: number, name, (soft, hard)."""
    import resource  # noqa: PLC0415  see make_room

    numbers = {name: getattr(resource, name, None) for name in wanted.limits}
    return [(number, name, wanted.limits[name]) for name, number in numbers.items() if number is not None]


def give(pid: int, wanted: Manners) -> list[str]:
    """Give priority, cores and OOM score to a process that has just begun; return what could not be had, in words.

    We keep our own: a shim must answer while its engine takes all of a core. The umask is for whoever forks to set.
    """
    failed: list[str] = []
    if wanted.affinity is not None:
        try:
            os.sched_setaffinity(pid, wanted.affinity)
        except OSError as error:
            failed.append(f"cores {list(wanted.affinity)}: {error.strerror}")
    if wanted.oom_score_adj is not None:
        try:
            with open(f"{PROC}/{pid}/oom_score_adj", "w", encoding="ascii") as file:  # noqa: PTH123  pathlib costs 1 MB
                file.write(str(wanted.oom_score_adj))
        except OSError as error:
            failed.append(f"oom_score_adj {wanted.oom_score_adj}: {error.strerror}")
    if wanted.nice is not None:
        try:
            os.setpriority(os.PRIO_PROCESS, pid, wanted.nice)
        except OSError as error:
            failed.append(f"nice {wanted.nice}: {error.strerror}")
    return failed


def _higher(wanted: int, least: int) -> int:
    return UNLIMITED if UNLIMITED in {wanted, least} else max(wanted, least)


def _lower(wanted: int, most: int) -> int:
    if UNLIMITED in {wanted, most}:
        return max(wanted, most)
    return min(wanted, most)


def _value(text: str) -> int:
    return int(text) if text.isdigit() else UNLIMITED


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) else None


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:  # noqa: PTH123  see give
            return file.read(1 << 16)
    except OSError:
        return ""
