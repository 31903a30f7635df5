"""The end of an engine's parts, with real processes."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from opsboard.core.model import ProcessView
from opsboard.daemon.parts import Parts
from tests.support.in_loop import in_loop
from tests.support.waiting import wait_until_async


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "100"]) as process:
        yield process
        process.kill()


def seen(pid: int, role: str) -> ProcessView:
    return ProcessView(pid=pid, started=0.0, name="sleep", role=role)


@in_loop
async def test_the_end_of_a_part_is_told_once(child: subprocess.Popen[bytes]) -> None:
    gone: list[str] = []
    parts = Parts(gone.append)
    for _ in range(2):
        parts.follow("a", [seen(child.pid, "engine_core")])
    child.kill()
    await wait_until_async(lambda: gone, what="its end is told")
    child.wait()
    parts.follow("a", [])
    await parts.close()
    assert gone == ["a"]


@in_loop
async def test_a_part_that_is_gone_before_it_is_followed_is_told(child: subprocess.Popen[bytes]) -> None:
    child.kill()
    child.wait()
    gone: list[str] = []
    parts = Parts(gone.append)
    parts.follow("a", [seen(child.pid, "worker")])
    await wait_until_async(lambda: gone == ["a"], what="its end is told")
    await parts.close()


@in_loop
async def test_helpers_and_those_of_another_life_are_not_waited_for(child: subprocess.Popen[bytes]) -> None:
    gone: list[str] = []
    parts = Parts(gone.append)
    parts.follow("a", [seen(child.pid, "resource_tracker")])
    parts.follow("b", [seen(child.pid, "engine_core")])
    parts.follow("b", [])
    with subprocess.Popen(["true"]) as other:
        parts.follow("c", [seen(other.pid, "engine_core")])
        child.kill()
        await wait_until_async(lambda: gone == ["c"], what="the end of another is told")
    await parts.close()
    assert gone == ["c"]
