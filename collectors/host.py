"""The machine: CPU, load, memory, swap, the memory limit of our cgroup, the disk of the state directory."""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath

from collectors import procfs
from opsboard.core.model import HostReading, HostView, Outcome, Record

CGROUPS = "/sys/fs/cgroup"
_MEMINFO = re.compile(rb"^(MemTotal|MemAvailable|SwapTotal|SwapFree):\s+(\d+) kB", re.MULTILINE)
_UNLIMITED = 1 << 60  # cgroup v1 writes "no limit" as the largest number of pages


class _Limits(Record, frozen=True):
    """Where a memory cgroup keeps its limit and its use: one directory for each level above us, ours first."""

    directories: tuple[str, ...]
    limit: str
    used: str


class HostReader:
    """Reads the host once a call. What a kernel or a container hides is None; a slow disk makes this slow."""

    def __init__(self, disk_path: str | Path | None, proc_root: str = procfs.PROC, cgroup_root: str = CGROUPS) -> None:
        """``disk_path`` lies on the disk to watch, None for no disk."""
        self._disk_path = disk_path
        self._proc = proc_root
        self._limits = _find_limits(proc_root, cgroup_root)
        self._cpu_before: tuple[int, int] | None = None

    def read(self) -> HostReading:
        """Return what the machine says now; FAILED when /proc says nothing at all. Never raises."""
        cpu = _cpu_ticks(self._proc)
        ratio = _cpu_ratio(self._cpu_before, cpu)
        self._cpu_before = cpu
        memory = _meminfo(self._proc)
        if cpu is None and not memory:
            error = f"cannot read {self._proc}/stat and {self._proc}/meminfo"
            return HostReading(outcome=Outcome.FAILED, error=error)
        swap_total, swap_free = memory.get(b"SwapTotal"), memory.get(b"SwapFree")
        limit, used = _cgroup(self._limits)
        disk_total, disk_free = _disk(self._disk_path)
        host = HostView(
            cpu_ratio=ratio,
            cpu_count=os.cpu_count(),
            load1=_load1(self._proc),
            memory_total_bytes=memory.get(b"MemTotal"),
            memory_available_bytes=memory.get(b"MemAvailable"),
            swap_used_bytes=None if swap_total is None or swap_free is None else swap_total - swap_free,
            cgroup_limit_bytes=limit,
            cgroup_used_bytes=used,
            disk_total_bytes=disk_total,
            disk_free_bytes=disk_free,
        )
        return HostReading(outcome=Outcome.OK, host=host)


def _read(path: str, limit: int = 4096) -> bytes:
    try:
        return procfs.read_bytes(path, limit) or b""
    except OSError:
        return b""


def _cpu_ticks(root: str) -> tuple[int, int] | None:
    """Busy and all ticks of all cores: waiting for a disk is idle, stolen time is busy (proc(5), stat)."""
    fields = _read(f"{root}/stat").partition(b"\n")[0].split()
    if len(fields) < 9 or fields[0] != b"cpu":
        return None
    ticks = [int(field) for field in fields[1:9]]  # guest time is already in user time
    everything = sum(ticks)
    return everything - ticks[3] - ticks[4], everything


def _cpu_ratio(before: tuple[int, int] | None, now: tuple[int, int] | None) -> float | None:
    if before is None or now is None or now[1] <= before[1]:
        return None
    return min(1.0, max(0.0, (now[0] - before[0]) / (now[1] - before[1])))


def _load1(root: str) -> float | None:
    fields = _read(f"{root}/loadavg", 128).split()
    return float(fields[0]) if fields else None


def _meminfo(root: str) -> dict[bytes, int]:
    return {name: int(value) << 10 for name, value in _MEMINFO.findall(_read(f"{root}/meminfo"))}


def _disk(path: str | Path | None) -> tuple[int | None, int | None]:
    """Size, and what is free for users other than root."""
    if path is None:
        return None, None
    try:
        disk = os.statvfs(path)
    except OSError:
        return None, None
    return disk.f_blocks * disk.f_frsize, disk.f_bavail * disk.f_frsize


def _find_limits(proc_root: str, cgroup_root: str) -> _Limits | None:
    """Find our memory cgroup, v1 or v2; a container may show its own one as the root of the file system."""
    own: dict[str, str] = {}
    for line in _read(f"{proc_root}/self/cgroup").decode("utf-8", "replace").splitlines():
        _, controllers, path = line.split(":", 2)
        own.update(dict.fromkeys(controllers.split(","), path))
    if "memory" in own:
        found = _levels(f"{cgroup_root}/memory", own["memory"], "memory.usage_in_bytes")
        return _Limits(found, "memory.limit_in_bytes", "memory.usage_in_bytes") if found else None
    if "" in own:
        found = _levels(cgroup_root, own[""], "memory.current")
        return _Limits(found, "memory.max", "memory.current") if found else None
    return None


def _levels(mount: str, path: str, probe: str) -> tuple[str, ...]:
    inside = PurePosixPath("/", path)
    directories = [f"{mount}/{str(level).lstrip('/')}".rstrip("/") for level in (inside, *inside.parents)]
    return tuple(directory for directory in directories if Path(directory, probe).exists())


def _cgroup(limits: _Limits | None) -> tuple[int | None, int | None]:
    """Return limit and use of the tightest cgroup above us; no limit: None and our own use."""
    if limits is None:
        return None, None
    tightest, where = None, limits.directories[0]
    for directory in limits.directories:
        limit = _number(f"{directory}/{limits.limit}")
        if limit is not None and limit < _UNLIMITED and (tightest is None or limit < tightest):
            tightest, where = limit, directory
    return tightest, _number(f"{where}/{limits.used}")


def _number(path: str) -> int | None:
    text = _read(path, 64).strip()
    return int(text) if text.isdigit() else None  # "max" is no limit
