"""A stop where the shim lives and does not answer: it is woken, and where that fails its work is done without it."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING, Any

import pytest

from opsboard.supervise import processes, stopping
from opsboard.supervise.shim_client import ask

if TYPE_CHECKING:
    from opsboard.supervise.processes import Process
    from tests.support.herd import Herd


async def hasty(socket: str, operation: str, **arguments: Any) -> dict[str, Any]:
    return await ask(socket, operation, deadline_s=0.05, **arguments)


@pytest.fixture(autouse=True)
def little_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopping, "ask", hasty)
    monkeypatch.setattr(stopping, "_ASK_S", 0.05)


def stop(herd: Herd, mode: str) -> list[str]:
    """Stop an engine whose shim is stopped; return what was told."""
    told: list[str] = []
    asyncio.run(herd.launch(herd.spec("a", mode)))
    herd.wait_up("a")
    shim = herd.remains("a").shim
    assert shim is not None
    os.kill(shim.pid, signal.SIGSTOP)

    async def end() -> None:
        async with asyncio.timeout(10):
            await stopping.end_life(herd.bundle("a"), 0.3, "operator: test", told.append)

    asyncio.run(end())
    assert herd.remains("a").lives is False
    assert herd.remains("a").shim is None
    return told


def test_a_stopped_shim_is_woken(herd: Herd) -> None:
    assert stop(herd, "idle") == []
    assert herd.record("a", "exit.json")["code"] == -signal.SIGTERM


def test_a_deaf_shim_is_not_waited_for(herd: Herd, monkeypatch: pytest.MonkeyPatch) -> None:
    """It waits in the kernel, say: signals do not reach it, until it is nobody's parent any more."""

    def lost(process: Process, number: signal.Signals) -> bool:
        return number is not signal.SIGKILL or processes.send(process, number)

    monkeypatch.setattr(stopping, "send", lost)
    monkeypatch.setattr(stopping, "_PATIENCE_S", 0.2)
    told = stop(herd, "family")
    assert len(told) == 1
    assert told[0].startswith("its shim (pid ")
    assert told[0].endswith("state T) does not answer: it is ended without it")
