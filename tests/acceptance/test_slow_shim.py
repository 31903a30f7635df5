"""A shim that answers too late: what it starts then is known and ended, and what was called off never begins."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import pytest

from opsboard.core.errors import SuperviseError
from opsboard.core.model import EngineState
from opsboard.supervise import keeper, launch, looks
from opsboard.supervise.processes import look
from tests.support.page_engine import ROOT
from tests.support.waiting import wait_until_async

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.herd import Herd

SLOW = """
import os, sys, time
sys.path.append({root!r})
from opsboard.supervise import shim

def waits(work):
    def late(*arguments):
        with open({pid!r}, "w") as file:
            file.write(str(os.getpid()))
        for _ in range(2000):
            if os.path.exists({go!r}):
                break
            time.sleep(0.01)
        return work(*arguments)
    return late

{slow} = waits({slow})
sys.exit(shim.main(sys.argv[1:]))
"""


class SlowShim:
    """The shim, which waits for a word before it does ``slow``."""

    def __init__(self, place: Path, slow: str) -> None:
        self._go, self._pid = place / "go", place / "shim.pid"
        self.file = place / "slow_shim.py"
        self.file.write_text(SLOW.format(root=str(ROOT), slow=slow, go=str(self._go), pid=str(self._pid)))

    @property
    def waits(self) -> bool:
        return self._pid.exists() and self._pid.read_text() != ""

    @property
    def lives(self) -> bool:
        return look(int(self._pid.read_text())) is not None

    def go_on(self) -> None:
        self._go.touch()


@pytest.fixture(autouse=True)
def little_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name in ((launch, "START_S"), (keeper, "ADOPT_S"), (looks, "AGAIN_S")):
        monkeypatch.setattr(module, name, 0.3)


def test_what_was_called_off_never_begins(herd: Herd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shim = SlowShim(tmp_path, "shim._take")
    monkeypatch.setattr(launch, "SHIM", shim.file)

    async def story() -> None:
        supervisor = herd.supervisor(herd.spec("a", "idle", env={"TOKEN": "hush"}))
        await supervisor.adopt_all()
        with pytest.raises(SuperviseError, match="did not answer within"):
            await supervisor.start("a", "test")
        assert supervisor.life("a").state is EngineState.FAILED
        assert not (herd.bundle("a") / "launch.json").exists()
        shim.go_on()
        await wait_until_async(lambda: not shim.lives, what="the end of the late shim")
        await supervisor.close()

    asyncio.run(story())
    assert herd.births("a") == []


def test_what_begins_late_is_ended_by_the_stop_that_came_before(
    herd: Herd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    shim = SlowShim(tmp_path, "shim.Shim._spawn")
    monkeypatch.setattr(launch, "SHIM", shim.file)

    async def story() -> None:
        supervisor = herd.supervisor(herd.spec("a", "idle", stop_timeout_s=5.0))
        await supervisor.adopt_all()
        start = asyncio.create_task(supervisor.start("a", "first"))
        await wait_until_async(lambda: shim.waits, what="the shim has taken it")
        stop = asyncio.create_task(supervisor.stop("a", "second"))
        await wait_until_async(lambda: "cannot see what" in caplog.text, what="the daemon has lost its patience")
        assert [start.done(), stop.done()] == [False, False], "it may begin at any moment: nothing is over"
        assert supervisor.life("a").state is EngineState.STOPPING
        shim.go_on()
        await asyncio.gather(start, stop)
        assert supervisor.life("a").state is EngineState.STOPPED
        await supervisor.close()

    asyncio.run(story())
    assert herd.remains("a").lives is False
    assert herd.remains("a").shim is None


def test_a_directory_server_that_is_silent_keeps_no_start_waiting(herd: Herd, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = threading.Event()
    monkeypatch.setattr(launch, "READY_S", 0.1)
    monkeypatch.setattr(launch, "_record", lambda *_arguments, **_options: go_on.wait(10) and {})

    async def story() -> None:
        with pytest.raises(SuperviseError, match=r"no answer within .* about its port, its user") as caught:
            await herd.launch(herd.spec("a", "idle"))
        assert not caught.value.permanent
        go_on.set()

    asyncio.run(story())
