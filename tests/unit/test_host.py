"""The host reader on a /proc and a cgroup file system made of files, and once on the real ones."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest

from collectors.host import HostReader
from opsboard.core.model import HostView, Outcome

if TYPE_CHECKING:
    from pathlib import Path

KIB = 1024
GIB = 1 << 30


@pytest.fixture
def root(tmp_path: Path) -> Path:
    proc = tmp_path / "proc"
    (proc / "self").mkdir(parents=True)
    (proc / "stat").write_text("cpu  100 0 100 700 100 0 0 0 50 0\ncpu0 1 1 1 1\nbtime 1700000000\n")
    (proc / "loadavg").write_text("1.25 0.50 0.10 2/345 6789\n")
    (proc / "meminfo").write_text(
        "MemTotal:       1000 kB\nMemFree:  10 kB\nMemAvailable:    600 kB\nSwapTotal:  500 kB\nSwapFree:   400 kB\n"
    )
    (proc / "self" / "cgroup").write_text("0::/system.slice/opsboard.service\n")
    return tmp_path


def group(root: Path, path: str, **files: str) -> None:
    folder = root / "cgroup" / path
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text + "\n")


def reader(root: Path) -> HostReader:
    return HostReader(root, proc_root=str(root / "proc"), cgroup_root=str(root / "cgroup"))


def host(root: Path) -> HostView:
    view = reader(root).read().host
    assert view is not None
    return view


def test_memory_load_and_disk(root: Path) -> None:
    view = host(root)
    disk = shutil.disk_usage(root)

    assert (view.memory_total_bytes, view.memory_available_bytes) == (1000 * KIB, 600 * KIB)
    assert view.swap_used_bytes == 100 * KIB
    assert view.load1 == 1.25
    assert view.cpu_count == os.cpu_count()
    assert view.disk_total_bytes == disk.total
    assert view.disk_free_bytes == pytest.approx(disk.free, abs=GIB)


def test_cpu_is_the_busy_part_since_the_last_look(root: Path) -> None:
    looks = reader(root)
    first = looks.read()
    # 100 ticks more: 30 user and system, 50 idle, 10 waiting for a disk, 10 stolen; guest time is in user time already
    (root / "proc" / "stat").write_text("cpu  120 0 110 750 110 0 0 10 60 0\n")
    second = looks.read()

    assert first.host is not None
    assert first.host.cpu_ratio is None
    assert second.host is not None
    assert second.host.cpu_ratio == 0.4


def test_the_tightest_cgroup_above_us_counts(root: Path) -> None:
    group(root, "system.slice/opsboard.service", memory__max="max", memory__current=str(3 * GIB))
    group(root, "system.slice", memory__max=str(8 * GIB), memory__current=str(5 * GIB))

    view = host(root)

    assert (view.cgroup_limit_bytes, view.cgroup_used_bytes) == (8 * GIB, 5 * GIB)


def test_without_a_limit_our_own_use_is_told(root: Path) -> None:
    group(root, "system.slice/opsboard.service", memory__max="max", memory__current=str(3 * GIB))
    group(root, "system.slice", memory__max="max", memory__current=str(5 * GIB))

    view = host(root)

    assert (view.cgroup_limit_bytes, view.cgroup_used_bytes) == (None, 3 * GIB)


def test_a_container_that_shows_its_cgroup_as_the_root(root: Path) -> None:
    (root / "proc" / "self" / "cgroup").write_text("0::/\n")
    group(root, "", memory__max=str(4 * GIB), memory__current=str(GIB))

    view = host(root)

    assert (view.cgroup_limit_bytes, view.cgroup_used_bytes) == (4 * GIB, GIB)


def test_cgroup_version_1(root: Path) -> None:
    (root / "proc" / "self" / "cgroup").write_text("9:name=systemd:/\n4:cpu,memory:/docker/abc\n0::/x\n")
    group(root, "memory", memory__limit_in_bytes=str(6 * GIB), memory__usage_in_bytes=str(2 * GIB))
    view = host(root)
    assert (view.cgroup_limit_bytes, view.cgroup_used_bytes) == (6 * GIB, 2 * GIB)

    group(root, "memory", memory__limit_in_bytes="9223372036854771712")  # its way to say: no limit
    view = host(root)
    assert (view.cgroup_limit_bytes, view.cgroup_used_bytes) == (None, 2 * GIB)


def test_what_is_hidden_is_none_and_not_zero(root: Path) -> None:
    for name in ("stat", "loadavg"):
        (root / "proc" / name).unlink()
    (root / "proc" / "meminfo").write_text("MemTotal: 1000 kB\n")
    (root / "proc" / "self" / "cgroup").unlink()

    reading = HostReader(None, proc_root=str(root / "proc"), cgroup_root=str(root / "cgroup")).read()

    assert reading.outcome is Outcome.OK
    assert reading.host == HostView(cpu_count=os.cpu_count(), memory_total_bytes=1000 * KIB)


def test_a_machine_without_proc_is_failed(tmp_path: Path) -> None:
    reading = HostReader(tmp_path, proc_root=str(tmp_path / "none")).read()

    assert (reading.outcome, reading.host) == (Outcome.FAILED, None)
    assert str(tmp_path / "none" / "stat") in str(reading.error)


def test_this_machine(tmp_path: Path) -> None:
    import psutil

    view = HostReader(tmp_path).read().host

    assert view is not None
    assert view.memory_total_bytes == psutil.virtual_memory().total
    assert view.load1 == pytest.approx(psutil.getloadavg()[0], abs=1)
