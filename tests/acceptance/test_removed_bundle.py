"""What is written down of an engine that runs is removed: it is not taken for gone, and nothing begins beside it."""

from __future__ import annotations

import asyncio
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from opsboard.core.errors import SuperviseError
from opsboard.core.model import EngineState
from opsboard.supervise import launch, looks
from opsboard.supervise.processes import look
from opsboard.supervise.runners import shim

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.herd import Herd


def test_what_is_removed_while_it_begins_is_written_down_again(herd: Herd, monkeypatch: pytest.MonkeyPatch) -> None:
    start = launch._start_shim

    async def removed(directory: Path) -> dict[str, Any]:
        reply = await start(directory)
        shutil.rmtree(directory)
        return reply

    monkeypatch.setattr(launch, "_start_shim", removed)

    async def story() -> None:
        supervisor = herd.supervisor(herd.spec("a", "idle"))
        await supervisor.adopt_all()
        await supervisor.start("a", "test")
        pid = supervisor.life("a").pid
        assert pid is not None
        assert pid == herd.remains("a").group
        await supervisor.stop("a", "test")
        assert look(pid) is None
        await supervisor.close()

    asyncio.run(story())


def test_what_is_removed_again_and_again_is_told(herd: Herd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looks, "AGAIN_S", 0.02)

    async def nothing(*_arguments: object) -> None:
        """Launch, and see nothing of it."""

    async def story() -> None:
        for module, name in ((shim, "launch"), (shim, "examine_within")):
            monkeypatch.setattr(module, name, lambda *_arguments, **_options: nothing())
        supervisor = herd.supervisor(herd.spec("a", "idle", restart="always"))
        await supervisor.adopt_all()
        with pytest.raises(SuperviseError, match="is removed again and again"):
            await supervisor.start("a", "test")
        assert supervisor.life("a").state is EngineState.PARKED, "nothing is started beside it"
        await supervisor.close()

    asyncio.run(story())


def test_what_is_removed_while_it_runs_is_ended_all_the_same(herd: Herd) -> None:
    async def story() -> None:
        supervisor = herd.supervisor(herd.spec("a", "idle"))
        await supervisor.adopt_all()
        await supervisor.start("a", "test")
        pid = supervisor.life("a").pid
        assert pid is not None
        shutil.rmtree(herd.bundle("a"))
        await supervisor.restart("a", "test")
        assert look(pid) is None
        assert supervisor.life("a").pid == herd.remains("a").group
        await supervisor.stop("a", "test")
        await supervisor.close()

    asyncio.run(story())
    assert not herd.doubles("a")
