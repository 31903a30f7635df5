"""Faults of our own code while an engine lives: told in the log, tried again, and no machine waits for ever."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING

import pytest

from opsboard.core.model import EngineState
from opsboard.supervise import errands, looks, startup, world
from opsboard.supervise.runners import registry, shim
from tests.support.herd import free_port
from tests.support.waiting import wait_until_async

if TYPE_CHECKING:
    from types import ModuleType

    from tests.support.herd import Herd


class Breaks:
    """Raises what nobody expects the first time, or always."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, place: ModuleType | type, name: str, *, ever: bool) -> None:
        self.raised = 0
        work = getattr(place, name)

        def broken(*arguments: object, **options: object) -> object:
            if ever or not self.raised:
                self.raised += 1
                raise KeyError(name)
            return work(*arguments, **options)

        monkeypatch.setattr(place, name, broken)


def test_it_goes_on(herd: Herd, monkeypatch: pytest.MonkeyPatch) -> None:
    """In all that the machine waits for: a launch, a start, the proof, an exit, an end."""
    for module in (world, registry, looks):
        monkeypatch.setattr(module, "AGAIN_S", 0.05)

    async def story() -> None:
        supervisor = herd.supervisor(herd.spec("a", "serve", free_port()))
        await supervisor.adopt_all()
        faults = [
            Breaks(monkeypatch, shim, "examine_within", ever=False),
            Breaks(monkeypatch, startup.StartUp, "look", ever=True),
            Breaks(monkeypatch, errands, "prove", ever=True),
            Breaks(monkeypatch, shim, "ended", ever=False),
            Breaks(monkeypatch, shim, "how_it_ended", ever=False),
            Breaks(monkeypatch, shim, "end_life", ever=False),
        ]

        async def until(state: EngineState) -> int | None:
            await wait_until_async(lambda: supervisor.life("a").state is state, what=str(state))
            return supervisor.life("a").pid

        await supervisor.start("a", "test")
        pid = await until(EngineState.READY)
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        await until(EngineState.FAILED)
        await supervisor.start("a", "again")
        await until(EngineState.READY)
        await supervisor.stop("a", "done")
        assert supervisor.life("a").state is EngineState.STOPPED
        assert all(fault.raised for fault in faults)
        await supervisor.close()

    asyncio.run(story())
    assert "supervision_failed" not in [event.kind for event in herd.events]
    assert len(herd.births("a")) == 2
