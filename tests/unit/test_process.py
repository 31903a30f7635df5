"""Processes of engines: real child processes, and a /proc made of files where the kernel's own cannot be steered."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import msgspec
import pytest

from collectors import procfs
from collectors.process import ProcessReader, alive, descendants, identity
from opsboard.core.clock import ManualClock
from opsboard.core.model import Outcome
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

# A parent whose children are forked by two threads; every process says its pid and then waits for its standard input.
FAMILY = r"""
import os, subprocess, sys, threading
def child():
    subprocess.Popen([sys.executable, "-c", "import os,sys; os.write(1, b'%d\\n' % os.getpid()); sys.stdin.read()"])
threads = [threading.Thread(target=child) for _ in range(2)]
for thread in threads: thread.start()
for thread in threads: thread.join()
os.write(1, b"%d\n" % os.getpid())
sys.stdin.read()
"""


class Family:
    def __init__(self) -> None:
        self.parent = subprocess.Popen([sys.executable, "-c", FAMILY], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.parent.stdout is not None
        said = {int(self.parent.stdout.readline()) for _ in range(3)}  # each line is one write: they do not mix
        self.children = sorted(said - {self.parent.pid})

    def end(self) -> None:
        for pid in (*self.children, self.parent.pid):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.parent.communicate(timeout=10)


@pytest.fixture
def family() -> Iterator[Family]:
    family = Family()
    try:
        yield family
    finally:
        family.end()


def role_of(name: str, arguments: Sequence[str]) -> str | None:
    return "api_server" if any("subprocess.Popen" in argument for argument in arguments) else None


def test_the_tree_of_an_engine_is_read_with_roles_memory_and_start(family: Family) -> None:
    reading = ProcessReader().read("a", family.parent.pid, role_of)

    assert reading.outcome is Outcome.OK
    assert reading.processes[0].pid == family.parent.pid
    assert sorted(process.pid for process in reading.processes) == sorted([family.parent.pid, *family.children])
    assert [process.role for process in reading.processes] == ["api_server", "other", "other"]
    for process in reading.processes:
        assert process.rss_bytes is not None
        assert process.rss_anon_bytes is not None
        assert 1 << 20 < process.rss_anon_bytes <= process.rss_bytes < 1 << 30
        assert process.swap_bytes is not None
        assert process.cpu_ratio is None  # nothing to compare with yet
        assert abs(process.started - reading.processes[0].started) < 30


def test_what_psutil_says_is_what_is_read(family: Family) -> None:
    import psutil

    (process,) = ProcessReader().read("a", [family.children[0]], role_of).processes
    theirs = psutil.Process(family.children[0])

    assert process.rss_bytes == pytest.approx(theirs.memory_info().rss, abs=1 << 20)
    assert process.started == pytest.approx(theirs.create_time(), abs=1.1)
    assert process.name == theirs.name()


def test_a_process_that_ends_is_gone_at_the_next_look(family: Family) -> None:
    reader = ProcessReader()
    reader.read("a", family.parent.pid, role_of)
    gone, left = family.children
    os.kill(gone, signal.SIGKILL)
    wait_until(lambda: (line := procfs.stat(gone)) is None or line.ended)

    reading = reader.read("a", family.parent.pid, role_of)

    assert sorted(process.pid for process in reading.processes) == sorted([family.parent.pid, left])


def test_an_engine_without_processes_is_no_data() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait(timeout=10)

    reading = ProcessReader().read("a", child.pid, role_of)

    assert (reading.outcome, reading.processes) == (Outcome.NO_DATA, ())
    assert reading.error == f"process {child.pid} has ended"


def test_identity_is_of_one_process_and_no_other(family: Family) -> None:
    known = identity(family.children[0])
    assert known is not None

    assert alive(known)
    assert not alive(msgspec.structs.replace(known, start_ticks=known.start_ticks + 1))  # the pid was used again
    assert not alive(msgspec.structs.replace(known, boot_id="another boot"))
    assert msgspec.json.decode(msgspec.json.encode(known), type=type(known)) == known


def test_a_zombie_is_not_alive() -> None:
    child = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    known = identity(child.pid)
    assert known is not None
    assert alive(known)
    child.kill()
    wait_until(lambda: (line := procfs.stat(child.pid)) is not None and line.ended)  # nobody has waited for it

    assert not alive(known)
    assert identity(child.pid) is None
    assert child.pid in descendants(os.getpid())
    reader = ProcessReader()
    seen = reader.read("a", [os.getpid(), child.pid], role_of)
    assert ([view.pid for view in seen.processes], seen.zombies) == ([os.getpid()], (child.pid,))
    gone = reader.read("a", [child.pid], role_of)
    assert (gone.outcome, gone.zombies) == (Outcome.NO_DATA, (child.pid,))
    child.communicate(timeout=10)
    assert reader.read("a", [child.pid], role_of).zombies == ()
    assert identity(child.pid) is None


def test_descendants_without_the_children_files_of_the_kernel(family: Family, monkeypatch: pytest.MonkeyPatch) -> None:
    by_threads = descendants(family.parent.pid)
    monkeypatch.setattr(procfs, "_children", lambda pid, root: None)

    assert sorted(descendants(family.parent.pid)) == sorted(by_threads) == family.children


# --- a /proc of files ---


class FakeProc:
    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "sys" / "kernel" / "random").mkdir(parents=True)
        (root / "sys" / "kernel" / "random" / "boot_id").write_text("11111111-2222\n")
        (root / "stat").write_text("cpu  1 2 3\nbtime 1700000000\n")

    def put(
        self,
        pid: int,
        comm: str,
        *,
        status: str,
        argv: str = "",
        children: str = "",
        start: int = 100,
        ticks: int = 0,
    ) -> None:
        folder = self.root / str(pid)
        (folder / "task" / str(pid)).mkdir(parents=True, exist_ok=True)
        numbers = [1, *[0] * 9, ticks, 0, *[0] * 6, start, *[0] * 10]
        (folder / "stat").write_text(f"{pid} ({comm}) S {' '.join(map(str, numbers))}\n")
        (folder / "status").write_text(status)
        (folder / "cmdline").write_text(argv.replace(" ", "\0"))
        (folder / "task" / str(pid) / "children").write_text(children)


STATUS = "Name:\tx\nVmRSS:\t    2048 kB\nRssAnon:\t    1024 kB\nRssFile:\t 1024 kB\nVmSwap:\t      16 kB\n"


@pytest.fixture
def proc(tmp_path: Path) -> FakeProc:
    return FakeProc(tmp_path / "proc")


def test_numbers_come_from_the_right_fields(proc: FakeProc) -> None:
    proc.put(7, "odd ) S (name", start=250, argv="VLLM", status=STATUS)

    (process,) = ProcessReader(str(proc.root)).read("a", [7], lambda name, arguments: None).processes

    assert process.name == "odd ) S (name"
    assert process.started == 1_700_000_000 + 250 / procfs.TICKS_PER_SECOND
    assert (process.rss_bytes, process.rss_anon_bytes, process.swap_bytes) == (2 << 20, 1 << 20, 16 << 10)


def test_memory_that_the_kernel_does_not_tell_is_none(proc: FakeProc) -> None:
    proc.put(7, "x", status="Name:\tx\nVmRSS:\t 2048 kB\n")

    (process,) = ProcessReader(str(proc.root)).read("a", 7, lambda name, arguments: None).processes

    assert (process.rss_bytes, process.rss_anon_bytes, process.swap_bytes) == (2 << 20, None, None)


def test_a_title_that_the_kernel_cut_is_shown_whole(proc: FakeProc) -> None:
    proc.put(7, "VLLM::EngineCor", argv="VLLM::EngineCore_DP0", status=STATUS)
    proc.put(8, "python3", argv="python3 -m vllm", status=STATUS)
    seen: list[tuple[str, tuple[str, ...]]] = []

    def remember(name: str, arguments: Sequence[str]) -> str:
        seen.append((name, tuple(arguments)))
        return "engine_core"

    processes = ProcessReader(str(proc.root)).read("a", [7, 8], remember).processes

    assert [process.name for process in processes] == ["VLLM::EngineCore_DP0", "python3"]
    assert seen == [("VLLM::EngineCor", ("VLLM::EngineCore_DP0",)), ("python3", ("python3", "-m", "vllm"))]


def test_cpu_is_cores_used_since_the_last_look(proc: FakeProc) -> None:
    clock = ManualClock()
    reader = ProcessReader(str(proc.root), clock)
    proc.put(7, "x", ticks=100, status=STATUS)

    def look() -> float | None:
        return reader.read("a", 7, lambda name, arguments: None).processes[0].cpu_ratio

    assert look() is None
    proc.put(7, "x", ticks=100 + 3 * procfs.TICKS_PER_SECOND, status=STATUS)
    clock.advance(2)
    assert look() == 1.5
    clock.advance(0.01)
    assert look() is None  # too soon to say
    proc.put(7, "x", ticks=0, start=999, status=STATUS)  # another process under the pid
    clock.advance(2)
    assert look() is None


def test_new_processes_are_seen_at_the_next_walk_and_new_names_too(proc: FakeProc) -> None:
    clock = ManualClock()
    reader = ProcessReader(str(proc.root), clock)
    proc.put(7, "python", status=STATUS)

    def names() -> list[str]:
        return [process.name for process in reader.read("a", 7, lambda name, arguments: None).processes]

    assert names() == ["python"]
    proc.put(7, "VLLM", children="8 ", status=STATUS)
    proc.put(8, "worker", status=STATUS)
    clock.advance(1)
    assert names() == ["python"]
    clock.advance(5)
    assert names() == ["VLLM", "worker"]


def test_arguments_that_cannot_be_read_hold_up_nobody(proc: FakeProc, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("collectors.process.ARGV_S", 10.0)
    proc.put(7, "VLLM::EngineCor", argv="VLLM::EngineCore_DP0", status=STATUS)
    proc.put(8, "python3", argv="vllm serve", status=STATUS)
    reader = ProcessReader(str(proc.root))

    def role_of(name: str, arguments: Sequence[str]) -> str | None:
        return "engine_core" if name.startswith("VLLM") else "api_server" if "serve" in " ".join(arguments) else None

    def roles(*pids: int) -> list[str]:
        return [one.role for one in reader.read("a", pids, role_of).processes]

    assert roles(7, 8) == ["engine_core", "api_server"]
    monkeypatch.setattr("collectors.process.ARGV_S", 0.02)
    # As when another thread holds the lock of its memory: who opens a pipe waits for one who writes.
    for pid in (7, 8):
        (proc.root / str(pid) / "cmdline").unlink()
        os.mkfifo(proc.root / str(pid) / "cmdline")
    assert roles(7, 8) == ["engine_core", "api_server"], "what is known of them stays"
    proc.put(9, "VLLM::Worker_TP", status=STATUS)
    assert roles(7, 8, 9) == ["engine_core", "api_server", "engine_core"], "its name alone tells"
    for pid in (7, 8):
        os.close(os.open(proc.root / str(pid) / "cmdline", os.O_RDWR | os.O_NONBLOCK))


def test_a_name_with_terminal_escapes_is_made_harmless(proc: FakeProc) -> None:
    proc.put(7, "\x1b[2Jx", status=STATUS)

    assert ProcessReader(str(proc.root)).read("a", 7, lambda name, arguments: None).processes[0].name == "\ufffd[2Jx"


def test_a_proc_that_cannot_be_read_is_said(proc: FakeProc) -> None:
    proc.put(7, "x", status=STATUS)
    (proc.root / "7" / "status").unlink()
    (proc.root / "7" / "status").mkdir()

    reading = ProcessReader(str(proc.root)).read("a", 7, lambda name, arguments: None)

    assert reading.outcome is Outcome.FAILED
    assert "Is a directory" in str(reading.error)
