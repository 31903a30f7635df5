"""A real vLLM that somebody started by hand: what is to be seen of it, and whether its copy serves."""

from __future__ import annotations

import asyncio
import os
import pwd
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from opsboard.core.errors import SuperviseError
from opsboard.core.model import EngineState
from opsboard.supervise.takeover import life
from opsboard.supervise.takeover.find import find
from opsboard.supervise.takeover.kept import Kept, keep, kept
from opsboard.supervise.takeover.reproduction import reproduce, to_launch
from tests.real.vllm_env import HEALTHY_WITHIN_S, RealVllm
from tests.support.herd import Herd
from tests.support.house import House
from tests.support.waiting import wait_until, wait_until_async

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.real.conftest import Measured
    from tests.real.vllm_env import Installation

TOKENS = 16


@pytest.fixture
def by_hand(installation: Installation, tmp_path: Path) -> Iterator[RealVllm]:
    session = {"HF_TOKEN": "hush", "SSH_TTY": "/dev/pts/9", "TERM": "xterm"}
    with RealVllm(installation, tmp_path / "home", env=session) as vllm:
        yield vllm


@pytest.fixture
def daemon() -> Iterator[House]:
    """A daemon that knows no engine."""
    house = House(Path(os.environ["XDG_RUNTIME_DIR"]))
    house.write()
    house.start()
    yield house
    if house.client.engines():  # a test that failed leaves nothing behind either
        house.client.action("a", "stop")
        wait_until(lambda: house.engine("a").state == "stopped", HEALTHY_WITHIN_S, "stopped")
    for one in house.daemons:
        one.kill()
        one.wait()


def test_a_copy_of_what_somebody_started_serves_the_same(by_hand: RealVllm, herd: Herd, measured: Measured) -> None:
    before = by_hand.complete("the same question", TOKENS)["choices"][0]["text"]
    family = by_hand.processes()
    assert {find(str(process.pid)) for process in family} == {by_hand.pid}
    assert find(by_hand.url) == by_hand.pid
    found = reproduce(by_hand.pid)
    assert found.fatal == ()
    assert [gap.what for gap in found.cannot] == ["output"]
    assert found.output == str(by_hand.log)
    assert found.argv == tuple(by_hand.installation.command(by_hand.port))
    assert found.dropped == ("SSH_TTY", "TERM")
    for process in family:
        if process.pid != by_hand.pid:
            with pytest.raises(SuperviseError, match="cannot be reproduced: arguments: "):
                to_launch(reproduce(process.pid), "a", by_hand.url)
            gaps = {gap.what for gap in reproduce(process.pid).fatal}
            measured(f"{process.name()} cannot be copied: {', '.join(sorted(gaps))}")

    async def restarted() -> int | None:
        life.begin(found, herd.bundle("a"), herd.runtime_dir, name="a", url=by_hand.url)
        keep(Kept(url=by_hand.url, reproduction=found), herd.bundle("a"))
        known = kept(herd.bundle("a"))
        assert known is not None
        supervisor = herd.supervisor(to_launch(known.reproduction, "a", known.url, stop_timeout_s=60.0))
        await supervisor.adopt_all()
        try:
            assert supervisor.life("a").pid == by_hand.pid
            assert {*supervisor.processes("a")} == {process.pid for process in family}
            await supervisor.restart("a", "operator: mine from now on", now=True)
            await wait_until_async(
                lambda: supervisor.life("a").state is EngineState.READY and supervisor.life("a").pid != by_hand.pid,
                HEALTHY_WITHIN_S,
                what="the copy serves",
            )
            return supervisor.life("a").pid
        finally:
            await supervisor.close()

    pid = asyncio.run(restarted())
    assert pid is not None
    assert not any(process.is_running() and process.pid in {p.pid for p in by_hand.processes()} for process in family)
    assert Path(f"/proc/{pid}/cmdline").read_bytes() == "\0".join((*found.argv, "")).encode()
    owner = Path(f"/proc/{pid}").stat().st_uid
    assert (owner, pwd.getpwuid(owner).pw_name) == (os.geteuid(), pwd.getpwuid(os.geteuid()).pw_name)
    assert by_hand.complete("the same question", TOKENS)["choices"][0]["text"] == before


def test_adopted_by_a_daemon_and_restarted_by_it(by_hand: RealVllm, daemon: House, measured: Measured) -> None:
    """The verb's whole way: found by its address, supervised, found again by the next daemon, restarted."""
    before = by_hand.complete("the same question", TOKENS)["choices"][0]["text"]
    adopted = daemon.client.adopt(by_hand.url, name="a")
    assert (adopted.pid, adopted.dropped) == (by_hand.pid, ("SSH_TTY", "TERM"))
    assert "hush" not in repr(adopted)
    engine = daemon.engine("a")
    assert (engine.supervised, engine.state, engine.pid, engine.kind) == (True, "ready", by_hand.pid, "vllm")
    daemon.end(daemon.daemons[-1], signal.SIGKILL)
    daemon.start()
    assert (daemon.engine("a").state, daemon.engine("a").pid) == ("ready", by_hand.pid)

    asked = time.monotonic()
    daemon.client.action("a", "restart", now=True)
    wait_until(lambda: daemon.engine("a").pid not in {None, by_hand.pid}, HEALTHY_WITHIN_S, "a copy")
    wait_until(lambda: daemon.engine("a").state == "ready", HEALTHY_WITHIN_S, "the copy serves")
    measured(f"from the restart to a copy in service: {time.monotonic() - asked:.1f} s")
    assert daemon.engine("a").message is None
    assert by_hand.complete("the same question", TOKENS)["choices"][0]["text"] == before
    daemon.client.action("a", "stop")
    wait_until(lambda: daemon.engine("a").state == "stopped", HEALTHY_WITHIN_S, "stopped")
    daemon.client.forget("a")
    assert daemon.client.engines() == []
