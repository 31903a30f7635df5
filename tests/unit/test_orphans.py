"""Who holds what is ours to give: leftovers of our lives, by proof, and strangers, who are only named."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import msgspec
import pytest

from opsboard.core.model import GpuProcess, GpuView
from opsboard.supervise.adopt import Remains
from opsboard.supervise.orphans import Orphan, Ours, holders, orphans, ours
from opsboard.supervise.processes import Process
from opsboard.supervise.who import Who, who
from tests.support.herd import Herd, kill
from tests.support.in_loop import in_loop
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

GIB = 1 << 30
CORE = Process(pid=77, start_ticks=500, parent=1, group=70, state="S", name="VLLM::EngineCor")
REMAINS = Remains(
    directory="/x",
    instance="id",
    life=3,
    started=0.0,
    log_offset=0,
    socket="",
    argv_sha256="",
    same_boot=True,
    others=(CORE,),
)
RECORD = {"pid": 77, "start_ticks": 500}


def bob(pid: int) -> Who:
    return Who(pid=pid, name="python3", user="bob", command="python3 train.py")


def test_what_a_dead_main_process_leaves_is_ours_by_record() -> None:
    (orphan,) = orphans("chat", REMAINS, [RECORD])

    assert (orphan.engine, orphan.pid) == ("chat", 77)
    assert orphan.proof == "pid and start time are in the record of life 3, made in this boot"
    (orphan,) = orphans("chat", REMAINS, [RECORD | {"start_ticks": 499}])
    assert "mark" in orphan.proof, "a pid used again is no proof"


def test_nobody_is_an_orphan_while_the_main_process_lives_or_of_another_boot() -> None:
    assert orphans("chat", msgspec.structs.replace(REMAINS, main=CORE), [RECORD]) == []
    assert orphans("chat", msgspec.structs.replace(REMAINS, same_boot=False), [RECORD]) == []


def test_whose_the_memory_of_a_gpu_is() -> None:
    gpu = GpuView(
        index=0,
        uuid="GPU-0",
        processes=(
            GpuProcess(pid=1, memory_bytes=GIB),
            GpuProcess(pid=77, memory_bytes=2 * GIB),
            GpuProcess(pid=9, memory_bytes=60 * GIB),
            GpuProcess(pid=12),
        ),
    )
    left = Orphan(engine="chat", pid=77, name="VLLM::EngineCor", proof="")

    held = holders([gpu], Ours(serving={"embed": [1, 12]}, left=(left,)), look=bob)

    assert [str(holder) for holder in held] == [
        "60.0 GiB by pid 9 (python3, user bob), not ours",
        "2.0 GiB by pid 77 (python3, user bob), left of the last life of chat",
        "1.0 GiB by pid 1 (python3, user bob), engine embed",
        "unknown memory by pid 12, perhaps of another PID namespace, not ours",
    ]


def test_what_a_stranger_calls_itself_is_harmless_and_keeps_its_secrets() -> None:
    script = "import sys, time; print(flush=True); time.sleep(600)"
    argv = [sys.executable, "-S", "-c", script, "--api-key", "hush", "\x1b]0;owned\x07"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        found = who(process.pid)
        process.kill()

    assert found.user == who(os.getpid()).user is not None
    assert "time.sleep" in (found.command or "")
    assert "hush" not in repr(found)
    assert "\x1b" not in repr(found.command)
    wait_until(lambda: who(process.pid) == Who(pid=process.pid), what="nobody has that pid")
    assert str(Who(pid=5)) == "pid 5"


@pytest.fixture
def herd(tmp_path: Path) -> Iterator[Herd]:
    herd = Herd(tmp_path / "state", tmp_path / "run")
    yield herd
    herd.end()


@in_loop
async def test_a_killed_main_process_leaves_orphans_that_are_found(herd: Herd) -> None:
    engines = herd.state_dir / "engines"
    assert ours(engines) == Ours(serving={})
    launched = await herd.launch(herd.spec("a", "family"))
    herd.wait_up("a")
    children = 3
    wait_until(lambda: len(herd.remains("a").others) == children, what="the record of the family")
    living = ours(engines)
    assert living.left == ()
    assert launched.pid in living.serving["a"]
    assert len(living.serving["a"]) == 1 + children

    kill(launched.pid)

    wait_until(lambda: len(ours(engines).left) == children, what="orphans")
    found = ours(engines)
    assert found.serving == {}
    assert {orphan.engine for orphan in found.left} == {"a"}
    assert all("record of life 1" in orphan.proof for orphan in found.left)
